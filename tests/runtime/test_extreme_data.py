"""What is wrong with a datum that is not the first is said before training."""

import math
import warnings

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.fitting import check_support
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


class Labels(nn.Embedding):
    out_shape = (4,)


def conditional(module, features=4):
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, MLP(2, [8], context=features)),
        pv.posteriors.DiagonalNormal(2, MLP(3, [8], context=features)),
        module,
    )


def normal_vae(columns=3, encoder=None, likelihood=None):
    return pv.VAE(
        pv.priors.StandardNormal(2),
        likelihood or pv.likelihoods.Normal(columns, MLP(2, [8])),
        pv.posteriors.DiagonalNormal(2, encoder or MLP(columns, [8])),
    )


@pytest.mark.parametrize("wrong", [7, -2])
def test_a_label_without_a_row_is_found_wherever_it_is(wrong):
    x, y = torch.randn(200, 3), torch.arange(200) % 5
    program = conditional(Labels(5, 4))
    check_data(program, Dataset(x, y))
    y[150] = wrong
    with pytest.raises(InvalidInput, match=f"context: got {wrong} in datum 150.*no row"):
        pv.fit(program, (x, y), epochs=1, progress=False)


def test_a_nan_label_is_told_to_be_minus_one_and_a_covariate_to_be_filled_in():
    x = torch.randn(5, 3)
    labels = torch.tensor([0.0, 1.0, math.nan, 1.0, 0.0])
    with pytest.raises(InvalidInput, match=r"context.*datum 2.*integer labels.*label -1"):
        check_data(conditional(pv.networks.OneHot(2), 2), Dataset(x, labels))
    covariates = torch.tensor([0.5, 1.0, 2.0, math.nan, 0.1])
    with pytest.raises(InvalidInput, match=r"context.*datum 3.*all known.*fill them in") as told:
        check_data(conditional(pv.networks.Covariates(), 1), Dataset(x, covariates))
    assert "missing=True" not in str(told.value)


def test_missing_entries_need_an_encoder_that_sees_them():
    x = torch.randn(20, 3)
    x[7, 1] = math.nan
    likelihood = pv.likelihoods.Missing(pv.likelihoods.Normal(3, MLP(2, [8])))
    with pytest.raises(InvalidInput, match=r"first in datum 7.*site 'z'.*WithMask"):
        pv.fit(normal_vae(likelihood=likelihood), Dataset(x, missing=True), progress=False)
    encoder = pv.networks.WithMask(3, MLP(6, [8]))
    check_data(normal_vae(3, encoder, likelihood), Dataset(x, missing=True))


def test_dtypes_are_not_told_as_shapes():
    class Doubled(nn.Module):
        out_shape = (8,)

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 8).double()

        def forward(self, x):
            return self.layer(x)

    with pytest.raises(InvalidInput, match="different dtypes"):
        check_data(normal_vae(encoder=Doubled()), Dataset(torch.randn(4, 3)))


def test_labels_that_no_module_embeds_are_no_features():
    program = conditional(nn.Identity())
    with pytest.raises(InvalidInput, match=r"OneHot\(10\)") as told:
        check_data(program, Dataset(torch.randn(6, 3), torch.arange(6)))
    assert "context=6" not in str(told.value)


@pytest.mark.parametrize(
    "support, value, words",
    [
        (torch.distributions.constraints.nonnegative, -1.0, r"GreaterThanEq\(lower_bound=0\.?0?\)"),
        (torch.distributions.constraints.unit_interval, 2.0, "Interval"),
    ],
)
def test_a_value_outside_the_support_is_named_with_its_column(support, value, words):
    x = torch.rand(10, 3)
    x[4, 2] = value
    with pytest.raises(InvalidInput, match=rf"column 'mass' has {value:.4g}\).*{words}") as told:
        check_support(x, torch.distributions.constraints.independent(support, 1),
                      ["a", "b", "mass"])  # fmt: skip
    assert str(told.value).count("(") == str(told.value).count(")")


def test_a_last_batch_of_one_is_refused_where_a_batchnorm_needs_two():
    encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    encoder.out_shape = (8,)
    program = normal_vae(encoder=encoder)
    with pytest.raises(InvalidInput, match=r"batch_size: got 10 for 21.*'posterior.*=11"):
        pv.fit(program, torch.randn(21, 3), epochs=1, batch_size=10, progress=False)
    for data, size in ((21, 11), (20, 10)):
        pv.fit(program, torch.randn(data, 3), epochs=1, batch_size=size, progress=False)
    # Images have pixels to average over, and without BatchNorm one datum is a batch.
    pv.fit(normal_vae(), torch.randn(21, 3), epochs=1, batch_size=10, progress=False)
    with pytest.raises(InvalidInput, match="for 1 data"):
        pv.fit(program, torch.randn(1, 3), epochs=1, progress=False)
    pv.fit(normal_vae(), torch.randn(1, 3), epochs=1, progress=False)


def test_columns_near_4000_are_warned_of():
    x = np.random.default_rng(0).normal([0, 4200, 1], [1, 800, 1], size=(50, 3))
    with pytest.warns(UserWarning, match=r"entries far from 0.*: 1 \(mean 4,\d+.*standardize=True"):
        pv.fit(normal_vae(), x, epochs=1, progress=False)
    train, _ = pv.datasets.load(x, standardize=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.fit(normal_vae(), train, epochs=1, progress=False)


def test_all_columns_far_from_zero_are_named_in_a_short_line():
    names = [f"mass {i}" for i in range(11)] + ["a" * 20_000]
    x = np.random.default_rng(0).normal(500, 10, size=(50, 12))
    for count, words in ((2, "mass 0 .*, mass 1 "), (12, "mass 0 .*, mass 7 .* and 4 others")):
        frame = pandas.DataFrame(x[:, -count:], columns=names[:count])
        with pytest.warns(UserWarning, match=f"columns far from 0.*: {words}") as told:
            pv.fit(normal_vae(count), pv.datasets.load(frame)[0], epochs=1, progress=False)
        assert len(str(told[0].message)) < 700
    long = pandas.DataFrame(x[:, :1], columns=names[-1:])
    with pytest.warns(UserWarning, match=r"a{37}\.\.\. "):
        pv.fit(normal_vae(1), pv.datasets.load(long)[0], epochs=1, progress=False)


def test_the_remedy_for_images_far_from_zero_is_one_that_images_take():
    x = torch.randint(0, 256, (40, 1, 4, 4)).double()
    likelihood = pv.likelihoods.Normal((1, 4, 4), MLP(2, [8]))
    encoder = MLP((1, 4, 4), [8])
    with pytest.warns(UserWarning, match=r"Divide the data by 255 .*--scale 255"):
        pv.fit(normal_vae(0, encoder, likelihood), x, epochs=1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, _ = pv.datasets.load(x, scale=255)
        pv.fit(normal_vae(0, encoder, likelihood), train, epochs=1, progress=False)
