"""Likelihoods whose support depends on the latents: scored rightly, and said where they cannot."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([-1.2, -0.3, 0.0, 0.4, 1.7, 0.9])


def uniform(z):
    return dist.Uniform(z, z + 1)


def pair(q, p=uniform, prior=lambda x: dist.Normal(torch.zeros_like(x), 1.0)):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", p(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    return pv.Program(model, guide, modules=nn.Linear(1, 1), event_shape=())


def exact(x):
    normal = dist.Normal(0.0, 1.0)
    return (normal.cdf(x) - normal.cdf(x - 1)).log()


GUIDES = {
    "inside": lambda x: dist.Uniform(x - 1, x),
    "wide": lambda x: dist.Normal(x - 0.5, 0.7),
    "of one place": lambda x: dist.Normal(0.0 * x, 1.5),
}


@pytest.mark.parametrize("name", GUIDES)
def test_a_uniform_that_moves_with_the_latent_has_its_exact_log_likelihood(name):
    score = pv.log_likelihood(pair(GUIDES[name]), X, 5000)
    assert ((score.values - exact(X)).abs() < 4 * score.mc_se).all()
    assert score.mc_se.max() < 0.1 and score.above_threshold == 0


def test_a_bound_of_draws_without_a_density_is_minus_infinity():
    assert pv.elbo(pair(GUIDES["inside"]), X, 50).values.isfinite().all()
    score = pv.elbo(pair(GUIDES["wide"]), X, 50)
    assert (score.values == -torch.inf).all() and score.mc_se.isnan().all()


def test_a_count_of_at_most_a_latent_count_has_its_exact_log_likelihood():
    """Of z ~ Poisson(3) each is kept with probability 1/2, so that x ~ Poisson(1.5)."""
    x = torch.arange(5.0)
    program = pair(
        lambda x: dist.Poisson(4.0).expand(x.shape),
        lambda z: dist.Binomial(z, 0.5),
        lambda x: dist.Poisson(3.0).expand(x.shape),
    )
    score = pv.log_likelihood(program, x, 5000)
    assert ((score.values - dist.Poisson(1.5).log_prob(x)).abs() < 4 * score.mc_se).all()


def test_neighbours_are_looked_for_where_some_draws_have_no_density():
    """A Pareto has no density below its scale, which here are those of some draws only."""

    def program(mixed):
        return pair(
            lambda x: dist.Normal(x.log() - 0.2, 0.7),
            lambda z: dist.Pareto((z + mixed * z.flip(-1)).exp(), 2.0),
        )

    x = X.exp()
    weights = pv.evaluation.importance_weights(program(0.0), x, 50)
    assert 0.2 < (weights == -torch.inf).double().mean() < 0.6
    with pytest.raises(InvalidInput, match="depends on the other data in its batch"):
        pv.log_likelihood(program(0.1), x, 50)


def test_a_datum_that_no_draw_can_have_made_is_named():
    with pytest.raises(InvalidInput, match=r"-inf for all 50 draws of datum 1, .*site 'x'"):
        program = pair(lambda x: dist.Normal(torch.zeros_like(x), 0.1))
        pv.log_likelihood(program, torch.tensor([0.5, 30.0]), 50)
    fixed = pair(GUIDES["wide"], lambda z: dist.Uniform(0.0 * z, 1.0))
    with pytest.raises(InvalidInput, match="3 of 6 data outside the likelihood's support"):
        pv.log_likelihood(fixed, X, 50)


class Moving(nn.Module):
    event_shape = (1,)

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, z, *, context=None):
        return uniform(z + self.shift).to_event(1)


@pytest.mark.parametrize("objective", [pv.objectives.ELBO(), pv.objectives.IWAE(5)])
def test_training_says_that_a_draw_has_no_density(objective):
    q = pv.posteriors.DiagonalNormal(1, pv.networks.MLP(1, [4]))
    program = pv.VAE(pv.priors.StandardNormal(1), Moving(), q)
    with pytest.raises(InvalidInput, match="x: got values outside of the support that some draws"):
        pv.fit(program, X[:, None], objective=objective, epochs=1, progress=False)
