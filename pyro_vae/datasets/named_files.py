"""Data sets stored under the root folder, each as one ``.npz`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyro_vae.datasets.files import open_npz
from pyro_vae.datasets.sources import Part, Parts
from pyro_vae.datasets.spectrograms import STEP, log_spectrogram

__all__ = ["frey_faces", "omniglot", "spoken_digits", "static_mnist"]

FRAMES = 63  # of a spectrogram, which are half a second


def static_mnist(folder: Path) -> Parts:
    """MNIST as Larochelle binarised it, with its published validation data."""
    arrays = open_npz(folder / "binarized_mnist_static.npz")
    train, validation, test = (
        arrays[split].reshape(-1, 1, 28, 28).astype(np.float32)
        for split in ("train", "valid", "test")
    )
    return {"train": Part(train), "validation": Part(validation), "test": Part(test[_mixed(test)])}


def frey_faces(folder: Path) -> Parts:
    """Frames of a film of Brendan Frey's face, grey levels of 28x20 pixels."""
    images = open_npz(folder / "frey_faces.npz")["images"]
    return {"train": Part(images[:, None].astype(np.float32) / 255)}


def omniglot(folder: Path) -> Parts:
    """Characters of 50 alphabets, labelled by alphabet; the evaluation set is for testing."""
    arrays = open_npz(folder / "omniglot_28_area.npz")
    x, label = arrays["images"][:, None].astype(np.float32) / 255, arrays["alphabet"]
    label, background = label.astype(np.int64), arrays["set"] == 0
    test = np.flatnonzero(~background)[_mixed(x[~background])]
    return {"train": Part(x[background], label[background]), "test": Part(x[test], label[test])}


def spoken_digits(folder: Path) -> Parts:
    """The first half second of recordings of digits, as log-spectrograms.

    The first five takes of each speaker and digit are the test.
    """
    arrays = open_npz(folder / "free_spoken_digits.npz")
    recordings = np.zeros((len(arrays["digit"]), FRAMES * STEP), dtype=np.float32)
    for row, (start, end) in zip(recordings, zip(arrays["offsets"], arrays["offsets"][1:])):
        sound = arrays["audio"][start : min(end, start + len(row))]
        row[: len(sound)] = sound / 32768
    x, y = log_spectrogram(torch.from_numpy(recordings)), arrays["digit"].astype(np.int64)
    is_test = arrays["take"] < 5
    return {"train": Part(x[~is_test], y[~is_test]), "test": Part(x[is_test], y[is_test])}


def _mixed(x: np.ndarray) -> np.ndarray:
    """A fixed permutation that mixes the classes of a file sorted by class."""
    return np.random.default_rng(0).permutation(len(x))
