"""Scores that are only bounds say so."""

import math

import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation.annealed_score import AnnealedScore
from pyro_vae.evaluation.annealing import Sandwich
from pyro_vae.evaluation.importance_score import draws_needed, share_of_bounds, summarize
from pyro_vae.evaluation.scores import Score, elbo_score


def weights_of(scale, num_samples=1000, num_data=8):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(num_samples, num_data, generator=generator, dtype=torch.float64)


def test_a_score_is_a_bound_where_its_tail_is_heavy_or_unknown():
    light, heavy = summarize(weights_of(0.3)), summarize(weights_of(4.0))
    assert share_of_bounds(light) == 0 and "+-" in str(light)
    assert share_of_bounds(heavy) == heavy.above_threshold / 8 > 0
    assert str(heavy).startswith(">= ") and "+-" not in str(heavy)
    assert share_of_bounds(summarize(weights_of(0.3, num_samples=20))) == 1
    assert share_of_bounds(Score(torch.zeros(3), torch.zeros(3), 5)) == 0
    exact = summarize(torch.zeros(1000, 3))
    assert share_of_bounds(exact) == 0


def exponential(shape):
    """Draws of Exp(1), from uniform numbers of the generator that is seeded."""
    return -torch.rand(shape, dtype=torch.float64).log()


def of_a_narrow_guide(scale, latent):
    """Log-weights of N(0, s^2) for N(0, 1) in so many dimensions: E w = 1."""

    def drawn(shape):
        normal = torch.randn(latent, *shape, dtype=torch.float64)
        return latent * math.log(scale) + normal.square().sum(0) * (1 - scale**2) / 2

    return drawn, 0.0


def log_normal(scale):
    return lambda shape: scale * torch.randn(shape, dtype=torch.float64), scale**2 / 2


# Log-weights, and the logarithm of the mean weight.
LIGHT = {
    "log-normal, 0.5": log_normal(0.5),
    "narrow by 0.95": of_a_narrow_guide(0.95, 5),
    "narrow by 0.9": of_a_narrow_guide(0.9, 2),
    "bounded": (lambda shape: -5 * exponential(shape), -math.log(6)),
}
HEAVY = {
    **{f"log-normal, {scale}": log_normal(scale) for scale in (1.0, 1.5, 2.0, 2.5, 3.0)},
    "narrow by 0.8": of_a_narrow_guide(0.8, 5),
    "narrow by 0.6": of_a_narrow_guide(0.6, 1),
    "Pareto, 0.45": (lambda shape: 0.45 * exponential(shape), -math.log(0.55)),
    "Pareto, 0.7": (lambda shape: 0.7 * exponential(shape), -math.log(0.3)),
}


def stated_of_single_data(weights, num_samples, num_data=1000):
    """Of many data, each scored alone: which state an interval, and which say what is true."""
    torch.manual_seed(0)
    drawn, truth = weights
    score = summarize(drawn((num_samples, num_data)))
    low, high = score.interval()
    return ~score.is_bound, (low <= truth) & (truth <= high)


@pytest.mark.parametrize("num_samples", [100, 400])
@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_what_is_said_of_a_single_datum_is_true_however_heavy_its_weights(name, num_samples):
    """An interval or a bound. Half of the intervals missed, for log-normal weights of scale 2."""
    is_stated, is_true = stated_of_single_data({**LIGHT, **HEAVY}[name], num_samples)
    assert is_true.double().mean() > 0.93
    if is_stated.double().mean() > 0.4:
        assert 0.9 < is_true[is_stated].double().mean() <= 0.99


@pytest.mark.parametrize("name", LIGHT)
def test_a_single_datum_with_light_weights_has_an_interval(name):
    is_stated, _ = stated_of_single_data(LIGHT[name], 400)
    assert is_stated.double().mean() > 0.95


def test_so_many_draws_bring_the_bias_down_to_what_was_asked_for():
    """Log-normal weights: the bias of log-mean-exp is known by simulation."""
    scale = 0.8
    needed = draws_needed(summarize(weights_of(scale, 10_000)), bias=0.01)
    assert needed == pytest.approx((torch.tensor(scale**2).exp() - 1).item() / 0.02, rel=0.1)
    many = weights_of(scale, needed, 20_000).logsumexp(0) - torch.tensor(float(needed)).log()
    assert many.mean().item() - scale**2 / 2 == pytest.approx(-0.01, abs=0.004)


def test_crossed_bounds_are_not_printed_as_an_inequality():
    def score(values):
        few = torch.zeros(2)
        return AnnealedScore(torch.tensor(values), few, 4, few, few, 10, 5, "prior")

    x = torch.zeros(2, 3)
    ordered = str(Sandwich(score([-5.0, -6.0]), score([-4.0, -5.5]), x, None))
    crossed = str(Sandwich(score([-4.0, -5.5]), score([-5.0, -6.0]), x, None))
    assert ordered.startswith("-5.500 <= log p(x) <= -4.750, gap 0.750")
    assert crossed.startswith("crossed bounds: lower -4.750, upper -5.500, gap -0.750")
    assert "<=" not in crossed


def test_so_few_draws_say_how_many_it_would_take():
    few = summarize(weights_of(0.8, num_samples=20))
    assert f"about {draws_needed(few):,} would bring the bias below 0.01 nats" in str(few)
    for count in (21, 25, 30):  # ArviZ fits a tail of 21 draws or, in its 1.3, of 30
        score = summarize(weights_of(0.8, num_samples=count))
        assert ("would bring" in str(score)) == bool(score.pareto_k.isnan().all()), count
    assert not score.pareto_k.isnan().any()


def test_the_error_of_a_mean_is_not_widened_for_the_skewness_of_each_datums_weights():
    score = summarize(weights_of(1.0, 1000, 400))
    alone = math.sqrt((math.e - 1) / 1000)
    assert (score.mc_se / score.standard_error).median() > 1.1
    assert score.mean_mc_se == pytest.approx(math.hypot(alone / 20, alone**2 / 2), rel=0.05)


SHAPES = {
    "normal": lambda terms: terms,
    "exponential": lambda terms: 1 + torch.special.log_ndtr(terms),
    "square": lambda terms: 1 - terms**2,  # of a guide of the wrong scale in one latent
    "log-normal": lambda terms: terms.exp() - math.exp(0.5),
}


@pytest.mark.parametrize("num_samples", [2, 3, 4, 5, 10, 15, 20, 40, 60, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_of_a_bound_cover_whatever_k_is_and_however_skewed_its_terms(num_samples, shape):
    generator = torch.Generator().manual_seed(1)
    num_data = min(20_000, 1_000_000 // num_samples)
    normal = torch.randn(num_samples, num_data, generator=generator, dtype=torch.float64)
    terms = SHAPES[shape](normal)
    score = elbo_score(terms)
    low, high = score.interval()
    assert 0.925 < ((low <= 0) & (high >= 0)).double().mean() <= 0.992
    assert abs(score.mean) < 3 * score.mean_mc_se
    error = terms.std().item() / terms.numel() ** 0.5
    assert score.mean_mc_se == pytest.approx(error, rel=0.05)  # of all draws, and not widened


def test_a_few_draws_that_are_all_alike_tell_nothing_of_their_spread():
    score = elbo_score(torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    assert score.mc_se.isnan().tolist() == [True, False]
    low, high = score.interval()
    assert low[0] == -torch.inf and high[0] == torch.inf and 0 < score.mean_mc_se < 2
    assert elbo_score(torch.zeros(21, 2, dtype=torch.float64)).mc_se.tolist() == [0, 0]


def test_a_guide_that_chooses_a_code_has_a_bound_without_monte_carlo_error():
    program = pv.VAE(
        pv.priors.UniformCodes((2, 2, 2)),
        pv.likelihoods.Bernoulli(5, pv.networks.MLP((2, 2, 2), [8])),
        pv.posteriors.Codebook((2, 2, 2), pv.networks.MLP(5, [8]), codes=6),
    )
    score = pv.elbo(program, torch.zeros(4, 5), 3)
    assert (score.mc_se < 1e-3).all() and score.mean_mc_se < 1e-3
