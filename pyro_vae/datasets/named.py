"""Data sets by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.changes import Changes
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.containers import read_object
from pyro_vae.datasets.dataset import BINARIZE_SEED, Dataset
from pyro_vae.datasets.files import KINDS_OF_FILES, read_path, read_text, reported
from pyro_vae.datasets.idx import download
from pyro_vae.datasets.images import coloured_digits, moving_digits, torchvision_images
from pyro_vae.datasets.named_files import frey_faces, omniglot, spoken_digits, static_mnist
from pyro_vae.datasets.numbered import numbered
from pyro_vae.datasets.packaged import digits, passages, python_sentences, table, topics
from pyro_vae.datasets.sources import (
    Binarize,
    Parts,
    Reading,
    Source,
    Texts,
    check_reading,
    say,
)
from pyro_vae.datasets.splitting import partly_labelled, split_in_place
from pyro_vae.datasets.standard import in_units_of, standardized
from pyro_vae.datasets.stored import fits, is_large, open_stored, refused
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.files.cache import cache_folder
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    nearest_name,
    tensors_of,
)

__all__ = ["InMemory", "load", "load_whole", "names"]

InMemory = Literal["auto", "on", "off"]

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

# Each with how often a word must occur in training to have a number of its own.
TEXTS: dict[str, tuple[Callable[[], Texts], int]] = {
    "sentences": (python_sentences, 2),
    "passages": (passages, 10),
}


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted([*READERS, *TEXTS])


def policy_of(name: str) -> Binarize | None:
    """How `load` binarises a data set that it knows where nothing is said; ``None`` for others."""
    return READERS[name][1] if name in READERS else None


def load(
    name: object,
    *,
    binarize: Binarize | None = None,
    seed: int = BINARIZE_SEED,
    root: str | Path | None = None,
    missing: bool = False,
    missing_fraction: float = 0.0,
    labelled: int | None = None,
    labelled_seed: int | None = None,
    fetch: bool = True,
    key: str | Sequence[str] | None = None,
    scale: float | None = None,
    resize: Sequence[int] | None = None,
    channels: Literal["first", "last"] | None = None,
    target: str | None = None,
    context: str | Sequence[str] = (),
    known: Mapping[str, str | Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    standardize: bool = False,
    like: Columns | None = None,
    context_like: Columns | None = None,
    vocabulary: Vocabulary | None = None,
    in_memory: InMemory = "auto",
) -> tuple[Dataset, Dataset]:
    """Read a data set by name, a file, a folder or an object, as (train, test).

    Without a test part, a tenth is held out at random from ``seed``. Folders, dictionaries and
    arrays named after train, test and val(idation) are those parts (for the last, see
    `Dataset.hold_out`). What is skipped, resized or filled in is logged, a line each, and kept as
    ``notes`` of both.

    Args:
        name: one of `names`; or a path; or any object that `as_dataset` takes. A path is that of
            an ``.npz``, ``.h5`` or ``.zarr`` with ``x`` and optionally ``y`` (and ``x_test``,
            ``y_test``, ``x_validation``, ``y_validation``); of an ``.npy``; of a table, ``.csv``,
            ``.tsv`` or ``.parquet``; of an ``.h5ad``; of a ``.txt`` with a sentence on each line,
            every tenth a test sentence, see `pyro_vae.datasets.Vocabulary`; or of a folder of
            images or ``.wav``, whose subfolders, if any, are the labels.
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
            else the cache folder, ``~/.cache/pyro_vae``.
        fetch: whether torchvision's data sets are downloaded to the root if they are not there.
        key: the array or layer that is x, where there are several. Several arrays, separated by
            commas as in ``"image,text"``, are as many observed sites.
        scale: what x is divided by, such as 255 for bytes in an ``.npz``; images in files are grey
            levels in [0, 1] by their bit depth.
        resize: height and width that images are resized to.
        channels: ``"last"`` moves the channels of images (N, H, W, C) first; ``"first"`` says that
            they are there.
        target: the column of a table with the labels.
        context: the columns of a table that are the context; one with categories makes labels.
        known: which columns of a table, or array of a file, hold what the likelihood must be told
            of each datum, ``{"scale": "noise"}``: one column for all entries of x, or one for each,
            ``{"censored": "c1,c2"}``. The context is then a dictionary of these quantities and,
            if there are labels or covariates, of ``context``.
        columns: the kind of columns by name, or their likelihood, or ``"drop"``, see
            `pyro_vae.datasets.Columns`; by default the narrowest kind that holds their values.
        standardize: subtract the mean of the training rows and divide by their standard deviation,
            column by column; positive columns are divided by their mean, counts and categories
            stay. A dictionary context's noise and bounds, ``scale``, ``inverse_variance`` and
            ``upper``, change likewise. `Dataset.frame` undoes it.
        like: the columns of x that a table must have, with their units and categories, such as
            ``train.columns`` of the data that a program was trained on.
        context_like: the columns of the context likewise.
        vocabulary: the words whose numbers a text is given, and the length of its sentences, such
            as ``train.vocabulary``; by default those of its own training part.
        in_memory: ``"off"`` leaves x on disk, read some rows at a time: an ``.npy``, an ``.npz``
            that is not compressed, HDF5, Zarr, Parquet, a folder of images or of Hugging Face's
            ``save_to_disk``, or a torch data set. ``"auto"`` does so where x would take more than
            half of the memory that is free.

    Raises:
        InvalidInput: for an unknown name, files that are missing or hold no data, or a fraction
            outside [0, 1).

    Example:
        >>> train, test = load("digits")
        >>> train.event_shape, len(train), len(test), test.binarize
        ((1, 8, 8), 1437, 360, 'dynamic')
    """
    changes = Changes(binarize, seed, missing, missing_fraction, scale, channels)
    if fetch and isinstance(name, str) and name in DOWNLOADS:
        download(DOWNLOADS[name], _root(root))
    reading = Reading.of(key, resize, target, context, known, columns, like, context_like)
    source = _read(name, root, replace(reading, vocabulary=vocabulary), in_memory)
    in_units = standardize or (like is not None and like.is_standardized)
    sets = changes.sets_of(source, context_like, in_units)
    train, test = sets["train"], sets.get("test")
    if test is None:
        if len(train) < 2:
            raise InvalidInput(
                "data",
                got=f"{source.name} with one datum",
                expected="two or more: one to train on and one to test on",
                fix="add data or a test part, or take it whole: pv.datasets.load_whole (--split "
                "all)",
            )
        is_ours = isinstance(name, str | Path)  # an object's memory is its owner's
        split = split_in_place if is_ours and binarize != "fixed" else Dataset.hold_out
        train, test = split(train, max(1, len(train) // 10), seed)
        test.split = "test"
    train.published_validation = sets.get("validation")
    if like is not None and like.is_standardized:
        validation = train.published_validation
        train, test = (in_units_of(part, like, context_like) for part in (train, test))
        if validation is not None:
            train.published_validation = in_units_of(validation, like, context_like)
    elif standardize:
        train, test = standardized(train, test)
    if labelled is not None:
        train = partly_labelled(train, labelled, seed if labelled_seed is None else labelled_seed)
    say(source.name, train.notes)
    return train, test


def _root(root: str | Path | None) -> Path:
    """The folder of the data sets' files: as given, the environment's, or a cache."""
    if given := root or os.environ.get("PYRO_VAE_DATA"):
        return Path(given)
    # Of a user without a home, what needs a folder will say how to name one.
    return cache_folder() or Path(os.devnull) / "pyro_vae"


def load_whole(
    name: object,
    *,
    binarize: Binarize | None = None,
    seed: int = BINARIZE_SEED,
    missing: bool = False,
    missing_fraction: float = 0.0,
    root: str | Path | None = None,
    key: str | Sequence[str] | None = None,
    scale: float | None = None,
    resize: Sequence[int] | None = None,
    channels: Literal["first", "last"] | None = None,
    target: str | None = None,
    context: str | Sequence[str] = (),
    known: Mapping[str, str | Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    standardize: bool = False,
    like: Columns | None = None,
    context_like: Columns | None = None,
    vocabulary: Vocabulary | None = None,
    in_memory: InMemory = "auto",
) -> Dataset:
    """Read all data as one set, in their order; the arguments are those of `load`.

    ``standardize`` is by all rows, unless ``like`` says in which units the columns are.

    Example:
        >>> len(load_whole("wine"))
        178
    """
    changes = Changes(binarize, seed, missing, missing_fraction, scale, channels)
    reading = Reading.of(key, resize, target, context, known, columns, like, context_like)
    source = _read(name, root, replace(reading, vocabulary=vocabulary), in_memory)
    in_units = standardize or (like is not None and like.is_standardized)
    sets = changes.sets_of(source, context_like, in_units)
    whole = _one_of(list(sets.values()))
    if like is not None:
        whole = in_units_of(whole, like, context_like) if like.is_standardized else whole
    elif standardize:
        whole, _ = standardized(whole, whole, "all rows")
    whole.split = "all"
    say(whole.name, whole.notes)
    return whole


def _one_of(sets: Sequence[Dataset]) -> Dataset:
    """Several splits as one data set, site by site where there are several."""
    first, *others = sets
    if not others:
        return first
    parts = {name: _one_of([each.parts[name] for each in sets]) for name in first.parts}
    kept: Tensors = {} if parts else torch.cat([each.kept for each in sets])
    whole = first._like(kept, _joined([each.context for each in sets]), parts)
    whole.missing = any(each.missing for each in sets)
    return whole


def _joined(contexts: Sequence[Tensors | None]) -> Tensors | None:
    """The contexts of several splits as one; a source has the same entries in all."""
    first = contexts[0]
    if first is None:
        return None
    entries = [tensors_of(each) for each in contexts]
    whole = {name: torch.cat([each[name] for each in entries]) for name in entries[0]}
    return whole if isinstance(first, dict) else whole[""]


def _read(name: object, root: str | Path | None, reading: Reading, in_memory: InMemory) -> Source:
    """Read the named data set, from the root folder if it is there, a path, or an object."""
    check_choice("in_memory", in_memory, get_args(InMemory))
    source = _stored(name, reading, in_memory) or _source_of(name, root, reading)
    check_reading(source, reading)
    return source


def _stored(name: object, reading: Reading, in_memory: InMemory) -> Source | None:
    """The source that stays on disk, if that is asked for, or would not fit in memory."""
    is_name = isinstance(name, str | Path)
    is_known = is_name and str(name) in (*READERS, *TEXTS)
    if in_memory == "on" or (in_memory == "auto" and (is_known or not is_name)):
        return None
    if in_memory == "off":
        if isinstance(name, str | Path) and not is_known:
            with reported(Path(name), "data that can stay on disk"):
                found = open_stored(name, reading)
        else:
            found = None if is_known else open_stored(name, reading)
        if found is None:
            raise refused(name)
        return found
    if not is_large(Path(str(name))):
        return None
    try:
        found = open_stored(name, reading)
    except InvalidInput:  # of a kind that is read into memory
        return None
    return found if found is not None and not fits(found) else None


def _source_of(name: object, root: str | Path | None, reading: Reading) -> Source:
    if not isinstance(name, str | Path):
        return read_object(name, reading)
    folder = _root(root)
    path, name = Path(name), str(name)
    if name in READERS:
        reader, binarize = READERS[name]
        return Source(name, reader(folder), binarize)
    if name in TEXTS:
        read, least = TEXTS[name]
        return numbered(name, read(), reading.vocabulary, least)
    if path.suffix.lower() == ".txt":
        fewest = 10 if reading.vocabulary is None else 1  # of which the words are learned
        return numbered(path.stem, read_text(path, fewest), reading.vocabulary)
    source = read_path(path, reading)
    if source is None:
        is_file = bool(path.suffix) or path.exists()
        raise InvalidInput(
            "data",
            got=repr(name),
            expected="the name of a data set, a folder, or a file that ends in "
            + ", ".join([".txt", *KINDS_OF_FILES]),
            fix="convert it to one of these, or pass the folder of images or sounds that it is in"
            if is_file
            else nearest_name(name, names()),
        )
    return source
