"""Components put together keep the contract of a program, and the checks can fail."""

import pytest
import torch
from conftest import likelihood_of

import pyro_vae as pv
from pyro_vae.testing import check_network, check_prior, check_program

MLP = pv.networks.MLP


@pytest.mark.parametrize("posterior", pv.posteriors.__all__)
@pytest.mark.parametrize("prior", pv.priors.__all__)
def test_prior_with_posterior(prior, posterior):
    program = pv.VAE(
        prior=getattr(pv.priors, prior)(2),
        likelihood=pv.likelihoods.Bernoulli(5, MLP(2, [8])),
        posterior=getattr(pv.posteriors, posterior)(2, MLP(5, [8])),
    )
    check_program(program, torch.bernoulli(torch.rand(4, 5)))


@pytest.mark.parametrize("likelihood", pv.likelihoods.__all__)
def test_conditional_program(likelihood):
    likelihood = likelihood_of(likelihood, (1, 4, 4), MLP(2, [8], context=3))
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=likelihood,
        posterior=pv.posteriors.DiagonalNormal(2, MLP(likelihood.event_shape, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    labels = torch.tensor([0, 1, 2, 1])
    check_program(program, pv.generate(program, 4, context=labels, draws=True), context=labels)


class Broken(torch.nn.Module):
    """A prior whose density is twice what it should be."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent

    def forward(self, *, context=None):
        class Doubled(torch.distributions.Normal):
            def log_prob(self, value):
                return super().log_prob(value) + 0.6931
        return torch.distributions.Independent(Doubled(torch.zeros(1, dtype=torch.float64), 1.0), 1)


class Forgetful(pv.priors.StandardNormal):
    """A prior that does not keep its argument."""

    def __init__(self, size):
        super().__init__(size)


def test_checks_can_fail():
    with pytest.raises(AssertionError, match="integrates to"):
        check_prior(Broken(1))
    with pytest.raises(pv.validation.InvalidInput, match="size = size"):
        check_prior(Forgetful(2))
    network = MLP(3, [4])
    network.out_shape = (5,)
    with pytest.raises(AssertionError, match="out_shape"):
        check_network(network, torch.randn(2, 3))
