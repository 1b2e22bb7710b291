"""What decides a program's numbers and is not saved with it is told of."""

import pyro
import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.checkpoint.unsaved import unsaved_digests


class Scaled(torch.nn.Module):
    """A network that multiplies by a constant of its own, held in one of several ways."""

    def __init__(self, hold):
        super().__init__()
        self.out_shape, self.last = 3, torch.nn.Linear(2, 3)
        hold(self, torch.rand(3))

    def forward(self, z):
        return self.last(z) * self.get()


def as_attribute(network, scale):
    network.scale = scale
    network.get = lambda: network.scale


def as_list(network, scale):
    network.scales = [scale]
    network.get = lambda: network.scales[0]


def as_distribution(network, scale):
    network.noise = torch.distributions.Normal(scale, 1.0)
    network.get = lambda: network.noise.mean


def as_frozen_module(network, scale):
    layer = torch.nn.Linear(1, 3).requires_grad_(False)
    network.layers = [layer]
    network.get = lambda: layer.bias


def as_buffer(network, scale):
    network.register_buffer("scale", scale)
    network.get = lambda: network.scale


def vae_with(hold):
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, Scaled(hold)),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )


def saved(program, folder):
    """Save the weights and the digests of a program whose classes no file could name."""
    description = {"program": {"added": {}}, "unsaved": unsaved_digests(program)}
    checkpoint.write_state(folder, "program", program.state_dict(), description)


@pytest.mark.parametrize(
    "hold, name",
    [
        (as_attribute, "likelihood.network.scale"),
        (as_list, r"likelihood.network.scales\[0\]"),
        (as_distribution, "likelihood.network.noise.loc"),
        (as_frozen_module, r"likelihood.network.layers\[0\].weight"),
    ],
)
def test_numbers_that_were_not_saved_and_changed_are_named(hold, name, tmp_path):
    first, other = vae_with(hold), vae_with(hold)
    saved(first, tmp_path)
    with pytest.warns(UserWarning, match=f"{name}.*scores differ"):
        pv.load(tmp_path, program=other)
    x = torch.randn(4, 3)
    assert not torch.equal(pv.elbo(first, x, 2).values, pv.elbo(other, x, 2).values)


@pytest.mark.parametrize("hold", [as_attribute, as_list, as_distribution, as_frozen_module])
def test_numbers_that_did_not_change_are_not(hold, tmp_path):
    program = vae_with(hold)
    saved(program, tmp_path)
    pv.load(tmp_path, program=program)


def test_a_buffer_comes_back(tmp_path):
    first, other = vae_with(as_buffer), vae_with(as_buffer)
    saved(first, tmp_path)
    pv.load(tmp_path, program=other)
    x = torch.randn(4, 3)
    assert torch.equal(pv.elbo(first, x, 2).values, pv.elbo(other, x, 2).values)


def test_a_frozen_module_that_the_program_does_not_hold_is_named_when_it_is_saved(tmp_path):
    encoder, decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)
    frozen = torch.nn.Linear(3, 3).requires_grad_(False)

    def model(data):
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            x = pyro.distributions.Normal(frozen(decoder(z)), 1.0).to_event(1)
            pyro.sample("obs", x, obs=data)

    def guide(data):
        with pyro.plate("data", len(data)):
            pyro.sample("z", pyro.distributions.Normal(encoder(data), 1.0).to_event(1))

    program = pv.Program(model, guide, modules=[encoder, decoder])
    with pytest.warns(UserWarning, match="^frozen: used by the program's functions, but"):
        pv.save(program, tmp_path)
    whole = pv.Program(model, guide, modules=[encoder, decoder, frozen])
    pv.save(whole, tmp_path / "whole")


def test_what_a_program_of_ours_does_not_save_follows_from_its_arguments(tmp_path):
    pv.save(small_vae(), tmp_path)
    pv.load(tmp_path)
