"""Files as data: the one place that says which reader a file's ending chooses."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.datasets.annotated import read_annotated
from pyro_vae.datasets.contained import (
    DATA,
    cells_of_hdf5,
    check_hdf5,
    check_stored,
    check_zarr_arrays,
    hdf5_arrays,
    open_hdf5,
    parquet_table,
    saved_data,
    zarr_arrays,
)
from pyro_vae.datasets.folders import read_folder
from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.hub import read_hub
from pyro_vae.datasets.named_arrays import source_of_arrays, wanted_arrays
from pyro_vae.datasets.sources import Part, Reading, Source, Texts
from pyro_vae.datasets.tables import read_frames
from pyro_vae.datasets.text import check_lengths, exact_words
from pyro_vae.files.reading import MEGABYTE, Kind, open_file, read_npy, read_npz
from pyro_vae.files.reading import read_text as read_words
from pyro_vae.validation import InvalidInput, counted

if TYPE_CHECKING:
    import pandas

__all__ = [
    "KINDS_OF_FILES", "open_npz", "read_path", "read_text", "reported",
]  # fmt: skip

HAVE_NAMES = (".npz", ".h5", ".hdf5", ".zarr", ".h5ad")

NPZ = Kind(
    "data",
    "an .npz file without pickles",
    "write it with numpy.savez(path, x=x, y=y), x an array of numbers",
    2**40,
)
NPY = Kind("data", "an .npy file without pickles", "write it with numpy.save(path, x)", 2**40)
TEXT = Kind(
    "data",
    "a text encoded in UTF-8, with a sentence on each line",
    "write it anew in UTF-8",
    4096 * MEGABYTE,
)


def read_path(path: Path, reading: Reading = Reading()) -> Source | None:
    """What a file or a folder holds; ``None`` if its ending is none of those known.

    Raises:
        InvalidInput: if it is missing, empty, no plain file, changes while it is read, or holds
            something else than its ending says.
    """
    suffix = path.suffix.lower()
    if path.is_dir() and suffix not in (".zarr", ".parquet"):
        if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
            with reported(path, "a data set saved by its save_to_disk"):
                return _named(read_hub(saved_data(path), reading, inside=path), path)
        return read_folder(path, reading)
    reader = KINDS_OF_FILES.get(suffix)
    if reader is None:
        return None
    if reading.resize is not None:
        raise InvalidInput(
            "resize",
            got=f"{list(reading.resize)} for {path}",
            expected="a folder of images, which it resizes",
            fix="leave it out",
        )
    if reading.key is not None and suffix not in HAVE_NAMES:
        raise InvalidInput(
            "key",
            got=f"{reading.key!r} for {path}",
            expected=f"a file of named arrays ({', '.join(HAVE_NAMES)})",
            fix="leave it out",
        )
    with reported(path, f"a {suffix} file"):
        return _named(reader(path, reading), path)


def _named(source: Source, path: Path) -> Source:
    return Source(**(vars(source) | {"name": path.stem}))


def _beside(path: Path) -> str:
    """A question after the file that was meant, if one of its folder has nearly this name."""
    with suppress(OSError):
        names = [each.name for each in path.parent.iterdir() if each.suffix == path.suffix]
        if near := difflib.get_close_matches(path.name, names, n=1):
            return f"did you mean {str(path.with_name(near[0]))!r}? "
    return ""


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
        if path.exists():
            raise InvalidInput(
                "data",
                got=f"{path}, which holds no arrays",
                expected=expected,
                fix="write it anew",
            ) from None
        raise InvalidInput(
            "data",
            got=f"{path}, which does not exist",
            expected=expected,
            fix=f"{_beside(path)}check the path, or set PYRO_VAE_DATA or --data-root to the folder "
            "that holds it",
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
    arrays = open_npz(path)
    if {"format", "shape", "data"} <= set(arrays) and reading.key is None:
        from scipy.sparse import load_npz

        check_stored(path, math.prod(map(int, arrays["shape"])) * arrays["data"].itemsize)
        return Source(path.stem, {"train": Part(load_npz(path))})
    return source_of_arrays(path, arrays, reading)


def _npy(path: Path, reading: Reading) -> Source:
    array = read_npy(path, NPY)
    if array.dtype.names:
        return read_frames({"train": as_frame(array)}, reading, path.stem)
    return Source(path.stem, {"train": Part(array)})


def _hdf5(path: Path, reading: Reading) -> Source:
    with open_hdf5(path) as file:
        if file.attrs.get("encoding-type") == "anndata":
            return _annotated(path, reading)
        found = hdf5_arrays(path, file)
        wanted = wanted_arrays(list(found), reading)
        for name in reading.keys or ([] if wanted else ["x"]):
            hdf5_arrays(path, file, name)
        check_hdf5(path, [found[name] for name in wanted])
        arrays = {name: np.asarray(found[name]) for name in wanted}
        return source_of_arrays(path, arrays, reading, list(found))


def _zarr(path: Path, reading: Reading) -> Source:
    found = zarr_arrays(path)
    if not isinstance(found, dict):
        return _from_cells(found, reading)
    wanted = [*found] if [*found] == [""] else wanted_arrays(list(found), reading)
    check_zarr_arrays(path, [found[name] for name in wanted])
    arrays = {name: np.asarray(found[name][...]) for name in wanted}
    if "" in arrays:
        return Source(path.stem, {"train": Part(arrays[""])})
    return source_of_arrays(path, arrays, reading, list(found))


# tables


def _csv(separator: str) -> Callable[[Path, Reading], Source]:
    def read(path: Path, reading: Reading) -> Source:
        import pandas

        notes = _check_lines(path, separator)
        with open_file(path, DATA) as file, warnings.catch_warnings():
            # A line with more fields than names is no warning here.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                file,
                sep=separator,
                encoding="utf-8-sig",
                index_col=False,
                skipinitialspace=True,
                float_precision="round_trip",  # to the last bit, as Python reads numbers
            )
        source = _table(path, frame, reading)
        return replace(source, notes=(*notes, *source.notes))

    return read


def _check_lines(path: Path, separator: str) -> list[str]:
    """Refuse a table that is written otherwise; say which columns' leading zeros are lost."""
    with io.TextIOWrapper(open_file(path, DATA), encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
        _check_header(path, header)
        space = rf"[^\S{separator}]"  # no separator, of which a line may have a million
        pattern = re.compile(
            rf'(?:^|{separator}){space}*"?-?0[0-9]+(?:"|{space})*(?:{separator}|$)'
        )
        line = next((line for line in file if pattern.search(line)), None)
    if line is None:
        return []
    fields = next(csv.reader([line], delimiter=separator))
    padded = [n for n, field in zip(header, fields) if re.fullmatch(r"\s*-?0[0-9]+\s*", field)]
    some = ", ".join(padded[:3])
    return [f"numbers in {some} lose their leading zeros, as {line.strip()[:40]!r} shows"]


def _check_header(path: Path, header: Sequence[str]) -> None:
    other = next((sign for sign in (";", "\t", "|", ",") if sign in "".join(header)), None)
    if len(header) == 1 and other is not None:
        raise InvalidInput(
            "data",
            got=f"{path}, whose columns are separated by {other!r}",
            expected="commas in a .csv, tabs in a .tsv",
            fix=f"read it by pandas.read_csv(path, sep={other!r}) and pass the table to load",
        )
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
    return _table(path, as_frame(parquet_table(path)), reading)


def _table(path: Path, frame: pandas.DataFrame, reading: Reading) -> Source:
    return read_frames({"train": as_frame(frame)}, reading, path.stem)


def _annotated(path: Path, reading: Reading) -> Source:
    return _from_cells(cells_of_hdf5(path), reading)


def _from_cells(cells: object, reading: Reading) -> Source:
    return read_annotated({"train": cells}, reading)


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


def read_text(path: Path, fewest: int = 10) -> Texts:
    """Read a text with one sentence per line; every tenth is a test sentence.

    Of less than ten, none of them is: they are split as rows of other data are.
    """
    with reported(path, TEXT.expected):
        text = read_words(path, TEXT).removeprefix("\ufeff")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = [exact_words(line) for line in text.split("\n")]
    check_lengths(path, lines)
    lines = [line for line in lines if line]
    if len(lines) < fewest:
        raise InvalidInput(
            "data",
            got=f"{path} with {counted(len(lines), 'line that has', 'lines that have')} words",
            expected="ten sentences or more, one on each line",
            fix="write each sentence on a line of its own",
        )
    if len(lines) < 10:
        return {"train": lines}
    return {"train": [line for i, line in enumerate(lines) if i % 10 != 9], "test": lines[9::10]}
