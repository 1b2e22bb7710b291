"""Tables and series of pandas, polars and pyarrow as those of pandas, or as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pyro_vae.datasets.kinds import numbers_of, text_of
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas

__all__ = ["FRAMES", "as_frame", "is_frame", "labels_of", "series_values"]

FRAMES = ("pandas", "polars", "pyarrow")  # libraries of tables


@runtime_checkable
class HasColumns(Protocol):
    """A table of pandas, polars or pyarrow."""

    @property
    def columns(self) -> object: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


@runtime_checkable
class GivesPandas(Protocol):
    def to_pandas(self) -> pandas.DataFrame: ...


@runtime_checkable
class GivesList(Protocol):
    def to_list(self) -> list[object]: ...


@runtime_checkable
class GivesSeries(Protocol):
    """A table of polars."""

    def iter_columns(self) -> Iterable[PolarsSeries]: ...


@runtime_checkable
class PolarsSeries(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> object: ...
    def to_list(self) -> list[object]: ...
    def to_frame(self) -> GivesSeries: ...


@runtime_checkable
class Enumerates(Protocol):
    """polars' Enum, whose categories have an order."""

    @property
    def categories(self) -> GivesList: ...


@runtime_checkable
class Lazy(Protocol):
    def collect(self) -> object: ...


def is_frame(value: object) -> bool:
    """Whether a value of pandas, polars or pyarrow is a table, not a series.

    Raises:
        InvalidInput: for a table that is not computed yet.
    """
    if isinstance(value, Lazy):
        raise InvalidInput(
            "data",
            got=f"a {type(value).__name__}",
            expected="a table that is computed",
            fix="pass data.collect()",
        )
    return isinstance(value, HasColumns) and len(value.shape) == 2


def as_frame(value: object) -> pandas.DataFrame:
    """A table of pandas, polars or pyarrow as one of pandas, with texts for names.

    Raises:
        InvalidInput: if two columns have one name.
    """
    import pandas

    if isinstance(value, np.ndarray):
        value = pandas.DataFrame.from_records(_native(value))
    if isinstance(value, pandas.DataFrame):
        frame = value.copy(deep=False)
    elif isinstance(value, GivesSeries):
        # Lists, not Arrow, which polars would need pyarrow for.
        frame = pandas.DataFrame({each.name: _of_polars(each) for each in value.iter_columns()})
    elif isinstance(value, GivesPandas):
        frame = value.to_pandas()
    else:
        _check_lengths(value)
        frame = pandas.DataFrame(value)  # type: ignore[call-overload]
    named = [
        "_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns
    ]
    twice = (
        sorted({name for name in named if named.count(name) > 1})
        if len(set(named)) < len(named)
        else []
    )
    if twice:
        raise InvalidInput(
            "data",
            got=f"two columns named {twice[0]!r}",
            expected="a name for each column",
            fix="rename one",
        )
    frame.columns = pandas.Index(named)
    return frame


def _of_polars(column: PolarsSeries) -> pandas.Series:
    import pandas

    entries = column.to_list()
    if type(column.dtype).__name__ == "Enum" and isinstance(column.dtype, Enumerates):
        categories = column.dtype.categories.to_list()
        return pandas.Series(pandas.Categorical(entries, categories=categories))
    return pandas.Series(entries).convert_dtypes() if None in entries else pandas.Series(entries)


def _check_lengths(columns: object) -> None:
    """Raise `InvalidInput` unless a dictionary's columns are of one length."""
    if not isinstance(columns, Mapping):
        return
    lengths = {str(name): len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(
            "data",
            got=f"columns of lengths {lengths}",
            expected="an entry of each row in each",
            fix="fill in None where one is missing",
        )


def _native(records: np.ndarray) -> np.ndarray:
    """Records of native byte order, their bytes as texts."""
    whole = next((name for name in records.dtype.names or () if records.dtype[name].shape), None)
    if whole is not None or records.ndim != 1:
        raise InvalidInput(
            "data",
            got=f"records of shape {records.shape}"
            if whole is None
            else f"records whose {whole!r} is an array of shape {records.dtype[whole].shape}",
            expected="one number or text in each field of each row",
            fix="pass its columns one by one, as a pandas.DataFrame",
        )
    kinds = {name: records.dtype[name] for name in records.dtype.names or ()}
    native = [
        (name, f"U{max(kind.itemsize, 1)}" if kind.kind == "S" else kind.newbyteorder("="))
        for name, kind in kinds.items()
    ]
    return records.astype(native)


def labels_of(value: object) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The numbers of a series of categories, -1 where one is missing, and the categories' names.

    ``None`` for a series of anything else.
    """
    series = _series(value)
    if series is None or series.dtype != "category":
        return None
    codes = series.cat.codes.to_numpy().astype(np.int64)
    return codes, tuple(map(text_of, series.cat.categories))


def _series(value: object) -> pandas.Series | None:
    """A series or an array of any of the three libraries as one of pandas."""
    import pandas

    if isinstance(value, PolarsSeries):
        return as_frame(value.to_frame()).iloc[:, 0]
    if type(value).__module__.startswith("pyarrow") and isinstance(value, GivesPandas):
        value = value.to_pandas()
    if isinstance(value, pandas.Index | pandas.api.extensions.ExtensionArray):
        value = pandas.Series(value)
    return value if isinstance(value, pandas.Series) else None


def series_values(value: object) -> tuple[object, bool]:
    """A series of pandas, polars or pyarrow, or a table of numbers, as an array or a list.

    Also whether it has gaps, which are NaN or ``None`` then.
    """
    import pandas

    if is_frame(value):
        frame = as_frame(value)
        found = [numbers_of(str(name), frame[name]) for name in frame.columns]
        for each in found:
            if each.column.categories:
                raise InvalidInput(
                    "data",
                    got=f"a table with texts or categories in column {each.column.name!r}",
                    expected="numbers",
                    fix="pass the table itself to as_dataset or load, which keep their names",
                )
        values = [each.values for each in found]
        has_gaps = any(np.isnan(each).any() for each in values)
        return (np.column_stack(values) if len(values) > 1 else values[0]), bool(has_gaps)
    series = _series(value)
    if series is None:
        raise InvalidInput(
            "data",
            got=f"a {type(value).__name__}",
            expected="a table or a series of numbers",
            fix="convert it to a numpy array of numbers",
        )
    gaps = series.isna()
    if pandas.api.types.is_numeric_dtype(series.dtype) and series.dtype != bool:
        if isinstance(series.dtype, np.dtype):  # whose NaN may be a number like others, or a gap
            return series.to_numpy(), bool(gaps.any())
        has_gaps = bool(gaps.any())
        return series.to_numpy(
            dtype=float, na_value=np.nan
        ) if has_gaps else series.to_numpy(), has_gaps
    if isinstance(series.dtype, np.dtype) and series.dtype.kind not in "O":
        return series.to_numpy(), False
    return series.astype(object).where(~gaps, None).tolist(), bool(gaps.any())
