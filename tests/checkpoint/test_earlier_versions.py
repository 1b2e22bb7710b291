"""Runs that version 0.1.0 saved load, score and resume to the numbers that it gave."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main

SAVED = (
    Path(__file__).parent / "saved_by_0.1.0"
)  # killed after three of five epochs; it names classes that have moved since

BEFORE, AFTER = -10.517214330037435, -10.497054489453634  # what 0.1.0 gives for them

FORMER_NAMES = [
    "VAE",
    "CompiledSVI",
    "HierarchicalVAE",
    "Program",
    "Refined",
    "SemiSupervisedVAE",
    "ais",
    "bdmc",
    "calibration",
    "compare_posteriors",
    "comparison",
    "corruptions",
    "datasets",
    "decomposition",
    "draws",
    "elbo",
    "encode",
    "evaluation",
    "fidelity",
    "fit",
    "generate",
    "geometry",
    "inspection",
    "likelihoods",
    "load",
    "log_likelihood",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "proposals",
    "reconstruct",
    "reference",
    "results",
    "save",
    "schedules",
    "to_inference_data",
]
MEMBERS = {
    "calibration": "calibrate",
    "comparison": "compare",
    "corruptions": "GaussianNoise",
    "decomposition": "decompose",
    "draws": "NUTS",
    "evaluation": "log_joint",
    "geometry": "Decoder",
    "inspection": "embed",
    "proposals": "Defensive",
    "reference": "two_sample_test",
    "results": "to_dict",
    "schedules": "Cosine",
    "datasets": "Dataset",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    shutil.copytree(SAVED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def log_likelihood(run: Path) -> float:
    assert main(["evaluate", str(run), "--num-samples", "50", "--device", "cpu"]) == 0
    return json.loads((run / "evaluation.json").read_text())["log_likelihood"]["mean"]


def test_a_run_of_0_1_0_scores_as_it_did(run):
    """Its mean was -6.6177 at K = 50, from other draws: scores were not yet made in blocks."""
    assert log_likelihood(run) == pytest.approx(-6.6177, abs=0.4)
    assert bound_at_the_means(run) == pytest.approx(BEFORE, rel=1e-5)


def test_a_run_of_0_1_0_resumes_to_the_same_weights(run):
    assert main(["train", "--resume", str(run / "recipe.yaml"), "--out", str(run)]) == 0
    assert len((run / "metrics.csv").read_text().splitlines()) == 6
    assert bound_at_the_means(run) == pytest.approx(AFTER, rel=1e-5)


def bound_at_the_means(run: Path) -> float:
    """log p(x, z) of the run's data at the posterior means of z, as 0.1.0 computes it."""
    program, arrays = pv.load(run), np.load(run.parent / "data.npz")
    x, y = torch.tensor(arrays["x"]), torch.tensor(arrays["y"])
    with torch.no_grad():
        z = program.posterior(x, context=program.embed(y)).mean
        joint = program.prior().log_prob(z) + program.likelihood(z, context=y).log_prob(x)
    return joint.double().mean().item()


def test_a_run_of_0_1_0_loads(run):
    assert pv.load(run).context.__class__ is pv.networks.Covariates


@pytest.mark.parametrize("name", FORMER_NAMES)
def test_every_name_of_0_1_0_resolves(name):
    found = getattr(pv, name)
    if name in MEMBERS:
        assert callable(getattr(found, MEMBERS[name]))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pv.nothing
