"""Scores that are only bounds say so."""

import pytest
import torch

from pyro_vae.evaluation.annealed_score import AnnealedScore
from pyro_vae.evaluation.annealing import Sandwich
from pyro_vae.evaluation.importance_score import draws_needed, share_of_bounds, summarize
from pyro_vae.evaluation.scores import Score


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
