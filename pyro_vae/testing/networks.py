"""Check the contract of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.contracts import Network
from pyro_vae.networks import as_shape
from pyro_vae.testing.laws import check_close, check_copies, check_gradients, in_float64

__all__ = ["check_network"]


def check_network(network: Network, x: Tensor, *, context: Tensor | None = None) -> None:
    r"""Check a network: its shape, leading batch dimensions, and that a batch equals a loop.

    Args:
        network: the network.
        x: inputs (N, \*in_shape).
        context: features (N, C) for a network that takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> network = pv.networks.Conv((1, 7, 5), [4], context=2)
        >>> check_network(network, torch.randn(3, 1, 7, 5), context=torch.randn(3, 2))
    """
    network = in_float64(network)
    x, given = x.double(), () if context is None else (context.double(),)
    features = network(x, *given)
    shape = (len(x), *as_shape(network.out_shape))
    assert tuple(features.shape) == shape, (
        f"features {tuple(features.shape)} where out_shape says {shape[1:]}"
    )
    rows = [network(x[i : i + 1], *(c[i : i + 1] for c in given)) for i in range(len(x))]
    check_close(features, torch.cat(rows), "a batch must equal a loop over its data")
    many = network(x.expand(2, 3, *x.shape), *given)
    check_close(many, features.expand(2, 3, *shape), "leading dimensions")
    if given:
        spread = network(x, given[0].expand(2, *given[0].shape))
        check_close(spread, features.expand(2, *shape), "context dimensions")
    check_gradients(network, lambda module: module(x, *given).square().sum())
    check_copies(network, lambda module: module(x, *given))
