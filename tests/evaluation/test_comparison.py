import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian
from commands import FAST, fails

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.run_data import write_data
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.shown import measured
from pyro_vae.evaluation.comparison import compare, load_scores, save_scores, spread
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.evaluation.over_seeds import compare_over_seeds
from pyro_vae.evaluation.scores import MeanScore, Score, elbo_score
from pyro_vae.validation import InvalidInput


def score(values, sha256="same", seed=0):
    values = torch.tensor(values)
    return Score(values, torch.full_like(values, 0.1), 10, seed=seed, sha256=sha256)


def test_the_difference_is_paired():
    a, b = score([1.0, 12.0, 103.0]), score([0.0, 10.0, 100.0])
    difference = compare(a, b)
    assert difference.mean == pytest.approx(2.0) and difference.se == pytest.approx(
        1 / math.sqrt(3)
    )
    assert (
        difference.mc_se == pytest.approx(math.hypot(a.mean_mc_se, b.mean_mc_se))
        and difference.num_data == 3
    )
    assert compare(b, a).mean == pytest.approx(-2.0)
    assert difference.se < a.se / 10  # what a comparison of two means would have made of it
    assert math.isnan(compare(score([1.0]), score([0.0])).se)


def test_other_data_are_refused():
    for other in (score([0.0, 1.0], "other"), score([0.0, 1.0, 2.0]), score([0.0, 1.0], "")):
        with pytest.raises(InvalidInput, match="scores of the same data"):
            compare(score([0.0, 1.0]), other)
    with pytest.raises(InvalidInput, match="scores of the same data"):
        spread([score([0.0, 1.0]), score([0.0, 1.0], "other")])


def test_another_binarisation_has_another_hash():
    grey, program = torch.rand(5, 3), LinearGaussian(1, features=3).program().float()
    program.posterior.exact = LinearGaussian(1, features=3)
    scores = [
        evaluate(
            program.double(), pv.datasets.Dataset(grey.double(), binarize=policy, seed=seed), 20
        )["elbo"]
        for policy, seed in (("none", 0), ("fixed", 0), ("fixed", 1), ("dynamic", 0))
    ]
    for i, j in ((0, 1), (1, 2)):
        with pytest.raises(InvalidInput):
            compare(scores[i], scores[j])
    assert compare(scores[1], scores[3]).mean == 0.0  # scored on the same draw


def test_the_spread_over_seeds():
    over = spread([score([1.0, 3.0]), score([3.0, 5.0]), score([5.0, 7.0])])
    assert (over.mean, over.sd, over.num_runs) == pytest.approx((4.0, 2.0, 3))


def test_scores_survive_the_disk(tmp_path):
    exact = LinearGaussian(2, features=3)
    scores = evaluate(exact.program(1.2), exact.data(5), 100, seed=3)
    save_scores(tmp_path / "a" / "scores.npz", scores)
    again = load_scores(tmp_path / "a" / "scores.npz")
    for name, one in scores.items():
        for field in dataclasses.fields(one):
            mine, theirs = getattr(one, field.name), getattr(again[name], field.name)
            assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
    for name in ("missing.npz", "broken.npz"):
        (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
        with pytest.raises(InvalidInput, match="cannot be read as scores"):
            load_scores(tmp_path / name)
    np.savez(tmp_path / "other.npz", elbo=np.array("[1]"))
    with pytest.raises(InvalidInput, match="cannot be read as scores"):
        load_scores(tmp_path / "other.npz")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, flags in {
        "a": ["--seed", "0"],
        "b": ["--seed", "1"],
        "c": ["--prior", "GaussianMixture"],
    }.items():
        assert main(["train", "--out", str(folder / name), *FAST, *flags, "--epochs", "1"]) == 0
    return [str(folder / name) for name in "abc"]


def test_the_command_pairs_runs_and_puts_seeds_together(runs, tmp_path, capsys):
    capsys.readouterr()
    assert main(["compare", *runs, "--out", str(tmp_path / "c.json")]) == 0
    assert "over seeds" in capsys.readouterr().out
    result = json.loads((tmp_path / "c.json").read_text())
    scores = [load_scores(f"{run}/evaluation.npz")["log_likelihood"] for run in runs]
    truth = compare(scores[1], scores[0])
    assert result["differences"][runs[1]] == pytest.approx(
        {"mean": truth.mean, "se": truth.se, "mc_se": truth.mc_se, "num_data": 30}
    )
    assert result["seeds"][0]["runs"] == runs[:2] and result["seeds"][0]["sd"] == pytest.approx(
        spread(scores[:2]).sd
    )
    assert len(result["seeds"]) == 1 and result["sha256"] == scores[0].sha256
    for run, one in zip(runs, scores):
        assert json.loads(Path(run, "evaluation.json").read_text())["log_likelihood"][
            "mean"
        ] == pytest.approx(one.mean)


def test_numbers_of_a_comparison_are_whole_on_a_narrow_terminal(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    scores = [load_scores(f"{run}/evaluation.npz")["log_likelihood"] for run in runs]
    over = spread(scores[:2])
    for number in (
        *(measured(each.mean, each.se) for each in scores),
        measured(over.mean, over.sd),
    ):
        assert f" {number} " in out
    assert max(len(line) for line in out.splitlines() if "│" in line) <= 80


def test_one_seed_that_was_trained_twice_is_one(runs, tmp_path, capsys):
    again, there = str(tmp_path / "again"), tmp_path / "c.json"
    assert main(["train", "--out", again, *FAST, "--seed", "0", "--epochs", "1"]) == 0
    elsewhere = str(tmp_path / "elsewhere")
    other = [*FAST, "--seed", "2", "--epochs", "1", "--device", "cpu", "--compile", "off"]
    assert main(["train", "--out", elsewhere, *other]) == 0
    first, second, third = runs
    capsys.readouterr()

    def seeds_of(*names):
        assert main(["compare", *names, "--out", str(there)]) == 0
        return json.loads(there.read_text())["seeds"]

    assert seeds_of(first, again) == []
    assert "has the recipe and the seed of" in capsys.readouterr().out
    (found,) = seeds_of(first, again, second, elsewhere, third)
    assert found["runs"] == [first, second, elsewhere]
    scores = [load_scores(f"{run}/evaluation.npz")["log_likelihood"] for run in found["runs"]]
    assert found["sd"] == pytest.approx(spread(scores).sd)
    signs = json.loads(there.read_text())["signs"]
    loaded = {name: load_scores(f"{name}/evaluation.npz")["log_likelihood"] for name in signs}
    assert signs == {name: compare(score, scores[0]).sign for name, score in loaded.items()}


def test_the_command_refuses_what_cannot_be_paired(runs, tmp_path, capsys):
    assert "two or more" in fails(capsys, "compare", runs[0])
    assert "cannot be read as scores" in fails(capsys, "compare", runs[0], tmp_path)
    assert "score" in fails(capsys, "compare", *runs, "--score", "loss")
    assert main(["evaluate", runs[1], "--limit", "20", "--num-samples", "20"]) == 0
    capsys.readouterr()
    assert "same data" in fails(capsys, "compare", *runs)


def test_a_bound_is_read_as_it_was_written_and_as_earlier_versions_wrote_it(tmp_path):
    score = elbo_score(torch.randn(5, 20, dtype=torch.float64))
    save_scores(tmp_path / "new.npz", {"elbo": score})
    again = load_scores(tmp_path / "new.npz")["elbo"]
    assert isinstance(again, MeanScore) and again.mean_mc_se == score.mean_mc_se
    assert torch.equal(again.mc_se, score.mc_se)
    save_scores(tmp_path / "old.npz", {"elbo": Score(score.values, score.mc_se, 5)})
    old = load_scores(tmp_path / "old.npz")["elbo"]
    assert torch.equal(old.mc_se, score.mc_se) and old.mean_mc_se >= score.mean_mc_se


def hashed(terms):
    return dataclasses.replace(elbo_score(terms), sha256="same")


def test_the_command_compares_models_over_data_and_seeds(tmp_path, capsys):
    runs, scores = [], {"normal": {}, "mixture": {}}
    for shift, (prior, own) in enumerate(scores.items()):
        for seed in range(3):
            runs.append(tmp_path / f"{prior}-{seed}")
            own[seed] = hashed(torch.randn(20, 30, dtype=torch.float64) + shift)
            save_scores(runs[-1] / "evaluation.npz", {"elbo": own[seed]})
            (runs[-1] / "recipe.yaml").write_text(f"prior: {prior}\nseed: {seed}\n")
    truth = compare_over_seeds(scores["mixture"], scores["normal"])
    found = tmp_path / "c.json"
    assert main(["compare", *map(str, runs), "--score", "elbo", "--out", str(found)]) == 0
    first, second = json.loads(found.read_text())["seeds"]
    assert "difference" not in first
    assert second["difference"]["mean"] == pytest.approx(truth.mean)
    assert second["difference"]["se_seeds"] == pytest.approx(truth.se_seeds)
    assert second["difference"]["p_value"] == pytest.approx(truth.p_value)
    out = capsys.readouterr().out
    assert f"{truth.mean:+.2f}" in out and f"{truth.se:.2f}" in out


def test_a_table_in_other_units_is_refused_by_name(tmp_path, capsys):
    for name, scale in (("raw", 1.0), ("standardised", 2.0)):
        sex = Column("sex", "binary", ("f", "m"))
        columns = Columns((Column("mass", "real", scale=scale), sex))
        save_scores(tmp_path / name / "evaluation.npz", {"elbo": hashed(torch.randn(20, 5))})
        data = pv.datasets.Dataset(torch.zeros(5, 2), columns=columns)
        write_data(tmp_path / name, data, data)
    said = fails(capsys, "compare", tmp_path / "raw", tmp_path / "standardised", "--score", "elbo")
    assert "in the columns' own units" in said and "--standardize" in said
