"""How scores, differences and bounds show, and the difference of two scores."""

import math

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import Difference, Score, Spread, spread
from pyro_vae.evaluation.annealed_score import UpperBound
from pyro_vae.validation import InvalidInput

X = (torch.arange(5 * 64) % 3 == 0).float().reshape(5, 1, 8, 8)


def every_result(data):
    """One result of every kind on data, by name."""
    vae = small_vae()
    elbo, ll = pv.elbo(vae, data, 30), pv.log_likelihood(vae, data, 400)
    return {
        "elbo": elbo,
        "one draw": pv.elbo(vae, data, 1),
        "log_likelihood": ll,
        "few draws": pv.log_likelihood(vae, data, 3),
        "ais": pv.evaluation.ais(vae, data, 16, 4, num_leapfrog=2),
        "bdmc": pv.evaluation.bdmc(vae, len(data), 16, 4, num_leapfrog=2),
        "difference": ll - pv.log_likelihood(vae, data, 400, seed=1),
        "of one draw": elbo - pv.elbo(vae, data, 1),
        "spread": spread([elbo]),
        "squared error": pv.evaluation.squared_error(vae, data),
    }


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("num", [1, 5])
def test_every_result_shows_in_one_line_and_in_a_table_without_a_nan(num):
    for name, result in every_result(X[:num]).items():
        words, page = repr(result), result._repr_html_()
        assert "\n" not in words and len(words) < 250, name
        assert words.startswith(f"{type(result).__name__}(")
        for shown in (words, str(result), page):
            assert "nan" not in shown.lower(), (name, shown)
        assert page.startswith("<table>") and page.count("<tr>") == page.count("</tr>") >= 2


def test_the_line_of_a_score_holds_its_numbers():
    values = torch.tensor([-90.0, -92.0])
    assert repr(Score(values, torch.tensor([0.1, 0.1]), 10**6)) == (
        "Score(-91.00 +- 1.00 nats (Monte Carlo error 0.071, K = 1000000))"
    )
    assert str(Score(values[:1], torch.tensor([0.1]), 10**6)) == (
        "-90.00 nats (one datum, Monte Carlo error 0.1, K = 1000000)"
    )
    assert str(Spread(-1.0, math.nan, 1)) == "-1.00 nats (one run)"
    assert str(Difference(1.5, math.nan, 0.1, 1)) == (
        "+1.50 nats (Monte Carlo error 0.1, one datum)"
    )


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (Score(torch.tensor([0.0123, 0.0127]), torch.zeros(2), 1), "0.01250 +- 0.00020"),
        (Difference(-0.00123, 0.00004, 0.0, 9), "-0.001230 +- 0.000040"),
        (Spread(0.0125, 0.0004, 3), "0.01250 +- 0.00040"),
    ],
)
def test_a_small_error_is_shown_with_two_digits_and_never_as_zero(shown, words):
    assert words in str(shown)
    for number in words.split(" +- "):
        assert number in shown._repr_html_()


def test_a_squared_error_is_not_in_nats():
    vae, other = small_vae(), small_vae(seed=1)
    error, second = pv.evaluation.squared_error(vae, X), pv.evaluation.squared_error(other, X)
    for found in (error, error - second, spread([error, error])):
        for shown in (str(found), repr(found), found._repr_html_()):
            assert "squared units of x" in shown and "nats" not in shown
    for shown in (str(pv.elbo(vae, X, 3)), str(pv.elbo(vae, X, 3) - pv.elbo(vae, X, 3))):
        assert " nats (" in shown
    with pytest.raises(InvalidInput, match=r"got squared units of x .* and nats"):
        error - pv.elbo(vae, X, 3)
    with pytest.raises(InvalidInput, match="score: got squared units of x, expected nats"):
        pv.evaluation.bits_per_dim(error, (1, 8, 8))


def test_a_difference_is_what_minus_gives():
    vae = small_vae()
    first, second = pv.elbo(vae, X, 30), pv.elbo(vae, X, 30, seed=1)
    assert first - second == pv.compare(first, second)
    assert (first - second).mean == pytest.approx((first.values - second.values).mean().item())
    with pytest.raises(TypeError):
        first - 3.0


def annealed(kind, values, ess):
    filled = torch.full_like(values, ess)
    return kind(values, filled / 100, 16, ess=filled, acceptance=filled, num_temperatures=4,
                num_leapfrog=2, start="prior", sha256="same")  # fmt: skip


def test_the_difference_of_bounds_says_on_which_side_the_true_one_lies():
    values = torch.tensor([-90.0, -92.0])
    exact = Score(values, torch.tensor([0.1, 0.1]), 100, sha256="same")
    low = annealed(pv.evaluation.AnnealedScore, values, 1.0)
    high = annealed(UpperBound, values, 10.0)
    signs = {
        (a, b): (scores[a] - scores[b]).sign
        for scores in [{"exact": exact, "low": low, "high": high}]
        for a in scores
        for b in scores
    }
    assert signs == {
        ("exact", "exact"): "",
        ("exact", "low"): "<=",
        ("exact", "high"): ">=",
        ("low", "exact"): ">=",
        ("low", "low"): "~",
        ("low", "high"): ">=",
        ("high", "exact"): "<=",
        ("high", "low"): "<=",
        ("high", "high"): "~",
    }
    assert str(low - exact).startswith(">= +0.00 +- 0.00 nats (Monte Carlo error unknown")
    assert str(low - exact).endswith("; >= the true one may be larger)")
    for shown in (str(low - low), (low - low)._repr_html_()):
        assert "both are bounds: the true one may be larger or smaller" in shown
