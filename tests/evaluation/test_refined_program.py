"""A program whose guide is refitted at every run is scored as the guide that drew."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from closed_forms import affine
from pyro import poutine

import pyro_vae as pv
from pyro_vae.diagnostics import calibrate
from pyro_vae.evaluation import (
    Defensive,
    Guide,
    Refitted,
    UnreliableEstimate,
    Widened,
    ais,
    bdmc,
    decompose,
)
from pyro_vae.runtime.conditioned import conditioned

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


def test_a_guide_fitted_once_is_the_one_that_is_fitted_at_every_run():
    program, exact = refined_program()
    with conditioned(program, exact.sample((6,)), 0) as given:
        once = given.fitted()
        values = once.draw(once.guide, 5)
        again, _ = given.log_density(given.guide, values)
        assert torch.equal(once.log_density(once.guide, values)[0], again)
        other = replace(given, noise=given.noise + 1).fitted()
        assert not torch.equal(other.log_density(other.guide, values)[0], again)


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


def refined_posteriors(program, x, noises):
    """The refitted guide's means and scales (noises, N, 2), by as many runs of its own noise."""
    many = x.repeat(noises, 1)
    with torch.no_grad():
        normal = poutine.trace(program.guide).get_trace(many).nodes["z"]["fn"]
    return normal.mean.reshape(noises, len(x), 2), normal.stddev.reshape(noises, len(x), 2)


def test_the_parts_of_its_elbo_are_those_of_the_guides_it_is_refitted_to():
    """Each datum's bound is the mean over the noise of closed forms, which `decompose` samples."""
    program, exact = refined_program()
    program.eval()
    x = exact.sample((20,))
    loc, scale = refined_posteriors(program, x, 1000)
    q = torch.distributions.Normal(loc, scale)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    weight, bias = (
        program.program.likelihood.head.layer.weight,
        program.program.likelihood.head.layer.bias,
    )
    residual = (x - loc @ weight.T - bias).square().sum(-1) + (
        scale.square() @ weight.square().T
    ).sum(-1)
    log_x = -0.5 * residual / 0.49 - 4 * math.log(0.7 * math.sqrt(2 * math.pi))
    right = {"kl": kl, "kl/z": kl, "reconstruction": log_x, "elbo": log_x - kl}
    parts = decompose(program, x, 400)
    assert parts.keys() == right.keys()
    for name, score in parts.items():
        exact_parts = right[name].mean(0).detach()
        low, high = score.interval()
        assert ((low <= exact_parts) & (exact_parts <= high)).double().mean() >= 0.85
        assert abs(score.mean - exact_parts.mean()) < 4 * score.mean_mc_se


def test_its_information_and_mismatch_add_up_to_the_kl_of_the_guides_it_is_refitted_to():
    program, exact = refined_program()
    x = exact.sample((40,))
    parts = pv.evaluation.aggregate_posterior(program, x, 30)
    loc, scale = refined_posteriors(program.eval(), x, 500)
    q = torch.distributions.Normal(loc, scale)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    # One noise for all draws: its spread over data is that of the mean too.
    error = math.hypot(parts.errors["kl"], kl.mean(1).std().item())
    assert abs(parts.kl - kl.mean()) < 4 * error
    assert parts.kl == pytest.approx(parts.mutual_information + parts.marginal_kl)
    assert 0 < parts.mutual_information < math.log(40)


def test_its_calibration_ranks_truths_by_the_density_that_drew():
    """The mean ranks are those of the guides' distribution functions at the truths."""
    program, _ = refined_program()
    result = calibrate(program, 1500, 19)
    z = torch.randn(1500, 2)
    with torch.no_grad():
        x = program.program.likelihood(z).sample()
    loc, scale = refined_posteriors(program.eval(), x, 30)
    inside = (z - loc) / scale
    right = {
        "density": 1 - (-inside.square().sum(-1) / 2).exp(),  # chi-square's with two dimensions
        "first": torch.special.ndtr(inside[..., 0]),
        "second": torch.special.ndtr(inside[..., 1]),
    }
    ranks = [result.density_ranks, *result.ranks.T]
    for (name, expected), rank in zip(right.items(), ranks):
        found, each = rank.double() / 19, expected.mean(0)
        error = math.hypot(found.std().item(), each.std().item()) / 1500**0.5
        assert abs(found.mean() - each.mean()) < 4 * error, name
    assert right["density"].mean() > 0.6  # the guides are too narrow, so this is no uniform's mean
