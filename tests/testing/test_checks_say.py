"""A check that passes says what it has checked; a likelihood's needs no latents."""

import pyro
import pytest
import torch
from common import small_vae
from torch import nn

import pyro_vae as pv
from pyro_vae.testing import (
    check_density,
    check_likelihood,
    check_network,
    check_posterior,
    check_prior,
    check_program,
)
from pyro_vae.validation import InvalidInput


class Plain(nn.Module):
    out_shape = (4,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, x):
        return self.layer(x)


def test_every_check_prints_one_line_that_names_its_subject(capsys):
    network = pv.networks.MLP(3, [4])
    for check, given, subject in (
        (check_density, [torch.distributions.Normal(torch.zeros(()).double(), 1.0)], "Normal"),
        (check_likelihood, [pv.likelihoods.Laplace(2, pv.networks.MLP(3, [4]))], "Laplace"),
        (check_network, [network, torch.randn(2, 3)], "MLP"),
        (check_posterior, [pv.posteriors.DiagonalNormal(1, network), torch.randn(2, 3)],
         "DiagonalNormal"),
        (check_prior, [pv.priors.StandardNormal(1)], "StandardNormal"),
        (check_program, [small_vae(), torch.zeros(4, 1, 8, 8)], "VAE"),
    ):  # fmt: skip
        check(*given)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"ok: {subject}: ") and len(line.split(", ")) > 1


def test_what_was_not_integrated_is_not_said_to_be(capsys):
    check_prior(pv.priors.StandardNormal(1))
    check_prior(pv.priors.StandardNormal(20))
    small, large = capsys.readouterr().out.splitlines()
    assert "integral" in small and "integral" not in large


def test_a_check_that_fails_prints_nothing(capsys):
    class Narrow(nn.Module):
        latent = (2,)

        def forward(self, *, context=None):
            return torch.distributions.Normal(torch.zeros(2).double(), 1.0)  # no event

    with pytest.raises(AssertionError):
        check_prior(Narrow())
    assert not capsys.readouterr().out


def test_latents_are_of_the_shape_that_the_network_takes(capsys):
    images = pv.networks.MLP((4, 2, 2), [4])
    check_likelihood(pv.likelihoods.Bernoulli((1, 8, 8), images))
    assert capsys.readouterr().out.startswith("ok: Bernoulli")


def test_a_network_that_states_no_input_shape_is_told_to_pass_z():
    likelihood = pv.likelihoods.Normal(3, Plain())
    with pytest.raises(InvalidInput, match=r"^z: got none"):
        check_likelihood(likelihood)
    check_likelihood(likelihood, torch.randn(4, 2))


def test_a_distribution_whose_expand_fails_is_named_as_the_fault():
    class Inflated(nn.Module):  # Pyro's class fails where it was made from gate_logits
        event_shape = (1,)

        def __init__(self):
            super().__init__()
            self.network = nn.Linear(2, 2)

        def forward(self, z, *, context=None):
            rate, gate = self.network(z).exp().split(1, -1)
            found = pyro.distributions.ZeroInflatedPoisson(rate, gate_logits=gate)
            assert found.mean.shape == rate.shape  # which sets what expand trips over
            return found.to_event(1)

    with pytest.raises(AssertionError, match=r"expand in Pyro's plates, and expand failed \("):
        check_likelihood(Inflated(), torch.randn(4, 2))
