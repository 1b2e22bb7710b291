"""HDF5 files that stay on disk."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.datasets.contained import DATA, check_hdf5, hdf5_arrays
from pyro_vae.datasets.named_arrays import source_of_arrays, wanted_arrays
from pyro_vae.datasets.sources import Reading, Source
from pyro_vae.datasets.stored import ArrayRows, with_labels
from pyro_vae.files.optional import optional
from pyro_vae.files.reading import open_file

__all__ = ["opened"]

CACHE_BYTES = 2**26  # of chunks that are unpacked


def opened(data: object, reading: Reading) -> Source | None:
    """The arrays of an ``.h5``, its labels read; ``None`` for other data, and for single cells."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() not in (".h5", ".hdf5"):
        return None
    path, h5py = Path(data), optional("h5py", "single-cell")
    if not path.is_file():
        return None
    open_file(path, DATA).close()  # a plain file
    file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    if file.attrs.get("encoding-type") == "anndata":
        file.close()
        return None
    found = hdf5_arrays(path, file)
    wanted = wanted_arrays(list(found), reading)
    for name in reading.keys or ([] if wanted else ["x"]):
        hdf5_arrays(path, file, name)
    check_hdf5(path, [found[name] for name in wanted])
    rows = {name: ArrayRows(found[name], path, name) for name in wanted}
    return with_labels(source_of_arrays(path, rows, reading, list(found)))  # type: ignore[arg-type]
