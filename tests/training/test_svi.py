"""`CompiledSVI` computes with the program as it is, whatever was changed after its capture."""

import pyro
import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.validation import InvalidInput


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Graphs are captured and interpreted, not compiled."""
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)


class Eager:
    """What `CompiledSVI` does, by hand."""

    def __init__(self, model, guide, optim, loss):
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss

    def step(self, x):
        self.optim.zero_grad()
        loss = self.loss.differentiable_loss(self.model, self.guide, x)
        loss.backward()
        self.optim.step()
        return loss.item()


def swap_of_part(vae):
    vae.likelihood = small_vae(seed=5).likelihood
    vae.likelihood.requires_grad_(False)


def scale_of_prior(vae):
    vae.prior.scale = 3.0


CHANGES = {
    "a part": swap_of_part,
    "a part of a part": lambda vae: setattr(vae.posterior, "network", other_network()),
    "a number": scale_of_prior,
    "the mode": lambda vae: vae.eval(),
    "a buffer": lambda vae: setattr(vae.prior, "loc", torch.full((2,), 0.7)),
    "what is trained": lambda vae: vae.posterior.requires_grad_(False),
}


def other_network():
    network = small_vae(seed=6).posterior.network
    return network.requires_grad_(False)


class Shifted(torch.nn.Module):
    """A prior with a number, a mode and a buffer to change."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0
        self.register_buffer("loc", torch.zeros(2))

    def forward(self, *, context=None):
        scale = self.scale if self.training else 2 * self.scale
        return pyro.distributions.Normal(self.loc, scale).to_event(1)


@pytest.mark.parametrize("change", CHANGES)
def test_compiled_svi_follows_what_is_changed_between_steps(change):
    vaes = [small_vae(), small_vae()]
    ways = []
    for vae, way in zip(vaes, (pv.CompiledSVI, Eager)):
        vae.prior = Shifted()
        optim = torch.optim.SGD(vae.parameters(), lr=1e-3)
        ways.append(way(vae.model, vae.guide, optim, pv.objectives.ELBO()))
    x = torch.full((8, 1, 8, 8), 0.5)
    losses = []
    for vae, way in zip(vaes, ways):
        torch.manual_seed(0)
        before = [way.step(x) for _ in range(2)]
        CHANGES[change](vae)
        losses.append(before + [way.step(x) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0][2] - losses[0][1]) > 0.1 or change == "what is trained"
    for a, b in zip(vaes[0].parameters(), vaes[1].parameters()):
        torch.testing.assert_close(a, b)


def test_compiled_svi_refuses_a_new_part_that_it_would_not_move():
    vae, x = small_vae(), torch.full((8, 1, 8, 8), 0.5)
    svi = pv.CompiledSVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters()), pv.objectives.ELBO()
    )
    svi.step(x)
    vae.posterior = small_vae(seed=5).posterior
    with pytest.raises(InvalidInput, match="optim: got an optimiser without the new parameter"):
        svi.step(x)


def test_compiled_svi_stays_eager_where_a_number_changes_all_the_time():
    vae, x = small_vae(), torch.full((8, 1, 8, 8), 0.5)
    vae.prior = Shifted()
    svi = pv.CompiledSVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters()), pv.objectives.ELBO()
    )
    for step in range(14):
        vae.prior.scale = 1.0 + step
        svi.step(x)
    (last,) = svi.steps.values()
    assert svi.discarded == 11 and last.graphs == dict.fromkeys(last.graphs)
