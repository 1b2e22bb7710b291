"""Which of a file's named arrays are x, its labels and its splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.known import beside, check_complete, check_known_named, known_in_words
from pyro_vae.datasets.sources import Part, Reading, Source, split_of
from pyro_vae.datasets.tables import read_frames
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["source_of_arrays", "wanted_arrays"]


def wanted_arrays(names: Sequence[str], reading: Reading) -> list[str]:
    """The arrays of a file that are read: x, or the only one, and those that belong to it."""
    sites = reading.keys or [_name_of_x(names, reading, the_only=True)]
    known = [_first_of(name, names) for name in reading.known_columns]
    found = {name for x in [*sites, *known] for name in _belonging(x, names)}
    return [name for name in names if name in found]


def source_of_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    reading: Reading,
    names: Sequence[str] | None = None,
) -> Source:
    """Parts of arrays named ``x`` and ``y``, ``x_test`` and ``y_test``, and so on.

    Where the reading names several arrays, each is an observed site, and x a dictionary of them.
    """
    if len(reading.keys) < 2:
        return _of_one(path, arrays, reading, names)
    sources = {
        site: _of_one(path, arrays, replace(reading, key=site), names) for site in reading.keys
    }
    for site, source in sources.items():
        if source.columns is not None:
            raise InvalidInput(
                "key",
                got=f"{site!r} of {path}, which is a table",
                expected="arrays of numbers, one for each observed site",
                fix=f"read the table alone: key={site!r} (--key {site})",
            )
    first, splits = sources[reading.keys[0]], {s: [*each.parts] for s, each in sources.items()}
    if any(set(found) != set(first.parts) for found in splits.values()):
        raise InvalidInput(
            "key",
            got=f"{path}, whose arrays have other splits: {splits}",
            expected="the same splits of each",
            fix="write " + ", ".join(f"{site}_test" for site in reading.keys) + ", or none of them",
        )
    parts = {
        split: Part({site: source.parts[split].x for site, source in sources.items()}, part.y)
        for split, part in first.parts.items()
    }
    known = sorted(arrays if names is None else names)
    return replace(first, parts=parts, notes=_notes(known, reading.keys, reading, first.parts))


def _name_of_x(names: Sequence[str], reading: Reading, the_only: bool) -> str:
    if reading.key is not None or "x" in names:
        return reading.key or "x"
    if the_only and len(names) == 1:
        return names[0]
    return next((name for name in names if name in ("x_train", "x_training")), "x")


def _first_of(name: str, names: Sequence[str]) -> str:
    """The array of training data that a known quantity's name stands for."""
    trained = (f"{name}_train", f"{name}_training")
    return next((each for each in (name, *trained) if each in names), name)


def _belonging(x: str, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The arrays that belong to x, each with its split and whether it is x or y.

    Example:
        >>> _belonging("x", ["x", "x_val", "y", "w"])
        {'x': ('train', 'x'), 'x_val': ('validation', 'x'), 'y': ('train', 'y')}
    """
    folder, _, base = x.rpartition("/")
    base = base.removesuffix("_train").removesuffix("_training")
    found = {x: ("train", "x")}
    for name in names:
        inside, _, own = name.rpartition("/")
        array, _, split = own.rpartition("_")
        if inside != folder or name == x:
            continue
        if own == "y":
            found[name] = ("train", "y")
        elif array in (base, "y") and (which := split_of(split)):
            found[name] = (which, "x" if array == base else "y")
    return found


def _of_one(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    reading: Reading,
    names: Sequence[str] | None = None,
) -> Source:
    names = sorted(arrays if names is None else names)
    x = _name_of_x(names, reading, the_only=len(arrays) == 1 and names != sorted(arrays))
    if x not in arrays and len(names) == 1 and path.suffix.lower() != ".npz":
        (x,) = names
    if x not in arrays:
        advice = f"name one of them: key={names[0]!r} (--key {names[0]})" if names else ""
        raise InvalidInput(
            "key" if reading.key else "data",
            got=f"{path} with {', '.join(names) or 'nothing'}",
            expected=f"an array named {x}, and optionally y",
            fix=(nearest_name(x, names) if reading.key and names else advice)
            or "write it with numpy.savez(path, x=x, y=y)",
        )
    if arrays[x].dtype.names:
        return read_frames({"train": as_frame(arrays[x])}, reading, path.stem)
    belonging = _belonging(x, names)
    found = {place: arrays[name] for name, place in belonging.items() if name in arrays}
    splits = [split for split, which in found if which == "x"]
    contexts = {
        split: beside(_known_in(split, arrays, reading, names), found.get((split, "y")))
        for split in splits
    }
    parts = {split: Part(found[split, "x"], contexts[split]) for split in splits}
    return Source(path.stem, parts, known=reading.known, notes=_notes(names, [x], reading, splits))


def _known_in(
    split: str, arrays: Mapping[str, np.ndarray], reading: Reading, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The known quantities of a split: of ``noise``, the array ``noise`` or ``noise_test``."""
    found: dict[str, np.ndarray] = {}
    for quantity, (array, *more) in reading.known.items():
        if more:
            raise InvalidInput(
                f"known {quantity}",
                got=f"{1 + len(more)} arrays",
                expected="one, of the shape (N,), or that of x",
                fix=f"stack them in one, numpy.stack(arrays, 1), and name that: {array!r}",
            )
        own = {place: name for name, place in _belonging(_first_of(array, names), names).items()}
        if (split, "x") not in own or own[split, "x"] not in names:
            missing = array if split == "train" else f"{array}_{split}"
            check_known_named({quantity: (missing,)}, names, "an array")
        found[quantity] = arrays[own[split, "x"]]
        if isinstance(found[quantity], np.ndarray):
            check_complete(quantity, own[split, "x"], found[quantity])
    return found


def _notes(
    names: Sequence[str], sites: Sequence[str], reading: Reading, splits: Collection[str]
) -> tuple[str, ...]:
    """Notes of the known quantities, and of the arrays that are read for none of these sites."""
    read = [*sites, *(_first_of(name, names) for name in reading.known_columns)]
    belonging = [place for x in read for place in _belonging(x, names).items()]
    used = {name for name, (split, _) in belonging if split in splits}
    unused = [name for name in names if name not in used]
    known = [f"known: {known_in_words(reading.known)}"] if reading.known else []
    return (*known, *([f"arrays {', '.join(unused)} are left out"] if unused else []))
