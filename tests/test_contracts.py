"""Everything in each family's `__all__` keeps its contract; a new class is tested without being listed."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import check_likelihood, check_network, check_posterior, check_prior, check_program

MLP = pv.networks.MLP


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.priors.__all__)
def test_prior(name, latent):
    check_prior(getattr(pv.priors, name)(latent))


@pytest.mark.parametrize("event", [1, 3, (1, 4, 4)])
@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_likelihood(name, event):
    cls = getattr(pv.likelihoods, name)
    check_likelihood(cls(event, MLP(2, [8])), torch.randn(4, 2))
    check_likelihood(cls(event, MLP(2, [8], context=3)), torch.randn(4, 2), context=torch.randn(4, 3))


@pytest.mark.parametrize("learn_scale", [None, "shared", "per_feature"])
def test_normal_likelihood_with_every_kind_of_scale(learn_scale):
    check_likelihood(pv.likelihoods.Normal(1, MLP(2, [8]), scale=0.5, learn_scale=learn_scale), torch.randn(4, 2))


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.posteriors.__all__)
def test_posterior(name, latent):
    cls = getattr(pv.posteriors, name)
    check_posterior(cls(latent, MLP(3, [8])), torch.randn(4, 3))
    check_posterior(cls(latent, MLP(3, [8], context=2)), torch.randn(4, 3), context=torch.randn(4, 2))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 9), (1, 28, 28)])
@pytest.mark.parametrize("name", pv.networks.__all__)
@pytest.mark.parametrize("context", [0, 3])
def test_network(name, shape, context):
    # A network that makes images takes the latent; the others take the image.
    if name == "ConvTranspose":
        network, x = pv.networks.ConvTranspose(4, shape, [6, 5], context=context), torch.randn(3, 4)
        assert network.out_shape == (5, *shape[1:])
    else:
        network, x = getattr(pv.networks, name)(shape, context=context), torch.randn(3, *shape)
    check_network(network, x, context=torch.randn(3, context) if context else None)


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
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=getattr(pv.likelihoods, likelihood)((1, 4, 4), MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, MLP((1, 4, 4), [8], context=3)),
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
