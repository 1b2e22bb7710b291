"""Files as data: the one place that says which reader a file's ending chooses."""

from __future__ import annotations

import csv
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.datasets.annotated import read_annotated
from pyro_vae.datasets.folders import read_folder
from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.hub import read_hub
from pyro_vae.datasets.optional import optional
from pyro_vae.datasets.sources import Part, Parts, Reading, Source, Texts
from pyro_vae.datasets.tables import read_frames
from pyro_vae.datasets.text import check_lengths, exact_words
from pyro_vae.files.reading import Kind, read_npz
from pyro_vae.validation import InvalidInput, nearest_name

if TYPE_CHECKING:
    import pandas

__all__ = ["KINDS_OF_FILES", "open_npz", "read_path", "read_text"]

SPLITS = ("validation", "test")

NPZ = Kind(
    "data",
    "an .npz file without pickles",
    "write it with numpy.savez(path, x=x, y=y), x an array of numbers",
    2**40,
)


def read_path(path: Path, reading: Reading = Reading()) -> Source | None:
    """What a file or a folder holds; ``None`` if its ending is none of those known.

    Raises:
        InvalidInput: if it is missing, empty, no plain file, changes while it is read, or holds
            something else than its ending says.
    """
    if path.is_dir() and path.suffix != ".zarr":
        if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
            library = optional("datasets", "hub")
            with reported(path, "a data set saved by its save_to_disk"):
                return _named(read_hub(library.load_from_disk(str(path)), reading), path)
        return read_folder(path, reading)
    reader = KINDS_OF_FILES.get(path.suffix.lower())
    if reader is None:
        return None
    with reported(path, f"a {path.suffix} file of numbers"):
        return _named(reader(path, reading), path)


def _named(source: Source, path: Path) -> Source:
    return Source(**(vars(source) | {"name": path.stem}))


@contextmanager
def reported(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a reader raises into one line, and refuse a file that changes meanwhile."""
    try:
        before = path.stat()
        if not (stat.S_ISREG(before.st_mode) or stat.S_ISDIR(before.st_mode)):
            raise InvalidInput(
                "data",
                got=f"{path}, which is no plain file",
                expected="a file or a folder",
                fix="copy the data to a file",
            )
        if stat.S_ISREG(before.st_mode) and before.st_size == 0:
            raise InvalidInput(
                "data",
                got=f"{path}, which is empty",
                expected=expected,
                fix="write it anew",
            )
        yield
        after = path.stat()
    except InvalidInput:
        raise
    except FileNotFoundError:
        raise InvalidInput(
            "data",
            got=f"{path}, which does not exist",
            expected=expected,
            fix="check the path, or set PYRO_VAE_DATA or --data-root to the folder that holds it",
        ) from None
    except MemoryError:
        raise InvalidInput(
            "data",
            got=f"{path}, which does not fit in memory",
            expected="data that do",
            fix="take fewer rows or columns, or a smaller dtype",
        ) from None
    except Exception as error:  # whatever the codec raises on a truncated file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "pickle" in reason:
            reason = "it holds pickled objects, which can run code"
        raise InvalidInput(
            "data",
            got=f"{path}, which cannot be read ({reason})",
            expected=expected,
            fix="write it anew, or check that its ending is right",
        ) from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise InvalidInput(
            "data",
            got=f"{path}, which changed while it was read",
            expected="a file that stays as it is",
            fix="wait until it is written, then try again",
        )


# named arrays: npz, HDF5, Zarr


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz``; pickles in it are refused."""
    with reported(path, NPZ.expected):
        return read_npz(path, NPZ)


def _npz(path: Path, reading: Reading) -> Source:
    return _arrays(path, open_npz(path), reading)


def _npy(path: Path, reading: Reading) -> Source:
    array = np.load(path, allow_pickle=False)
    if array.dtype.names:
        return read_frames({"train": as_frame(array)}, reading, path.stem)
    return Source(path.stem, {"train": Part(array)})


def _hdf5(path: Path, reading: Reading) -> Source:
    h5py = optional("h5py", "single-cell")
    with h5py.File(path, "r") as file:
        if file.attrs.get("encoding-type") == "anndata":
            return _annotated(path, reading)
        found: dict[str, object] = {}
        file.visititems(
            lambda name, item: (
                found.update({name: item}) if isinstance(item, h5py.Dataset) else None
            )
        )
        wanted = _wanted(list(found), reading)
        arrays = {name: np.asarray(found[name]) for name in wanted}
        return _arrays(path, arrays, reading, list(found))


def _zarr(path: Path, reading: Reading) -> Source:
    zarr = optional("zarr", "single-cell")
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return Source(path.stem, {"train": Part(np.asarray(node[...]))})
    if node.attrs.get("encoding-type") == "anndata":
        return read_annotated(optional("anndata", "single-cell").read_zarr(path), reading)
    names = [name for name, _ in node.arrays()]
    arrays = {name: np.asarray(node[name][...]) for name in _wanted(names, reading)}
    return _arrays(path, arrays, reading, names)


def _wanted(names: Sequence[str], reading: Reading) -> list[str]:
    """The arrays of a file that are read: x, or the only one, and those that belong to it."""
    x = _name_of_x(names, reading, the_only=True)
    return [name for name in names if name in _belonging(x)]


def _name_of_x(names: Sequence[str], reading: Reading, the_only: bool) -> str:
    return reading.key or (names[0] if the_only and len(names) == 1 else "x")


def _belonging(x: str) -> set[str]:
    return {x, "y", *(f"{array}_{split}" for array in ("x", "y") for split in SPLITS)}


def _arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    reading: Reading,
    names: Sequence[str] | None = None,
) -> Source:
    """Parts of arrays named ``x`` and ``y``, ``x_test`` and ``y_test``, and so on."""
    x = _name_of_x(names or (), reading, the_only=names is not None)
    names = sorted(arrays if names is None else names)
    if x not in arrays:
        advice = f"name one of them: key={names[0]!r} (--key {names[0]})" if names else ""
        raise InvalidInput(
            "key" if reading.key else "data",
            got=f"{path} with {', '.join(names) or 'nothing'}",
            expected=f"an array named {x}, and optionally y",
            fix=(nearest_name(x, names) if reading.key and names else advice)
            or "write it with numpy.savez(path, x=x, y=y)",
        )
    parts: Parts = {"train": Part(arrays[x], arrays.get("y"))}
    for split in SPLITS:
        if f"x_{split}" in arrays:
            parts[split] = Part(arrays[f"x_{split}"], arrays.get(f"y_{split}"))
    unused = [name for name in names if name not in _belonging(x)]
    unused += [f"y_{s}" for s in SPLITS if f"y_{s}" in arrays and f"x_{s}" not in arrays]
    notes = (f"arrays {', '.join(unused)} are left out",) if unused else ()
    return Source(path.stem, parts, notes=notes)


# tables


def _csv(separator: str) -> Callable[[Path, Reading], Source]:
    def read(path: Path, reading: Reading) -> Source:
        import pandas

        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=separator), [])
        _check_header(path, header)
        with warnings.catch_warnings():  # a line with more fields than names is no warning here
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(path, sep=separator, encoding="utf-8-sig", index_col=False)
        return _table(path, frame, reading)

    return read


def _check_header(path: Path, header: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise InvalidInput(
            "data",
            got=f"{path} with two columns named {twice[0]!r}",
            expected="a name for each column",
            fix="rename one in the first line",
        )
    if header and all(_is_number(name) for name in header):
        raise InvalidInput(
            "data",
            got=f"{path}, whose first line is numbers ({', '.join(header[:3])})",
            expected="the columns' names in the first line",
            fix="write a first line with names",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet(path: Path, reading: Reading) -> Source:
    table = optional("pyarrow.parquet", "tables").read_table(path)
    return _table(path, as_frame(table), reading)


def _table(path: Path, frame: pandas.DataFrame, reading: Reading) -> Source:
    return read_frames({"train": as_frame(frame)}, reading, path.stem)


def _annotated(path: Path, reading: Reading) -> Source:
    return read_annotated(optional("anndata", "single-cell").read_h5ad(path), reading)


KINDS_OF_FILES: dict[str, Callable[[Path, Reading], Source]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv(","),
    ".tsv": _csv("\t"),
    ".parquet": _parquet,
    ".h5ad": _annotated,
    ".zarr": _zarr,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}


def read_text(path: Path) -> Texts:
    """Read a text with one sentence per line; every tenth is a test sentence."""
    with reported(path, "a text encoded in UTF-8, with a sentence on each line"):
        lines = [exact_words(line) for line in path.read_text(encoding="utf-8").splitlines()]
    check_lengths(path, lines)
    lines = [line for line in lines if line]
    if len(lines) < 10:
        raise InvalidInput(
            "data",
            got=f"{path} with {len(lines)} lines that have words",
            expected="ten sentences or more, one on each line",
            fix="write each sentence on a line of its own",
        )
    return {"train": [line for i, line in enumerate(lines) if i % 10 != 9], "test": lines[9::10]}
