"""A program whose guide is refitted at every run is scored as the guide that drew."""

import warnings

import pytest
import torch
from closed_forms import affine

import pyro_vae as pv
from pyro_vae.evaluation import (
    Defensive,
    Guide,
    Refitted,
    UnreliableEstimate,
    Widened,
    ais,
    bdmc,
)

pytestmark = pytest.mark.usefixtures("float64")


def refined_program():
    """A linear-Gaussian program with a poor encoder, refined; with its exact log p(x)."""
    likelihood = pv.likelihoods.Normal(4, pv.networks.MLP(2, []), scale=0.7)
    weight, mean = torch.randn(4, 2), torch.randn(4)
    affine(likelihood, weight, mean)
    posterior = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, []))
    gain = torch.linalg.solve(torch.eye(2) + weight.T @ weight / 0.49, weight.T / 0.49)
    layer = posterior.head.layer
    with torch.no_grad():
        layer.weight.copy_(torch.cat([gain, torch.zeros(2, 4)]))
        layer.bias.copy_(torch.tensor([0.3, 0.3, -1.0, -1.0]))
    exact = torch.distributions.MultivariateNormal(mean, weight @ weight.T + 0.49 * torch.eye(4))
    return pv.Refined(pv.VAE(pv.priors.StandardNormal(2), likelihood, posterior)), exact


PROPOSALS = [Guide(), Widened(1.3), Defensive(), Defensive(of=Widened(1.3)), Refitted(steps=20)]


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
def test_every_proposal_gives_the_exact_log_p_within_its_error(proposal):
    program, exact = refined_program()
    x = exact.sample((100,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        score = pv.log_likelihood(program, x, 1000, proposal=proposal)
    assert abs(score.mean - exact.log_prob(x).mean()) < 3 * score.mean_mc_se


def test_annealing_from_the_guide_is_within_its_error_of_the_exact_log_p():
    program, exact = refined_program()
    x = exact.sample((50,))
    score = ais(program, x, 16, 50, start="guide")
    assert abs(score.mean - exact.log_prob(x).mean()) < 3 * score.mean_mc_se


def test_bounds_from_the_guide_hold_the_exact_log_p():
    program, exact = refined_program()
    bounds = bdmc(program, 60, 8, 50, start="guide")
    truth = exact.log_prob(bounds.x)
    below, above = bounds.lower.values - truth, truth - bounds.upper.values
    for excess in (below, above):
        assert excess.mean() < 3 * excess.std() / len(excess) ** 0.5


def test_the_weights_of_draws_for_arviz_are_those_of_the_guide_that_drew():
    program, exact = refined_program()
    x = exact.sample((50,))
    data = pv.to_inference_data(program, x, 1000)
    weights = torch.as_tensor(data.sample_stats["log_weight"].values[0])
    means = weights.logsumexp(0) - torch.tensor(1000.0).log()
    difference = means - exact.log_prob(x)
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5
