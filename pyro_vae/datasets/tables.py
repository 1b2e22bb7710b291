"""Tables as data sets: columns of x, a context, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.datasets.columns import DROP, KINDS, Column, Columns, said_as
from pyro_vae.datasets.kinds import numbers_of, plain_numbers, text_of
from pyro_vae.datasets.known import (
    Given,
    beside,
    check_known_named,
    known_in_words,
    known_of_table,
)
from pyro_vae.datasets.sources import Parts, Reading, Source, parts_of
from pyro_vae.validation import InvalidInput, counted, nearest_name, short

if TYPE_CHECKING:
    import pandas

__all__ = [
    "check_named", "columns_of_x", "context_notes", "covariates", "given_rows", "in_words",
    "numbers_like", "read_frames",
]  # fmt: skip


def read_frames(frames: Mapping[str, pandas.DataFrame], reading: Reading, name: str) -> Source:
    """Tables by split as one data set, their columns of the kinds that all rows have.

    Raises:
        InvalidInput: for unknown columns, columns of dates, identifiers or mixed entries, or a
            covariate that is missing.
    """
    import pandas

    _check_same_columns(frames)
    whole = pandas.concat(list(frames.values()), ignore_index=True)
    whole, notes = _without_row_numbers(whole)
    if not len(whole):
        raise InvalidInput(
            "data", got=f"{name}, without rows", expected="at least one row", fix="check the file"
        )
    if reading.like is not None:
        return _like(frames, whole, reading, name)
    kept, said = columns_of_x(list(map(str, whole.columns)), reading)
    notes += said
    entries = dict(whole.items())
    found = [numbers_of(column, entries[column], reading.columns.get(column)) for column in kept]
    x = np.column_stack([column.values for column in found])
    columns = Columns(tuple(column.column for column in found))
    y, context_columns = given_rows(whole, reading.given, reading, columns.names)
    notes += [note for column in found for note in column.notes]
    notes += context_notes(context_columns, reading)
    if reading.columns or not all(column.kind == "real" for column in columns):
        notes.append(f"columns are {in_words(columns)}; {_example(columns)} says otherwise for one")
    missing = np.isnan(x)
    if missing.any():
        places = f"{int(missing.any(0).sum())} of {len(columns)} columns"
        number = int(missing.sum())
        is_are = "is" if number == 1 else "are"
        notes.append(f"{counted(number, 'entry', 'entries')} in {places} {is_are} missing (NaN)")
    return Source(
        name,
        _parts(frames, x, y),
        missing=bool(missing.any()),
        columns=columns,
        context_columns=context_columns,
        known=reading.known,
        notes=tuple(notes),
    )


def _example(columns: Columns) -> str:
    """What may be said of a column: one that can be so, whose name can be typed."""
    first = min(
        columns,
        key=lambda each: (
            short(each.name) != each.name,
            bool(each.categories),
            each.kind == "real",
        ),
    )
    return said_as(first.name, DROP if first.categories else "real")


def columns_of_x(names: Sequence[str], reading: Reading) -> tuple[list[str], list[str]]:
    """The columns of x among those of a table, and what was left out of it."""
    given = reading.given
    check_named((*given, *reading.columns), names)
    check_known_named(reading.known, names)
    dropped = [column for column, said in reading.columns.items() if said == DROP]
    beside_x = {*given, *dropped, *reading.known_columns}
    kept = [column for column in names if column not in beside_x]
    if not kept:
        raise InvalidInput(
            "columns", got="none left for x", expected="one or more", fix="leave fewer out"
        )
    return kept, [f"left out as asked: {', '.join(map(short, dropped))}"] if dropped else []


def _parts(frames: Mapping[str, pandas.DataFrame], x: np.ndarray, y: Given | None) -> Parts:
    return parts_of([len(frame) for frame in frames.values()], list(frames), x, y)


def _like(
    frames: Mapping[str, pandas.DataFrame], whole: pandas.DataFrame, reading: Reading, name: str
) -> Source:
    """Tables by split whose columns are those of another data set."""
    columns, given = reading.like, reading.context_like
    assert columns is not None
    check_named([*columns.names, *(given.names if given else ())], list(map(str, whole.columns)))
    x = np.column_stack([numbers_like(column, whole[column.name]) for column in columns])
    y, _ = given_rows(whole, (), reading, columns.names)
    used = {*columns.names, *(given.names if given else ()), *reading.known_columns}
    unused = [str(column) for column in whole.columns if str(column) not in used]
    notes = (f"left out columns that the run did not use: {', '.join(map(short, unused[:5]))}",)
    return Source(
        name,
        _parts(frames, x, y),
        missing=True,
        columns=columns,
        context_columns=given,
        known=reading.known,
        notes=notes if unused else (),
    )


def numbers_like(column: Column, series: pandas.Series) -> np.ndarray:
    """A column's numbers, with the numbers that another data set gave its categories."""
    import pandas

    if not column.categories:
        numbers = plain_numbers(column.name, series, column.kind)
        if numbers is None:
            raise InvalidInput(
                f"columns {column.name}",
                got="texts or categories",
                expected=f"numbers ({column.kind}), as in the training data",
                fix="convert the column",
            )
        return numbers
    places = {category: i for i, category in enumerate(column.categories)}
    texts = [None if pandas.isna(entry) else text_of(entry) for entry in series]
    unknown = [text for text in texts if text is not None and text not in places]
    if unknown:
        raise InvalidInput(
            f"columns {column.name}",
            got=repr(unknown[0]),
            expected=f"one of {', '.join(column.categories[:10])}, as in the training data",
            fix="correct it, or leave it empty, as unknown",
        )
    codes = [np.nan if text is None else places[text] for text in texts]
    return np.array(codes, dtype=np.float64)  # without gaps they would be integers


def check_named(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise `InvalidInput`, with the nearest name, unless all columns are in a table."""
    for name in wanted:
        if name not in known:
            raise InvalidInput(
                "columns",
                got=repr(name),
                expected="a column of the table",
                fix=nearest_name(name, known),
            )


def _without_row_numbers(frame: pandas.DataFrame) -> tuple[pandas.DataFrame, list[str]]:
    """The table without the column that pandas' `to_csv` writes its row numbers to."""
    first = str(frame.columns[0]) if len(frame.columns) else ""
    if first.startswith("Unnamed: ") and np.array_equal(
        frame.iloc[:, 0].to_numpy(), np.arange(len(frame))
    ):
        return frame.iloc[:, 1:], ["left out the first column, which has no name and numbers rows"]
    return frame, []


def covariates(
    whole: pandas.DataFrame, given: Sequence[str], reading: Reading
) -> tuple[np.ndarray | None, Columns | None]:
    """Labels (N,) of one column with categories, or covariates (N, C).

    Whole numbers are labels in the target, and numbers in a column of the context. Where
    ``reading.context_like`` names the columns, categories have the numbers that they have there.
    """
    like = reading.context_like
    if like is not None and set(like.names) <= set(map(str, whole.columns)):
        columns = like
        values = np.column_stack([numbers_like(column, whole[column.name]) for column in like])
    elif given:
        is_target = reading.target is not None
        said = reading.columns
        found = [numbers_of(name, whole[name], said.get(name), is_target) for name in given]
        columns = Columns(tuple(_as_covariate(each.column) for each in found))
        values = np.column_stack([each.values for each in found])
    else:
        return None, None
    if len(columns) == 1 and columns[0].categories:
        return np.where(np.isnan(values[:, 0]), -1, values[:, 0]).astype(np.int64), columns
    if np.isnan(values).any():
        row, place = np.argwhere(np.isnan(values))[0]
        raise InvalidInput(
            f"context {columns[int(place)].name}",
            got=f"a missing entry in row {row}",
            expected="covariates that are all known",
            fix="fill it in, leave the row out, or model the column as part of x",
        )
    return values, columns


def given_rows(
    whole: pandas.DataFrame, given: Sequence[str], reading: Reading, entries: Sequence[str] = ()
) -> tuple[Given | None, Columns | None]:
    """The context of a table's rows: `covariates`, and the known quantities that were named.

    ``entries`` are the names of the entries of x, if they have names.
    """
    rest, columns = covariates(whole, given, reading)
    return beside(known_of_table(whole, reading.known, entries), rest), columns


def context_notes(columns: Columns | None, reading: Reading) -> list[str]:
    """What is said of the columns of the context and of the known quantities."""
    context = [] if columns is None else [f"context: {in_words(columns)}"]
    return [*context, *([f"known: {known_in_words(reading.known)}"] if reading.known else [])]


def _as_covariate(column: Column) -> Column:
    """A covariate that counts is a number like others, which may be standardised."""
    return replace(column, kind="real") if column.kind == "count" else column


def in_words(columns: Columns) -> str:
    """The columns and their kinds, or how many there are of each kind."""
    if len(columns) > 12:
        counts = {kind: sum(column.kind == kind for column in columns) for kind in KINDS}
        return ", ".join(f"{kind} ({count})" for kind, count in counts.items() if count)
    return ", ".join(
        f"{short(column.name)} {column.likelihood or column.kind}" for column in columns
    )


def _check_same_columns(frames: Mapping[str, pandas.DataFrame]) -> None:
    first, *others = frames.items()
    for split, frame in others:
        different = set(map(str, frame.columns)) ^ set(map(str, first[1].columns))
        if different:
            raise InvalidInput(
                "data",
                got=f"column {min(different)!r} in one of {first[0]} and {split}",
                expected="the same columns in all splits",
                fix="add it, or leave it out of both",
            )
