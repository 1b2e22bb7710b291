"""Training that starts from the weights of another run."""

import shutil

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
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(
    first, tmp_path, capsys, flags, told
):
    options = ["--start", str(first), "--out", str(tmp_path / "a")]
    assert told in fails(capsys, "train", first / "recipe.yaml", *options, *flags)
    assert not (tmp_path / "a").exists()
