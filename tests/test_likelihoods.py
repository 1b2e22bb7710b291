"""Every likelihood in `__all__` keeps its contract; a new class is tested without being listed."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import check_likelihood

MLP = pv.networks.MLP


@pytest.mark.parametrize("event", [1, 3, (1, 4, 4)])
@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_likelihood(name, event):
    cls = getattr(pv.likelihoods, name)
    check_likelihood(cls(event, MLP(2, [8])), torch.randn(4, 2))
    check_likelihood(cls(event, MLP(2, [8], context=3)), torch.randn(4, 2), context=torch.randn(4, 3))


@pytest.mark.parametrize("learn_scale", [None, "shared", "per_feature"])
def test_normal_likelihood_with_every_kind_of_scale(learn_scale):
    check_likelihood(pv.likelihoods.Normal(1, MLP(2, [8]), scale=0.5, learn_scale=learn_scale), torch.randn(4, 2))
