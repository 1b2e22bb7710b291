"""Sizes of counts as a latent: its density, where it starts, and log p(x) against an integral."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput

MLP, LatentSize = pv.networks.MLP, pv.likelihoods.LatentSize


def test_given_z_it_is_the_likelihood_of_that_size(float64):
    torch.manual_seed(0)
    likelihood = LatentSize(4, MLP(3, [8]), of="NegativeBinomial")
    z, x = torch.randn(5, 3), torch.poisson(torch.full((5, 4), 3.0))
    likelihood.initialize(x)
    totals = x.sum(1).log()
    size = (totals.mean() + totals.std(correction=0) * z[:, -1]).exp()
    known = pv.likelihoods.NegativeBinomial(4, likelihood.network, size_factor="total")
    known.head, known.shape = likelihood.part.head, likelihood.part.shape
    others = torch.cat([z[:, :-1], torch.zeros(5, 1)], 1)
    expected = known(others, size_factor=size).log_prob(x)
    torch.testing.assert_close(likelihood(z).log_prob(x), expected)
    torch.testing.assert_close(likelihood(z).mean.sum(1), size)


def test_log_p_is_the_integral_over_the_size(float64):
    """With one column, x is Poisson of a log-normal rate: quadrature has log p(x)."""
    torch.manual_seed(0)
    x = torch.tensor([[3.0], [8.0], [15.0]])
    likelihood = LatentSize(1, MLP(1, []), of="Poisson")
    likelihood.log_size.fill_(2.0), likelihood.spread.fill_(0.7)
    vae = pv.VAE(
        pv.priors.StandardNormal(1), likelihood, pv.posteriors.DiagonalNormal(1, MLP(1, [4]))
    )
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    rate = np.exp(2.0 + 0.7 * points)
    masses = scipy.stats.poisson.pmf(x.numpy(), rate) @ weights / math.sqrt(2 * math.pi)
    score = pv.log_likelihood(
        vae, x, num_samples=20_000, proposal=pv.evaluation.proposals.Defensive()
    )
    error = score.values.numpy() - np.log(masses)
    assert (np.abs(error) < 4 * score.mc_se.numpy() + 1e-9).all()


def test_training_starts_from_the_sizes_of_the_data():
    counts = torch.poisson(torch.linspace(1, 30, 40)[:, None].expand(40, 6))
    counts[0, 0] = torch.nan
    likelihood = LatentSize(6, MLP(2, [8]))
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Missing(likelihood),
        pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(6, MLP(12, [8]))),
    )
    data = pv.datasets.Dataset(counts, missing=True)
    pv.fit(vae, data, epochs=1, progress=False)
    totals = counts.nansum(1).log()
    torch.testing.assert_close(likelihood.log_size, totals.mean())
    torch.testing.assert_close(likelihood.spread, totals.std(correction=0))


@pytest.mark.parametrize("of", ["Normal", "Multinomial", "Nothing"])
def test_a_likelihood_without_a_size_is_refused(of):
    with pytest.raises(InvalidInput, match="of: got '" + of):
        LatentSize(3, MLP(2, [8]), of=of)


def test_the_sizes_are_those_of_data_that_were_seen(float64):
    """A datum that is missing as a whole, as of a modality that was not measured, has no total."""
    x = torch.poisson(torch.full((60, 5), 200.0))
    few = pv.likelihoods.LatentSize(5, pv.networks.MLP(2, []), of="Poisson")
    many = pv.likelihoods.LatentSize(5, pv.networks.MLP(2, []), of="Poisson")
    few.initialize(x)
    many.initialize(torch.cat([x, torch.full((40, 5), torch.nan)]))
    assert few.log_size == many.log_size and few.spread == many.spread
    many.initialize(torch.full((3, 5), torch.nan))  # which says nothing
    assert few.log_size == many.log_size
