"""Residual convolutions on images (C, H, W) of any size, and back."""

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
    upwards,
)
from pyro_vae.networks.shapes import Shape, Size, as_shape
from pyro_vae.validation import as_counts

__all__ = ["ResidualConv", "ResidualConvTranspose"]


class ResidualConv(nn.Module):
    r"""Residual blocks on images of any size (C, H, W).

    Each block halves height and width, rounded up.

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
        self.in_shape, self.channels = check_map_shape(in_shape, 3), as_counts("channels", channels)
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.kernel_size, self.activation = check_kernel(kernel_size), activation
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
    """Dense layers, then residual blocks up to a feature map of the wanted size.

    The mirror image of `ResidualConv`. Each block first repeats pixels (nearest neighbours) up to
    the next size, then convolves with stride 1. This leaves none of the checkerboard that a
    transposed convolution leaves.

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
        self.in_shape, self.channels = as_shape(in_shape), check_channels(channels)
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.kernel_size, self.activation = check_kernel(kernel_size), activation
        self.size = check_map_size(size, 2)

        def block(before: int, after: int, small: Shape, large: Shape) -> nn.Module:
            return nn.Sequential(
                nn.Upsample(size=large), ResidualBlock(before, after, kernel_size, activation)
            )

        self.convolutions, self.feature_map = upwards(self.size, self.channels, block)
        self.dense = dense_before(self.in_shape, self.hidden, self.feature_map, context, activation)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return decode_map(self, x, context)


class ResidualBlock(nn.Module):
    """One block of `ResidualConv`: two convolutions beside one of kernel size 1."""

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
