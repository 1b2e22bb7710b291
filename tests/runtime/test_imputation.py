"""Missing entries are filled in with the density that the program has for them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def linear_gaussian():
    """x = W z + b + .5 noise, and q(z | x) exact for rows that miss their last column."""
    q = pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(2, MLP(4, [])))
    likelihood = pv.likelihoods.Normal(2, MLP(1, []), scale=0.5)
    w, b = torch.tensor([[1.0], [2.0]]), torch.tensor([0.5, -1.0])
    precision = 1 + w[0, 0] ** 2 / 0.25
    gain = w[0, 0] / 0.25 / precision
    with torch.no_grad():
        likelihood.head.layer.weight.copy_(w)
        likelihood.head.layer.bias.copy_(b)
        q.head.layer.weight.zero_()
        q.head.layer.weight[0, 0] = gain
        q.head.layer.bias.copy_(torch.tensor([-gain * b[0], 0.0]))
    program = pv.VAE(pv.priors.StandardNormal(1), pv.likelihoods.Missing(likelihood), q)
    return program, w, b, 1 / precision


def test_draws_are_those_of_the_conditional_density(float64):
    program, w, b, _ = linear_gaussian()
    x = torch.tensor([[1.5, math.nan], [0.2, 3.0], [-0.7, math.nan]])
    q = program.guide  # its spread is learned by the head; only the mean is compared below
    assert q is not None
    filled = pv.impute(program, Dataset(x, missing=True), num_draws=4000, probability=0.5)
    covariance = w @ w.T + 0.25 * torch.eye(2)
    means = b[1] + covariance[1, 0] / covariance[0, 0] * (x[[0, 2], 0] - b[0])
    assert filled.places.tolist() == [[0, 1], [2, 1]]
    error = filled.draws.std(0) / math.sqrt(4000)
    assert ((filled.draws.mean(0) - means).abs() < 4 * error).all()
    assert torch.equal(filled.x[1], x[1]) and torch.equal(filled.x[:, 0], x[:, 0])
    inside = ((filled.draws >= filled.low) & (filled.draws <= filled.high)).double().mean(0)
    torch.testing.assert_close(inside, torch.full((2,), 0.5), atol=1e-3, rtol=0)
    again = pv.impute(program, Dataset(x, missing=True), num_draws=4000, probability=0.5)
    assert torch.equal(again.draws, filled.draws)


def test_every_draw_has_global_latents_of_its_own(monkeypatch):
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 2**18)  # a block is full, whatever the number of data
    x = torch.randn(6, 4)
    x[0, 3] = x[1, 2] = torch.nan
    likelihood = pv.likelihoods.Missing(pv.likelihoods.Normal(4, MLP(1, []), scale=0.1))
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.networks.Bayesian(likelihood, scale=1.0),
        pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(4, MLP(8, []))),
    )
    data = Dataset(x, missing=True)
    filled = [pv.impute(program, data, num_draws=100, seed=seed).draws for seed in (0, 1)]
    one_each = [pv.reconstruct(program, data, seed=seed) for seed in range(100)]
    over_globals = torch.stack([torch.stack([each[0, 3], each[1, 2]]) for each in one_each])
    for draws in filled:
        torch.testing.assert_close(draws.std(0), over_globals.std(0), rtol=0.3, atol=0)
    assert not torch.isin(filled[0], filled[1]).any()


def test_a_table_is_completed_in_its_own_units():
    table = pd.DataFrame({"mass": [4000.0, np.nan, 4400.0] * 8, "sex": ["f", "m", None] * 8})
    data = pv.datasets.load_whole(table, standardize=True)
    encoder = pv.networks.WithMask(2, MLP(4, [4]))
    mixed = pv.likelihoods.Mixed(2, MLP(1, [4]), groups=data.columns.groups())
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Missing(mixed),
        pv.posteriors.DiagonalNormal(1, encoder),
    )
    filled = pv.impute(program, data, num_draws=11)
    frame, entries = filled.frame(), filled.entries()
    assert frame["mass"].notna().all() and set(frame["sex"]) <= {"f", "m"}
    known = table["mass"].notna()
    assert (frame["mass"][known] == table["mass"][known]).all()
    assert len(entries) == 16 and list(entries.columns[:5]) == [
        "row", "column", "value", "low", "high",
    ]  # fmt: skip
    assert entries["draw_11"][entries["column"] == "sex"].isin(["f", "m"]).all()


def test_what_was_observed_comes_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "real": rng.normal(3, 700, 300),
            "positive": np.exp(rng.normal(0, 3, 300)),
            "eggs": rng.poisson(3, 300).astype(float),
            "sex": rng.choice(["f", "m"], 300),
            "year": rng.normal(0, 1 / 3, 300),
        }
    )
    table = table.mask(rng.random(table.shape) < 0.2)
    table["year"] = table["year"].fillna(1 / 3)
    data = pv.datasets.load_whole(table, standardize=True, context=["year"])
    pd.testing.assert_frame_equal(data.frame()[["real", "positive"]], table[["real", "positive"]])
    mixed = pv.likelihoods.Mixed(4, MLP(1, [4]), groups=data.columns.groups())
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Missing(mixed),
        pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(4, MLP(8, [4]))),
    )
    for rows in (slice(0, 300), slice(40, 90)):
        filled, seen = pv.impute(program, data[rows], num_draws=3).frame(), table[rows]
        for column in table:
            known = seen[column].notna().to_numpy()
            assert (filled[column][known].to_numpy() == seen[column][known].to_numpy()).all()
        assert filled.notna().all().all()


def test_nothing_to_fill_in_is_said():
    program = linear_gaussian()[0]
    with pytest.raises(InvalidInput, match="without missing entries"):
        pv.impute(program, torch.randn(3, 2))
    with pytest.raises(InvalidInput, match="probability"):
        pv.impute(program, torch.full((1, 2), math.nan), probability=1.0)
