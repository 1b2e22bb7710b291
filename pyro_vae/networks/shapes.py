"""Shapes, leading batch dimensions and contexts, as all networks handle them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from pyro_vae.contracts import StatesShape
from pyro_vae.validation import InvalidInput

__all__ = [
    "Shape",
    "Size",
    "as_context",
    "as_shape",
    "broadcast_batch",
    "check_context_features",
    "features_of",
    "flatten_event",
    "out_shape_of",
    "over_batch",
    "takes_draws",
    "tell_event_dim",
]

Shape = tuple[int, ...]
Size = int | Sequence[int]  # what a user may write for a shape
EVENT_DIM = "_event_dim"  # a network's attribute, set by `tell_event_dim`


def as_shape(size: Size) -> Shape:
    """A size as a tuple: ``20 -> (20,)``, ``[1, 28, 28] -> (1, 28, 28)``.

    Raises:
        InvalidInput: unless it is an integer >= 1 or a sequence of such.
    """
    lengths = size if isinstance(size, Sequence) else [size]
    if not all(isinstance(length, Integral) and length >= 1 for length in lengths):
        raise InvalidInput(
            "size",
            got=repr(size),
            expected="an integer >= 1, or a sequence of them",
            fix="pass 20, or (1, 28, 28)",
        )
    return tuple(int(length) for length in lengths)


def as_context(context: object) -> int:
    """A number of context features.

    Raises:
        InvalidInput: unless it is an integer >= 0.
    """
    if isinstance(context, bool) or not isinstance(context, Integral) or int(context) < 0:
        raise InvalidInput(
            "context",
            got=repr(context),
            expected="a number of features, 0 for none",
            fix="pass context=10 for ten labels",
        )
    return int(context)


def over_batch(module: Callable[[Tensor], Tensor], x: Tensor, event_dim: int) -> Tensor:
    """Call a module that takes one batch dimension, such as a convolution, over several."""
    batch = x.shape[: x.dim() - event_dim]
    out = module(x.reshape(-1, *x.shape[x.dim() - event_dim :]))
    return out.reshape(*batch, *out.shape[1:])


def flatten_event(x: Tensor, event_dim: int) -> Tensor:
    """Join the last ``event_dim`` dimensions into one."""
    return x if event_dim == 1 else x.reshape(*x.shape[: x.dim() - event_dim], -1)


def takes_draws(network: nn.Module) -> bool:
    """Whether a network says that it maps any leading dimensions of x itself."""
    return getattr(network, "takes_draws", False)


def features_of(network: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    r"""A network's features of x; the context is passed only if there is one.

    A network that says ``takes_draws = True``, as ours do, maps any leading dimensions of x and of
    the context itself. Any other, once it was told the `event_dim` of x, is called on a single
    batch dimension, (K N, \*event) in place of (K, N, \*event), as torch's layers are written for:
    convolutions, recurrent and attention layers, and what is done along dimension 1.
    """
    event_dim = None if takes_draws(network) else vars(network).get(EVENT_DIM)
    if event_dim is None:
        return network(x) if context is None else network(x, context=context)
    batch, event = x.shape[: x.dim() - event_dim], x.shape[x.dim() - event_dim :]
    if context is None:
        features = network(x.reshape(-1, *event))
    else:
        batch = torch.broadcast_shapes(batch, context.shape[:-1])
        rows = context.expand(*batch, -1).reshape(-1, context.shape[-1])
        features = network(x.expand(*batch, *event).reshape(-1, *event), context=rows)
    return features.reshape(*batch, *features.shape[1:])


def tell_event_dim(module: nn.Module, event_dim: int) -> None:
    """Tell a component's network the number of event dimensions of its input.

    Wrappers, such as `Missing` of a likelihood or `WithMask` of a network, pass it on.
    """
    inner: nn.Module | None = module
    while inner is not None:
        vars(inner)[EVENT_DIM] = event_dim
        parts = inner._modules
        inner = parts.get("network", parts.get("likelihood"))


def out_shape_of(network: nn.Module) -> Shape:
    """The shape that a network states for its features.

    Raises:
        InvalidInput: if it states none.
    """
    if not isinstance(network, StatesShape):
        raise InvalidInput(
            "network",
            got=f"{type(network).__name__} without out_shape",
            expected="a module that states the shape of its features",
            fix="set network.out_shape to the shape of one datum's features, such as (400,)",
        )
    return as_shape(network.out_shape)


def check_context_features(expected: int, context: Tensor | None) -> None:
    """Raise `InvalidInput` unless the context has as many features as the network takes."""
    if context is not None and context.dim() == 1:
        raise InvalidInput(
            "context",
            got=f"{len(context)} numbers, one for each datum, which no module made features of",
            expected=f"{expected} features" if expected else "none by this network",
            fix="give the program context=pv.networks.OneHot(10) for labels 0 to 9, or "
            "context=pv.networks.Covariates()",
        )
    got = 0 if context is None else context.shape[-1]
    if got != expected:
        raise InvalidInput(
            "context",
            got=f"{got} features" if got else "none",
            expected=f"{expected} features" if expected else "none by this network",
            fix=f"build the network with context={got}"
            if got
            else "give the program a context module and pass a context with the data",
        )


def broadcast_batch(*tensors: Tensor) -> list[Tensor]:
    """Expand vectors to one batch shape; their last dimensions stay as they are."""
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return [t.expand(*batch, t.shape[-1]) for t in tensors]
