"""Bits per dimension of test images as files without loss: PNG, WebP, JPEG 2000.

    python experiments/systems/codecs.py DATA [--limit N]

DATA is what ``--data`` takes. Each codec writes every image to a file of its own, and all of them,
side by side, to one picture. A file of its own pays for its header; one picture lets the codec
learn from the other images, which a model of single images may not. Entries that are independent,
each with its frequencies in the training data (one added), are the baseline without a codec.
"""

import argparse
import io
import math

import torch
from clips_and_colours import independent_bits
from PIL import Image

import pyro_vae as pv

CODECS = {
    "PNG": {"format": "PNG", "optimize": True},
    "WebP": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
    "JPEG 2000": {"format": "JPEG2000", "irreversible": False},
}


def encoded(pixels: torch.Tensor, options: dict) -> int | None:
    """Bytes of an image (3, height, width) as a file; ``None`` where the codec loses something."""
    picture = Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
    file = io.BytesIO()
    picture.save(file, **options)
    back = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    return len(file.getvalue()) if back.tobytes() == picture.tobytes() else None


def side_by_side(images: torch.Tensor) -> torch.Tensor:
    """One picture (3, height, width) of images (N, 3, h, w) in rows; N need not be a square."""
    columns = math.isqrt(len(images))
    whole = images[: len(images) // columns * columns]
    rows = whole.unflatten(0, (-1, columns))  # (rows, columns, 3, h, w)
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--limit", type=int, default=None, help="the first test images alone")
    options = parser.parse_args()
    train, test = pv.datasets.load(options.data, binarize="none")
    top = 255 if train.x.max() > 1 else 1  # a file's bytes; named data come in [0, 1]
    x = test.x[: options.limit] / top
    images = (255 * x).round().to(torch.uint8)
    print(f"{len(images)} test images, {test.event_shape}; bits per dimension")
    print(f"{'entries independent':<21}{independent_bits(train.x / top, x):7.3f}")
    picture = side_by_side(images)
    for name, settings in CODECS.items():
        sizes = [encoded(image, settings) for image in images]
        one = encoded(picture, settings)
        if one is None or None in sizes:
            print(f"{name:<21}loses something")
            continue
        alone = 8 * sum(sizes) / images.numel()
        print(f"{name:<21}{alone:7.3f} a file each{8 * one / picture.numel():9.3f} in one picture")


if __name__ == "__main__":
    main()
