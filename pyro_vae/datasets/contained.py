"""Refuse data files that lead elsewhere, name code, or state more than they can hold.

HDF5, Zarr and Hugging Face's folders may take their values from other files of a machine, or from
the network, and their libraries follow. What is read here holds all its numbers itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from pyro_vae.files.optional import optional
from pyro_vae.files.reading import (
    MEGABYTE,
    SPARE,
    Kind,
    check_unpacked,
    files_in,
    open_file,
    read_json,
)

if TYPE_CHECKING:
    import anndata
    import h5py
    import pyarrow
    import zarr

__all__ = [
    "DATA", "cells_of_hdf5", "check_hdf5", "check_stored", "check_zarr_arrays",
    "hdf5_arrays", "open_hdf5", "parquet_table", "saved_data", "zarr_arrays",
]  # fmt: skip

DATA = Kind(
    "data",
    "data that hold all their numbers themselves",
    "convert them to an .npz, or copy what they lead to into them",
    2**40,
)
METADATA = Kind("data", DATA.expected, DATA.fix, 64 * MEGABYTE)

ROWS = 4096  # of a Parquet file that are unpacked at a time

# Filters of HDF5 by number: its own, h5py's LZF, and the compressors of hdf5plugin.
FILTERS = {1, 2, 3, 4, 5, 6, 32000, 32001, 32004, 32008, 32015, 32026}

# Zarr's codecs that turn bytes into numbers; others are classes of any installed library.
CODECS = {
    "adler32", "astype", "base64", "bitround", "blosc", "bytes", "bz2", "categorize", "crc32",
    "crc32c", "delta", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma",
    "packbits", "quantize", "sharding_indexed", "shuffle", "transpose", "vlen-array", "vlen-bytes",
    "vlen-utf8", "zlib", "zstd",
}  # fmt: skip

# What Hugging Face's columns may hold: no films, sounds or documents, which are read by programs.
FEATURES = {
    "Array2D", "Array3D", "Array4D", "Array5D", "ClassLabel", "Image", "LargeList", "List",
    "Sequence", "Value",
}  # fmt: skip


class SplitsFile(TypedDict):
    """``dataset_dict.json`` of Hugging Face."""

    splits: list[str]


class FileName(TypedDict):
    filename: str


class StateFile(TypedDict):
    """``state.json`` of Hugging Face."""

    _data_files: list[FileName]


def check_stored(path: Path, unpacked: int) -> None:
    """Refuse a file or a folder that states more bytes than its size accounts for."""
    files = files_in(path, DATA) if path.is_dir() else [path]
    check_unpacked(path, DATA, unpacked, sum(file.stat().st_size for file in files))


# HDF5


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading."""
    h5py = optional("h5py", "single-cell")
    with open_file(path, DATA) as opened, h5py.File(opened, "r") as file:
        yield file


def hdf5_arrays(path: Path, file: h5py.File, wanted: str | None = None) -> dict[str, h5py.Dataset]:
    """The arrays of an HDF5 file, of which ``wanted`` must lie in the file itself.

    Links to other places are not followed, and leave no name.
    """
    import h5py

    found: dict[str, h5py.Dataset] = {}
    for name in _links(file, h5py.HardLink):
        item = file[name]
        if isinstance(item, h5py.Dataset):
            found[name] = item
    if wanted is not None and wanted not in found and file.get(wanted, getlink=True) is not None:
        DATA.refuse(path, f"whose {wanted} lies in another place")
    return found


def _links(file: h5py.File, *kinds: type) -> list[str]:
    """The names of a file whose links are of these kinds; h5py drops what a callback raises."""
    names: list[str] = []

    def add(name: str, link: object) -> None:
        if isinstance(link, kinds):
            names.append(name)

    file.visititems_links(add)
    return names


def check_hdf5(path: Path, arrays: Iterable[h5py.Dataset]) -> None:
    """Raise `InvalidInput` if arrays lie elsewhere, need other code, or are too large."""
    arrays, total = list(arrays), 0
    for array in arrays:
        plan = array.id.get_create_plist()
        if array.external or array.is_virtual:
            DATA.refuse(path, f"whose {array.name} lies in other files")
        used = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
        if not FILTERS.issuperset(used):
            DATA.refuse(path, f"whose {array.name} needs a filter of HDF5 that is not known here")
        count = max(math.prod(array.shape or ()), math.prod(array.chunks or ()))
        total += count * array.dtype.itemsize
        check_stored(path, total)
    for array in arrays:
        if array.dtype.hasobject and array.ndim:
            for block in _blocks(path, array):
                total += _size_of(block)
                check_stored(path, total)


def _blocks(path: Path, array: h5py.Dataset) -> Iterator[np.ndarray]:
    """The texts or lists of an array, a few at a time: all may be the same long one."""
    few = min(4096, max(64, SPARE // max(1, path.stat().st_size)))
    rows = max(1, few // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield np.asarray(array[start : start + rows])


def _size_of(values: np.ndarray) -> int:
    """The bytes of texts and lists that an array holds."""
    if values.dtype.names:
        return sum(_size_of(values[name]) for name in values.dtype.names)
    if values.dtype.kind == "O":
        return sum(len(value) * np.asarray(value[:1]).itemsize for value in values.ravel())
    return values.nbytes


def cells_of_hdf5(path: Path) -> anndata.AnnData:
    """Read an ``.h5ad``, in which a link leads nowhere, for its reader follows all of them."""
    library = optional("anndata", "single-cell")
    with open_hdf5(path) as file:
        _check_links(path, file)
        check_hdf5(path, hdf5_arrays(path, file).values())
    return _cells(path, library.read_h5ad(path))


def _cells(path: Path, cells: anndata.AnnData) -> anndata.AnnData:
    check_stored(path, cells.n_obs * cells.n_vars * np.dtype(np.float32).itemsize)
    return cells


def _check_links(path: Path, file: h5py.File) -> None:
    import h5py

    elsewhere = _links(file, h5py.SoftLink, h5py.ExternalLink)
    if elsewhere:
        DATA.refuse(path, f"whose {elsewhere[0]} lies in another place")
    for name in _links(file, h5py.HardLink):
        if h5py.h5o.get_info(file[name].id).rc > 1:
            DATA.refuse(path, f"which holds {name} in two places")


# Zarr


def zarr_arrays(path: Path) -> dict[str, zarr.Array] | anndata.AnnData:
    """The arrays of a Zarr folder that holds its chunks itself; one without a group is ``""``."""
    library = optional("zarr", "single-cell")
    _check_zarr(path)
    # Consolidated metadata could name arrays outside of the folder.
    node = library.open(str(path), mode="r", use_consolidated=False)
    if isinstance(node, library.Array):
        return {"": node}
    arrays = {
        n: item for n, item in node.members(max_depth=None) if isinstance(item, library.Array)
    }
    if node.attrs.get("encoding-type") != "anndata":
        return arrays
    check_zarr_arrays(path, arrays.values())
    return _cells(path, optional("anndata", "single-cell").read_zarr(node))


def _check_zarr(path: Path) -> None:
    for file in files_in(path, DATA):
        if file.name in ("zarr.json", ".zarray"):
            described = read_json(file, METADATA, dict[str, object])
            parts = [described.get(name) for name in ("compressor", "filters", "codecs")]
            unknown = {*_names(parts)} - CODECS
            unknown |= {*_names(described.get("chunk_key_encoding"))} - {"default", "v2"}
            unknown |= {*_names(described.get("chunk_grid"))} - {"regular"}
            unknown |= {*_names(described.get("storage_transformers"))}
            if unknown:
                DATA.refuse(file, f"which needs {sorted(unknown)[0]!r}, a codec not known here")


def _names(value: object) -> Iterator[str]:
    """The names of codecs, and of those inside them."""
    if isinstance(value, str):
        yield value.removeprefix("numcodecs.")
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
    elif isinstance(value, dict):
        yield from _names(value.get("name", value.get("id", "")))
        inner = value.get("configuration")
        if isinstance(inner, dict):
            yield from _names([inner.get("codecs"), inner.get("index_codecs")])


def check_zarr_arrays(path: Path, arrays: Iterable[zarr.Array]) -> None:
    """Raise `InvalidInput` if arrays state more than the folder can hold."""
    total = 0
    for array in arrays:
        count = max(math.prod(size or ()) for size in (array.shape, array.chunks, array.shards))
        total += count * max(1, array.dtype.itemsize)
    check_stored(path, total)


# tables


def parquet_table(path: Path) -> pyarrow.Table:
    """Read a Parquet file or a folder of them, a few rows at a time: all may be one long text."""
    parquet = optional("pyarrow.parquet", "tables")
    if path.is_dir():
        files_in(path, DATA)
        library = optional("pyarrow.dataset", "tables")
        names = library.HivePartitioning.discover(infer_dictionary=True)
        data = library.dataset(str(path), format="parquet", partitioning=names)
        read = data.to_batches(batch_size=ROWS, batch_readahead=1, fragment_readahead=1)
        return _joined(path, read, data.schema)
    with open_file(path, DATA) as opened:
        file = parquet.ParquetFile(opened)
        check_stored(path, file.metadata.num_rows * file.metadata.num_columns)
        return _joined(path, file.iter_batches(ROWS), file.schema_arrow)


def _joined(
    path: Path, read: Iterable[pyarrow.RecordBatch], schema: pyarrow.Schema
) -> pyarrow.Table:
    batches, total = [], 0
    for few in read:
        batches.append(few)
        total += few.nbytes
        check_stored(path, total)
    return optional("pyarrow", "tables").Table.from_batches(batches, schema)


# Hugging Face


def saved_data(path: Path) -> object:
    """Load a data set saved by ``save_to_disk`` that holds its tables itself."""
    library = optional("datasets", "hub")
    _check_saved(path)
    data = library.load_from_disk(str(path))
    for part in data.values() if isinstance(data, Mapping) else [data]:
        _check_features(path, part.features.to_dict())
        part.data.validate(full=True)  # or a wrong length of a text leads out of its memory
    return data


def _check_saved(folder: Path) -> None:
    for file in files_in(folder, DATA):
        if file.name == "dataset_dict.json":
            named = [read_json(file, METADATA, SplitsFile)["splits"]]
        elif file.name == "state.json":
            state = read_json(file, METADATA, StateFile)
            named = [[part["filename"] for part in state["_data_files"]]]
        else:
            named = []
        for name in (name for names in named for name in names):
            if name in ("", "..") or Path(name).name != name:
                DATA.refuse(file, f"which names {name!r}, outside of the data")
        if file.name == "dataset_info.json":
            _check_features(file, read_json(file, METADATA, dict[str, object]).get("features"))


def _check_features(path: Path, features: object, depth: int = 0) -> None:
    """Raise `InvalidInput` on columns that programs decode, and on images inside of lists."""
    if isinstance(features, dict):
        kind = features.get("_type")
        if isinstance(kind, str) and (kind not in FEATURES or (kind == "Image" and depth != 1)):
            DATA.refuse(path, f"with a column of {kind} that is not read")
        for value in features.values():
            _check_features(path, value, depth + 1)
    elif isinstance(features, list):
        for value in features:
            _check_features(path, value, depth + 1)
