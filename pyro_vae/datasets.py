r"""Data sets: resident tensors with a name, an explicit binarisation policy and a SHA-256.

Bernoulli on grey pixels is no likelihood, so what was done about them is part of the data and of every number
reported about them:

- ``"none"``: values as they are.
- ``"fixed"``: each grey value v in [0, 1] became 1 with probability v, once, from a seed.
- ``"dynamic"``: drawn anew each time that a datum is visited in training; scores use the draw of ``"fixed"``, so a
  test set is the same for everyone.

A NaN is an error unless the data set says that it marks a missing entry, ``missing=True``.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from pyro_vae.spectrograms import STEP, log_spectrogram
from pyro_vae.text import Vocabulary, sections, sentences, words
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_finite, nearest_name

__all__ = ["Dataset", "as_dataset", "load", "names"]

Binarize = Literal["none", "dynamic", "fixed"]
BINARIZE = ("none", "dynamic", "fixed")
BINARIZE_SEED = 777


class Dataset(torch.utils.data.Dataset):
    r"""Data held in memory, ready to be scored (``x``) and to be trained on (``batch``).

    Slices, index tensors and masks give a `Dataset`; an integer gives one datum, ``x`` or ``(x, context)``.

    Args:
        values: data (N, \*event), floating point or converted; grey values in [0, 1] where they are to be binarised.
        context: labels (N,) or covariates (N, C), or ``None``.
        name: what it is called in results.
        split: ``"train"``, ``"test"`` or another part's name.
        binarize: the policy, see the head of this module.
        seed: seed of the fixed draw.
        missing: whether NaN marks a missing entry.
        vocabulary: of text, the words that x has the numbers of.

    Raises:
        InvalidInput: if grey values to be binarised leave [0, 1], or the context has another length.

    Example:
        >>> data = Dataset(torch.rand(100, 1, 8, 8), torch.arange(100) % 10, binarize="dynamic")
        >>> len(data[:20]), data[:20].x.unique().tolist(), len(data.sha256)
        (20, [0.0, 1.0], 64)
    """

    def __init__(self, values: Tensor | np.ndarray, context: Tensor | np.ndarray | None = None, *, name: str = "data",
                 split: str = "train", binarize: Binarize = "none", seed: int = BINARIZE_SEED, missing: bool = False,
                 vocabulary: Vocabulary | None = None):
        check_choice("binarize", binarize, BINARIZE)
        self.values = _as_tensor("x", values)
        if not self.values.is_floating_point():
            self.values = self.values.float()
        self.context = None if context is None else _as_tensor("y", context)
        if self.values.dim() == 0:
            raise InvalidInput("x", got="a single number", expected="data (N, *event)", fix="stack the data")
        if self.context is not None and len(self.context) != len(self.values):
            raise InvalidInput("y", got=f"{len(self.context)} labels", expected=f"{len(self.values)}, one for each datum",
                               fix="align y with x")
        self.name, self.split, self.binarize, self.seed, self.missing = name, split, binarize, seed, missing
        self.vocabulary = vocabulary
        self.published_validation: Dataset | None = None
        self._levels: Tensor | None = None
        if missing:  # one NaN of the many that there are: equal data have equal bytes
            self.values = torch.where(torch.isnan(self.values), torch.nan, self.values)
        if binarize != "none":
            check_finite("x", self.values, missing)
            seen = self.values[~torch.isnan(self.values)]
            low, high = (seen.min().item(), seen.max().item()) if len(seen) else (0.0, 1.0)
            if low < 0 or high > 1:
                raise InvalidInput("x", got=f"values from {low:.4g} to {high:.4g} to binarise", expected="grey values in [0, 1]",
                                   fix="rescale x, or pass binarize='none'")
        if binarize == "fixed":
            self.values = self._fixed_draw()

    def _fixed_draw(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(self.values.shape, generator=generator, dtype=torch.float32)  # whatever the default is
        return self._binarized(self.values, drawn.to(self.values.device))

    @cached_property
    def x(self) -> Tensor:
        r"""What is scored (N, \*event): the values, or the fixed draw of dynamically binarised ones."""
        return self._fixed_draw() if self.binarize == "dynamic" else self.values

    def batch(self, index: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """A training batch (x, context) of the data at ``index``, drawn anew if binarised dynamically.

        Args:
            index: which data.
            keys: what the draw follows from, see `batch_keys`; by default new ones.
        """
        if self._levels is None:
            x = self.values.index_select(0, index)
        else:
            x = (self._levels.index_select(0, index).float() / 255).to(self.values.dtype)
        if self.binarize == "dynamic":
            keys = batch_keys(1, x.device)[0] if keys is None else keys
            x = self._binarized(x, uniform(x.shape, keys).to(x.dtype))
        return x, None if self.context is None else self.context.index_select(0, index)

    def _binarized(self, values: Tensor, uniform: Tensor) -> Tensor:
        """1 with the probability that a value says, else 0; missing values stay missing."""
        drawn = (uniform < values).to(values.dtype)
        return torch.where(torch.isnan(values), values, drawn) if self.missing else drawn

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of what is scored: shape and values of x, then those of the context, then a text's words."""
        digest = hashlib.sha256()
        for part in (self.x, self.context):
            if part is not None:
                array = part.detach().cpu().contiguous().numpy()
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(array.data)
        if self.vocabulary is not None:
            digest.update("\n".join(self.vocabulary.words).encode())
        return digest.hexdigest()

    @property
    def text(self) -> list[str] | None:
        """The sentences that x spells, or ``None`` where x is no text."""
        return None if self.vocabulary is None else self.vocabulary.decode(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    @property
    def num_classes(self) -> int | None:
        """How many labels there are, 1 + the largest; ``None`` where the context holds no labels."""
        if self.context is None or self.context.is_floating_point() or self.context.dim() != 1:
            return None
        return int(self.context.max()) + 1

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            return self.x[index] if self.context is None else (self.x[index], self.context[index])
        values = self.values[index]
        x = values if self.x is self.values else self.x[index]
        return self._like(values, x, None if self.context is None else self.context[index])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """The same data on another device, floating-point parts of another dtype."""
        def move(value: Any) -> Any:
            if value is None:
                return None
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)
        values = move(self.values)
        moved = self._like(values, values if self.x is self.values else move(self.x), move(self.context))
        moved._levels = _grey_levels(moved.values) if self.binarize == "dynamic" else None
        return moved

    def hold_out(self, size: int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Data to train on and ``size`` data for validation, chosen at random from ``seed``.

        Where the data set was published with validation data, they are chosen among those, and all others are trained on.

        Raises:
            InvalidInput: if there are not as many.
        """
        source = self.published_validation or self
        most = len(source) - (source is self)  # some must be left to train on
        if not 0 < size <= most:
            raise InvalidInput("validation", got=str(size), expected=f"1 to {most} data held out of {len(source)}",
                               fix="hold out fewer")
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
        held = source[order[:size].sort().values]
        held.split = "validation"
        return (self[order[size:].sort().values] if source is self else self), held

    def repeat_labelled(self, times: int) -> Dataset:
        """The data with each datum of a known label ``times`` times, the others once: those of label -1.

        Of 60,000 images of which 100 have a label, a batch of 256 holds one in one case of three; visited 60 times an epoch, they are
        a tenth of every batch, and count 60 times in the epoch's objective.
        """
        check_count("labelled_repeats", times)
        if times == 1:
            return self
        if self.num_classes is None or self.context is None:
            raise InvalidInput("labelled_repeats", got=f"{times} with data {self.name!r}, which have no labels", expected="data with labels",
                               fix="leave it out")
        known = (self.context >= 0).nonzero()[:, 0]
        return self[torch.cat([torch.arange(len(self), device=known.device), known.repeat(times - 1)])]

    def _like(self, values: Tensor, x: Tensor, context: Tensor | None) -> Dataset:
        # The fixed draw is carried along rather than made anew: a datum's draw must not depend on its neighbours.
        part = object.__new__(Dataset)
        part.values, part.context = values, context
        part.name, part.split, part.binarize, part.seed, part.missing = self.name, self.split, self.binarize, self.seed, self.missing
        part.vocabulary, part.published_validation = self.vocabulary, self.published_validation
        part._levels = None
        part.__dict__["x"] = x
        return part


def _grey_levels(values: Tensor) -> Tensor | None:
    """The values as bytes, if they are bytes over 255 to the last bit: a batch is then read from a quarter of the memory."""
    levels = []
    for part in values.split(4096):
        levels.append((part * 255).round().to(torch.uint8))
        if not torch.equal((levels[-1].float() / 255).to(values.dtype), part):
            return None
    return torch.cat(levels) if levels else None


def batch_keys(num_batches: int, device: torch.device | str = "cpu") -> Tensor:
    """Keys (num_batches, 2) for `uniform`, from torch's random numbers."""
    return torch.randint(-(2**31), 2**31, (num_batches, 2), dtype=torch.int32, device=device)


def uniform(shape: Sequence[int], keys: Tensor) -> Tensor:
    """Uniform numbers on [0, 1), multiples of 2^-24, each a hash of its position and two keys.

    A batch has a hundred times more pixels than latents. A generator would draw them one after the other; these
    have no order, so they are drawn in parallel, as a part of the compiled step, and alike on every device.

    Args:
        shape: of the numbers.
        keys: two 32-bit integers (2,), see `batch_keys`.

    Source: the multipliers are those of Wellons' search for integer hashes of low bias (``lowbias32``).

    Example:
        >>> uniform((100_000,), torch.tensor([1, 2], dtype=torch.int32)).mean().round(decimals=2)
        tensor(0.5000)
    """
    position = torch.arange(math.prod(shape), dtype=torch.int32, device=keys.device)
    bits = position * -1640531527 + keys[0]  # products of 32-bit integers wrap around
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * 0x7FEB352D ^ keys[1]
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * -2073254261
    return ((bits >> 8).float() * 2.0**-24 + 0.5).reshape(shape)


Data = Dataset | torch.utils.data.Dataset | Tensor | tuple[Tensor, Tensor | None]


def as_dataset(data: Data) -> Dataset:
    """Whatever stands for data as a `Dataset`: one itself, any torch data set, a tensor x, or a pair (x, context).

    A torch data set is read into memory once, so its random transforms are drawn once.

    Example:
        >>> as_dataset((torch.zeros(5, 2), torch.arange(5))).num_classes
        5
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, torch.utils.data.Dataset):
        return _from_torch(data)
    if isinstance(data, Tensor | np.ndarray):
        return Dataset(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset(data[0], data[1])
    raise InvalidInput("data", got=type(data).__name__, expected="a data set, a tensor x, or a pair (x, context)",
                       fix="pass torch.as_tensor(x) or pv.datasets.load('mnist')")


def _from_torch(data: torch.utils.data.Dataset) -> Dataset:
    # A generator of its own: the loader draws a seed from it, which must not come from the caller's random state.
    loader = torch.utils.data.DataLoader(data, batch_size=1024, generator=torch.Generator())
    batches = list(loader)
    name = type(data).__name__
    if batches and not isinstance(batches[0], Tensor):
        return Dataset(*(torch.cat(parts) for parts in list(zip(*batches))[:2]), name=name)
    return Dataset(torch.cat(batches), name=name)


def _as_tensor(argument: str, value: Tensor | np.ndarray) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise InvalidInput(argument, got=f"an array of {value.dtype}", expected="numbers", fix="convert it to numbers")
        value = torch.from_numpy(np.ascontiguousarray(value.astype(np.int64) if value.dtype.kind in "u" else value))
    return value.detach()


# ---------------------------------------------------------------------------------------------------- named data

def names() -> list[str]:
    """The names that `load` knows."""
    return sorted([*_LOADERS, *_TEXTS])


def load(name: str, *, binarize: Binarize | None = None, seed: int = BINARIZE_SEED,
         root: str | Path | None = None, missing: bool = False, missing_fraction: float = 0.0,
         labelled: int | None = None, labelled_seed: int | None = None) -> tuple[Dataset, Dataset]:
    """A named data set, an ``.npz`` file, a text or a folder of images, as (train, test).

    Args:
        name: one of `names`; or a path to an ``.npz`` with ``x`` and optionally ``y`` (and ``x_test``, ``y_test``,
            ``x_validation``, ``y_validation``: see `Dataset.hold_out`); or
            a folder of images of one size, whose subfolders, if any, are the labels. Files without a test part have a
            tenth held out, chosen at random from ``seed``. A ``.txt`` has a sentence on each line, of which each tenth is a
            test sentence; its words become numbers, see `pyro_vae.text.Vocabulary`.
        binarize: the policy; by default dynamic for the data sets of characters and clothes, none otherwise.
        seed: seed of fixed binarisation, of a held-out part and of what is removed.
        missing: whether NaN marks a missing entry.
        missing_fraction: the probability with which each entry of x, train and test, is removed, completely at random;
            more than 0 implies ``missing``.
        labelled: how many training data keep their label, the same number of each, the others' becoming -1, unknown; by
            default all.
        labelled_seed: seed of which ones; by default ``seed``.
        root: the folder with the data sets' files; by default the environment's ``PYRO_VAE_DATA``, else
            ``~/.cache/pyro_vae``. Those of torchvision are downloaded to it if they are not there.

    Raises:
        InvalidInput: for an unknown name, files that are missing or no data, or a fraction outside [0, 1).

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
        (vocabulary, parts), default = _numbered(_TEXTS[name]() if name in _TEXTS else _read_text(Path(name))), "none"
        name = Path(name).stem
    elif name.endswith(".npz"):
        parts, default = _read_npz(Path(name)), "none"
        name = Path(name).stem
    elif Path(name).is_dir():
        parts, default = _read_images(Path(name)), "none"
        name = Path(name).name
    else:
        raise InvalidInput("data", got=repr(name), expected="the name of a data set, an .npz or .txt file or a folder of images",
                           fix=nearest_name(name, names()))
    policy: Binarize = binarize or default
    if not 0 <= missing_fraction < 1:
        raise InvalidInput("missing_fraction", got=str(missing_fraction), expected="a probability in [0, 1)", fix="pass 0.2")
    if missing_fraction:
        generator = torch.Generator().manual_seed(seed)
        parts = {split: (_removed(x, missing_fraction, generator), y) for split, (x, y) in parts.items()}
    sets = {split: Dataset(x, y, name=name, split=split, binarize=policy, seed=seed, missing=missing or missing_fraction > 0,
                           vocabulary=vocabulary)
            for split, (x, y) in parts.items()}
    if "test" not in sets:
        sets["train"], sets["test"] = sets["train"].hold_out(max(1, len(sets["train"]) // 10), seed)
        sets["test"].split = "test"
    sets["train"].published_validation = sets.get("validation")
    if labelled is not None:
        sets["train"] = _partly_labelled(sets["train"], labelled, seed if labelled_seed is None else labelled_seed)
    return sets["train"], sets["test"]


Parts = dict[str, tuple[np.ndarray | Tensor, np.ndarray | Tensor | None]]


def _removed(x: np.ndarray | Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """The values with each entry missing with that probability."""
    values = _as_tensor("x", x) if isinstance(x, np.ndarray) else x
    values = values if values.is_floating_point() else values.float()
    return torch.where(torch.rand(values.shape, generator=generator, dtype=torch.float32) < fraction, torch.nan, values)


def _partly_labelled(data: Dataset, labelled: int, seed: int) -> Dataset:
    """The data with all labels but those of a few, as many of each, replaced by -1."""
    classes = data.num_classes
    if classes is None or data.context is None:
        raise InvalidInput("labelled", got=f"{labelled} with data {data.name!r}, which have no labels", expected="data with labels",
                           fix="leave it out")
    each, rest = divmod(labelled, classes)
    if rest or not 0 < each <= int(torch.bincount(data.context).min()):
        raise InvalidInput("labelled", got=str(labelled), expected=f"as many of each of the {classes} labels, and no more than there are",
                           fix=f"pass {classes * max(1, min(each, int(torch.bincount(data.context).min())))}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[data.context[order] == label][:each] for label in range(classes)])
    context = torch.full_like(data.context, -1)
    context[kept] = data.context[kept]
    return data._like(data.values, data.x, context)


def _digits(folder: Path) -> Parts:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64)
    # The writers come in order, so the split that leaves the last fifth out also leaves writers out.
    return {"train": (x[:1437], y[:1437]), "test": (x[1437:], y[1437:])}


def _torchvision(class_name: str) -> Callable[[Path], Parts]:
    def read(folder: Path) -> Parts:
        import torchvision

        parts: Parts = {}
        for split in ("train", "test"):
            try:
                data = getattr(torchvision.datasets, class_name)(str(folder), train=split == "train", download=True)
            except (RuntimeError, OSError) as error:
                for left in (folder / class_name / "raw", folder / class_name):  # made for the files that did not come
                    if left.is_dir() and not any(left.iterdir()):
                        left.rmdir()
                raise InvalidInput("data-root", got=f"{folder}, without the files of {class_name} and no way to fetch them "
                                                    f"({str(error).splitlines()[0]})",
                                   expected=f"{folder / class_name / 'raw'}",
                                   fix="set PYRO_VAE_DATA or --data-root to a folder that holds them") from error
            parts[split] = (data.data[:, None].float() / 255, data.targets)
        return parts
    return read


def _static_mnist(folder: Path) -> Parts:
    arrays = _open_npz(folder / "binarized_mnist_static.npz")
    train, validation, test = (arrays[split].reshape(-1, 1, 28, 28).astype(np.float32) for split in ("train", "valid", "test"))
    return {"train": (train, None), "validation": (validation, None), "test": (test[_shuffle(test)], None)}


def _shuffle(x: np.ndarray) -> np.ndarray:
    """A fixed order for data that a file sorts by class, so that the first so many are of all classes."""
    return np.random.default_rng(0).permutation(len(x))


def _frey_faces(folder: Path) -> Parts:
    x = _open_npz(folder / "frey_faces.npz")["images"][:, None].astype(np.float32) / 255
    return {"train": (x, None)}


def _omniglot(folder: Path) -> Parts:
    arrays = _open_npz(folder / "omniglot_28_area.npz")
    x, label = arrays["images"][:, None].astype(np.float32) / 255, arrays["alphabet"].astype(np.int64)
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
    frequent = sorted((-count, word) for word, count in total.items() if word not in ENGLISH_STOP_WORDS)[:WORDS]
    vocabulary = sorted(word for _, word in frequent)
    counts = {split: np.array([[p[word] for word in vocabulary] for p in few], dtype=np.float32) for split, few in parts.items()}
    return {split: (x[x.sum(1) > 0], None) for split, x in counts.items()}


Texts = dict[str, list[list[str]]]  # the words of each sentence
LONGEST, SHORTEST = 27, 5


def _sentences() -> Texts:
    """Sentences of the reference texts that ship with Python, each once; every eighth section is a test section."""
    from pydoc_data.topics import topics

    found: list[list[list[str]]] = []
    seen: set[tuple[str, ...]] = set()
    for _, text in sorted(topics.items()):
        for section in sections(text):  # some are part of several topics
            new = dict.fromkeys(tuple(words(sentence)) for sentence in sentences(section))
            kept = [list(sentence) for sentence in new if SHORTEST <= len(sentence) <= LONGEST and sentence not in seen]
            seen.update(new)
            found += [kept] if kept else []
    is_test = [i % 8 == 7 for i in range(len(found))]
    return {split: [sentence for section, test in zip(found, is_test) if test == (split == "test") for sentence in section]
            for split in ("train", "test")}


def _read_text(path: Path) -> Texts:
    try:
        lines = [words(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("data", got=f"{path}, which cannot be read ({error})", expected="a text, a sentence on each line",
                           fix="check the path, and that it is encoded in UTF-8") from None
    lines = [line for line in lines if line]
    if len(lines) < 10:
        raise InvalidInput("data", got=f"{path} with {len(lines)} lines that have words", expected="ten sentences or more, one on each line",
                           fix="write each sentence on a line of its own")
    return {"train": [line for i, line in enumerate(lines) if i % 10 != 9], "test": lines[9::10]}


def _numbered(texts: Texts) -> tuple[Vocabulary, Parts]:
    """The vocabulary of the training sentences, words that occur twice or more, and all sentences as its numbers."""
    vocabulary = Vocabulary.of(texts["train"])
    length = 1 + max(len(sentence) for split in texts.values() for sentence in split)
    return vocabulary, {split: (vocabulary.encode(few, length), None) for split, few in texts.items()}


def _spoken_digits(folder: Path) -> Parts:
    """The first half second of each recording as a log-spectrogram; the first five takes of each speaker and digit are the test."""
    arrays = _open_npz(folder / "free_spoken_digits.npz")
    recordings = np.zeros((len(arrays["digit"]), 63 * STEP), dtype=np.float32)
    for row, (start, end) in zip(recordings, zip(arrays["offsets"], arrays["offsets"][1:])):
        sound = arrays["audio"][start : min(end, start + len(row))]
        row[: len(sound)] = sound / 32768
    x, y, is_test = log_spectrogram(torch.from_numpy(recordings)), arrays["digit"].astype(np.int64), arrays["take"] < 5
    return {"train": (x[~is_test], y[~is_test]), "test": (x[is_test], y[is_test])}


FRAMES, FRAME = 8, 32


def _moving_digits(folder: Path) -> Parts:
    """Clips of eight frames of 32x32, in each a digit of MNIST that flies straight on and bounces off the walls."""
    parts: Parts = {}
    for split, (x, y) in _torchvision("MNIST")(folder).items():
        count = 10_000 if split == "train" else 2_000
        x = torch.nn.functional.interpolate(torch.as_tensor(x)[:count], size=(20, 20), mode="area")[:, 0]
        generator = torch.Generator().manual_seed(0)
        room = FRAME - x.shape[-1]
        place, speed = torch.rand(2, len(x), 2, 1, generator=generator)
        unfolded = (place * room + 8 * (speed - 0.5) * torch.arange(FRAMES)) % (2 * room)
        corner = torch.where(unfolded > room, 2 * room - unfolded, unfolded).round().long()
        # Which row and column of the digit lies where; outside of it the empty ones that are added behind.
        inside = torch.arange(FRAME) - corner.unsqueeze(-1)
        rows, columns = torch.where((inside >= 0) & (inside < x.shape[-1]), inside, x.shape[-1]).unbind(1)
        framed = torch.nn.functional.pad(x, (0, 1, 0, 1))
        clips = framed[torch.arange(len(x))[:, None, None, None], rows.unsqueeze(-1), columns.unsqueeze(-2)]
        parts[split] = (clips, torch.as_tensor(y)[:count])
    return parts


def _coloured_digits(folder: Path) -> Parts:
    """Digits of MNIST in a colour of full saturation drawn at random, as bytes (3, 28, 28) over 255; the label is the digit."""
    parts: Parts = {}
    for split, (x, y) in _torchvision("MNIST")(folder).items():
        x = torch.as_tensor(x)
        hue = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0))
        colour = (2 - 6 * ((hue - torch.tensor([0.0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5).abs()).clamp(0, 1)
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


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InvalidInput("data", got=f"{path}, which does not exist", expected="an .npz file",
                           fix="check the path, or set PYRO_VAE_DATA or --data-root to the folder that holds it") from None
    except Exception as error:  # a truncated archive raises whatever its codec raises
        raise InvalidInput("data", got=f"{path}, which cannot be read ({error})", expected="an .npz file without pickles",
                           fix="write it with numpy.savez(path, x=x, y=y), x an array of numbers") from None


def _read_npz(path: Path) -> Parts:
    arrays = _open_npz(path)
    if "x" not in arrays:
        raise InvalidInput("data", got=f"{path} with {', '.join(sorted(arrays)) or 'nothing'}",
                           expected="an array named x, and optionally y", fix="write it with numpy.savez(path, x=x, y=y)")
    parts: Parts = {"train": (_scaled(arrays["x"]), arrays.get("y"))}
    for split in ("validation", "test"):
        if f"x_{split}" in arrays:
            parts[split] = (_scaled(arrays[f"x_{split}"]), arrays.get(f"y_{split}"))
    return parts


def _scaled(x: np.ndarray) -> np.ndarray:
    """Bytes are grey levels and become values in [0, 1]; other numbers stay as they are."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def _read_images(folder: Path) -> Parts:
    from PIL import Image, UnidentifiedImageError

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp", ".gif"})
    if not files:
        raise InvalidInput("data", got=f"{folder}, without images", expected="png, jpg, bmp or gif files",
                           fix="check the folder")
    images = []
    for path in files:
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert("L" if image.mode in ("1", "L", "I", "I;16") else "RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise InvalidInput("data", got=f"{path}, which cannot be read ({error})", expected="an image",
                               fix="remove or repair it") from None
        images.append(np.atleast_3d(array).transpose(2, 0, 1))
        if images[-1].shape != images[0].shape:
            raise InvalidInput("data", got=f"{path} of shape {images[-1].shape}", expected=f"{images[0].shape}, as {files[0]}",
                               fix="resize the images to one size and colour mode")
    parents = sorted({path.parent.name for path in files if path.parent != folder})
    labels = np.array([parents.index(path.parent.name) for path in files]) if len(parents) > 1 else None
    return {"train": (np.stack(images).astype(np.float32) / 255, labels)}
