"""Programs of the user's own by import path: every command takes their runs."""

import base64
import json
import re
import sys

import numpy as np
import pytest
from commands import fails

import pyro_vae as pv
from pyro_vae import plotting
from pyro_vae.cli import main
from pyro_vae.evaluation.arviz_compat import arviz

OWN = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyro_vae as pv


class Pair(nn.Module):
    def __init__(self, event_shape, latent: int, hidden=8):
        super().__init__()
        self.event_shape, self.latent, self.hidden = event_shape, latent, hidden
        self.encoder = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, latent))
        self.decoder = nn.Linear(latent, 6)

    def model(self, images):
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(images)):
            code = pyro.sample("code", dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(code)).to_event(1), obs=images)

    def guide(self, images):
        scale = pyro.param("scale", torch.ones(self.latent), dist.constraints.positive)
        with pyro.plate("images", len(images)):
            pyro.sample("code", dist.Normal(self.encoder(images), scale).to_event(1))


class Forgetful(Pair):
    def __init__(self, z_dim=2):
        super().__init__((6,), z_dim)


def functions(width=2):
    encoder, decoder = nn.Linear(6, width), nn.Linear(width, 6)

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(width), 1.0).to_event(1))
            pyro.sample("o", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return pv.Program(model, guide)


class Conditional(nn.Module):
    '''Takes its labels as the second argument, in its own way.'''

    def __init__(self, latent: int = 2):
        super().__init__()
        self.latent = latent
        self.encoder, self.decoder = nn.Linear(9, latent), nn.Linear(latent + 3, 6)

    def model(self, xs, ys):
        y = nn.functional.one_hot(ys, 3).to(xs)
        with pyro.plate("rows", len(xs)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            both = torch.cat([z, y.expand(*z.shape[:-1], 3)], -1)
            self.observe(self.decoder(both), xs)

    def observe(self, loc, xs):
        pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=xs)

    def guide(self, xs, ys):
        y = nn.functional.one_hot(ys, 3).to(xs)
        with pyro.plate("rows", len(xs)):
            loc = self.encoder(torch.cat([xs, y], -1))
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


class Sums(Pair):
    '''Sums over a kind, on which the mean of z depends.'''

    def __init__(self, latent: int = 2):
        super().__init__((6,), latent)

    def model(self, xs):
        states = {"enumerate": "parallel"}
        with pyro.plate("images", len(xs)):
            kind = pyro.sample("k", dist.Categorical(torch.ones(3)), infer=states)
            loc = (kind - 1.0)[..., None].expand(*kind.shape, self.latent)
            code = pyro.sample("code", dist.Normal(loc, 0.5).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(code)).to_event(1), obs=xs)


class Scalar(nn.Module):
    '''A single number for z and one for x, z about one of three means.'''

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))

    def model(self, x):
        means = pyro.param("means", torch.tensor([-1.0, 0.0, 1.0]))
        with pyro.plate("rows", len(x)):
            states = {"enumerate": "parallel"}
            kind = pyro.sample("kind", dist.Categorical(torch.ones(3) / 3), infer=states)
            z = pyro.sample("z", dist.Normal(means[kind], 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, 0.7))


class Rescaled(Conditional):
    def observe(self, loc, xs):
        pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=2 * xs + 1)


def nothing():
    return nn.Linear(2, 2)


def untyped(latent):
    return nn.Linear(latent, 2)


instance = Forgetful()
"""


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "ownpairs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownpairs", raising=False)
    binary = np.random.default_rng(0).random((60, 6)) < 0.5
    np.savez(tmp_path / "data.npz", x=binary.astype("float32"))
    # What is drawn is tested elsewhere; drawing takes most of the time.
    monkeypatch.setattr(plotting, "figure_png", lambda *args: PIXEL)
    for function in ("figure_files", "grid_files"):
        monkeypatch.setattr(plotting, function, lambda name, *args: {f"{name}.png": PIXEL})
    return tmp_path


def train(folder, *options):
    few = ["--data", folder / "data.npz", "--num-samples", "5", "--limit", "5", "--compile", "off"]
    return list(map(str, ["train", "--out", folder / "run", *few, *options]))


@pytest.mark.parametrize(
    "program, options, width, loads_alone",
    [
        ("Pair", ["--program.latent", "3", "--program.hidden=5"], 3, True),
        ("Forgetful", ["--program.z_dim", "3"], 3, True),  # not by its class, but by the recipe
        ("Sums", ["--latent", "3"], 3, True),
        ("functions", ["--program.width", "4"], 4, False),
    ],
)
def test_every_command_takes_its_run(folder, capsys, program, options, width, loads_alone):
    run, trust = str(folder / "run"), ["--trust", "ownpairs"]
    few = ["--num-samples", "5", "--limit", "10"]
    own = ["--program", f"ownpairs.{program}", *options]
    assert main(train(folder, *own, "--epochs", "1")) == 0
    trained = pv.checkpoint.read_state(folder / "run", "program")[0]
    assert (width, 6) in {tuple(t.shape) for t in trained.values()} or program != "functions"
    assert any(width in t.shape for t in trained.values())
    assert main(train(folder, "--resume", "--epochs", "2", *trust)) == 0
    assert main(["evaluate", run, *few, *trust]) == 0
    assert main(["sample", run, "--num", "3", "--out", f"{run}/new.npz", *trust]) == 0
    assert np.load(f"{run}/new.npz")["x"].shape == (3, 6)
    assert main(["report", run, *trust]) == 0
    assert main(["compare", run, run]) == 0
    if program in ("Forgetful", "Sums"):
        assert main(["inspect", run, *few, "--reference", "0", *trust]) == 0
    if loads_alone:
        data = pv.datasets.load(folder / "data.npz")[1]
        scores = json.loads((folder / "run" / "evaluation.json").read_text())
        loaded = pv.load(run, trust=["ownpairs"])
        assert scores["elbo"]["mean"] == pytest.approx(pv.elbo(loaded, data, 5).mean, rel=1e-6)
        assert width in {size for tensor in loaded.state_dict().values() for size in tensor.shape}


def test_a_program_with_a_context_of_its_own_and_one_that_observes_something_else(folder, capsys):
    """Each command takes their runs, and says in a line what there is not."""
    labelled = folder / "labelled.npz"
    np.savez(labelled, x=np.load(folder / "data.npz")["x"], y=np.arange(60) % 3)
    trust, few = ["--trust", "ownpairs"], ["--num-samples", "5", "--limit", "8"]
    for name in ("Conditional", "Rescaled"):
        own = ["--data", str(labelled), "--program", f"ownpairs.{name}", "--epochs", "1"]
        run = str(folder / name)
        assert main([*train(folder, *own), "--out", run]) == 0
        assert ("no reconstructions" in capsys.readouterr().out) == (name == "Rescaled")
        assert main(["evaluate", run, *few, *trust]) == 0
        assert main(["report", run, *trust]) == 0
    inspected = ["inspect", run, *few, "--reference", "0", *trust]
    assert main(inspected) == 0
    found = arviz().from_netcdf(f"{run}/posterior.nc")
    assert set(found.posterior.data_vars) == {"z"}
    assert not hasattr(found, "posterior_predictive")  # there is no x that could be drawn
    found.close()
    run = inspected[1] = str(folder / "Conditional")
    capsys.readouterr()
    assert main(inspected) == 0
    assert "Left out: figures of the decoder" in capsys.readouterr().out
    given = ["sample", run, "--num", "3", "--out", f"{run}/new.npz", *trust]
    assert main([*given, "--context", "2"]) == 0
    assert np.load(f"{run}/new.npz")["context"].tolist() == [2, 2, 2]
    assert "pass it: --context 2" in fails(capsys, *given)


def test_every_command_takes_single_numbers(folder, capsys, quick_chains):
    np.savez(folder / "numbers.npz", x=np.random.default_rng(0).normal(size=60))
    run, trust = str(folder / "run"), ["--trust", "ownpairs"]
    own = ["--data", folder / "numbers.npz", "--program", "ownpairs.Scalar", "--epochs", "1"]
    assert main(train(folder, *own)) == 0
    few = ["--num-samples", "10", "--limit", "12"]
    for command, *options in (
        ["evaluate", *few],
        ["inspect", *few, "--reference", "1"],
        ["fidelity", "--points", "3", "--neighbours", "1"],
        ["check", "--minutes", "0.1"],
        ["report"],
    ):
        assert main([command, run, *options, *trust]) == 0, command
    program, x = pv.load(run, trust=["ownpairs"]), np.linspace(-1, 1, 5).astype("float32")
    error = pv.evaluation.squared_error(program, x)
    made = pv.reconstruct(program, x)
    np.testing.assert_allclose(error.values, (made.numpy() - x) ** 2, rtol=1e-5)


def test_latent_is_an_option_of_a_program_that_takes_one(folder, capsys):
    assert main(train(folder, "--program", "ownpairs.Pair", "--latent", "4", "--epochs", "1")) == 0
    assert pv.load(folder / "run", trust=["ownpairs"]).latent == 4


def test_weights_follow_from_the_seed_of_the_run(folder, capsys):
    """Also where a function makes them."""
    first = []
    for name in ("a", "b"):
        own = ["--program", "ownpairs.functions", "--epochs", "1", "--out", str(folder / name)]
        assert main(train(folder, *own)) == 0
        first.append(pv.checkpoint.read_state(folder / name, "program")[0])
    assert all(np.array_equal(first[0][key], first[1][key]) for key in first[0])


@pytest.mark.parametrize(
    "options, words",
    [
        (["--program", "ownpairs.Pair", "--program.latent", "2", "--prior", "GaussianMixture"],
         "prior: .*leave --prior out"),
        (["--program", "ownpairs.Forgetful", "--encoder.hidden", "[3]"], "leave --encoder out"),
        (["--program", "ownpairs.Forgetful", "--latent", "3"], "leave --latent out"),
        (["--program", "ownpairs.Pair"], "add --program.latent VALUE"),
        (["--program", "ownpairs.Pair", "--program.latent", "2", "--program.width", "2"],
         r"program.width: got an argument that ownpairs.Pair does not take"),
        (["--program", "ownpairs.Pair", "--program.latent", "two"], "program.*expected int"),
        (["--program", "ownpairs.nothing"], "makes no model and guide"),
        (["--program", "ownpairs.untyped", "--program.latent", "2"], "write latent: int"),
        (["--program", "ownpairs.instance"], "'ownpairs.instance', expected a class"),
        (["--program", "ownpairs.Missing"], "'ownpairs.Missing', a name that ownpairs does not"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_is_said_in_a_line(folder, capsys, options, words):
    line = fails(capsys, *train(folder, *options))
    assert re.search(words, line), line
    assert not (folder / "run").exists()


def test_a_run_names_no_program_that_is_not_trusted(folder, capsys):
    run = folder / "run"
    assert main(train(folder, "--program", "ownpairs.functions", "--epochs", "1")) == 0
    *lines, _checksum = (run / "recipe.yaml").read_text().splitlines()
    text = "\n".join(lines).replace("ownpairs.functions", "os.system")
    (run / "recipe.yaml").write_text(text)
    assert "'os.system', which is neither" in fails(capsys, "evaluate", run)
