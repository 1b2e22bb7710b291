"""Residual networks on a grid of patches, for images: convolutions at a quarter of the height and width, where they are cheap.

Named in a recipe by import path, as any network of one's own is: ``encoder: experiments.results.patches.PatchEncoder``.
"""

import math

from torch import Tensor, nn

from pyro_vae.networks import MLP, as_shape
from pyro_vae.networks.base import over_batch


class Block(nn.Module):
    """Two convolutions added to what they were given."""

    def __init__(self, channels: int):
        super().__init__()
        self.bent = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.bent(h)


class PatchEncoder(nn.Module):
    """Patches of an image (C, H, W) as channels, a convolution, residual blocks, a narrow 1x1 convolution and a dense layer.

    Args:
        in_shape: (channels, height, width), both multiples of ``patch``.
        channels: width of the residual blocks.
        blocks: how many of them.
        hidden: width of the dense layer, the features.
        patch: side of a patch.
        context: number of context features, which join at the dense layer; 0 for none.
    """

    def __init__(self, in_shape: tuple[int, ...], channels: int = 64, blocks: int = 1, hidden: int = 256, patch: int = 4, context: int = 0):
        super().__init__()
        self.in_shape, self.channels, self.blocks, self.hidden, self.patch = as_shape(in_shape), channels, blocks, hidden, patch
        self.context = context
        colours, height, width = self.in_shape
        self.convolutions = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(colours * patch**2, channels, 3, padding=1), *(Block(channels) for _ in range(blocks)),
            nn.SiLU(), nn.Conv2d(channels, 16, 1))
        self.dense = MLP(16 * height // patch * width // patch, [hidden], context=context, activation=nn.SiLU)
        self.out_shape = self.dense.out_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.dense(over_batch(self.convolutions, x, 3).flatten(-3), context)


class PatchDecoder(nn.Module):
    """The mirror of `PatchEncoder`: dense layers to a grid, residual blocks, then each place of the grid becomes a patch.

    Args:
        in_shape: event shape of the latent; flattened.
        size: the image's (channels, height, width).
        channels: width of the residual blocks.
        blocks: how many of them.
        hidden: width of the dense layer.
        patch: side of a patch.
        features: channels of the feature map returned, of the image's height and width.
        context: number of context features, which join at the dense layer; 0 for none.
    """

    def __init__(self, in_shape: tuple[int, ...], size: tuple[int, ...] = (), channels: int = 64, blocks: int = 1, hidden: int = 256,
                 patch: int = 4, features: int = 4, context: int = 0):
        super().__init__()
        self.in_shape, self.size, self.channels, self.blocks, self.hidden = as_shape(in_shape), as_shape(size), channels, blocks, hidden
        self.patch, self.features, self.context = patch, features, context
        height, width = self.size[-2:]
        self.map = (16, height // patch, width // patch)
        self.dense = MLP(in_shape, [hidden, math.prod(self.map)], context=context, activation=nn.SiLU)
        self.convolutions = nn.Sequential(
            nn.Conv2d(self.map[0], channels, 3, padding=1), *(Block(channels) for _ in range(blocks)),
            nn.SiLU(), nn.Conv2d(channels, features * patch**2, 1), nn.SiLU(), nn.PixelShuffle(patch))
        self.out_shape = (features, height, width)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.dense(z, context)
        return over_batch(self.convolutions, h.reshape(*h.shape[:-1], *self.map), 3)
