"""Strided convolutions on images (C, H, W) of any size, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pyro_vae.networks.maps import (
    check_channels,
    check_kernel,
    check_map_shape,
    check_map_size,
    decode_map,
    dense_after,
    dense_before,
    downwards,
    encode_map,
    output_padding,
    upwards,
)
from pyro_vae.networks.shapes import Shape, Size, as_shape
from pyro_vae.validation import as_counts

__all__ = ["Conv", "ConvTranspose"]


class Conv(nn.Module):
    """Strided convolutions on images of any size (C, H, W).

    Each layer halves height and width, rounded up.

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
        self.in_shape, self.channels = check_map_shape(in_shape, 3), as_counts("channels", channels)
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.kernel_size, self.activation = check_kernel(kernel_size), activation
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
    """Dense layers, then transposed convolutions up to a feature map of the wanted size.

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
        self.in_shape, self.channels = as_shape(in_shape), check_channels(channels)
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.kernel_size, self.activation = check_kernel(kernel_size), activation
        self.size = check_map_size(size, 2)

        def block(before: int, after: int, small: Shape, large: Shape) -> nn.Module:
            height, width = output_padding(small, large)
            return nn.Sequential(
                nn.ConvTranspose2d(
                    before,
                    after,
                    kernel_size,
                    stride=2,
                    padding=kernel_size // 2,
                    output_padding=(height, width),
                ),
                activation(),
            )

        self.convolutions, self.feature_map = upwards(self.size, self.channels, block)
        self.dense = dense_before(self.in_shape, self.hidden, self.feature_map, context, activation)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return decode_map(self, x, context)
