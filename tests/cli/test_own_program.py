import json

import pytest
from commands import fails

import pyro_vae as pv
from pyro_vae.cli import main

OWN = """
import pyro
import pyro.distributions as dist
import torch


class Pair(torch.nn.Module):
    def __init__(self, event_shape, hidden: int = 8):
        super().__init__()
        self.event_shape, self.hidden = event_shape, hidden
        size = torch.Size(event_shape).numel()
        first = torch.nn.Linear(size, hidden)
        self.encoder = torch.nn.Sequential(first, torch.nn.Tanh(), torch.nn.Linear(hidden, 2))
        self.decoder = torch.nn.Linear(2, size)

    def model(self, images):
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(images)):
            code = pyro.sample("code", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = self.decoder(code).unflatten(-1, self.event_shape)
            pyro.sample("obs", dist.Bernoulli(logits=logits).to_event(3), obs=images)

    def guide(self, images):
        scale = pyro.param("scale", torch.ones(2), dist.constraints.positive)
        with pyro.plate("images", len(images)):
            loc = self.encoder(images.flatten(-3))
            pyro.sample("code", dist.Normal(loc, scale).to_event(1))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "ownpairs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_pair_of_ones_own_trains_and_every_command_takes_its_run(module, capsys):
    run = str(module / "run")
    few = ["--num-samples", "5", "--limit", "10"]
    train = ["train", "--out", run, "--num-samples", "20", "--limit", "30"]
    own = ["--program", "ownpairs.Pair", "--program.hidden", "5", "--batch-size", "500"]
    assert main([*train, *own, "--epochs", "1"]) == 0
    assert main([*train, "--resume", "--epochs", "2", "--trust", "ownpairs"]) == 0
    trust = ["--trust", "ownpairs"]
    assert main(["evaluate", run, *few, *trust]) == 0
    assert main(["sample", run, "--num", "3", *trust]) == 0
    assert main(["inspect", run, *few, "--reference", "0", *trust]) == 0
    assert main(["report", run, *trust]) == 0
    program = pv.load(run, trust=["ownpairs"])
    test = pv.datasets.load("digits")[1][:10]
    scores = json.loads((module / "run" / "evaluation.json").read_text())
    assert scores["elbo"]["mean"] == pytest.approx(pv.elbo(program, test, 5).mean)
    assert {tuple(p.shape) for p in program.parameters()} >= {(5, 64), (2, 5), (64, 2), (2,)}


@pytest.mark.parametrize(
    "option",
    [("--prior", "GaussianMixture"), ("--encoder.hidden", "[3]"), ("--latent", "3")],
)
def test_options_of_parts_are_refused_beside_a_program_without_parts(module, capsys, option):
    line = fails(capsys, "train", "--program", "ownpairs.Pair", "--out", module / "run", *option)
    name = option[0][2:].partition(".")[0]
    assert line.startswith(f"pyro-vae: {name}: ") and f"leave --{name} out" in line
    assert not (module / "run").exists()
