"""Zarr arrays that stay on disk."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.datasets.contained import check_zarr_arrays, zarr_arrays
from pyro_vae.datasets.named_arrays import source_of_arrays, wanted_arrays
from pyro_vae.datasets.sources import Part, Reading, Source
from pyro_vae.datasets.stored import ArrayRows, with_labels

__all__ = ["opened"]


def opened(data: object, reading: Reading) -> Source | None:
    """The arrays of a ``.zarr``, its labels read; ``None`` for other data, and for single cells."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() != ".zarr":
        return None
    path = Path(data)
    if not path.is_dir():
        return None
    found = zarr_arrays(path)
    if not isinstance(found, dict):
        return None
    wanted = [""] if [*found] == [""] else wanted_arrays(list(found), reading)
    check_zarr_arrays(path, [found[name] for name in wanted])
    rows = {name: ArrayRows(found[name], path, name) for name in wanted}
    if "" in rows:
        return Source(path.stem, {"train": Part(rows[""])})  # type: ignore[arg-type]
    return with_labels(source_of_arrays(path, rows, reading, list(found)))  # type: ignore[arg-type]
