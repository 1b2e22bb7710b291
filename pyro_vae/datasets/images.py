"""Torchvision's images of 28x28 pixels, and clips and coloured digits made from its MNIST."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import interpolate, pad

from pyro_vae.datasets.idx import read_idx_parts
from pyro_vae.datasets.sources import Part, Parts

__all__ = ["coloured_digits", "moving_digits", "torchvision_images"]

FRAMES, FRAME = 8, 32  # frames of a clip, and their height and width


def torchvision_images(name: str) -> Callable[[Path], Parts]:
    """Grey levels and labels of a torchvision data set, from a folder that holds its files."""
    return lambda folder: read_idx_parts(name, folder)


def moving_digits(folder: Path) -> Parts:
    """Clips of eight 32x32 frames in which a digit moves straight and bounces off the walls."""
    parts: Parts = {}
    for split, (x, y) in torchvision_images("MNIST")(folder).items():
        count = 10_000 if split == "train" else 2_000
        x, labels = torch.as_tensor(x)[:count], torch.as_tensor(y)[:count]
        x = interpolate(x, size=(20, 20), mode="area")[:, 0]
        generator = torch.Generator().manual_seed(0)
        room = FRAME - x.shape[-1]
        place, speed = torch.rand(2, len(x), 2, 1, generator=generator)
        unfolded = (place * room + 8 * (speed - 0.5) * torch.arange(FRAMES)) % (2 * room)
        corner = torch.where(unfolded > room, 2 * room - unfolded, unfolded).round().long()
        # The row and the column of the digit at each place of the frame; outside of the digit, the
        # empty ones that are padded behind it.
        inside = torch.arange(FRAME) - corner.unsqueeze(-1)
        is_inside = (inside >= 0) & (inside < x.shape[-1])
        rows, columns = torch.where(is_inside, inside, x.shape[-1]).unbind(1)
        which = torch.arange(len(x))[:, None, None, None]
        clips = pad(x, (0, 1, 0, 1))[which, rows.unsqueeze(-1), columns.unsqueeze(-2)]
        parts[split] = Part(clips, labels)
    return parts


def coloured_digits(folder: Path) -> Parts:
    """Digits of MNIST, each in a random colour of full saturation; the label is the digit.

    Values are bytes over 255, of shape (3, 28, 28).
    """
    parts: Parts = {}
    for split, (x, y) in torchvision_images("MNIST")(folder).items():
        x = torch.as_tensor(x)
        hue = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0))
        distance = ((hue - torch.tensor([0.0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5).abs()
        colour = (2 - 6 * distance).clamp(0, 1)
        parts[split] = Part((x * colour[:, :, None, None] * 255).round() / 255, y)
    return parts
