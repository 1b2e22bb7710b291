"""Every network in `__all__` keeps its contract; a new class is tested without being listed."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import check_network


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 9), (1, 28, 28)])
@pytest.mark.parametrize("name", pv.networks.__all__)
@pytest.mark.parametrize("context", [0, 3])
def test_network(name, shape, context):
    # A network that makes images takes the latent; the others take the image.
    if name == "ConvTranspose":
        network, x = pv.networks.ConvTranspose(4, shape, [6, 5], context=context), torch.randn(3, 4)
        assert network.out_shape == (5, *shape[1:])
    else:
        network, x = getattr(pv.networks, name)(shape, context=context), torch.randn(3, *shape)
    check_network(network, x, context=torch.randn(3, context) if context else None)
