"""Every posterior in `__all__` keeps its contract; a new class is tested without being listed."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import check_posterior

MLP = pv.networks.MLP


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.posteriors.__all__)
def test_posterior(name, latent):
    cls = getattr(pv.posteriors, name)
    check_posterior(cls(latent, MLP(3, [8])), torch.randn(4, 3))
    check_posterior(cls(latent, MLP(3, [8], context=2)), torch.randn(4, 3), context=torch.randn(4, 2))
