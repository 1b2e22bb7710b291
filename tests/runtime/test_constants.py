"""What a graph computes with as it was: numbers and parts, wherever a program keeps them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyro.distributions import Normal
from torch import nn

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.runtime.constants import Constants
from pyro_vae.training.callbacks import Callback

GLOBAL = 1.0
scale = 1.0  # which no code reads, though an attribute has its name


def closed_over():
    number = 1.0

    def read():
        return number

    def write(value):
        nonlocal number
        number = value

    return read, write


class Options:
    def __init__(self):
        self.scale = 1.0


class Keeper(nn.Module):
    """A likelihood whose scale is kept in some place."""

    event_shape = torch.Size((2,))
    shared = 1.0

    def __init__(self, place):
        super().__init__()
        self.net, self.place, self.plain = nn.Linear(1, 2), place, 1.0
        self.options, self.nested = {"scale": 1.0}, {"a": {"b": [1.0]}}
        self.entries, self.config, self.namespace = [1.0], Options(), SimpleNamespace(scale=1.0)
        self.array, self.tensors = np.ones(1), [torch.ones(())]
        self.read, self.write = closed_over()
        self.pair = (1.0, torch.zeros(2))

    @property
    def of_globals(self):
        return GLOBAL

    def scale(self):
        return {
            "an attribute": lambda: self.plain,
            "a dictionary": lambda: self.options["scale"],
            "a container in a container": lambda: self.nested["a"]["b"][0],
            "a list": lambda: self.entries[0],
            "a plain object": lambda: self.config.scale,
            "a namespace": lambda: self.namespace.scale,
            "an array": lambda: float(self.array[0]),
            "a tensor in a list": lambda: self.tensors[0],
            "a class": lambda: type(self).shared,
            "a global": lambda: self.of_globals,
            "a closure": lambda: self.read(),
            "a tuple": lambda: self.pair[0],
        }[self.place]()

    def change(self):
        global GLOBAL
        value = float(self.scale()) * 2
        if self.place == "an attribute":
            self.plain = value
        elif self.place == "a global":
            GLOBAL = value
        elif self.place == "a class":
            Keeper.shared = value
        elif self.place == "a tuple":
            self.pair = (value, self.pair[1])
        self.options["scale"] = self.nested["a"]["b"][0] = self.entries[0] = value
        self.config.scale = self.namespace.scale = self.array[0] = value
        self.tensors[0] = torch.tensor(value)
        self.write(value)

    def forward(self, z, *, context=None):
        return Normal(self.net(z), self.scale()).to_event(1)


PLACES = [
    "an attribute", "a dictionary", "a container in a container", "a list", "a plain object",
    "a namespace", "an array", "a tensor in a list", "a class", "a global", "a closure", "a tuple",
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_at_first(monkeypatch):
    """Graphs are captured and interpreted; what is shared starts anew."""
    monkeypatch.setattr(Captured, "compile", lambda self, _: setattr(self, "is_compiled", True))
    monkeypatch.setattr(Keeper, "shared", 1.0)
    monkeypatch.setitem(globals(), "GLOBAL", 1.0)


@pytest.mark.parametrize("place", PLACES)
def test_a_change_is_seen_wherever_it_is(place):
    keeper = Keeper(place)
    constants = Constants(nn.Sequential(keeper))
    assert constants.hold()
    keeper.change()
    assert constants.changed() and not constants.hold()


def test_what_no_code_reads_is_no_constant(monkeypatch):
    keeper = Keeper("an attribute")
    keeper.last = (torch.ones(2), torch.ones(3))  # tensors, which no one asks for their truth
    constants = Constants(keeper)
    monkeypatch.setitem(globals(), "scale", 2.0)
    assert constants.hold()
    keeper.last = (torch.ones(2), torch.ones(3))
    assert constants.changed() == "last"
    assert constants.number_changed() is None and constants.hold()  # a cache that a run replaces
    keeper.plain = 2.0
    assert constants.number_changed() == "plain" and constants.hold()


class Changing(Callback):
    def __init__(self, keeper):
        self.keeper = keeper

    def epoch(self, training):
        self.keeper.change()


@pytest.mark.parametrize("place", PLACES)
def test_fit_follows_a_change_between_epochs(place):
    torch.manual_seed(0)
    x = torch.randn(60, 2)

    def curves(compile):
        torch.manual_seed(0)
        keeper = Keeper(place)
        Keeper.shared = 1.0
        globals()["GLOBAL"] = 1.0
        program = pv.VAE(
            pv.priors.StandardNormal(1),
            keeper,
            pv.posteriors.DiagonalNormal(1, pv.networks.MLP(2, [8])),
        )
        history = pv.fit(
            program, x[:40], validation=x[40:], epochs=3, batch_size=20, learning_rate=1e-9,
            compile=compile, callbacks=[Changing(keeper)], progress=False,
        )  # fmt: skip
        return torch.tensor([history["objective"], history["validation_elbo"]])

    with pytest.warns(UserWarning, match="has changed since it was compiled"):
        found = curves("on")
    torch.testing.assert_close(found, curves("off"))
    assert (found[:, 1:] - found[:, :1]).abs().min() > 0.01


class Counting(nn.Module):
    """A network that counts its runs in training, and computes with the count."""

    out_shape = (8,)

    def __init__(self):
        super().__init__()
        self.net, self.runs = pv.networks.MLP(2, [8]), 0

    def forward(self, x):
        self.runs += self.training
        return self.net(x) / max(1, self.runs)


def test_a_program_that_counts_its_runs_is_trained_eagerly():
    x = torch.randn(40, 2)

    def trained(compile):
        torch.manual_seed(0)
        q = pv.posteriors.DiagonalNormal(1, Counting())
        vae = pv.VAE(pv.priors.StandardNormal(1), Keeper("an attribute"), q)
        pv.fit(vae, x, epochs=3, batch_size=20, compile=compile, progress=False)
        return q.network.runs

    with pytest.warns(UserWarning, match="posterior.network.runs changes each time"):
        compiled = trained("on")
    assert compiled > trained("off")  # the capture is a run, too

    torch.manual_seed(0)
    vae = pv.VAE(
        pv.priors.StandardNormal(1),
        Keeper("an attribute"),
        pv.posteriors.DiagonalNormal(1, Counting()),
    )
    svi = pv.CompiledSVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters()), pv.objectives.ELBO()
    )
    with pytest.warns(UserWarning, match="posterior.network.runs changes each time"):
        svi.step(x)
    before = vae.posterior.network.runs
    svi.step(x)
    assert vae.posterior.network.runs == before + 1
