"""Data sets by name: those that packages ship, torchvision's, and files under a root folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch.utils.data
from torch import Tensor

from pyro_vae.datasets.dataset import BINARIZE, BINARIZE_SEED, Binarize, Dataset, as_tensor
from pyro_vae.datasets.files import Parts, Texts, open_npz, read_images, read_npz, read_text
from pyro_vae.datasets.spectrograms import STEP, log_spectrogram
from pyro_vae.datasets.text import Vocabulary, sections, sentences, words
from pyro_vae.validation import InvalidInput, check_choice, nearest_name

__all__ = ["load", "names"]

# named data


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted([*_LOADERS, *_TEXTS])


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
) -> tuple[Dataset, Dataset]:
    """A named data set, an ``.npz`` file, a text or a folder of images, as (train, test).

    Args:
        name: one of `names`; or a path to an ``.npz`` with ``x`` and optionally ``y`` (and
            ``x_test``, ``y_test``, ``x_validation``, ``y_validation``: see `Dataset.hold_out`); or
            a folder of images of one size, whose subfolders, if any, are the labels. Files without
            a test part have a tenth held out, chosen at random from ``seed``. A ``.txt`` has a
            sentence on each line, of which each tenth is a test sentence; its words become numbers,
            see `pyro_vae.datasets.text.Vocabulary`.
        binarize: the policy; by default dynamic for the data sets of characters and clothes, none
            otherwise.
        seed: seed of fixed binarisation, of a held-out part and of what is removed.
        missing: whether NaN marks a missing entry.
        missing_fraction: the probability with which each entry of x, train and test, is removed,
            completely at random; more than 0 implies ``missing``.
        labelled: how many training data keep their label, the same number of each, the others'
            becoming -1, unknown; by default all.
        labelled_seed: seed of which ones; by default ``seed``.
        root: the folder with the data sets' files; by default the environment's ``PYRO_VAE_DATA``,
            else ``~/.cache/pyro_vae``. Those of torchvision are downloaded to it if they are not
            there.

    Raises:
        InvalidInput: for an unknown name, files that are missing or no data, or a fraction outside
            [0, 1).

    Example:
        >>> train, test = load("digits")
        >>> train.event_shape, len(train), len(test), test.binarize
        ((1, 8, 8), 1437, 360, 'dynamic')
    """
    if binarize is not None:
        check_choice("binarize", binarize, BINARIZE)
    folder = Path(root or os.environ.get("PYRO_VAE_DATA") or Path.home() / ".cache" / "pyro_vae")
    vocabulary = None
    if name in _LOADERS:
        loader, default = _LOADERS[name]
        parts = loader(folder)
    elif name in _TEXTS or name.endswith(".txt"):
        (vocabulary, parts), default = (
            _numbered(_TEXTS[name]() if name in _TEXTS else read_text(Path(name))),
            "none",
        )
        name = Path(name).stem
    elif name.endswith(".npz"):
        parts, default = read_npz(Path(name)), "none"
        name = Path(name).stem
    elif Path(name).is_dir():
        parts, default = read_images(Path(name)), "none"
        name = Path(name).name
    else:
        raise InvalidInput(
            "data",
            got=repr(name),
            expected="the name of a data set, an .npz or .txt file or a folder of images",
            fix=nearest_name(name, names()),
        )
    policy: Binarize = binarize or default
    if not 0 <= missing_fraction < 1:
        raise InvalidInput(
            "missing_fraction",
            got=str(missing_fraction),
            expected="a probability in [0, 1)",
            fix="pass 0.2",
        )
    if missing_fraction:
        generator = torch.Generator().manual_seed(seed)
        parts = {
            split: (_removed(x, missing_fraction, generator), y) for split, (x, y) in parts.items()
        }
    sets = {
        split: Dataset(
            x,
            y,
            name=name,
            split=split,
            binarize=policy,
            seed=seed,
            missing=missing or missing_fraction > 0,
            vocabulary=vocabulary,
        )
        for split, (x, y) in parts.items()
    }
    if "test" not in sets:
        sets["train"], sets["test"] = sets["train"].hold_out(max(1, len(sets["train"]) // 10), seed)
        sets["test"].split = "test"
    sets["train"].published_validation = sets.get("validation")
    if labelled is not None:
        sets["train"] = _partly_labelled(
            sets["train"], labelled, seed if labelled_seed is None else labelled_seed
        )
    return sets["train"], sets["test"]


def _removed(x: np.ndarray | Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """The values with each entry missing with that probability."""
    values = as_tensor("x", x) if isinstance(x, np.ndarray) else x
    values = values if values.is_floating_point() else values.float()
    return torch.where(
        torch.rand(values.shape, generator=generator, dtype=torch.float32) < fraction,
        torch.nan,
        values,
    )


def _partly_labelled(data: Dataset, labelled: int, seed: int) -> Dataset:
    """The data with all labels but those of a few, as many of each, replaced by -1."""
    classes = data.num_classes
    if classes is None or data.context is None:
        raise InvalidInput(
            "labelled",
            got=f"{labelled} with data {data.name!r}, which have no labels",
            expected="data with labels",
            fix="leave it out",
        )
    each, rest = divmod(labelled, classes)
    if rest or not 0 < each <= int(torch.bincount(data.context).min()):
        raise InvalidInput(
            "labelled",
            got=str(labelled),
            expected=f"as many of each of the {classes} labels, and no more than there are",
            fix=f"pass {classes * max(1, min(each, int(torch.bincount(data.context).min())))}",
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[data.context[order] == label][:each] for label in range(classes)])
    context = torch.full_like(data.context, -1)
    context[kept] = data.context[kept]
    return data._like(data.values, data.x, context)


def _digits(folder: Path) -> Parts:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64)
    # The writers come in order, so the split that leaves the last fifth out also leaves writers
    # out.
    return {"train": (x[:1437], y[:1437]), "test": (x[1437:], y[1437:])}


def _torchvision(class_name: str) -> Callable[[Path], Parts]:
    def read(folder: Path) -> Parts:
        import torchvision

        parts: Parts = {}
        for split in ("train", "test"):
            try:
                data = getattr(torchvision.datasets, class_name)(
                    str(folder), train=split == "train", download=True
                )
            except (RuntimeError, OSError) as error:
                for left in (
                    folder / class_name / "raw",
                    folder / class_name,
                ):  # made for the files that did not come
                    if left.is_dir() and not any(left.iterdir()):
                        left.rmdir()
                raise InvalidInput(
                    "data-root",
                    got=f"{folder}, without the files of {class_name} and no way to fetch them "
                    f"({str(error).splitlines()[0]})",
                    expected=f"{folder / class_name / 'raw'}",
                    fix="set PYRO_VAE_DATA or --data-root to a folder that holds them",
                ) from error
            parts[split] = (data.data[:, None].float() / 255, data.targets)
        return parts

    return read


def _static_mnist(folder: Path) -> Parts:
    arrays = open_npz(folder / "binarized_mnist_static.npz")
    train, validation, test = (
        arrays[split].reshape(-1, 1, 28, 28).astype(np.float32)
        for split in ("train", "valid", "test")
    )
    return {
        "train": (train, None),
        "validation": (validation, None),
        "test": (test[_shuffle(test)], None),
    }


def _shuffle(x: np.ndarray) -> np.ndarray:
    """A fixed order for data that a file sorts by class, so that the first so many are of all classes."""
    return np.random.default_rng(0).permutation(len(x))


def _frey_faces(folder: Path) -> Parts:
    x = open_npz(folder / "frey_faces.npz")["images"][:, None].astype(np.float32) / 255
    return {"train": (x, None)}


def _omniglot(folder: Path) -> Parts:
    arrays = open_npz(folder / "omniglot_28_area.npz")
    x, label = (
        arrays["images"][:, None].astype(np.float32) / 255,
        arrays["alphabet"].astype(np.int64),
    )
    background = arrays["set"] == 0
    test = np.flatnonzero(~background)[_shuffle(x[~background])]
    return {"train": (x[background], label[background]), "test": (x[test], label[test])}


def _table(reader: str, with_label: bool = False) -> Callable[[Path], Parts]:
    """A table of scikit-learn's: columns standardised by the training rows' statistics, every fifth row, shuffled, a test row."""

    def read(folder: Path) -> Parts:
        import sklearn.datasets

        table = getattr(sklearn.datasets, reader)()
        order = torch.randperm(len(table.data), generator=torch.Generator().manual_seed(0)).numpy()
        x, y = table.data[order], table.target[order].astype(np.int64)
        is_test = np.arange(len(x)) % 5 == 4
        x = (x - x[~is_test].mean(0)) / x[~is_test].std(0)
        if with_label:
            x = np.column_stack([x, y])
        x = x.astype(np.float32)
        return {"train": (x[~is_test], y[~is_test]), "test": (x[is_test], y[is_test])}

    return read


WORDS, PASSAGE = 500, 100


def _topics(folder: Path) -> Parts:
    """Word counts of the reference texts that ship with Python, in passages of a hundred words; they vary with its version."""
    from pydoc_data.topics import topics

    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    passages = []
    for _, text in sorted(topics.items()):
        words = re.findall(r"[a-z]{3,}", text.lower())
        passages += [Counter(words[i : i + PASSAGE]) for i in range(0, len(words), PASSAGE)]
    parts = {"train": [p for i, p in enumerate(passages) if i % 5 != 4], "test": passages[4::5]}
    total = sum(parts["train"], Counter())
    frequent = sorted(
        (-count, word) for word, count in total.items() if word not in ENGLISH_STOP_WORDS
    )[:WORDS]
    vocabulary = sorted(word for _, word in frequent)
    counts = {
        split: np.array([[p[word] for word in vocabulary] for p in few], dtype=np.float32)
        for split, few in parts.items()
    }
    return {split: (x[x.sum(1) > 0], None) for split, x in counts.items()}


LONGEST, SHORTEST = 27, 5


def _sentences() -> Texts:
    """Sentences of the reference texts that ship with Python, each once; every eighth section is a test section."""
    from pydoc_data.topics import topics

    found: list[list[list[str]]] = []
    seen: set[tuple[str, ...]] = set()
    for _, text in sorted(topics.items()):
        for section in sections(text):  # some are part of several topics
            new = dict.fromkeys(tuple(words(sentence)) for sentence in sentences(section))
            kept = [
                list(sentence)
                for sentence in new
                if SHORTEST <= len(sentence) <= LONGEST and sentence not in seen
            ]
            seen.update(new)
            found += [kept] if kept else []
    is_test = [i % 8 == 7 for i in range(len(found))]
    return {
        split: [
            sentence
            for section, test in zip(found, is_test)
            if test == (split == "test")
            for sentence in section
        ]
        for split in ("train", "test")
    }


def _numbered(texts: Texts) -> tuple[Vocabulary, Parts]:
    """The vocabulary of the training sentences, words that occur twice or more, and all sentences as its numbers."""
    vocabulary = Vocabulary.of(texts["train"])
    length = 1 + max(len(sentence) for split in texts.values() for sentence in split)
    return vocabulary, {
        split: (vocabulary.encode(few, length), None) for split, few in texts.items()
    }


def _spoken_digits(folder: Path) -> Parts:
    """The first half second of each recording as a log-spectrogram; the first five takes of each speaker and digit are the test."""
    arrays = open_npz(folder / "free_spoken_digits.npz")
    recordings = np.zeros((len(arrays["digit"]), 63 * STEP), dtype=np.float32)
    for row, (start, end) in zip(recordings, zip(arrays["offsets"], arrays["offsets"][1:])):
        sound = arrays["audio"][start : min(end, start + len(row))]
        row[: len(sound)] = sound / 32768
    x, y, is_test = (
        log_spectrogram(torch.from_numpy(recordings)),
        arrays["digit"].astype(np.int64),
        arrays["take"] < 5,
    )
    return {"train": (x[~is_test], y[~is_test]), "test": (x[is_test], y[is_test])}


FRAMES, FRAME = 8, 32


def _moving_digits(folder: Path) -> Parts:
    """Clips of eight frames of 32x32, in each a digit of MNIST that flies straight on and bounces off the walls."""
    parts: Parts = {}
    for split, (x, y) in _torchvision("MNIST")(folder).items():
        count = 10_000 if split == "train" else 2_000
        x = torch.nn.functional.interpolate(torch.as_tensor(x)[:count], size=(20, 20), mode="area")[
            :, 0
        ]
        generator = torch.Generator().manual_seed(0)
        room = FRAME - x.shape[-1]
        place, speed = torch.rand(2, len(x), 2, 1, generator=generator)
        unfolded = (place * room + 8 * (speed - 0.5) * torch.arange(FRAMES)) % (2 * room)
        corner = torch.where(unfolded > room, 2 * room - unfolded, unfolded).round().long()
        # Which row and column of the digit lies where; outside of it the empty ones that are added
        # behind.
        inside = torch.arange(FRAME) - corner.unsqueeze(-1)
        rows, columns = torch.where(
            (inside >= 0) & (inside < x.shape[-1]), inside, x.shape[-1]
        ).unbind(1)
        framed = torch.nn.functional.pad(x, (0, 1, 0, 1))
        clips = framed[
            torch.arange(len(x))[:, None, None, None], rows.unsqueeze(-1), columns.unsqueeze(-2)
        ]
        parts[split] = (clips, torch.as_tensor(y)[:count])
    return parts


def _coloured_digits(folder: Path) -> Parts:
    """Digits of MNIST in a colour of full saturation drawn at random, as bytes (3, 28, 28) over 255; the label is the digit."""
    parts: Parts = {}
    for split, (x, y) in _torchvision("MNIST")(folder).items():
        x = torch.as_tensor(x)
        hue = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0))
        colour = (2 - 6 * ((hue - torch.tensor([0.0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5).abs()).clamp(
            0, 1
        )
        parts[split] = ((x * colour[:, :, None, None] * 255).round() / 255, y)
    return parts


_LOADERS: dict[str, tuple[Callable[[Path], Parts], Binarize]] = {
    "digits": (_digits, "dynamic"),
    "mnist": (_torchvision("MNIST"), "dynamic"),
    "fashion_mnist": (_torchvision("FashionMNIST"), "dynamic"),
    "kmnist": (_torchvision("KMNIST"), "dynamic"),
    "binarized_mnist": (_static_mnist, "none"),
    "omniglot": (_omniglot, "dynamic"),
    "frey_faces": (_frey_faces, "none"),
    "spoken_digits": (_spoken_digits, "none"),
    "moving_digits": (_moving_digits, "dynamic"),
    "coloured_digits": (_coloured_digits, "none"),
    "wine": (_table("load_wine"), "none"),
    "wine_and_class": (_table("load_wine", with_label=True), "none"),
    "breast_cancer": (_table("load_breast_cancer"), "none"),
    "topics": (_topics, "none"),
}


_TEXTS: dict[str, Callable[[], Texts]] = {"sentences": _sentences}
