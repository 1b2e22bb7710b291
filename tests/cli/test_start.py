"""Training that starts from the weights of another run."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from commands import FAST, FEW, fails

import pyro_vae as pv
from pyro_vae.cli import main


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    vamp = ["--prior", "VampPrior", "--prior.components", "4"]
    assert main(["train", "--out", str(folder), "--seed", "3", *vamp, *FAST]) == 0
    return folder


def train(first, out, *flags):
    options = [
        str(first / "recipe.yaml"),
        "--out",
        str(out),
        "--start",
        str(first),
        "--seed",
        "4",
        *FEW,
    ]
    assert main(["train", *options, *flags]) == 0
    return pv.load(out).state_dict()


def test_a_run_starts_from_the_weights_of_another(first, tmp_path):
    """Steps of no size leave them as they were, pseudo-inputs too."""
    started = train(first, tmp_path / "a", "--learning_rate", "1e-30", "--epochs", "1")
    for name, weight in pv.load(first).state_dict().items():
        torch.testing.assert_close(started[name], weight, rtol=0, atol=1e-20)


def test_it_is_the_fit_of_the_loaded_program(first, tmp_path):
    started = train(first, tmp_path / "a", "--objective", "IWAE", "--epochs", "2")
    program, data = pv.load(first), pv.datasets.load("digits", binarize="none")[0]
    pv.fit(program, data, objective=pv.objectives.IWAE(), epochs=2, seed=4, progress=False)
    for name, weight in program.state_dict().items():
        assert torch.equal(started[name], weight), name


def test_it_is_resumed_without_the_run_that_it_started_from(first, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    whole = train(copy, tmp_path / "whole", "--epochs", "3")
    train(copy, tmp_path / "parts", "--epochs", "1")
    shutil.rmtree(copy)
    resume = ["train", "--resume", "--out", str(tmp_path / "parts"), "--epochs", "3", *FEW]
    assert main(resume) == 0
    parts = pv.load(tmp_path / "parts").state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_another_start_of_a_resumed_run_is_refused(first, tmp_path, capsys):
    train(first, tmp_path / "a", "--epochs", "1")
    flags = [
        "train",
        *FEW,
        "--resume",
        "--out",
        str(tmp_path / "a"),
        "--start",
        str(tmp_path / "b"),
    ]
    assert "which does not change" in fails(capsys, *flags)


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--latent", "7"], "weights that do not fit the program"),
        (["--prior", "StandardNormal"], "weights that do not fit the program"),
        (["--start", "nowhere"], "nowhere"),
        (
            ["--likelihood", "Laplace", "--likelihood.learn_scale", "per_feature"],
            "weights of DiscretizedLogistic for Laplace, at likelihood, expected",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(
    first, tmp_path, capsys, flags, told
):
    options = ["--start", str(first), "--out", str(tmp_path / "a")]
    assert told in fails(capsys, "train", first / "recipe.yaml", *options, *flags)
    assert not (tmp_path / "a").exists()


def table(path, center=0.0, categories="abc", name="v", seed=0):
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(center, 1.0, 60), "c": np.resize(list(categories), 60)}
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


SMALL = ["--epochs", "1", "--latent", "2", "--num_samples", "10", "--limit", "5"]


@pytest.fixture(scope="module")
def on_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    data = table(folder / "t.csv")
    flags = ["--data", data, "--standardize", "true", "--out", str(folder / "run"), *SMALL]
    assert main(["train", *flags]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    "changed, flags, told",
    [
        ({"center": 100.0}, [], "positive numbers in v, expected real, as in the run"),
        ({"center": 100.0}, [], "say columns={'v': 'real'} (--columns.v real), or"),
        ({"categories": "bcd"}, [], "categories b, c, d in c, expected a, b, c, as in"),
        ({"name": "w"}, [], "data with w, c, expected v, c, as in"),
        ({}, ["--standardize", "false"], "own units, expected standardised units, as in"),
    ],
)
def test_weights_of_other_parts_or_columns_are_refused(
    on_table, tmp_path, capsys, changed, flags, told
):
    data = table(tmp_path / "t.csv", **changed)
    given = ["--data", data, "--standardize", "true", "--start", str(on_table), *SMALL]
    assert told in fails(capsys, "train", *given, "--out", str(tmp_path / "a"), *flags)
    assert not (tmp_path / "a").exists()


def test_other_rows_of_the_same_columns_are_welcome_and_other_units_said(
    on_table, tmp_path, capsys
):
    data = table(tmp_path / "t.csv", seed=1)
    begin = ["--data", data, "--start", str(on_table), *SMALL, "--out", str(tmp_path / "a")]
    assert main(["train", "--standardize", "true", "--objective", "IWAE", *begin]) == 0
    assert (
        "not as those of the run that this one starts from: v has center" in capsys.readouterr().err
    )
    begin[-1] = str(tmp_path / "b")
    begin[1] = str(on_table.parent / "t.csv")
    assert main(["train", "--standardize", "true", *begin]) == 0
    assert "not as those" not in capsys.readouterr().err


def test_a_program_that_was_saved_alone_gives_its_weights(on_table, tmp_path):
    pv.save(pv.load(on_table), tmp_path / "saved")
    data = ["--data", str(on_table.parent / "t.csv"), "--standardize", "true"]
    begin = [*data, "--start", str(tmp_path / "saved"), "--out", str(tmp_path / "a"), *SMALL]
    assert main(["train", *begin, "--learning_rate", "1e-30"]) == 0
    for name, weight in pv.load(on_table).state_dict().items():
        torch.testing.assert_close(pv.load(tmp_path / "a").state_dict()[name], weight)


@pytest.mark.parametrize("policy, said", [("dynamic", False), ("fixed", True)])
def test_the_same_data_read_to_other_values_are_said(policy, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("grey.npz", x=np.random.default_rng(0).random((40, 4)).astype("float32"))
    words = ["train", "--data", "grey.npz", "--epochs", "1", "--latent", "2", "--compile", "off"]
    words += ["--num-samples", "2", "--encoder.hidden", "[4]", "--decoder.hidden", "[4]"]
    assert main([*words, "--binarize", "dynamic", "--out", "first"]) == 0
    assert main([*words, "--binarize", policy, "--start", "first", "--out", "second"]) == 0
    assert ("--binarize fixed, which was dynamic there" in capsys.readouterr().err) is said


def test_other_text_is_read_in_the_words_of_the_run_that_training_starts_from(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("the cat sat on a mat\na dog ate the bone\n" * 30)
    (tmp_path / "other.txt").write_text("the cow sat on a mat\na dog ate\n" * 30)
    words = ["--likelihood", "AutoregressiveCategorical", "--encoder", "Recurrent"]
    words += ["--latent", "2", "--epochs", "1", "--compile", "off", "--num-samples", "2"]
    words += ["--decoder.hidden", "[4]"]
    assert main(["train", "--data", "own.txt", *words, "--out", "first"]) == 0
    other = ["train", "--data", "other.txt", *words, "--start", "first", "--out", "second"]
    assert main(other) == 0
    assert "not in the vocabulary, and are read as unknown: cow" in caplog.text
    kept = [(tmp_path / run / "vocabulary.txt").read_text() for run in ("first", "second")]
    assert kept[0] == kept[1] and "cow" not in kept[0]
    assert main(["evaluate", "second", "--num-samples", "2"]) == 0
    resumed = ["train", "--out", "second", "--resume", "--epochs", "2", "--num-samples", "2"]
    assert main(resumed) == 0
    shutil.rmtree("first")
    assert main(["evaluate", "second", "--num-samples", "2"]) == 0
