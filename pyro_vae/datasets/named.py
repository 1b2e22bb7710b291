"""Data sets by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.datasets.dataset import BINARIZE, BINARIZE_SEED, Binarize, Dataset, as_tensor
from pyro_vae.datasets.files import Part, Parts, Texts, read_images, read_npz, read_text
from pyro_vae.datasets.idx import download
from pyro_vae.datasets.images import coloured_digits, moving_digits, torchvision_images
from pyro_vae.datasets.named_files import frey_faces, omniglot, spoken_digits, static_mnist
from pyro_vae.datasets.packaged import digits, python_sentences, table, topics
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.validation import InvalidInput, check_choice, nearest_name

__all__ = ["load", "names"]

READERS: dict[str, tuple[Callable[[Path], Parts], Binarize]] = {
    "digits": (digits, "dynamic"),
    "mnist": (torchvision_images("MNIST"), "dynamic"),
    "fashion_mnist": (torchvision_images("FashionMNIST"), "dynamic"),
    "kmnist": (torchvision_images("KMNIST"), "dynamic"),
    "binarized_mnist": (static_mnist, "none"),
    "omniglot": (omniglot, "dynamic"),
    "frey_faces": (frey_faces, "none"),
    "spoken_digits": (spoken_digits, "none"),
    "moving_digits": (moving_digits, "dynamic"),
    "coloured_digits": (coloured_digits, "none"),
    "wine": (table("wine"), "none"),
    "wine_and_class": (table("wine", with_label=True), "none"),
    "breast_cancer": (table("breast_cancer"), "none"),
    "topics": (topics, "none"),
}

# What a download fetches, from torchvision's servers.
DOWNLOADS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "moving_digits": "MNIST",
    "coloured_digits": "MNIST",
}

TEXTS: dict[str, Callable[[], Texts]] = {"sentences": python_sentences}


@dataclass(frozen=True)
class Source:
    """The parts of a data set as read, before any binarisation."""

    name: str
    parts: Parts
    binarize: Binarize = "none"  # unless the user asks for another policy
    vocabulary: Vocabulary | None = None


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted([*READERS, *TEXTS])


def load(
    name: str,
    *,
    binarize: Binarize | None = None,
    seed: int = BINARIZE_SEED,
    root: str | Path | None = None,
    missing: bool = False,
    missing_fraction: float = 0.0,
    labelled: int | None = None,
    labelled_seed: int | None = None,
    fetch: bool = True,
) -> tuple[Dataset, Dataset]:
    """Read a data set by name, or an ``.npz``, a text or a folder of images, as (train, test).

    Args:
        name: one of `names`; or a path to an ``.npz`` with ``x`` and optionally ``y`` (and
            ``x_test``, ``y_test``, ``x_validation``, ``y_validation``: see `Dataset.hold_out`); or
            a folder of images of one size, whose subfolders, if any, are the labels. Without a test
            part, a tenth is held out at random from ``seed``. A ``.txt`` has a sentence on each
            line, every tenth a test sentence; its words become numbers, see
            `pyro_vae.datasets.text.Vocabulary`.
        binarize: the policy; by default ``"dynamic"`` for characters and clothes, else
            ``"none"``.
        seed: seed of fixed binarisation, of a held-out part and of removed entries.
        missing: whether NaN marks a missing entry.
        missing_fraction: the probability with which each entry of x is removed, completely at
            random, in all parts; more than 0 implies ``missing``.
        labelled: how many training data keep their label, the same number of each; all others
            become -1, unknown. By default all keep theirs.
        labelled_seed: seed of the choice of labelled data; by default ``seed``.
        root: the folder with the data sets' files; by default the environment's ``PYRO_VAE_DATA``,
            else ``~/.cache/pyro_vae``.
        fetch: whether torchvision's data sets are downloaded to the root if they are not there.

    Raises:
        InvalidInput: for an unknown name, files that are missing or hold no data, or a fraction
            outside [0, 1).

    Example:
        >>> train, test = load("digits")
        >>> train.event_shape, len(train), len(test), test.binarize
        ((1, 8, 8), 1437, 360, 'dynamic')
    """
    if binarize is not None:
        check_choice("binarize", binarize, BINARIZE)
    folder = _root(root)
    if fetch and name in DOWNLOADS:
        download(DOWNLOADS[name], folder)
    source = _read(name, folder)
    parts = source.parts
    if not 0 <= missing_fraction < 1:
        raise InvalidInput(
            "missing_fraction",
            got=str(missing_fraction),
            expected="a probability in [0, 1)",
            fix="pass 0.2",
        )
    if missing_fraction:
        draws = torch.Generator().manual_seed(seed)
        parts = {s: Part(_removed(x, missing_fraction, draws), y) for s, (x, y) in parts.items()}
    sets = {
        split: Dataset(
            x,
            y,
            name=source.name,
            split=split,
            binarize=binarize or source.binarize,
            seed=seed,
            missing=missing or missing_fraction > 0,
            vocabulary=source.vocabulary,
        )
        for split, (x, y) in parts.items()
    }
    train, test = sets["train"], sets.get("test")
    if test is None:
        train, test = train.hold_out(max(1, len(train) // 10), seed)
        test.split = "test"
    train.published_validation = sets.get("validation")
    if labelled is not None:
        train = _partly_labelled(train, labelled, seed if labelled_seed is None else labelled_seed)
    return train, test


def _root(root: str | Path | None) -> Path:
    """The folder of the data sets' files: as given, the environment's, or a cache."""
    if given := root or os.environ.get("PYRO_VAE_DATA"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "pyro_vae"
    except RuntimeError:  # of a user without a home: what needs a folder will say how to name one
        return Path(os.devnull) / "pyro_vae"


def _read(name: str, folder: Path) -> Source:
    """Read the named data set, from ``folder`` if it is there, or read the path itself."""
    path = Path(name)
    if name in READERS:
        reader, binarize = READERS[name]
        return Source(name, reader(folder), binarize)
    if name in TEXTS:
        return _numbered(name, TEXTS[name]())
    if path.suffix == ".txt":
        return _numbered(path.stem, read_text(path))
    if path.suffix == ".npz":
        return Source(path.stem, read_npz(path))
    if path.is_dir():
        return Source(path.name, read_images(path))
    raise InvalidInput(
        "data",
        got=repr(name),
        expected="the name of a data set, an .npz or .txt file or a folder of images",
        fix=nearest_name(name, names()),
    )


def _numbered(name: str, texts: Texts) -> Source:
    """Encode sentences with the words that occur at least twice in the training data."""
    vocabulary = Vocabulary.of(texts["train"])
    length = 1 + max(len(sentence) for split in texts.values() for sentence in split)
    parts = {split: Part(vocabulary.encode(few, length)) for split, few in texts.items()}
    return Source(name, parts, vocabulary=vocabulary)


def _removed(x: np.ndarray | Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """The values, each entry removed with the given probability."""
    values = as_tensor("x", x) if isinstance(x, np.ndarray) else x
    values = values if values.is_floating_point() else values.float()
    drawn = torch.rand(values.shape, generator=generator, dtype=torch.float32)
    return torch.where(drawn < fraction, torch.nan, values)


def _partly_labelled(data: Dataset, labelled: int, seed: int) -> Dataset:
    """Keep ``labelled`` labels, equally many per class; the others become -1."""
    classes = data.num_classes
    if classes is None or data.labels is None:
        raise InvalidInput(
            "labelled",
            got=f"{labelled} with data {data.name!r}, which have no labels",
            expected="data with labels",
            fix="leave it out",
        )
    each, rest = divmod(labelled, classes)
    if rest or not 0 < each <= int(torch.bincount(data.labels).min()):
        raise InvalidInput(
            "labelled",
            got=str(labelled),
            expected=f"a multiple of {classes}, equally many of each label, within those available",
            fix=f"pass {classes * max(1, min(each, int(torch.bincount(data.labels).min())))}",
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[data.labels[order] == label][:each] for label in range(classes)])
    context = torch.full_like(data.labels, -1)
    context[kept] = data.labels[kept]
    return data.with_context(context)
