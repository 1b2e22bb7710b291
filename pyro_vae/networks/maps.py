"""Shared parts of the convolutional networks: halved sizes, dense ends, and checks.

Downwards each layer halves the sizes, rounded up. Upwards the sizes are those passed through on the
way down, so every size is met exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn

from pyro_vae.networks.dense import MLP
from pyro_vae.networks.head import Head
from pyro_vae.networks.shapes import Shape, Size, as_shape, check_context_features, over_batch
from pyro_vae.validation import InvalidInput, as_counts, check_count

__all__ = [
    "check_channels",
    "check_kernel",
    "check_map_shape",
    "check_map_size",
    "decode_map",
    "dense_after",
    "dense_before",
    "downwards",
    "encode_map",
    "output_padding",
    "upwards",
]


class MapEncoder(Protocol):
    """A network of convolutions, then dense layers if there are any."""

    in_shape: Shape
    convolutions: nn.Sequential
    dense: MLP | None


class MapDecoder(Protocol):
    """A network with dense layers first and convolutions at its end."""

    feature_map: Shape
    convolutions: nn.Sequential
    dense: MLP | MapToMap


def encode_map(network: MapEncoder, x: Tensor, context: Tensor | None) -> Tensor:
    """Run the convolutions, then the dense layers if there are any."""
    h = over_batch(network.convolutions, x, len(network.in_shape))
    if network.dense is None:
        check_context_features(0, context)
        return h
    return network.dense(h, context)


def decode_map(network: MapDecoder, x: Tensor, context: Tensor | None) -> Tensor:
    """Run the dense layers, then the convolutions."""
    h = network.dense(x, context)
    if not isinstance(network.dense, MapToMap):
        h = h.reshape(*h.shape[:-1], *network.feature_map)
    return over_batch(network.convolutions, h, len(network.feature_map))


# the convolutions


def downwards(
    in_shape: Shape, channels: Sequence[int], block: Callable[[int, int], nn.Module]
) -> tuple[nn.Sequential, Shape]:
    """Blocks that each halve the sizes, and the shape of the last feature map."""
    size = in_shape[1:]
    for _ in channels:
        size = _halved(size)
    widths = [in_shape[0], *channels]
    blocks = [block(before, after) for before, after in itertools.pairwise(widths)]
    return nn.Sequential(*blocks), (widths[-1], *size)


def upwards(
    size: Shape, channels: Sequence[int], block: Callable[[int, int, Shape, Shape], nn.Module]
) -> tuple[nn.Sequential, Shape]:
    """Blocks that lead up to ``size``, and the shape of the first feature map.

    The sizes between are those of `downwards`; ``block`` gets the channels and the sizes before it
    and after it.
    """
    sizes = [size]
    for _ in channels:
        sizes.insert(0, _halved(sizes[0]))
    widths = [channels[0], *channels]
    ends = zip(itertools.pairwise(widths), itertools.pairwise(sizes))
    return nn.Sequential(*(block(*pair, *both) for pair, both in ends)), (channels[0], *sizes[0])


def output_padding(small: Shape, large: Shape) -> list[int]:
    """Padding with which a transposed convolution of stride 2 leads from ``small`` to ``large``.

    Without padding it gives 2 n - 1 entries; both 2 n - 1 and 2 n were halved to n.
    """
    return [after - (2 * before - 1) for before, after in zip(small, large)]


def _halved(size: Shape) -> Shape:
    """Sizes after a convolution of stride 2: halved, rounded up."""
    return tuple((n + 1) // 2 for n in size)


# the dense layers


class MapToMap(nn.Module):
    """A convolution of kernel size 1 and a nonlinearity, for a latent that is a map itself."""

    takes_draws = True

    def __init__(self, in_shape: Shape, feature_map: Shape, activation: type[nn.Module]):
        super().__init__()
        self.head, self.nonlinearity = Head(in_shape, feature_map), activation()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_context_features(0, context)
        return self.nonlinearity(self.head(x)[0])


def dense_after(
    feature_map: Shape, hidden: list[int], context: int, activation: type[nn.Module]
) -> MLP | None:
    """Dense layers at an encoder's end, where the context joins, or ``None`` without any."""
    if context and not hidden:
        raise InvalidInput(
            "hidden",
            got="[] with a context",
            expected="at least one dense layer for the context to join",
            fix="pass hidden=[256]",
        )
    return MLP(feature_map, hidden, context=context, activation=activation) if hidden else None


def dense_before(
    in_shape: Shape,
    hidden: list[int],
    feature_map: Shape,
    context: int,
    activation: type[nn.Module],
) -> MLP | MapToMap:
    """Dense layers at the start of a decoder, or a `MapToMap` for a latent of the map's sizes."""
    if not hidden and not context and in_shape[1:] == feature_map[1:]:
        return MapToMap(in_shape, feature_map, activation)
    return MLP(in_shape, [*hidden, math.prod(feature_map)], context=context, activation=activation)


# checks

KINDS = {
    1: ("sequences of categories", "(length,)"),
    2: ("sequences", "(channels, length)"),
    3: ("images", "(channels, height, width)"),
}


def check_map_shape(size: Size, rank: int) -> Shape:
    """The shape of an image (rank 3) or a sequence (rank 2, or 1 for categories).

    Raises:
        InvalidInput: if it has another number of dimensions.
    """
    shape, (kind, expected) = as_shape(size), KINDS[rank]
    if len(shape) != rank:
        raise InvalidInput(
            "in_shape", got=str(shape), expected=expected, fix=f"reshape x to {kind}, or use MLP"
        )
    return shape


def check_map_size(size: Size, rank: int) -> Shape:
    """The sizes of a map, without its channels if they are given.

    Raises:
        InvalidInput: if there are not ``rank`` of them.
    """
    shape, (kind, expected) = as_shape(size), KINDS[rank + 1]
    if len(shape) not in (rank, rank + 1):
        example = ", ".join(["28"] * rank)
        raise InvalidInput(
            "size",
            got=str(shape),
            expected=f"{expected}, the channels optional",
            fix=f"pass size=(1, {example}) for instance, reshape x to {kind}, or use MLP",
        )
    return shape[-rank:]


def check_channels(channels: Sequence[int]) -> list[int]:
    """The channel counts as a list; raises `InvalidInput` unless there is one layer or more."""
    if not channels:
        raise InvalidInput(
            "channels", got="[]", expected="one channel count or more", fix="pass channels=[64, 32]"
        )
    return as_counts("channels", channels)


def check_kernel(kernel_size: int) -> int:
    """The kernel size; raises `InvalidInput` unless it is odd, so that sizes halve exactly."""
    check_count("kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise InvalidInput(
            "kernel_size",
            got=str(kernel_size),
            expected="an odd number",
            fix=f"pass kernel_size={kernel_size + 1}",
        )
    return kernel_size
