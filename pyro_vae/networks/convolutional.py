"""Convolutional networks, for images (C, H, W) and sequences (C, T) of any size.

Downwards each layer halves the sizes, rounded up; upwards the sizes are those passed through on the
way down, so each is met exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from pyro_vae.networks.dense import MLP
from pyro_vae.networks.head import Head
from pyro_vae.networks.shapes import Size, as_shape, check_context_features, over_batch
from pyro_vae.validation import InvalidInput, as_counts

__all__ = [
    "Conv",
    "ConvTranspose",
    "ResidualConv",
    "ResidualConvTranspose",
    "Conv1d",
    "ConvTranspose1d",
]


class Conv(nn.Module):
    """Strided convolutions on images of any (C, H, W), each of which halves height and width (rounded up).

    Args:
        in_shape: (channels, height, width).
        channels: channels of each layer.
        hidden: widths of dense layers after the last convolution, where the context joins too; with
            ``[]`` and no context the features are the last feature map.
        context: number of context features, 0 for none; it needs a dense layer to join.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on an input that is no image, an even kernel, or a context without a dense
            layer.

    Example:
        >>> Conv((1, 28, 28), [32, 64])(torch.zeros(4, 2, 1, 28, 28)).shape
        torch.Size([4, 2, 256])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            check_map_shape(in_shape, 3),
            as_counts("channels", channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.convolutions, feature_map = downwards(
            self.in_shape,
            self.channels,
            lambda before, after: nn.Sequential(
                nn.Conv2d(before, after, kernel_size, stride=2, padding=kernel_size // 2),
                activation(),
            ),
        )
        self.dense = dense_after(feature_map, self.hidden, context, activation)
        self.out_shape = self.dense.out_shape if self.dense else feature_map

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return encode_map(self, x, context)


class ConvTranspose(nn.Module):
    """Dense layers, then strided transposed convolutions up to a feature map of the wanted height and width.

    The mirror image of `Conv`: the sizes between are those that `Conv` passes through on the way
    down, so every height and width is met exactly.

    Args:
        in_shape: event shape of the input, usually the latent's; flattened.
        size: (height, width) of the feature map returned, or an image's (channels, height, width).
        channels: channels of the maps, the deepest first; the last are the channels returned.
        hidden: widths of dense layers before the first map; the context joins at the first dense
            layer. With ``[]``, no context and an input of the first map's sizes there is a
            convolution of kernel size 1 instead of dense layers.
        context: number of context features, 0 for none.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on a size that is no image's, an even kernel, or no channels.

    Example:
        >>> ConvTranspose(20, (28, 28), [64, 32])(torch.zeros(7, 20)).shape
        torch.Size([7, 32, 28, 28])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size = (),
        channels: Sequence[int] = (64, 32),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            as_shape(in_shape),
            check_channels(channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.size = check_map_size(size, 2)

        def block(
            before: int, after: int, small: tuple[int, ...], large: tuple[int, ...]
        ) -> nn.Module:
            return nn.Sequential(
                nn.ConvTranspose2d(
                    before,
                    after,
                    kernel_size,
                    stride=2,
                    padding=kernel_size // 2,
                    output_padding=missing(small, large),
                ),
                activation(),
            )

        self.convolutions, self.feature_map = upwards(self.size, self.channels, block)
        self.dense = dense_before(self.in_shape, self.hidden, self.feature_map, context, activation)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return decode_map(self, x, context)


class ResidualConv(nn.Module):
    r"""Residual blocks on images of any (C, H, W), each of which halves height and width (rounded up).

    .. math:: h_i = a(S_i * h_{i-1} + V_i * a(W_i * h_{i-1}))

    with S a convolution of kernel size 1; S and W have stride 2.

    Args:
        in_shape: (channels, height, width).
        channels: channels of each block.
        hidden: widths of dense layers after the last block, where the context joins too; with
            ``[]`` and no context the features are the last feature map.
        context: number of context features, 0 for none; it needs a dense layer to join.
        kernel_size: an odd number.
        activation: the nonlinearity a, a module class without arguments.

    Raises:
        InvalidInput: on an input that is no image, an even kernel, or a context without a dense
            layer.

    Source: He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition.

    Example:
        >>> ResidualConv((3, 32, 32), [32, 64])(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 256])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            check_map_shape(in_shape, 3),
            as_counts("channels", channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.convolutions, feature_map = downwards(
            self.in_shape,
            self.channels,
            lambda before, after: ResidualBlock(before, after, kernel_size, activation, stride=2),
        )
        self.dense = dense_after(feature_map, self.hidden, context, activation)
        self.out_shape = self.dense.out_shape if self.dense else feature_map

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return encode_map(self, x, context)


class ResidualConvTranspose(nn.Module):
    """Dense layers, then residual blocks up to a feature map of the wanted height and width: `ResidualConv` mirrored.

    Each block first repeats pixels (nearest neighbours) up to the size that `ResidualConv` passes
    through there, which leaves none of the checkerboard of a transposed convolution, and has stride
    1.

    Args:
        in_shape: event shape of the input, usually the latent's; flattened.
        size: (height, width) of the feature map returned, or an image's (channels, height, width).
        channels: channels of the maps, the deepest first; the last are the channels returned.
        hidden: widths of dense layers before the first map; the context joins at the first dense
            layer. With ``[]``, no context and an input of the first map's sizes there is a
            convolution of kernel size 1 instead of dense layers.
        context: number of context features, 0 for none.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on a size that is no image's, an even kernel, or no channels.

    Source: He, Zhang, Ren and Sun (2016); Odena, Dumoulin and Olah (2016), Deconvolution and
    Checkerboard Artifacts.

    Example:
        >>> ResidualConvTranspose(20, (32, 32), [64, 32])(torch.zeros(7, 20)).shape
        torch.Size([7, 32, 32, 32])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size = (),
        channels: Sequence[int] = (64, 32),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            as_shape(in_shape),
            check_channels(channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.size = check_map_size(size, 2)

        def block(
            before: int, after: int, small: tuple[int, ...], large: tuple[int, ...]
        ) -> nn.Module:
            return nn.Sequential(
                nn.Upsample(size=large), ResidualBlock(before, after, kernel_size, activation)
            )

        self.convolutions, self.feature_map = upwards(self.size, self.channels, block)
        self.dense = dense_before(self.in_shape, self.hidden, self.feature_map, context, activation)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return decode_map(self, x, context)


class Conv1d(nn.Module):
    """Strided convolutions on sequences of any (C, T), each of which halves the length (rounded up).

    Args:
        in_shape: (channels, length).
        channels: channels of each layer.
        hidden: widths of dense layers after the last convolution, where the context joins too; with
            ``[]`` and no context the features are the last feature map.
        context: number of context features, 0 for none; it needs a dense layer to join.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on an input that is no sequence, an even kernel, or a context without a dense
            layer.

    Example:
        >>> Conv1d((2, 100), [16, 32])(torch.zeros(4, 2, 100)).shape
        torch.Size([4, 256])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 5,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            check_map_shape(in_shape, 2),
            as_counts("channels", channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.convolutions, feature_map = downwards(
            self.in_shape,
            self.channels,
            lambda before, after: nn.Sequential(
                nn.Conv1d(before, after, kernel_size, stride=2, padding=kernel_size // 2),
                activation(),
            ),
        )
        self.dense = dense_after(feature_map, self.hidden, context, activation)
        self.out_shape = self.dense.out_shape if self.dense else feature_map

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return encode_map(self, x, context)


class ConvTranspose1d(nn.Module):
    """Dense layers, then strided transposed convolutions up to features of the wanted length: `Conv1d` mirrored.

    Args:
        in_shape: event shape of the input, usually the latent's; flattened.
        size: the length of the features returned, or a sequence's (channels, length).
        channels: channels of the maps, the deepest first; the last are the channels returned.
        hidden: widths of dense layers before the first map; the context joins at the first dense
            layer. With ``[]``, no context and an input of the first map's sizes there is a
            convolution of kernel size 1 instead of dense layers.
        context: number of context features, 0 for none.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on a size that is no sequence's, an even kernel, or no channels.

    Example:
        >>> ConvTranspose1d(20, (2, 100), [32, 16])(torch.zeros(7, 20)).shape
        torch.Size([7, 16, 100])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size = (),
        channels: Sequence[int] = (64, 32),
        hidden: Sequence[int] = (256,),
        *,
        context: int = 0,
        kernel_size: int = 5,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.channels, self.hidden = (
            as_shape(in_shape),
            check_channels(channels),
            as_counts("hidden", hidden),
        )
        self.context, self.kernel_size, self.activation = (
            context,
            check_kernel(kernel_size),
            activation,
        )
        self.size = check_map_size(size, 1)

        def block(
            before: int, after: int, small: tuple[int, ...], large: tuple[int, ...]
        ) -> nn.Module:
            return nn.Sequential(
                nn.ConvTranspose1d(
                    before,
                    after,
                    kernel_size,
                    stride=2,
                    padding=kernel_size // 2,
                    output_padding=missing(small, large),
                ),
                activation(),
            )

        self.convolutions, self.feature_map = upwards(self.size, self.channels, block)
        self.dense = dense_before(self.in_shape, self.hidden, self.feature_map, context, activation)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return decode_map(self, x, context)


# parts


class ResidualBlock(nn.Module):
    """Two convolutions beside one of kernel size 1, their sum through the nonlinearity; see `ResidualConv`."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel_size: int,
        activation: type[nn.Module],
        stride: int = 1,
    ):
        super().__init__()
        padding = kernel_size // 2
        self.straight = nn.Conv2d(before, after, 1, stride=stride)
        self.bent = nn.Sequential(
            nn.Conv2d(before, after, kernel_size, stride=stride, padding=padding),
            activation(),
            nn.Conv2d(after, after, kernel_size, padding=padding),
        )
        self.nonlinearity = activation()

    def forward(self, h: Tensor) -> Tensor:
        return self.nonlinearity(self.straight(h) + self.bent(h))


def downwards(
    in_shape: tuple[int, ...], channels: Sequence[int], block: Callable[[int, int], nn.Module]
) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Blocks that each halve the sizes, and the shape of the last feature map."""
    size = in_shape[1:]
    for _ in channels:
        size = halve(size)
    widths = [in_shape[0], *channels]
    return nn.Sequential(*(block(*pair) for pair in itertools.pairwise(widths))), (
        widths[-1],
        *size,
    )


def upwards(
    size: tuple[int, ...],
    channels: Sequence[int],
    block: Callable[[int, int, tuple[int, ...], tuple[int, ...]], nn.Module],
) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Blocks that lead up to ``size``, through the sizes that `downwards` has, and the shape of the first feature map."""
    sizes = [size]
    for _ in channels:
        sizes.insert(0, halve(sizes[0]))
    widths = [channels[0], *channels]
    blocks = [
        block(*pair, *ends)
        for pair, ends in zip(itertools.pairwise(widths), itertools.pairwise(sizes))
    ]
    return nn.Sequential(*blocks), (channels[0], *sizes[0])


def dense_after(
    feature_map: tuple[int, ...], hidden: list[int], context: int, activation: type[nn.Module]
) -> MLP | None:
    """The dense layers at the end of an encoder, where the context joins; ``None`` if there are none."""
    if context and not hidden:
        raise InvalidInput(
            "hidden",
            got="[] with a context",
            expected="at least one dense layer for it to join",
            fix="pass hidden=[256]",
        )
    return MLP(feature_map, hidden, context=context, activation=activation) if hidden else None


class MapToMap(nn.Module):
    """A convolution of kernel size 1 and a nonlinearity, in the place of dense layers where the latent is a map itself."""

    takes_draws = True

    def __init__(
        self, in_shape: tuple[int, ...], feature_map: tuple[int, ...], activation: type[nn.Module]
    ):
        super().__init__()
        self.head, self.nonlinearity = Head(in_shape, feature_map), activation()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_context_features(0, context)
        return self.nonlinearity(self.head(x)[0])


def dense_before(
    in_shape: tuple[int, ...],
    hidden: list[int],
    feature_map: tuple[int, ...],
    context: int,
    activation: type[nn.Module],
) -> nn.Module:
    """The dense layers at the start of a decoder, up to the first feature map; none for a latent of that map's sizes."""
    if not hidden and not context and in_shape[1:] == feature_map[1:]:
        return MapToMap(in_shape, feature_map, activation)
    return MLP(in_shape, [*hidden, math.prod(feature_map)], context=context, activation=activation)


def encode_map(network: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """Convolutions, then dense layers if there are any."""
    h = over_batch(network.convolutions, x, len(network.in_shape))
    if network.dense is None:
        check_context_features(0, context)
        return h
    return network.dense(h, context)


def decode_map(network: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """Dense layers, then convolutions."""
    h = network.dense(x, context)
    if not isinstance(network.dense, MapToMap):
        h = h.reshape(*h.shape[:-1], *network.feature_map)
    return over_batch(network.convolutions, h, len(network.feature_map))


def halve(size: Size) -> tuple[int, ...]:
    """Sizes after a convolution of stride 2: halved, rounded up."""
    return tuple((n + 1) // 2 for n in as_shape(size))


def missing(small: tuple[int, ...], large: tuple[int, ...]) -> Any:
    """What a transposed convolution of stride 2, which gives 2 n - 1 entries, must pad where n was halved from 2 n."""
    return tuple(b - (2 * a - 1) for a, b in zip(small, large))


WHAT = {
    1: ("sequences of categories", "(length,)"),
    2: ("sequences", "(channels, length)"),
    3: ("images", "(channels, height, width)"),
}


def check_map_shape(shape: Size, rank: int) -> tuple[int, ...]:
    """Raises `InvalidInput` unless ``shape`` is that of a sequence (rank 2; 1 for categories) or an image (rank 3)."""
    shape, (what, expected) = as_shape(shape), WHAT[rank]
    if len(shape) != rank:
        raise InvalidInput(
            "in_shape", got=str(shape), expected=expected, fix=f"reshape x to {what}, or use MLP"
        )
    return shape


def check_map_size(size: Size, rank: int) -> tuple[int, ...]:
    """The sizes without the channels; raises `InvalidInput` if they are not as many as ``rank``."""
    shape, (what, expected) = as_shape(size), WHAT[rank + 1]
    if len(shape) not in (rank, rank + 1):
        raise InvalidInput(
            "size",
            got=str(shape),
            expected=f"{expected}, the channels optional",
            fix=f"pass size=(1, {', '.join(['28'] * rank)}) for instance, reshape x to {what}, or use MLP",
        )
    return shape[-rank:]


def check_channels(channels: Sequence[int]) -> list[int]:
    """Raises `InvalidInput` unless there is one layer or more."""
    if not channels:
        raise InvalidInput(
            "channels", got="[]", expected="one channel count or more", fix="pass channels=[64, 32]"
        )
    return as_counts("channels", channels)


def check_kernel(kernel_size: int) -> int:
    """Raises `InvalidInput` unless the kernel has a middle, so that sizes halve whatever they are."""
    if kernel_size % 2 == 0:
        raise InvalidInput(
            "kernel_size",
            got=str(kernel_size),
            expected="an odd number",
            fix=f"pass kernel_size={kernel_size + 1}",
        )
    return kernel_size
