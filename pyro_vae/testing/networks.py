"""Check the contract of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.contracts import Network, as_module
from pyro_vae.networks import as_shape, features_of, tell_event_dim
from pyro_vae.testing.laws import check_close, check_copies, check_gradients, in_float64, say_ok

__all__ = ["check_network"]

OF_SHAPES = ("out_shape", "a batch against a loop")


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
        ok: Conv: out_shape, a batch against a loop, leading dimensions, context dimensions,
        gradients, copies, files
    """
    network = in_float64(network)
    tell_event_dim(as_module(network), x.dim() - 1)
    x, c = x.double(), None if context is None else context.double()

    def run(x: Tensor, context: Tensor | None) -> Tensor:
        return features_of(as_module(network), x, context)

    features = run(x, c)
    shape = (len(x), *as_shape(network.out_shape))
    assert tuple(features.shape) == shape, (
        f"features {tuple(features.shape)} where out_shape says {shape[1:]}"
    )
    rows = [run(x[i : i + 1], None if c is None else c[i : i + 1]) for i in range(len(x))]
    check_close(features, torch.cat(rows), "a batch must equal a loop over its data")
    many = run(x.expand(2, 3, *x.shape), c)
    check_close(many, features.expand(2, 3, *shape), "leading dimensions")
    if c is not None:
        spread = run(x, c.expand(2, *c.shape))
        check_close(spread, features.expand(2, *shape), "context dimensions")
    given = () if c is None else (c,)
    check_gradients(network, lambda module: module(x, *given).square().sum())
    check_copies(network, lambda module: module(x, *given))
    dims = ["leading dimensions", *(["context dimensions"] if c is not None else [])]
    say_ok(network, [*OF_SHAPES, *dims, "gradients", "copies", "files"])
