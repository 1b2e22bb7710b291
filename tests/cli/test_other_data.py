"""Other data than a run's own are read as its own were."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import FEW, fails

import pyro_vae as pv
from pyro_vae.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")

QUICK = ["--latent", "2", "--epochs", "1", "--compile", "off", *FEW]
SMALL = ["--encoder.hidden", "[4]", "--decoder.hidden", "[4]", *QUICK]
SCORES = ["--num-samples", "20"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grey(name, seed, num=50, levels=None):
    """Writes images: grey, or of so many levels."""
    x = np.random.default_rng(seed).random((num, 1, 4, 4)).astype("float32")
    np.savez(name, x=x if levels is None else np.floor(x * levels).astype("float32"))
    return name


def scores():
    return json.loads(Path("run/evaluation.json").read_text())


@pytest.mark.parametrize("policy", ["dynamic", "fixed"])
@pytest.mark.parametrize("split", ["test", "all"])
def test_other_data_are_binarised_as_the_runs_own(policy, split, capsys):
    grey("own.npz", 0), grey("other.npz", 1)
    own = ["--data", "own.npz", "--binarize", policy]
    assert main(["train", *own, "--out", "run", *SMALL]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "other.npz", "--split", split, *SCORES]) == 0
    num = {"test": 5, "all": 50}[split]
    title = f"other, {split}, {num} data (grey values drawn as 0 or 1, once); nats per datum"
    assert title in capsys.readouterr().out
    read = {"test": lambda **how: pv.datasets.load("other.npz", **how)[1]}
    data = read.get(split, lambda **how: pv.datasets.load_whole("other.npz", **how))(
        binarize=policy
    )
    assert scores()["data"]["sha256"] == data.sha256 and data.tensor.unique().tolist() == [0, 1]
    few = ["--num-samples", "4", "--steps", "2", "--limit", "5"]
    assert main(["gaps", "run", "--data", "other.npz", *few]) == 0
    assert "(grey values drawn as 0 or 1, once)" in capsys.readouterr().out


def test_other_data_of_zeros_and_ones_stay_as_they_are(capsys):
    grey("own.npz", 0), grey("bits.npz", 1, levels=2)
    own = ["--data", "own.npz", "--binarize", "dynamic"]
    assert main(["train", *own, "--out", "run", *SMALL]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "bits.npz", *SCORES]) == 0
    assert "bits, test, 5 data; nats per datum" in capsys.readouterr().out
    assert scores()["data"]["sha256"] == pv.datasets.load("bits.npz")[1].sha256


def test_the_policy_may_be_that_of_the_runs_data_set(capsys):
    np.savez("eights.npz", x=np.random.default_rng(0).random((50, 1, 8, 8)))
    assert main(["train", "--likelihood", "Bernoulli", "--out", "run", *SMALL]) == 0  # digits
    assert main(["evaluate", "run", "--data", "eights.npz", *SCORES]) == 0
    expected = pv.datasets.load("eights.npz", binarize="dynamic")[1]
    assert scores()["data"]["sha256"] == expected.sha256


def test_settings_of_files_are_left_out_for_data_sets_known_by_name():
    x = np.random.default_rng(0).integers(0, 17, (50, 1, 8, 8)).astype("uint8")
    np.savez("own.npz", pictures=x, x=x)
    own = ["--data", "own.npz", "--key", "pictures", "--scale", "16", "--binarize", "dynamic"]
    assert main(["train", *own, "--out", "run", *SMALL]) == 0
    assert main(["evaluate", "run", "--data", "digits", "--limit", "20", *SCORES]) == 0
    assert scores()["data"]["sha256"] == pv.datasets.load("digits")[1][:20].sha256


def test_data_outside_of_a_run_are_in_its_units(monkeypatch):
    grey("own.npz", 0, levels=17), grey("outside.npz", 1, levels=17)
    own = ["--data", "own.npz", "--scale", "16", "--binarize", "dynamic"]
    assert main(["train", *own, "--out", "run", *SMALL]) == 0
    few = ["--num-samples", "3", "--limit", "5", "--reference", "0"]
    found = []

    def gallery(*args, outside, **options):
        found.append(outside)
        raise pv.InvalidInput("x", got="enough", expected="this", fix="stop")

    monkeypatch.setattr("pyro_vae.cli.inspect.inspect_program", gallery)
    assert main(["inspect", "run", "--outside", "outside.npz", *few]) == 2
    expected = pv.datasets.load("outside.npz", scale=16, binarize="dynamic")[1][:5]
    assert found[0].sha256 == expected.sha256


LINES = [f"the {animal} {verb} in the {place}." for animal in ("cat", "dog") for verb in
         ("sat", "ran") for place in ("park", "house", "tree")]  # fmt: skip
TEXT = ["--likelihood", "AutoregressiveCategorical", "--likelihood.width", "4",
        "--encoder", "Recurrent", "--encoder.width", "4", *QUICK]  # fmt: skip


def text(name, lines):
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    return name


def test_other_texts_are_read_in_the_words_of_the_run(capsys, caplog):
    text("own.txt", LINES * 2), text("few.txt", LINES[:3] * 4)
    assert main(["train", "--data", "own.txt", *TEXT, "--out", "run"]) == 0
    own = pv.datasets.load("own.txt")[0]
    for split in ("test", "all"):
        assert main(["evaluate", "run", "--data", "few.txt", "--split", split, *SCORES]) == 0
        known = {"vocabulary": own.vocabulary}
        data = pv.datasets.load_whole("few.txt", **known)
        data = data if split == "all" else pv.datasets.load("few.txt", **known)[1]
        assert scores()["data"]["sha256"] == data.sha256
        assert data.vocabulary.words == own.vocabulary.words
        assert data.event_shape == own.event_shape == (8,)
    assert data.text[:3] == LINES[:3] and not caplog.text

    text("new.txt", [line.replace("cat", "tiger") for line in LINES])
    assert main(["evaluate", "run", "--data", "new.txt", "--split", "all", *SCORES]) == 0
    line = "new: 6 of 84 words and signs are not in the vocabulary, and are read as unknown: tiger"
    assert line in caplog.text
    text("long.txt", [line.replace("cat", "big fat cat") for line in LINES])
    said = fails(capsys, "evaluate", "run", "--data", "long.txt")
    assert "a sentence of 9 words and signs, the big fat cat sat ..., expected at most 7" in said
    assert "got bits, which is no text" in fails(
        capsys, "evaluate", "run", "--data", grey("bits.npz", 0)
    )


def test_a_short_text_has_the_length_of_the_one_that_taught_the_words():
    text("own.txt", LINES), text("short.txt", ["the cat."] * 10)
    own = pv.datasets.load("own.txt")[0]
    short = pv.datasets.load("short.txt", vocabulary=own.vocabulary)[0]
    assert short.event_shape == own.event_shape and short.text[0] == "the cat."
    assert pv.datasets.load("short.txt")[0].event_shape == (4,)


@pytest.mark.parametrize("command", ["evaluate", "check", "decompose"])
def test_a_run_is_not_advised_another_likelihood(command, capsys):
    grey("bits.npz", 0, levels=2), grey("other.npz", 1)
    assert main(["train", "--data", "bits.npz", *SMALL, "--out", "run"]) == 0
    said = fails(capsys, command, "run", "--data", "other.npz")
    assert "--" not in said and "bring the data to such values, or train a run on them" in said


@pytest.mark.parametrize("num", [1, 4])
def test_a_few_sentences_are_scored_by_a_run_that_knows_the_words(num, capsys):
    text("own.txt", LINES), text("few.txt", LINES[:num])
    assert main(["train", "--data", "own.txt", *TEXT, "--out", "run"]) == 0
    assert main(["evaluate", "run", "--data", "few.txt", "--split", "all", *SCORES]) == 0
    assert scores()["num_data"] == num
    if num == 1:
        assert "--split all" in fails(capsys, "evaluate", "run", "--data", "few.txt", *SCORES)
    assert "ten sentences or more" in fails(capsys, "train", "--data", "few.txt", *TEXT)
