"""Entries depend on one another as in the model, or the check says which do not."""

import math

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian, affine
from scipy import stats
from test_checks import EXACT, normal, verdict

import pyro_vae as pv
from pyro_vae.checks.dependence import chosen_entries, compared, tail_probability
from pyro_vae.datasets import Dataset

pytestmark = pytest.mark.usefixtures("float64")

NAME = "dependence between entries"


def blocks(num, rho, seed=0):
    """Two pairs of columns, a latent each, whose correlation the model takes for 0."""
    torch.manual_seed(seed)
    z, noise = torch.randn(num, 2), torch.randn(num, 4)
    second = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
    z = torch.stack([z[:, 0], second], 1)
    return z.repeat_interleave(2, 1) + 0.6 * noise


def blocks_model():
    """The program of `blocks` without a correlation of its latents."""
    likelihood = pv.likelihoods.Normal(4, pv.networks.MLP(2, []), scale=0.6).double()
    affine(likelihood, torch.eye(2).repeat_interleave(2, 0), torch.zeros(4))
    return pv.VAE(
        pv.priors.StandardNormal(2),
        likelihood,
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [4])),
    )


def with_missing(program):
    """The same model, whose likelihood leaves out what is missing."""
    return pv.VAE(
        program.prior,
        pv.likelihoods.Missing(program.likelihood),
        pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(4, pv.networks.MLP(8, []))),
    )


def test_correlated_latents_under_a_prior_without_correlation():
    """All checks passed data with a correlation of 0.5 where the model says 0."""
    assert verdict(NAME, blocks_model(), blocks(400, 0.0)).passed
    found = verdict(NAME, blocks_model(), blocks(400, 0.7))
    assert found.faults == ("entries depend on one another more than in the model",)
    pair = found.numbers["pair that differs most"]
    assert pair in {f"x[{i}] and x[{j}]" for i in (0, 1) for j in (2, 3)}
    assert pair in found.means and "prior that learns" in found.change
    assert abs(found.numbers["its correlation"] - 0.7 / 1.36) < 0.1
    assert abs(found.numbers["that of the model"]) < 0.1
    found.figure()


@pytest.mark.parametrize("columns", [10, 50])
def test_residuals_of_neighbours_that_depend_on_one_another(columns):
    """Latents explain most of each column, so that raw correlations hardly show the residuals'."""
    exact = LinearGaussian(2, columns)
    torch.manual_seed(0)
    z, noise = torch.randn(400, 2), torch.randn(400, columns)
    sound = z @ exact.weight.T + exact.mean + exact.noise * noise
    assert verdict(NAME, exact.program(), sound).passed
    for i in range(1, columns):
        noise[:, i] = 0.5 * noise[:, i - 1] + math.sqrt(0.75) * noise[:, i]
    planted = z @ exact.weight.T + exact.mean + exact.noise * noise
    found = verdict(NAME, exact.program(), planted)
    assert found.passed is False and "with the other entries accounted for" in found.means
    assert found.numbers["mean difference of neighbours, given the others"] > 0.2


def test_entries_that_the_model_ties_together():
    torch.manual_seed(0)
    loose = torch.randn(300, 4) * math.sqrt(1.36)
    found = verdict(NAME, blocks_model(), loose)
    assert found.faults == ("entries depend on one another less than in the model",)


def test_counts_and_binary_columns():
    random = np.random.default_rng(0)
    for draw in (random.poisson, lambda rate: random.random(rate.shape) < rate / (1 + rate)):
        rate = np.exp(random.normal(size=(6, 400, 1)) + np.zeros(3))
        made = draw(rate).astype(float)
        assert compared(made[0], made[1:], [True, True]).p_value > 0.01
        alone = np.stack([random.permutation(column) for column in made[0].T], 1)
        assert compared(alone, made[1:], [True, True]).p_value < 1e-3


def test_missing_entries_are_compared_where_both_are_known():
    x = normal(400)
    x[torch.rand(x.shape) < 0.4] = torch.nan
    program = with_missing(EXACT.program())
    assert verdict(NAME, program, Dataset(x, missing=True)).passed
    shuffled = x.clone()
    shuffled[:, 0] = shuffled[torch.randperm(400), 0]
    assert verdict(NAME, program, Dataset(shuffled, missing=True)).passed is False


def test_what_cannot_be_compared_is_said():
    few = verdict(NAME, EXACT.program(), normal(10))
    assert few.word == "could not tell" and "10 data are too few" in few.means
    small = verdict(NAME, EXACT.program(), normal(30))
    assert small.word == "could not tell" and "would have been seen" in small.means
    one = LinearGaussian(1, 1)
    assert verdict(NAME, one.program(), one.data(50)).word == "does not apply"
    x = normal(60)
    x[:, 2:] = torch.nan
    x[:30, 0] = x[30:, 1] = torch.nan  # two entries, never known together
    apart = verdict(NAME, with_missing(EXACT.program()), Dataset(x, missing=True))
    assert apart.word == "could not tell" and "known together" in apart.means


@pytest.mark.parametrize("kind", ["normal", "heavy", "rare", "rounded"])
def test_sound_data_fail_no_more_often_than_they_may(kind, monkeypatch):
    monkeypatch.setattr("pyro_vae.checks.dependence.EXCHANGES", 300)
    random, low, times = np.random.default_rng(1), 0, 60
    for _ in range(times):
        z = random.normal(size=(5, 60, 1)) + 0.7 * random.normal(size=(5, 60, 5))
        made = {
            "normal": z,
            "heavy": z / random.gamma(0.5, size=(5, 60, 1)),
            "rare": (z > 1.6).astype(float),
            "rounded": z.round(),
        }[kind]
        few = chosen_entries(made.reshape(-1, 5))
        low += compared(made[0][:, few], made[1:][..., few], [True] * (len(few) - 1)).p_value < 0.05
    assert stats.binom.sf(low - 1, times, 0.05) > 0.001


def test_the_p_value_of_a_permutation_is_exact_and_its_tail_is_no_smaller_than_a_normals():
    random = np.random.default_rng(0)
    exchanged = np.abs(random.normal(size=(1000, 40))).max(1)
    inside = tail_probability(np.array([2.0]), exchanged)
    assert inside[0] == ((exchanged[1:] >= 2.0).sum() + 1) / 1000
    for z in (4.0, 5.0, 6.0):
        p = tail_probability(np.array([z]), exchanged)[0]
        assert 80 * stats.norm.sf(z) < p < 1e-2


def test_of_many_entries_runs_of_neighbours_are_taken():
    values = np.random.default_rng(0).normal(size=(50, 400))
    values[:, 7] = 1.0
    few = chosen_entries(values)
    assert 100 < len(few) <= 128 and 7 not in few
    assert (np.diff(few) == 1).sum() > len(few) / 2
