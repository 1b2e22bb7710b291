"""The commands on a table: columns by kind, covariates by name, units undone, gaps filled in."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import FAST, fails

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.run_data import read_data
from pyro_vae.evaluation.comparison import load_scores


def table(num=200):
    rng = np.random.default_rng(0)
    z = rng.normal(size=num)
    frame = pd.DataFrame(
        {
            "mass": (4200 + 700 * z + 100 * rng.normal(size=num)).round(),
            "temperature": z + 0.3 * rng.normal(size=num),
            "eggs": rng.poisson(np.exp(0.5 * z)),
            "sex": rng.choice(["f", "m"], num),
            "island": rng.choice(["Biscoe", "Dream"], num),
            "species": np.where(z > 0.3, "Gentoo", "Adelie"),
        }
    )
    for column in ("mass", "temperature", "sex"):
        frame.loc[rng.random(num) < 0.1, column] = None
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    table().to_csv(folder / "birds.csv", index=False)
    options = ["--data", str(folder / "birds.csv"), "--standardize", "true"]
    options += ["--context", "species,island", "--out", str(folder / "run")]
    assert main(["train", *options, *FAST]) == 0
    return folder


def test_a_run_keeps_what_its_columns_are_and_what_was_changed(run):
    kept = json.loads((run / "run" / "data.json").read_text())
    assert [column["name"] for column in kept["columns"]] == ["mass", "temperature", "eggs", "sex"]
    assert kept["context_columns"][0]["categories"] == ["Adelie", "Gentoo"]
    notes = " ".join(kept["notes"])
    assert "missing (NaN)" in notes and "2 of 4 columns are standardised" in notes
    scores = json.loads((run / "run" / "evaluation.json").read_text())
    lower = sum(np.log(column["scale"]) for column in kept["columns"])
    assert f"{abs(lower):.2f} nats" in scores["units"]


def test_the_report_names_the_columns_and_what_was_changed(run):
    assert main(["report", str(run / "run")]) == 0
    page = (run / "run" / "report.html").read_text()
    for cell in ("mass", "LogNormal", "NegativeBinomial", "f, m", "Adelie, Gentoo"):
        assert f"<td>{cell}</td>" in page
    assert "<h3>Columns of x</h3>" in page and "<h3>Context</h3>" in page
    assert "2 of 4 columns are standardised by the training rows" in page


def test_samples_come_in_the_tables_own_units_and_names(run, capsys):
    out = run / "new.csv"
    named = ["--context", "species=Gentoo,island=Dream", "--draws"]
    assert main(["sample", str(run / "run"), *named, "--num", "50", "--out", str(out)]) == 0
    made = pd.read_csv(out)
    assert list(made.columns) == ["mass", "temperature", "eggs", "sex"]
    assert 100 < made["mass"].abs().mean() < 20_000 and set(made["sex"]) <= {"f", "m"}
    line = fails(capsys, "sample", run / "run", "--context", "species=Gento,island=Dream")
    assert "one of Adelie, Gentoo" in line


def test_the_only_column_of_a_context_may_be_named(run, tmp_path):
    data = ["--data", str(run / "birds.csv"), "--context", "species", "--standardize", "true"]
    assert main(["train", *data, "--out", str(tmp_path / "run"), *FAST]) == 0
    sample = ["sample", str(tmp_path / "run"), "--num", "5", "--seed", "3"]
    made = set()
    for context in ("species=Gentoo", "Gentoo", "1"):
        assert main([*sample, "--context", context, "--out", str(tmp_path / "new.csv")]) == 0
        made.add((tmp_path / "new.csv").read_text())
    assert len(made) == 1


def test_imputing_completes_every_row_in_order(run):
    out = run / "full.csv"
    arguments = ["--num-draws", "5", "--out", str(out)]
    assert main(["impute", str(run / "run"), *arguments]) == 0
    filled, given = pd.read_csv(out, float_precision="round_trip"), table()
    assert len(filled) == len(given) and filled.notna().all().all()
    for column in given.columns:
        known = given[column].notna()
        assert (filled[column][known] == given[column][known]).all()
    entries = pd.read_csv(run / "full-entries.csv")
    assert len(entries) == given[["mass", "temperature", "sex"]].isna().sum().sum()
    masses = entries[entries["column"] == "mass"][["low", "value", "high"]].astype(float)
    assert (masses["low"] <= masses["value"]).all() and (masses["value"] <= masses["high"]).all()
    others = given[:20].assign(species="Adelie")
    others.to_csv(run / "others.csv", index=False)
    other = ["--data", str(run / "others.csv"), "--out", str(run / "others-full.csv")]
    assert main(["impute", str(run / "run"), "--num-draws", "5", *other]) == 0
    assert len(pd.read_csv(run / "others-full.csv")) == 20


def test_all_rows_of_other_data_are_scored_in_their_order(run):
    other = ["--data", str(run / "few.csv"), "--split", "all", "--num-samples", "20"]
    table()[:30].to_csv(run / "few.csv", index=False)
    assert main(["evaluate", str(run / "run"), *other]) == 0
    assert json.loads((run / "run" / "evaluation.json").read_text())["num_data"] == 30
    whole = load_scores(run / "run" / "evaluation.npz")["elbo"].values
    program = pv.load(run / "run")
    known = read_data(run / "run")
    data = pv.datasets.load_whole(
        run / "few.csv",
        missing=True,
        context=["species", "island"],
        like=known.columns,
        context_like=known.context_columns,
    )
    assert torch.equal(pv.elbo(program, data, 20).values, whole)


def test_fidelity_does_not_depend_on_the_order_of_names(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows, found = rng.normal(size=(200, 2)), []
    kinds = rng.choice(3, 200)
    for names in (["a", "b", "c"], ["b", "c", "a"]):
        frame = pd.DataFrame(rows, columns=["x", "y"]).assign(kind=np.array(names)[kinds])
        frame.to_csv(tmp_path / "rows.csv", index=False)
        train = ["train", "--data", str(tmp_path / "rows.csv"), "--out", str(tmp_path / names[0])]
        assert main([*train, *FAST]) == 0
        assert main(["fidelity", str(tmp_path / names[0]), "--points", "10"]) == 0
        assert "without kind: categories have no distances" in capsys.readouterr().out
        written = json.loads((tmp_path / names[0] / "fidelity.json").read_text())
        numbers = written["numbers"].items()
        found.append({name: row for name, row in numbers if "in their place" in name})
    assert found[0] == found[1] and found[0]
    frame[["kind"]].assign(other=frame["kind"]).to_csv(tmp_path / "names.csv", index=False)
    train = ["train", "--data", str(tmp_path / "names.csv"), "--out", str(tmp_path / "names")]
    assert main([*train, *FAST]) == 0
    assert "categories alone" in fails(capsys, "fidelity", tmp_path / "names", "--points", "5")


def test_names_that_are_no_columns_are_refused(run, capsys, tmp_path):
    data = ["train", "--data", run / "birds.csv", "--out", tmp_path / "x", *FAST]
    assert "did you mean 'species'" in fails(capsys, *data, "--context", "specie")
    assert "did you mean 'island'" in fails(capsys, *data, "--target", "islands")
    digits = ["train", "--data", "digits", "--out", tmp_path / "x", *FAST]
    assert "did you mean 'labels'" in fails(capsys, *digits, "--context", "lables")


def test_a_negative_covariate_is_no_option(run, capsys):
    line = fails(capsys, "sample", run / "run", "--context", "-1,0,0")
    assert "shape (64, 3)" in line and "unknown option" not in line


@pytest.mark.parametrize("data", ["wine", "topics"])
def test_the_likelihood_that_a_refusal_names_trains_when_it_is_pasted(data, tmp_path, capsys):
    words = ["train", "--data", data, *FAST, "--compile", "off", "--epochs", "1"]
    named = re.search(r"\((--likelihood \w+)\)", fails(capsys, *words, "--out", tmp_path / "no"))
    assert named and not (tmp_path / "no").exists()
    assert main([*words, *named[1].split(), "--out", str(tmp_path / "run")]) == 0


def test_few_labels_of_a_column_are_learned_from(tmp_path, capsys):
    frame = table(240).dropna(ignore_index=True)[:120]
    frame.loc[::3, "island"] = None
    frame.to_csv(tmp_path / "birds.csv", index=False)
    options = [
        "train",
        "--data",
        str(tmp_path / "birds.csv"),
        "--target",
        "island",
        "--standardize",
        "true",
    ]
    options += ["--program", "SemiSupervisedVAE", "--objective", "EnumeratedELBO", *FAST]
    options += ["--compile", "off"]
    line = fails(capsys, *options, "--out", tmp_path / "no")
    assert "(--context labels, which are those of --target)" in line
    options += ["--context", "labels"]
    assert main([*options, "--out", str(tmp_path / "all")]) == 0
    few = ["--labelled", "20", "--labelled-repeats", "2", "--out", str(tmp_path / "few")]
    assert main([*options, *few]) == 0
    assert "128 birds data" in capsys.readouterr().err  # 108, and 20 of them once more
    kept = json.loads((tmp_path / "few" / "data.json").read_text())
    assert kept["context_columns"][0]["categories"] == ["Biscoe", "Dream"]


@pytest.mark.parametrize("name", ["blood-pressure", "body size", "Heart.rate_2"])
def test_any_name_of_a_column_may_be_a_part_of_an_option(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(40, 3))
    names = ["blood-pressure", "body size", "Heart.rate_2"]
    pd.DataFrame(values, columns=names).to_csv("t.csv", index=False)
    words = ["train", "--data", "t.csv", f"--columns.{name}", "drop"]
    small = ["--latent", "2", "--encoder.hidden", "[4]", "--decoder.hidden", "[4]"]
    assert main([*words, "--likelihood", "Normal", *small, "--out", "run", *FAST]) == 0
    kept = [column["name"] for column in json.loads(Path("run/data.json").read_text())["columns"]]
    assert name not in kept and len(kept) == 2
    given = json.loads(Path("run/commands.json").read_text())["commands"][0]["words"]
    again = [*given, "--out", "again", "--columns.body size", "real"]
    assert main(again) == 0
