"""Tables and series of pandas, polars and pyarrow as those of pandas, or as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pyro_vae.datasets.kinds import numbers_of
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas

__all__ = ["as_frame", "is_frame", "series_values"]


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
class GivesDictionary(Protocol):
    def to_dict(self, *, as_series: bool) -> dict[str, list[object]]: ...


def is_frame(value: object) -> bool:
    """Whether a value of pandas, polars or pyarrow is a table, not a series."""
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
    elif type(value).__module__.startswith("polars") and isinstance(value, GivesDictionary):
        # Lists, not Arrow, which polars would need pyarrow for.
        frame = pandas.DataFrame(
            {name: pandas.Series(column).convert_dtypes() if column and None in column else column
             for name, column in value.to_dict(as_series=False).items()}
        )  # fmt: skip
    elif isinstance(value, GivesPandas):
        frame = value.to_pandas()
    else:
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


def _native(records: np.ndarray) -> np.ndarray:
    return records.astype(records.dtype.newbyteorder("="))


def series_values(value: object) -> object:
    """A series of pandas, polars or pyarrow, or a table of numbers, as an array or a list."""
    import pandas

    if is_frame(value):
        frame = as_frame(value)
        found = [numbers_of(str(name), frame[name]) for name in frame.columns]
        for column, _ in found:
            if column.categories:
                raise InvalidInput(
                    "data",
                    got=f"a table with texts or categories in column {column.name!r}",
                    expected="numbers",
                    fix="pass the table itself to as_dataset or load, which keep their names",
                )
        values = [column.values for column in found]
        return np.column_stack(values) if len(values) > 1 else values[0]
    if type(value).__module__.startswith("pyarrow") and isinstance(value, GivesPandas):
        value = value.to_pandas()
    if isinstance(value, pandas.Series):
        if isinstance(value.dtype, pandas.CategoricalDtype) or value.dtype == object:
            return value.astype(object).where(value.notna(), None).tolist()
        if pandas.api.types.is_numeric_dtype(value.dtype):
            has_gaps = bool(value.isna().any())
            return value.to_numpy(dtype=float, na_value=np.nan) if has_gaps else value.to_numpy()
    if isinstance(value, GivesList):
        return value.to_list()
    raise InvalidInput(
        "data",
        got=f"a {type(value).__name__}",
        expected="a table or a series of numbers",
        fix="convert it to a numpy array of numbers",
    )
