"""Read files and folders: ``.npz``, text, and folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pyro_vae.datasets.text import words
from pyro_vae.validation import InvalidInput

__all__ = ["Part", "Parts", "Texts", "open_npz", "read_images", "read_npz", "read_text"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}


class Part(NamedTuple):
    """A part of a data set as read: values, and labels if there are any."""

    x: np.ndarray | Tensor
    y: np.ndarray | Tensor | None = None


Parts = dict[str, Part]  # by split
Texts = dict[str, list[list[str]]]  # by split, the words of each sentence


def read_text(path: Path) -> Texts:
    """Read a text with one sentence per line; every tenth is a test sentence."""
    try:
        lines = [words(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "data",
            got=f"{path}, which cannot be read ({error})",
            expected="a text, a sentence on each line",
            fix="check the path, and that it is encoded in UTF-8",
        ) from None
    lines = [line for line in lines if line]
    if len(lines) < 10:
        raise InvalidInput(
            "data",
            got=f"{path} with {len(lines)} lines that have words",
            expected="ten sentences or more, one on each line",
            fix="write each sentence on a line of its own",
        )
    return {"train": [line for i, line in enumerate(lines) if i % 10 != 9], "test": lines[9::10]}


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz``; pickles in it are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InvalidInput(
            "data",
            got=f"{path}, which does not exist",
            expected="an .npz file",
            fix="check the path, or set PYRO_VAE_DATA or --data-root to the folder that holds it",
        ) from None
    except Exception as error:  # whatever the codec raises on a truncated archive
        raise InvalidInput(
            "data",
            got=f"{path}, which cannot be read ({error})",
            expected="an .npz file without pickles",
            fix="write it with numpy.savez(path, x=x, y=y), x an array of numbers",
        ) from None


def read_npz(path: Path) -> Parts:
    """Read ``x`` and ``y``, ``x_test`` and ``y_test``, and so on, from an ``.npz``."""
    arrays = open_npz(path)
    if "x" not in arrays:
        raise InvalidInput(
            "data",
            got=f"{path} with {', '.join(sorted(arrays)) or 'nothing'}",
            expected="an array named x, and optionally y",
            fix="write it with numpy.savez(path, x=x, y=y)",
        )
    parts = {"train": Part(_scaled(arrays["x"]), arrays.get("y"))}
    for split in ("validation", "test"):
        if f"x_{split}" in arrays:
            parts[split] = Part(_scaled(arrays[f"x_{split}"]), arrays.get(f"y_{split}"))
    return parts


def _scaled(x: np.ndarray) -> np.ndarray:
    """Grey levels in [0, 1] from bytes; other numbers stay as they are."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def read_images(folder: Path) -> Parts:
    """Read images of one size, labelled by the folders that hold them."""
    from PIL import Image, UnidentifiedImageError

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if not files:
        raise InvalidInput(
            "data",
            got=f"{folder}, without images",
            expected="png, jpg, bmp or gif files",
            fix="check the folder",
        )
    images = []
    for path in files:
        try:
            with Image.open(path) as image:
                mode = "L" if image.mode in ("1", "L", "I", "I;16") else "RGB"
                array = np.asarray(image.convert(mode))
        except (UnidentifiedImageError, OSError) as error:
            raise InvalidInput(
                "data",
                got=f"{path}, which cannot be read ({error})",
                expected="an image",
                fix="remove or repair it",
            ) from None
        images.append(np.atleast_3d(array).transpose(2, 0, 1))
        if images[-1].shape != images[0].shape:
            raise InvalidInput(
                "data",
                got=f"{path} of shape {images[-1].shape}",
                expected=f"{images[0].shape}, as {files[0]}",
                fix="resize the images to one size and colour mode",
            )
    parents = sorted({path.parent.name for path in files if path.parent != folder})
    labels = None
    if len(parents) > 1:
        labels = np.array([parents.index(path.parent.name) for path in files])
    return {"train": Part(np.stack(images).astype(np.float32) / 255, labels)}
