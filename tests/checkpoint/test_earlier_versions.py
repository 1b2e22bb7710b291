"""Runs that version 0.1.0 saved load, score and resume to the numbers that it gave."""

import json
import shutil
from pathlib import Path

import pytest

import pyro_vae as pv
from pyro_vae.cli import main

SAVED = (
    Path(__file__).parent / "saved_by_0.1.0"
)  # killed after three of five epochs; it names classes that have moved since

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


def test_a_run_of_0_1_0_scores_to_the_same_number(run):
    assert log_likelihood(run) == pytest.approx(-6.617728253571784, rel=1e-6)


def test_a_run_of_0_1_0_resumes_to_the_same_weights(run):
    assert main(["train", "--resume", str(run / "recipe.yaml"), "--out", str(run)]) == 0
    assert len((run / "metrics.csv").read_text().splitlines()) == 6
    assert log_likelihood(run) == pytest.approx(-6.613001594439186, rel=1e-6)


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
