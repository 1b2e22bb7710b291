"""Known quantities as columns of a table: trained, scored and sampled as from a dictionary."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from commands import FAST, fails

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.contexts import parse_context
from pyro_vae.cli.run_data import RunData
from pyro_vae.cli.train import prepare
from pyro_vae.datasets.standard import context_frame
from pyro_vae.evaluation.comparison import load_scores
from pyro_vae.explorer.explored import Explored
from pyro_vae.programs import as_program
from pyro_vae.recipes.recipe import read_settings
from pyro_vae.validation import InvalidInput

NUM = 60
QUICK = [*FAST, "--compile", "off"]


def table():
    rng = np.random.default_rng(0)
    flux = rng.normal([100.0, 5.0], [20.0, 1.0], (NUM, 2))
    noise = rng.uniform(0.5, 2.0, (NUM, 2))
    noise[3, 0] = np.inf
    trials = rng.integers(5, 9, NUM)
    frame = {
        "weeks": rng.weibull(1.5, NUM) * 20 + 0.1,
        "arrest": rng.integers(0, 2, NUM),
        "low": flux[:, 0],
        "high": flux[:, 1],
        "low_error": noise[:, 0],
        "high_error": noise[:, 1],
        "gene": rng.poisson(4.0, NUM),
        "other": rng.poisson(2.0, NUM),
        "depth": rng.integers(5, 50, NUM),
        "trials": trials,
        "hits": rng.binomial(trials, 0.4),
        "age": rng.normal(50.0, 10.0, NUM),
        "site": rng.choice(["u", "v"], NUM),
    }
    return pd.DataFrame(frame)


# For each case the columns of x, the known quantities with theirs, the context and the options.
CASES = {
    "survival": (["weeks"], {"censored": "arrest"}, "site", ["--likelihood", "Censored"]),
    "survival alone": (["weeks"], {"censored": "arrest"}, None, ["--likelihood", "Censored"]),
    "noise": (
        ["low", "high"],
        {"scale": "low_error,high_error"},
        "site",
        ["--likelihood", "NormalWithNoise", "--standardize", "true"],
    ),
    "sizes": (
        ["gene", "other"],
        {"size_factor": "depth"},
        None,
        ["--likelihood", "NegativeBinomial", "--likelihood.size_factor", "exposure"],
    ),
    "trials": (
        ["hits"],
        {"trials": "trials"},
        "site",
        ["--likelihood", "Binomial", "--likelihood.trials", "true"],
    ),
}


def columns_of(case):
    x, known, context, _ = CASES[case]
    named = [name for names in known.values() for name in names.split(",")]
    return table()[[*x, *named, *([context] if context else [])]]


def options_of(case, path):
    _, known, context, likelihood = CASES[case]
    options = [f"--known.{name}={columns}" for name, columns in known.items()]
    return ["--data", str(path), *options, *likelihood, *(["--context", context] * bool(context))]


def by_hand(case):
    """The same data as a pair of x and a dictionary."""
    x, known, context, options = CASES[case]
    frame = table()
    given = {}
    for name, columns in known.items():
        values = frame[columns.split(",")].to_numpy(dtype=float)
        given[name] = values[:, 0] if values.shape[1] == 1 else values
    if context:
        given["context"] = frame[context].tolist()
    return pv.datasets.load((frame[x], given), standardize="--standardize" in options)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def run(tmp_path_factory, case):
    folder = tmp_path_factory.mktemp("known")
    columns_of(case).to_csv(folder / "rows.csv", index=False)
    train = ["train", *options_of(case, folder / "rows.csv"), "--out", str(folder / "run")]
    assert main([*train, *QUICK]) == 0
    return folder / "run"


def example_of(case):
    """What new data must be told, as columns."""
    context = ["site=v"] if CASES[case][2] else []
    needed = {"noise": ["low_error=1.5", "high_error=0.1"], "sizes": ["depth=9"]}
    needed["trials"] = ["trials=7"]
    return ",".join([*needed.get(case, []), *context])


# a run is that of a dictionary


def test_the_data_are_those_of_a_dictionary(case, tmp_path):
    columns_of(case).to_csv(tmp_path / "rows.csv", index=False)
    _, known, context, options = CASES[case]
    read = pv.datasets.load(
        tmp_path / "rows.csv",
        known=known,
        context=context or (),
        standardize="--standardize" in options,
    )
    for part, own in zip(read, by_hand(case)):
        assert part.x.equal(own.x) and set(part.context) == set(own.context)
        assert all(part.context[name].equal(own.context[name]) for name in own.context)
        assert part.sha256 == own.sha256 and part.num_classes == own.num_classes
        assert part.label_names == own.label_names == (("u", "v") if context else ())


def test_training_and_scores_are_those_of_a_dictionary(run, case):
    train, test = by_hand(case)
    described = json.loads((run / "data.json").read_text())
    assert described["sha256"] == test.sha256
    _, known, _, _ = CASES[case]
    assert described["known"] == {name: columns.split(",") for name, columns in known.items()}
    assert [column["name"] for column in described["columns"]] == CASES[case][0]
    program = as_program(
        prepare([*options_of(case, run.parent / "rows.csv"), *underscored()]).owner
    )
    fit = partial(pv.fit, epochs=2, batch_size=128, learning_rate=1e-3, seed=0, compile="off")
    fit(program, train, progress=False, objective=pv.objectives.ELBO())
    trained = pv.load(run)
    for ours, own in zip(trained.parameters(), program.parameters()):
        assert ours.equal(own)
    assert main(["evaluate", str(run), "--num-samples", "20"]) == 0
    score = pv.log_likelihood(program, test, 20)
    torch.testing.assert_close(
        load_scores(run / "evaluation.npz")["log_likelihood"].values, score.values, rtol=0, atol=0
    )


def underscored():
    return [option.replace("num-samples", "num_samples") for option in QUICK]


def test_other_rows_are_read_as_the_runs_were(run, case, tmp_path):
    rows = columns_of(case)
    rows[rows.columns[::-1]].assign(unused=1.0).to_csv(tmp_path / "others.csv", index=False)
    scores = []
    for data in ([], ["--data", str(tmp_path / "others.csv")]):
        options = ["--num-samples", "5", "--split", "all", *data]
        assert main(["evaluate", str(run), *options]) == 0
        scores.append(load_scores(run / "evaluation.npz")["elbo"].values)
    assert scores[0].equal(scores[1]) and len(scores[1]) == NUM


# new data


def test_new_data_are_told_by_the_names_of_columns(run, case, capsys):
    out = run / "new.csv"
    sample = ["sample", str(run), "--num", "6"]
    example = example_of(case)
    told = ["--context", example] if example else []
    assert main([*sample, *told, "--out", str(out)]) == 0
    made = pd.read_csv(out)
    assert list(made.columns) == CASES[case][0] and len(made) == 6
    if case not in ("noise", "sizes", "trials"):
        assert main(sample) == 0  # lifetimes need no codes, and labels come in turn
        return
    capsys.readouterr()
    line = fails(capsys, *sample)
    named = line.rpartition("--context ")[2]
    assert {part.partition("=")[0] for part in named.split(",")} == {
        part.partition("=")[0] for part in example.split(",")
    }
    assert main([*sample, "--context", named]) == 0


def test_what_is_left_out_is_named_with_an_example_that_works():
    frame = table()[["low", "high_error", "age", "site"]]
    data = pv.datasets.load_whole(frame, known={"scale": "high_error"}, context=["age", "site"])
    network, latent = partial(pv.networks.MLP, hidden=[8], context=3), 2
    program = pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.NormalWithNoise(1, network(latent)),
        pv.posteriors.DiagonalNormal(latent, network(1)),
        pv.networks.ColumnFeatures([0, 2]),
    )
    described = RunData(data.columns, data.context_columns, known=data.known)
    for text, missing in {None: "scale", "age=40": "scale", "high_error=2": "age, site"}.items():
        with pytest.raises(InvalidInput, match=missing) as error:
            parse_context(program, text, 4, described)
        example = error.value.fix.rpartition("--context ")[2]
        context = parse_context(program, example, 4, described)
        assert pv.generate(program, 4, context=context).shape == (4, 1)
    context = parse_context(program, "site=v,age=40,high_error=2", 4, described)
    assert context["scale"].tolist() == [2.0] * 4 and context["context"].tolist() == [[40, 1]] * 4


def test_known_quantities_of_new_data_are_in_the_columns_own_units(tmp_path, capsys, quick_chains):
    options = options_of("noise", tmp_path / "rows.csv")
    columns_of("noise").to_csv(tmp_path / "rows.csv", index=False)
    assert main(["train", *options, "--out", str(tmp_path / "run"), *QUICK]) == 0
    program, out = pv.load(tmp_path / "run"), tmp_path / "new.npz"
    sample = ["sample", str(tmp_path / "run"), "--num", "3", "--draws"]
    told = ["--context", "low_error=20,high_error=1,site=v"]
    assert main([*sample, *told, "--out", str(out)]) == 0
    columns = by_hand("noise")[0].columns
    units = torch.tensor([20.0, 1.0]) / torch.tensor([column.scale for column in columns])
    context = {"scale": units.expand(3, 2), "context": torch.ones(3, dtype=torch.long)}
    expected = columns.restore(pv.generate(program, 3, context=context, draws=True))
    with np.load(out) as made:
        np.testing.assert_allclose(made["x"], expected, rtol=1e-5)
        assert set(made) == {"x", "scale", "context"} and made["context"].tolist() == [1, 1, 1]
    assert main([*sample, "--context", "scale=20,site=v"]) == 0  # one for all columns
    run = tmp_path / "run"
    assert (
        main(["inspect", str(run), "--num-samples", "10", "--limit", "20", "--reference", "1"]) == 0
    )
    assert (
        main(["report", str(run)]) == 0 and "known: scale is" in (run / "report.html").read_text()
    )
    for wrong, words in {
        "low_error=1,site=v": "add high_error=",
        "low_error=a,high_error=1,site=v": "'a', expected a number",
        "scale=1,site=w": "one of u, v",
        "scale=1,v": "'v', expected name=value",
    }.items():
        assert words in fails(capsys, "sample", run, "--context", wrong)


# refusals


def refused(capsys, tmp_path, *options):
    rows = table()[["weeks", "trials", "arrest", "age", "site"]]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    data = ["train", "--data", tmp_path / "rows.csv", "--out", tmp_path / "no", *QUICK]
    line = fails(capsys, *data, *options)
    assert not (tmp_path / "no").exists()
    return line


CENSORED = ["--likelihood", "Censored", "--columns.site", "drop"]


@pytest.mark.parametrize(
    "options, words",
    [
        (CENSORED, "--known.censored COLUMN"),
        ([*CENSORED, "--context", "arrest"], "--known.censored COLUMN"),
        ([*CENSORED, "--known.censored", "arest"], "did you mean 'arrest'"),
        ([*CENSORED, "--known.censored", "arrest,arrest"], "2 columns for the 3 of x"),
        ([*CENSORED, "--known.censored", "site"], "texts or categories in column site"),
        ([*CENSORED, "--known.censored", ","], "name one: known="),
        ([*CENSORED, "--known.context", "site"], "--context site"),
        ([*CENSORED, "--known.censored", "arrest", "--known.upper", "age"], "interval true"),
        ([*CENSORED, "--known.censored", "arrest", "--known.sized", "age"], "likelihood does not"),
        (["--known.scale", "age"], "--likelihood NormalWithNoise takes it"),
    ],
)
def test_a_mistake_is_one_line_that_teaches(options, words, capsys, tmp_path):
    assert words in refused(capsys, tmp_path, *options)


@pytest.mark.parametrize("options", [["--context", "censored"], []])
def test_a_column_that_is_named_like_the_quantity_is_pointed_at(options, capsys, tmp_path):
    table()[["weeks", "arrest"]].rename(columns={"arrest": "censored"}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    words = ["train", "--data", tmp_path / "rows.csv", "--likelihood", "Censored", *QUICK]
    line = fails(capsys, *words, *options, "--out", tmp_path / "run")
    assert "say which, --known.censored censored" in line


def test_data_without_columns_hold_no_known_quantities(capsys, tmp_path):
    line = fails(capsys, "train", "--data", "digits", "--known.scale", "noise", *QUICK)
    assert "whose data have no columns" in line
    with pytest.raises(InvalidInput, match=r"known={'censored': 'COLUMN'} \(--known.censored"):
        likelihood = pv.likelihoods.Censored(1, pv.networks.MLP(2, [8]))
        q = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(1, [8]))
        pv.elbo(
            pv.VAE(pv.priors.StandardNormal(2), likelihood, q), (torch.ones(3, 1), torch.ones(3))
        )


# reading


def test_gaps_are_refused_where_a_quantity_is_used_of_all_data():
    frame = table()[["weeks", "arrest", "age"]].astype(float)
    frame.loc[[4, 9], ["arrest", "age"]] = np.nan
    with pytest.raises(
        InvalidInput, match=r"known censored: got a missing entry in row 4 of arrest"
    ):
        pv.datasets.load(frame, known={"censored": "arrest"})
    read = pv.datasets.load_whole(frame.drop(columns="arrest"), known={"upper": ["age"]})
    assert read.context["upper"].isnan().nonzero()[:, 0].tolist() == [4, 9]
    assert read.columns.names == ["weeks"]


def test_covariates_are_standardised_and_quantities_change_with_x():
    frame = table()[["low", "high", "low_error", "high_error", "age", "site", "arrest"]]
    known = {"scale": "low_error,high_error", "censored": "arrest"}
    settings = {"context": ["age", "site"], "known": known}
    data = pv.datasets.load_whole(frame, **settings, standardize=True)
    plain = pv.datasets.load_whole(frame, **settings)
    given, scales = data.context["context"], [column.scale for column in data.columns]
    assert abs(given[:, 0].mean() - 1) < 1e-6 and given[:, 1].equal(plain.context["context"][:, 1])
    ratio = plain.context["scale"] / data.context["scale"]
    torch.testing.assert_close(ratio[4:], torch.tensor(scales).to(ratio).expand(NUM - 4, 2))
    assert data.context["censored"].equal(plain.context["censored"])
    shown = context_frame(data)
    assert set(shown) == {"age", "site", "low_error", "high_error", "arrest"}
    for name in shown:
        assert (shown[name] == frame[name]).all()
    like = {"like": data.columns, "context_like": data.context_columns}
    again = pv.datasets.load_whole(frame, known=known, **like)
    assert all(again.context[name].equal(data.context[name]) for name in data.context)


def test_a_covariate_may_be_a_known_quantity_too():
    frame = table()[["low", "high_error"]]
    data = pv.datasets.load_whole(frame, known={"scale": "high_error"}, context="high_error")
    assert data.context["context"][:, 0].equal(data.context["scale"])
    assert data.columns.names == ["low"] and list(context_frame(data)) == ["high_error"]


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_tables_on_disk_are_those_in_memory(in_memory, tmp_path):
    pytest.importorskip("pyarrow")
    frame = table()[["low", "high", "low_error", "site"]]
    frame.to_parquet(tmp_path / "rows.parquet")
    settings = {"known": {"scale": "low_error"}, "context": "site"}
    own = pv.datasets.load_whole(frame, **settings)
    read = pv.datasets.load_whole(tmp_path / "rows.parquet", **settings, in_memory=in_memory)
    assert all(read.context[name].equal(own.context[name]) for name in own.context)
    assert read.sha256 == own.sha256


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_arrays_of_a_file(in_memory, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "flux.npz"
    sizes, arrays = {"": 20, "_test": 8}, {}
    for part, num in sizes.items():
        arrays["x" + part] = rng.normal(size=(num, 3))
        arrays["noise" + part] = rng.uniform(1, 2, (num, 3))
        arrays["y" + part] = rng.integers(0, 2, num)
    np.savez(path, **arrays)
    train, test = pv.datasets.load(path, known={"scale": "noise"}, in_memory=in_memory)
    assert (train.context["scale"].numpy() == arrays["noise"]).all()
    assert (test.context["scale"].numpy() == arrays["noise_test"]).all()
    assert test.context["context"].tolist() == arrays["y_test"].tolist() == test.labels.tolist()
    with pytest.raises(InvalidInput, match=r"known scale: got 'nois', .* did you mean 'noise'"):
        pv.datasets.load(path, known={"scale": "nois"}, in_memory=in_memory)
    np.savez(path, **{name: each for name, each in arrays.items() if name != "noise_test"})
    with pytest.raises(InvalidInput, match=r"known scale: got 'noise_test'"):
        pv.datasets.load(path, known={"scale": "noise"}, in_memory=in_memory)
    with pytest.raises(InvalidInput, match="got 2 arrays, expected one"):
        pv.datasets.load(path, known={"scale": "noise,y"}, in_memory=in_memory)


def test_a_run_on_arrays_of_a_file(tmp_path, capsys):
    rng, path, run = np.random.default_rng(0), tmp_path / "flux.npz", tmp_path / "run"
    np.savez(path, x=rng.normal(size=(30, 3)), noise=rng.uniform(1, 2, 30), y=np.arange(30) % 2)
    options = ["--likelihood", "NormalWithNoise", "--known.scale", "noise", "--context", "labels"]
    assert main(["train", "--data", str(path), *options, "--out", str(run), *QUICK]) == 0
    sample = ["sample", str(run), "--num", "4", "--out", str(tmp_path / "new.npz")]
    assert main([*sample, "--context", "noise=0.5,context=1"]) == 0
    with np.load(tmp_path / "new.npz") as made:
        assert made["context"].tolist() == [1] * 4 and made["scale"].tolist() == [0.5] * 4
    assert "--context noise=1" in fails(capsys, *sample, "--context", "1")


def test_cells_are_told_what_their_table_says():
    anndata = pytest.importorskip("anndata")
    frame = table()
    obs = frame[["depth", "site"]].set_index(frame.index.astype(str))
    cells = anndata.AnnData(frame[["gene", "other"]].to_numpy(dtype=float), obs=obs)
    data = pv.datasets.load_whole(cells, known={"size_factor": "depth"}, context="site")
    assert data.context["size_factor"].tolist() == frame["depth"].tolist()
    assert data.label_names == ("u", "v")


# what else is done with a run


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaps")
    frame = columns_of("noise")
    frame.loc[[2, 5], "low"] = np.nan
    frame.to_csv(folder / "rows.csv", index=False)
    options = [*options_of("noise", folder / "rows.csv"), "--out", str(folder / "run")]
    assert main(["train", *options, *QUICK]) == 0
    return frame, folder / "run"


def test_a_completed_table_has_its_known_columns(gaps, tmp_path):
    frame, run = gaps
    out = tmp_path / "full.csv"
    assert main(["impute", str(run), "--num-draws", "3", "--out", str(out)]) == 0
    filled = pd.read_csv(out, float_precision="round_trip")
    assert set(filled) == set(frame) and filled.notna().all().all()
    for name in frame:
        seen = frame[name].notna()
        assert (filled[name][seen] == frame[name][seen]).all()


def test_questions_are_asked_with_what_is_known(gaps):
    _, run = gaps
    program, (_, test) = pv.load(run), pv.datasets.load(run.parent / "rows.csv", **reading_of(run))
    explored = Explored("noise", program, test, num_samples=10)
    at = explored.decode(torch.zeros(1, 2), 0, label=1)
    context = {"scale": test.context["scale"][:1], "context": torch.tensor([1])}
    torch.testing.assert_close(at, pv.decode(program, torch.zeros(1, 2), context))
    assert len(explored.prior(4, 0, 1).z) == 4 and "label" in explored.facts(0)


def reading_of(run):
    recipe = read_settings(run / "recipe.yaml")
    return {"known": recipe["known"], "context": recipe["context"], "standardize": True}
