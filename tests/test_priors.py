"""Every prior in `__all__` keeps its contract; a new class is tested without being listed."""

import pytest

import pyro_vae as pv
from pyro_vae.testing import check_prior


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.priors.__all__)
def test_prior(name, latent):
    check_prior(getattr(pv.priors, name)(latent))
