"""The kind of a table's column, found from its entries or said, and its entries as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyro_vae.datasets.columns import DEFAULTS, KINDS, Column, Kind
from pyro_vae.validation import InvalidInput, nearest_name

if TYPE_CHECKING:
    import pandas

__all__ = ["DROP", "Numbers", "numbers_of", "plain_numbers"]

DROP = "drop"
MANY = 50  # categories of a text column that may be an identifier
FEW = 20  # numbers that may all be positive by chance
LARGE = 1000  # whole numbers above it are amounts rather than counts
KIND_OF = {name: kind for kind, name in DEFAULTS.items()} | {
    "Gamma": "positive", "Exponential": "positive", "Weibull": "positive",
    "Poisson": "count", "ZeroInflatedNegativeBinomial": "count",
    "StudentT": "real", "Laplace": "real", "Normal": "real",
}  # fmt: skip


class Numbers(NamedTuple):
    """A column as numbers (N,), NaN where an entry is missing."""

    column: Column
    values: np.ndarray


def numbers_of(
    name: str, series: pandas.Series, said: str | None = None, is_label: bool = False
) -> Numbers:
    """A column as numbers, of the kind said or else found."""
    if said is not None and said not in KINDS and said not in KIND_OF and not said[:1].isupper():
        raise InvalidInput(
            f"columns {name}",
            got=repr(said),
            expected=f"a kind ({', '.join(KINDS)}), drop, or the name of a likelihood",
            fix=nearest_name(said, [*KINDS, DROP, *KIND_OF]),
        )
    likelihood = None if said is None or said in KINDS else said
    wanted = KIND_OF.get(said or "", said)
    found = next((kind for kind in KINDS if kind == wanted), None)
    numbers = plain_numbers(name, series, found)
    if numbers is None or found in ("category", "ordinal"):
        return _categories(name, series, found, likelihood, numbers)
    is_whole = bool(np.all(numbers[~np.isnan(numbers)] % 1 == 0))
    if is_label and found is None and is_whole:
        return _categories(name, series, "category", likelihood, numbers)
    return Numbers(Column(name, found or _kind_of(name, numbers), likelihood=likelihood), numbers)


def plain_numbers(name: str, series: pandas.Series, kind: Kind | None) -> np.ndarray | None:
    """A numeric column as float64; ``None`` for one of texts, categories or truth values."""
    import pandas

    types = pandas.api.types
    if isinstance(series.dtype, pandas.CategoricalDtype) or types.is_bool_dtype(series.dtype):
        return None
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if types.is_object_dtype(series.dtype) or types.is_string_dtype(series.dtype):
        return _numbers_of_objects(name, series, kind)
    raise InvalidInput(
        f"columns {name}",
        got=f"entries of {series.dtype}",
        expected="numbers, texts or categories",
        fix=f"convert it to a number, or leave it out: columns={{'{name}': 'drop'}}",
    )


def _numbers_of_objects(name: str, series: pandas.Series, kind: Kind | None) -> np.ndarray | None:
    import pandas

    seen = series.dropna()
    if not len(seen):
        raise InvalidInput(
            f"columns {name}",
            got="a column without an entry",
            expected="some that are not missing",
            fix=f"leave it out: columns={{'{name}': 'drop'}}",
        )
    if all(isinstance(entry, bool | np.bool_) for entry in seen):
        return None
    texts = [isinstance(entry, str) for entry in seen]
    read = pandas.to_numeric(seen, errors="coerce")
    if not any(texts) and not read.isna().any():
        return series.map(lambda entry: np.nan if pandas.isna(entry) else float(entry)).to_numpy(
            dtype=np.float64
        )
    if (all(texts) and read.isna().all()) or kind in ("category", "ordinal", "binary"):
        return None
    if all(texts) and len(seen) > MANY // 2 and read.isna().mean() > 0.5:
        return None
    other = seen[read.isna()].iloc[0] if read.isna().any() else seen.iloc[0]
    raise InvalidInput(
        f"columns {name}",
        got=f"numbers beside texts ({int(read.isna().sum())} of {len(seen)} are no numbers, as "
        f"{str(other)[:30]!r})",
        expected="one or the other",
        fix=f"correct the entries, or say columns={{'{name}': 'category'}}",
    )


def _categories(
    name: str,
    series: pandas.Series,
    said: Kind | None,
    likelihood: str | None,
    numbers: np.ndarray | None,
) -> Numbers:
    import pandas

    ordered = False
    if isinstance(series.dtype, pandas.CategoricalDtype):
        names, codes = list(series.cat.categories), series.cat.codes.to_numpy()
        ordered = bool(series.cat.ordered)
    else:
        values = pandas.Series(numbers) if numbers is not None else series.reset_index(drop=True)
        names = sorted(values.dropna().unique().tolist())
        codes = values.map({each: i for i, each in enumerate(names)}).fillna(-1).to_numpy()
        if numbers is not None and all(each % 1 == 0 for each in names):
            names = [int(each) for each in names]
    kind = said or ("ordinal" if ordered else "binary" if len(names) == 2 else "category")
    if said is None and len(names) > max(MANY, len(series) // 2):
        raise InvalidInput(
            f"columns {name}",
            got=f"{len(names)} different texts in {len(series)} rows, such as {str(names[0])!r}",
            expected="categories that return",
            fix=f"leave it out: columns={{'{name}': 'drop'}}, or say that it is a 'category'",
        )
    values = np.where(codes < 0, np.nan, codes.astype(np.float64))
    return Numbers(Column(name, kind, tuple(map(str, names)), likelihood=likelihood), values)


def _kind_of(name: str, numbers: np.ndarray) -> Kind:
    """The narrowest kind that holds all numbers of a column."""
    seen = numbers[~np.isnan(numbers)]
    if not len(seen):
        raise InvalidInput(
            f"columns {name}",
            got="a column without an entry",
            expected="some that are not missing",
            fix=f"leave it out: columns={{'{name}': 'drop'}}",
        )
    rules: dict[Kind, Callable[[], bool]] = {
        "binary": lambda: seen.min() == 0 and seen.max() == 1 and bool(np.all(seen % 1 == 0)),
        "count": lambda: bool(
            np.all((seen >= 0) & (seen % 1 == 0)) and (seen.max() <= LARGE or seen.min() == 0)
        ),
        "positive": lambda: bool(np.all(seen > 0)) and len(seen) >= FEW,
    }
    return next((kind for kind, holds in rules.items() if holds()), "real")
