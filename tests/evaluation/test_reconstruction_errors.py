"""Squared errors of what was observed and has a distance."""

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation.over_seeds import compare_over_seeds
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def mixed(data):
    torch.manual_seed(0)
    k = len(data.columns)
    likelihood = pv.likelihoods.Mixed(k, MLP(2, [8]), groups=data.columns.groups())
    return pv.VAE(
        pv.priors.StandardNormal(2), likelihood, pv.posteriors.DiagonalNormal(2, MLP(k, [8]))
    )


def test_observed_entries_are_compared_with_their_means_and_missing_ones_are_left_out():
    x = torch.randn(20, 4)
    x[0, 0] = x[3, 1:] = torch.nan
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Missing(pv.likelihoods.Normal(4, MLP(2, [8]))),
        pv.posteriors.Delta(2, pv.networks.WithMask(4, MLP(8, [8]))),
    )
    data = pv.datasets.Dataset(x, missing=True)
    found = pv.evaluation.squared_error(vae, data)
    z = pv.encode(vae, data)["z"]
    off = (pv.decode(vae, z) - x).square()
    for i in range(20):
        seen = off[i][~x[i].isnan()]
        assert found.values[i] == pytest.approx(seen.mean().item(), rel=1e-4)
    assert found.mean > 0.5
    with_nothing = pv.datasets.Dataset(torch.cat([x, torch.full((1, 4), torch.nan)]), missing=True)
    other = pv.evaluation.squared_error(vae, with_nothing)
    assert other.values[-1].isnan() and other.mean == pytest.approx(found.mean)
    assert other.se == pytest.approx(found.se)
    moved = pv.datasets.Dataset(with_nothing.tensor + 0.5 * torch.randn(21, 4), missing=True)
    shifted = pv.evaluation.squared_error(vae, with_nothing, target=moved)
    gap = shifted - other
    assert gap.num_data == 20 and np.isfinite(gap.se)
    assert gap.mean == pytest.approx((shifted.values - other.values)[:20].mean().item(), rel=1e-4)
    over_seeds = compare_over_seeds({0: shifted, 1: shifted}, {0: other, 1: other})
    assert over_seeds.mean == pytest.approx(gap.mean) and over_seeds.se_data == pytest.approx(
        gap.se
    )
    complete = pv.evaluation.squared_error(vae, data, target=pv.reconstruct(vae, data))
    assert (complete.values > 0).all()


def test_names_of_categories_may_be_exchanged():
    for names in (["a", "b", "c"], ["b", "c", "a"]):
        random = np.random.default_rng(0)
        city = np.array(names)[random.choice(3, 60, p=[0.6, 0.2, 0.2])]
        table = pd.DataFrame({"city": city, "height": random.normal(size=60)})
        data, _ = pv.datasets.load(table)
        vae = mixed(data)
        height = [column.name for column in data.columns].index("height")
        off = (pv.reconstruct(vae, data) - data.tensor)[:, height].square()
        torch.testing.assert_close(pv.evaluation.squared_error(vae, data).values, off)
    only, _ = pv.datasets.load(table[["city", "city"]].set_axis(["one", "two"], axis=1))
    with pytest.raises(InvalidInput, match="categories alone"):
        pv.evaluation.squared_error(mixed(only), only)
