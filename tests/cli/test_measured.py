"""Commands that measure a run: numbers with errors beside it, at one moment with their figure."""

import json
import math

import numpy as np
import pytest
from commands import FAST, fails

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli import main
from pyro_vae.cli.anneal import on_crossing
from pyro_vae.datasets.forms import shuffled

pytestmark = pytest.mark.usefixtures("quick_chains")

FEW = ["--limit", "12", "--seed", "3"]
COMMANDS = {
    "anneal": ["--num-chains", "2", "--num-temperatures", "5", "--simulated", "3", *FEW],
    "decompose": ["--num-samples", "4", *FEW],
    "calibrate": ["--simulated", "20", "--num-samples", "9", *FEW],
    "gaps": ["--num-samples", "10", "--steps", "2", *FEW],
    "fidelity": ["--points", "6", "--neighbours", "2", *FEW],
}
BARS = {
    "anneal": "annealing both ways",
    "decompose": "parts of the ELBO",
    "calibrate": "calibration",
    "gaps": "log-weights",
    "fidelity": "comparisons",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured") / "run"
    assert main(["train", "--out", str(folder), *FAST, "--compile", "off"]) == 0
    return folder


def numbers(run, command):
    return json.loads((run / f"{command}.json").read_text())["numbers"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_writes_numbers_with_errors_and_a_figure(run, capsys, command, real_figures):
    assert main([command, str(run), *COMMANDS[command]]) == 0
    said, shown = capsys.readouterr()
    assert BARS[command] in shown  # a bar, on standard error
    found = json.loads((run / f"{command}.json").read_text())
    assert found["settings"]["seed"] == 3 and found["num_data"] == 12
    test = pv.datasets.load("digits", binarize="none")[1]
    if command == "fidelity":  # which needs data of all kinds
        test = test[shuffled(len(test), 3)]
    assert found["data"]["sha256"] == test[:12].sha256
    for name, row in found["numbers"].items():
        assert name.split()[0] in said and math.isfinite(row["value"])
    assert sum("se" in row or "mc_se" in row for row in found["numbers"].values()) > 1
    assert (run / f"{command}.png").read_bytes().startswith(b"\x89PNG")
    given = json.loads((run / "commands.json").read_text())["commands"][-1]["words"]
    assert given[0] == command


def test_numbers_are_those_of_the_functions(run):
    program, data = checkpoint.load(run), pv.datasets.load("digits", binarize="none")[1][:12]
    score = pv.evaluation.decompose(program, data, 4, seed=3)["kl"]
    assert main(["decompose", str(run), *COMMANDS["decompose"]]) == 0
    row = numbers(run, "decompose")["kl"]
    assert row["value"] == pytest.approx(score.mean) and row["se"] == pytest.approx(score.se)
    units = pv.evaluation.active_units(program, data, 4, seed=3)
    found = json.loads((run / "decompose.json").read_text())
    assert found["share"] == {name: value.tolist() for name, value in units.share.items()}
    for command in ("gaps", "anneal"):
        assert main([command, str(run), *COMMANDS[command]]) == 0
    gaps = numbers(run, "gaps")
    whole, family, encoder = (gaps[name]["value"] for name in gaps)
    assert whole == pytest.approx(family + encoder, abs=1e-4)
    annealed = pv.evaluation.ais(program, data, 2, 5, seed=3)
    assert numbers(run, "anneal")["log p(x) by annealing"]["value"] == pytest.approx(annealed.mean)


def test_fidelity_of_data_against_themselves_is_the_best_there_is(run, monkeypatch):
    """Training data in the place of samples: every number is that of the row below."""
    train, _ = pv.datasets.load("digits", binarize="none")

    def training_data(_program, num, *, seed, **_):
        start = (seed - 3) * num
        return train.x[shuffled(len(train), 3)[start : start + num]]

    monkeypatch.setattr("pyro_vae.cli.fidelity.generate", training_data)
    assert main(["fidelity", str(run), *COMMANDS["fidelity"]]) == 0
    found = numbers(run, "fidelity")
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}, samples"] == found[f"{name}, training data in their place"]


def test_training_data_are_measured_by_others_not_by_themselves(run):
    words = ["--points", "50", "--limit", "100", "--split", "train"]
    assert main(["fidelity", str(run), *words]) == 0
    found = numbers(run, "fidelity")
    assert found["coverage, training data in their place"]["value"] < 1


@pytest.mark.parametrize(
    "words, line",
    [
        (["anneal", "--simulated", "-1"], "simulated: got -1"),
        (["decompose", "--limit", "1"], "limit: got 1"),
        (["calibrate", "--num-samples", "0"], "num_samples: got 0"),
        (["gaps", "--split", "tset"], "split: got 'tset'"),
        (["fidelity", "--points", "10", "--limit", "12"], "pass --points 6"),
    ],
)
def test_a_setting_that_cannot_be_is_said_in_a_line(run, capsys, words, line):
    assert line in fails(capsys, words[0], run, *words[1:])


@pytest.mark.parametrize(
    "gap, error, words",
    [
        (-0.163, 0.189, "agree within their error"),
        (-0.9, 0.1, "one of them is no bound"),
        (-0.1, math.nan, "simulate more"),
        (0.1, 0.2, ""),
    ],
)
def test_bounds_that_cross_are_spoken_of(gap, error, words):
    told = on_crossing(gap, error)
    assert words in told and bool(told) == bool(words)


def test_a_p_value_is_never_said_to_be_nothing(run, capsys, monkeypatch):
    monkeypatch.setattr("pyro_vae.diagnostics.calibration.Uniformity.smallest", 7.8e-107)
    assert main(["calibrate", str(run), *COMMANDS["calibrate"]]) == 0
    assert "< 0.0001" in capsys.readouterr().out
    assert numbers(run, "calibrate")["p of uniform ranks, all dimensions"]["value"] == 7.8e-107


def test_conditional_programs_and_global_latents_are_taken(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "withglobals.py").write_text(
        "import pyro_vae as pv\n"
        "def bayesian(width=2):\n"
        "    net = pv.networks.MLP\n"
        "    p = pv.likelihoods.Normal(3, net(width, []), scale=0.5)\n"
        "    q = pv.posteriors.DiagonalNormal(width, net(3, []))\n"
        "    return pv.VAE(pv.priors.StandardNormal(width), pv.networks.Bayesian(p), q)\n"
    )
    draws = np.random.default_rng(0)
    np.savez("x.npz", x=draws.normal(size=(60, 3)).astype("float32"), y=np.arange(60) % 3)
    few = ["--data", "x.npz", "--epochs", "1", "--compile", "off", "--num-samples", "20"]
    own = ["--program", "withglobals.bayesian", "--out", "theta"]
    assert main(["train", *few, "--limit", "5", *own]) == 0
    normal = ["--likelihood", "Normal", "--context", "labels", "--out", "conditional"]
    assert main(["train", *few, "--limit", "5", *normal]) == 0
    small = {name: [*options, "--limit", "6"] for name, options in COMMANDS.items()}
    small["fidelity"] += ["--points", "3"]
    for command in ("anneal", "calibrate", "fidelity"):  # which take the context of the data
        assert main([command, "conditional", *small[command]]) == 0
    for command in ("decompose", "fidelity"):
        capsys.readouterr()
        assert main([command, "theta", *small[command], "--trust", "withglobals"]) == 0
        is_fixed = "at one draw of the global latents" in capsys.readouterr().out
        assert is_fixed == (command != "fidelity")
