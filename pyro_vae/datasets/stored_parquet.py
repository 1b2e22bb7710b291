"""Parquet files and folders of them that stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.datasets.contained import DATA
from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.rows_of_tables import of_tables
from pyro_vae.datasets.sources import Reading, Source
from pyro_vae.files.optional import optional
from pyro_vae.files.reading import MEGABYTE, files_in, open_file
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas
    import pyarrow.parquet

__all__ = ["opened"]

GROUP_BYTES = 512 * MEGABYTE  # of a group of rows, which is unpacked at once


def opened(data: object, reading: Reading) -> Source | None:
    """The rows of a ``.parquet`` file, or of a folder of them; ``None`` for other data."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() != ".parquet":
        return None
    path = Path(data)
    if not path.exists():
        return None
    files = [path]
    if path.is_dir():
        hidden = ("_", ".")
        files = sorted(file for file in files_in(path, DATA) if not file.name.startswith(hidden))
        if any("=" in part for file in files for part in file.relative_to(path).parts[:-1]):
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {path}, whose folders name values of columns",
                expected="Parquet files that hold all their columns",
                fix="write them without partition_cols",
            )
    return of_tables({"train": Parquet(path, files)}, reading, path)


class Parquet:
    """Files of one table, read by groups of rows, the last of which is kept."""

    def __init__(self, path: Path, files: Sequence[Path]):
        library = optional("pyarrow.parquet", "tables")
        self.groups: list[tuple[pyarrow.parquet.ParquetFile, int]] = []
        counts = [0]
        for each in files:
            open_file(each, DATA).close()  # a plain file
            file = library.ParquetFile(each)
            for group in range(file.num_row_groups):
                described = file.metadata.row_group(group)
                if described.total_byte_size > GROUP_BYTES:
                    raise InvalidInput(
                        "in_memory",
                        got=f"'off' for {each}, with {described.num_rows:,} rows in one group",
                        expected=f"groups of {GROUP_BYTES // MEGABYTE} MB at most",
                        fix="write it with frame.to_parquet(path, row_group_size=100_000)",
                    )
                self.groups.append((file, group))
                counts.append(described.num_rows)
        if not self.groups:
            DATA.refuse(path, "without rows")
        self.ends = np.cumsum(counts)
        self.schema = self.groups[0][0].schema_arrow
        self.kept: tuple[int, pandas.DataFrame] | None = None

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.schema.names if not name.startswith("__index_level_")]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def columns(self, names: Sequence[str]) -> pandas.DataFrame:
        library = optional("pyarrow", "tables")
        parts = [file.read_row_group(group, columns=list(names)) for file, group in self.groups]
        return as_frame(library.concat_tables(parts)).reset_index(drop=True)

    def rows(self, start: int, stop: int) -> pandas.DataFrame:
        import pandas

        parts = []
        while start < stop:
            group = int(np.searchsorted(self.ends, start, side="right")) - 1
            first, last = int(self.ends[group]), min(stop, int(self.ends[group + 1]))
            parts.append(self._group(group).iloc[start - first : last - first])
            start = last
        return parts[0] if len(parts) == 1 else pandas.concat(parts, ignore_index=True)

    def _group(self, group: int) -> pandas.DataFrame:
        if self.kept is None or self.kept[0] != group:
            self.kept = None  # its memory is free before the next is read
            file, number = self.groups[group]
            self.kept = group, as_frame(file.read_row_group(number)).reset_index(drop=True)
        return self.kept[1]
