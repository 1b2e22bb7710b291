"""The arrays of an ``.npz`` that stay on disk: those that are saved as they are."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from pyro_vae.datasets.named_arrays import source_of_arrays
from pyro_vae.datasets.sources import Reading, Source
from pyro_vae.datasets.stored import Rows, with_labels
from pyro_vae.datasets.stored_npy import NpyRows
from pyro_vae.files.reading import Kind, npy_header, open_file, parsing
from pyro_vae.validation import InvalidInput

__all__ = ["opened"]

NPZ = Kind("data", "an .npz file", "write it with numpy.savez(path, x=x, y=y)", 2**50)
HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and of what follows it


def opened(data: object, reading: Reading) -> Source | None:
    """The arrays of an ``.npz`` that was written by ``numpy.savez``; ``None`` for other data."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() != ".npz":
        return None
    path = Path(data)
    if not path.is_file():
        return None
    found: dict[str, Rows | np.ndarray] = {}
    with open_file(path, NPZ) as file, parsing(path, NPZ), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise InvalidInput(
                    "in_memory",
                    got=f"'off' for {path}, whose {name} is compressed",
                    expected="arrays as they are",
                    fix="save it with numpy.savez(path, x=x), not numpy.savez_compressed",
                )
            file.seek(member.header_offset)
            lengths = HEADER.unpack(file.read(HEADER.size))
            start = member.header_offset + HEADER.size + sum(lengths)
            file.seek(start)
            shape, _, _ = npy_header(file, start + member.file_size)
            if shape:  # single numbers are no data, and are left out
                found[name] = NpyRows(path, start, start + member.file_size, name)
    return with_labels(source_of_arrays(path, found, reading))  # type: ignore[arg-type]
