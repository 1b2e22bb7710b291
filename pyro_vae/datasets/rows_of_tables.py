"""Tables that stay on disk: their columns' kinds, found one column at a time, and their rows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.kinds import numbers_of
from pyro_vae.datasets.known import check_known_named
from pyro_vae.datasets.sources import Part, Reading, Source, contexts_of
from pyro_vae.datasets.stored import Rows, in_spans
from pyro_vae.datasets.tables import (
    check_named,
    columns_of_x,
    context_notes,
    given_rows,
    in_words,
    numbers_like,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["StoredTable", "of_tables"]


class StoredTable(Protocol):
    """A table on disk."""

    @property
    def names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def columns(self, names: Sequence[str]) -> pandas.DataFrame:
        """Whole columns."""
        ...

    def rows(self, start: int, stop: int) -> pandas.DataFrame:
        """Whole rows, one after the other."""
        ...


def of_tables(tables: Mapping[str, StoredTable], reading: Reading, path: Path | None) -> Source:
    """Tables by split as one data set, as `read_frames` makes of them.

    At most one column of x is held at a time, and the columns of the context.
    """
    import pandas

    first = next(iter(tables.values()))

    def whole(names: Sequence[str]) -> pandas.DataFrame:
        parts = [table.columns(names) for table in tables.values()]
        return pandas.concat(parts, ignore_index=True)

    notes: list[str] = []
    if reading.like is not None:
        columns, has_gaps = reading.like, True
        given = list(reading.context_like.names) if reading.context_like is not None else []
        check_named([*columns.names, *given], first.names)
        check_known_named(reading.known, first.names)
    else:
        kept, notes = columns_of_x(first.names, reading)
        given, found, has_gaps = reading.given, [], False
        for name in kept:
            numbers = numbers_of(name, whole([name])[name], reading.columns.get(name))
            found.append(numbers.column)
            notes += numbers.notes
            has_gaps |= bool(np.isnan(numbers.values).any())
        columns = Columns(tuple(found))
        if reading.columns or not all(column.kind == "real" for column in columns):
            notes.append(f"columns are {in_words(columns)}")
    beside_x = list(dict.fromkeys([*given, *reading.known_columns]))
    y, context_columns = (
        given_rows(whole(beside_x), given, reading, columns.names) if beside_x else (None, None)
    )
    notes += context_notes(context_columns, reading) if reading.like is None else []
    contexts = contexts_of([len(table) for table in tables.values()], y)
    parts = {
        split: Part(TableRows(table, columns, path, split), context)  # type: ignore[arg-type]
        for (split, table), context in zip(tables.items(), contexts)
    }
    return Source(
        "table" if path is None else path.stem,
        parts,
        missing=has_gaps,
        columns=columns,
        context_columns=context_columns,
        known=reading.known,
        notes=tuple(notes),
    )


class TableRows(Rows):
    """The rows of a table as numbers, with the numbers that the whole gives its categories."""

    def __init__(self, table: StoredTable, columns: Columns, path: Path | None, split: str):
        shape = (len(table), len(columns))
        super().__init__(shape, np.dtype(np.float64), path, f"{split} {columns.to_json()}")
        self.table, self.columns = table, columns
        self.alone = threading.Lock()

    def rows(self, places: np.ndarray) -> np.ndarray:
        out = np.empty((len(places), self.shape[1]), self.dtype)
        done = 0
        for start, stop, within in in_spans(places, self.row_bytes):
            with self.alone:
                frame = self.table.rows(start, stop)
            for i, column in enumerate(self.columns):
                numbers = numbers_like(column, frame[column.name].iloc[within])
                out[done : done + len(within), i] = numbers
            done += len(within)
        return out
