"""Distances of a guide from a reference: zero if equal, else of the right size."""

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian
from sklearn.linear_model import LogisticRegression

import pyro_vae as pv
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import compare_posteriors, two_sample_test
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def chains():
    exact = LinearGaussian(2, features=4)
    return exact, pv.to_inference_data(
        exact.program(shift=2.0), exact.data(1), 600, sampler=NUTS(num_chains=2, warmup=60)
    )


def test_nuts_draws_from_the_exact_posterior_whatever_the_guide(chains):
    exact, reference = chains
    z = torch.from_numpy(reference.posterior["z"].values)
    assert z.shape == (2, 300, 1, 2) and reference.posterior.attrs["note"].startswith(
        "These draws are Markov chains"
    )
    error = (
        exact.covariance.diagonal() / torch.from_numpy(reference.diagnostics["ess"].values)
    ).sqrt()
    assert ((z.mean((0, 1)) - (exact.data(1) - exact.mean) @ exact.gain.T).abs() < 4 * error).all()
    correlations = torch.corrcoef(exact.covariance)
    spread = exact.covariance.diagonal().sqrt()
    torch.testing.assert_close(
        torch.cov((z[:, :, 0].flatten(0, 1) / spread).T), correlations, rtol=0, atol=0.3
    )
    assert (reference.diagnostics["r_hat"] < 1.05).all() and not reference.sample_stats[
        "diverging"
    ].any()


def test_an_exact_guide_is_indistinguishable(chains):
    exact, reference = chains
    comparison = compare_posteriors(
        pv.to_inference_data(exact.program(), exact.data(1), 2000), reference
    )
    (test,) = comparison.tests
    assert not comparison.distinguishable.any() and abs(test.accuracy - 0.5) < 2.5 * test.se < 0.15
    assert (comparison.wasserstein < 2 * comparison.noise + 0.1).all() and (
        np.abs(comparison.shift) < 0.25
    ).all()
    assert "0 of 1 data distinguishable" in str(comparison)


@pytest.mark.parametrize(
    "wrong, shift, log_scale", [({"shift": 1.0}, 1.0, 0.0), ({"widen": 0.4}, 0.0, np.log(0.4))]
)
def test_a_wrong_guide_is_distinguishable_by_what_is_wrong_with_it(chains, wrong, shift, log_scale):
    exact, reference = chains
    comparison = compare_posteriors(
        pv.to_inference_data(exact.program(**wrong), exact.data(1), 2000), reference
    )
    assert comparison.distinguishable.all() and (comparison.accuracy > 0.6).all()
    np.testing.assert_allclose(comparison.log_scale, log_scale, atol=0.2)
    np.testing.assert_allclose(comparison.shift[:, 0], shift, atol=0.25)
    # in closed form: two normals' distance, W1 = |shift| where the scales agree, and |1 - r| E|e|
    # where the means do
    np.testing.assert_allclose(
        comparison.wasserstein[:, 0], shift or 0.6 * np.sqrt(2 / np.pi), atol=0.25
    )


def test_the_datum_that_is_most_wrong_comes_first():
    exact = LinearGaussian(2, features=4)
    x, program = exact.data(3), exact.program()
    right, wrong = (
        pv.to_inference_data(program, data, 500, seed=seed)
        for seed, data in enumerate([x, x + torch.tensor([[0], [3], [0.0]])])
    )
    rows = compare_posteriors(wrong, right).rows()
    assert rows[0]["datum"] == 1 and rows[0]["C2ST"] > 0.8 > rows[1]["C2ST"] >= rows[2]["C2ST"]


def test_the_two_sample_test_has_the_level_that_it_claims():
    random = np.random.default_rng(0)
    scores = [
        two_sample_test(*random.normal(size=(2, 200, 3)), seed=seed).z_score for seed in range(40)
    ]
    assert abs(np.mean(scores)) < 0.5 and 0.6 < np.std(scores) < 1.4
    # correlations alone, which no single dimension shows, and which a linear classifier cannot see
    a = random.normal(size=(600, 2))
    b = random.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=600)
    assert (
        two_sample_test(a, b).z_score
        > 3
        > two_sample_test(a, b, classifier=LogisticRegression()).z_score
    )


def test_what_does_not_fit_together_is_refused(chains):
    exact, reference = chains
    with pytest.raises(InvalidInput, match="reference: got 1 data"):
        compare_posteriors(pv.to_inference_data(exact.program(), exact.data(3), 50), reference)
    with pytest.raises(InvalidInput, match="draws: got 6"):
        two_sample_test(np.zeros((6, 1)), np.zeros((9, 1)))
    with pytest.raises(InvalidInput, match="data: got no group posterior"):
        compare_posteriors(
            pv.log_likelihood(exact.program(), exact.data(3), 10).to_inference_data(), reference
        )
