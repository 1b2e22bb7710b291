"""The files of MNIST and its like: grey images and labels in the IDX format, read here.

Torchvision's own readers unpickle a folder ``processed`` where there is one; its downloads alone
are used.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import torch

from pyro_vae.datasets.sources import Part, Parts
from pyro_vae.files.reading import MEGABYTE, Kind, open_file, parsing
from pyro_vae.validation import InvalidInput

__all__ = ["download", "read_idx_parts"]

IDX = Kind(
    "data-root",
    "an IDX file of bytes, as torchvision downloads it",
    "delete it, and train downloads it again",
    1024 * MEGABYTE,
)
FILES = {  # of each part, and how many dimensions they have
    "train": {"train-images-idx3-ubyte": 3, "train-labels-idx1-ubyte": 1},
    "test": {"t10k-images-idx3-ubyte": 3, "t10k-labels-idx1-ubyte": 1},
}
BYTES = b"\0\0\x08"  # how an IDX file of bytes begins; the number of its dimensions follows


def read_idx_parts(name: str, folder: Path) -> Parts:
    """Images (N, 1, 28, 28) in [0, 1] and labels, from ``folder/NAME/raw``.

    Raises:
        InvalidInput: if a file is missing or damaged.
    """
    parts: Parts = {}
    for split, files in FILES.items():
        images, labels = (_read(name, folder, file, dims) for file, dims in files.items())
        if len(images) != len(labels):
            IDX.refuse(folder / name / "raw", f"with {len(images)} images and {len(labels)} labels")
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        parts[split] = Part(x[:, None].float() / 255, y.long())
    return parts


def _read(name: str, folder: Path, file: str, dims: int) -> np.ndarray:
    path = _path(name, folder, file)
    if path is None:
        raise _missing(name, folder, f"no {file} there")
    with open_file(path, IDX) as opened, parsing(path, IDX):
        stream = gzip.GzipFile(fileobj=opened) if path.suffix == ".gz" else opened
        start = stream.read(4 + 4 * dims)
        shape = np.frombuffer(start[4:], ">u4").tolist()
        size = math.prod(shape)
        if start[:4] != BYTES + bytes([dims]) or len(shape) != dims or size > IDX.max_bytes:
            IDX.refuse(path, "which begins as none does")
        data = bytearray(stream.read(size + 1))
        if len(data) != size or not size:
            IDX.refuse(path, f"which does not hold the {size:,} bytes that it states")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _path(name: str, folder: Path, file: str) -> Path | None:
    """Where a file is, packed or not."""
    raw = folder / name / "raw"
    return next((path for path in (raw / file, raw / f"{file}.gz") if path.exists()), None)


def _missing(name: str, folder: Path, reason: str) -> InvalidInput:
    return InvalidInput(
        "data-root",
        got=f"{folder}, without the files of {name} ({reason})",
        expected=f"{folder / name / 'raw'}",
        fix="set PYRO_VAE_DATA or --data-root to a folder that holds them, "
        "or train where there is a network, which downloads them",
    )


def download(name: str, folder: Path) -> None:
    """Fetch the files of a torchvision data set where they are missing.

    Raises:
        InvalidInput: if there is no way to fetch them.
    """
    if all(_path(name, folder, file) for files in FILES.values() for file in files):
        return
    from torchvision.datasets import KMNIST, MNIST, FashionMNIST

    kind = {"MNIST": MNIST, "FashionMNIST": FashionMNIST, "KMNIST": KMNIST}[name]
    fetcher = object.__new__(kind)  # its constructor would read the files
    fetcher.root = str(folder)
    try:
        fetcher.download()
    except (RuntimeError, OSError) as error:
        for empty in (folder / name / "raw", folder / name):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        raise _missing(
            name, folder, f"and no way to fetch them: {str(error).splitlines()[0]}"
        ) from (error)
