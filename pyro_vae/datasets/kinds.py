"""The kind of a table's column, found from its entries or said, and its entries as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Number
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyro_vae.datasets.columns import DEFAULTS, DROP, KINDS, Column, Kind, said_as
from pyro_vae.validation import InvalidInput, nearest_name

if TYPE_CHECKING:
    import pandas

__all__ = ["Numbers", "in_order", "numbers_of", "plain_numbers", "text_of"]

MANY = 50  # categories of a text column that may be an identifier
FEW = 20  # numbers that may all be positive by chance
MIDNIGHT = re.compile(r"^(\d{4}-\d\d-\d\d)[ T]00:00:00$")
LARGE = 1000  # whole numbers above it are amounts rather than counts
KIND_OF = {name: kind for kind, name in DEFAULTS.items()} | {
    "Gamma": "positive", "Exponential": "positive", "Weibull": "positive",
    "Poisson": "count", "ZeroInflatedNegativeBinomial": "count",
    "StudentT": "real", "Laplace": "real", "Normal": "real",
}  # fmt: skip


class Numbers(NamedTuple):
    """A column as numbers (N,), NaN where an entry is missing, and what was changed."""

    column: Column
    values: np.ndarray
    notes: tuple[str, ...] = ()


def in_order(names: Iterable[str]) -> list[str]:
    """Names of categories in alphabetical order, or as numbers if all are whole numbers.

    Example:
        >>> in_order(["10", "9"]), in_order(["10", "9", "other"])
        (['9', '10'], ['10', '9', 'other'])
    """
    names = sorted(names)
    is_whole = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=int) if is_whole else names


def numbers_of(
    name: str, series: pandas.Series, said: str | None = None, is_label: bool = False
) -> Numbers:
    """A column as numbers, of the kind said or else found.

    ``said`` is a kind, the name of a likelihood, or an order of categories, ``"low<mid<high"``.
    """
    if said is not None and "<" in said:
        return _in_the_order(name, series, [each.strip() for each in said.split("<")])
    is_class = said is not None and said.rpartition(".")[2][:1].isupper()
    if said is not None and said not in KINDS and said not in KIND_OF and not is_class:
        raise InvalidInput(
            f"columns {name}",
            got=repr(said),
            expected=f"a kind ({', '.join(KINDS)}), drop, categories in order (low<high), or the "
            "name of a likelihood",
            fix=nearest_name(said, [*KINDS, DROP, *KIND_OF]),
        )
    likelihood = None if said is None or said in KINDS else said
    wanted = KIND_OF.get(said or "", said)
    found = next((kind for kind in KINDS if kind == wanted), None)
    numbers = plain_numbers(name, series, found)
    if numbers is None or found in ("category", "ordinal"):
        return _categories(name, series, found, likelihood, numbers)
    seen = numbers[~np.isnan(numbers)]
    if found == "binary" and not np.isin(seen, (0, 1)).all():
        return _categories(name, series, found, likelihood, numbers)
    if is_label and found is None and bool(np.all(seen % 1 == 0)):
        return _categories(name, series, "category", likelihood, numbers)
    _check_kind(name, found, numbers)
    column = Column(name, found or _kind_of(name, numbers), likelihood=likelihood)
    is_rounded = series.dtype.kind in "iuO" and bool(np.any(np.abs(seen) >= 2**53))
    notes = (f"integers beyond 2^53 in {name} are rounded to float64",) if is_rounded else ()
    return Numbers(column, numbers, notes)


def _check_kind(name: str, kind: Kind | None, numbers: np.ndarray) -> None:
    """Raise `InvalidInput` unless all numbers are of the kind that was said."""
    with np.errstate(invalid="ignore"):
        wrong = np.isinf(numbers)
        if kind == "positive":
            wrong |= numbers <= 0
        if kind == "count":
            wrong |= (numbers < 0) | (numbers % 1 != 0) & ~np.isnan(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"columns {name}",
            got=f"{numbers[row]:g} in row {row}",
            expected={"positive": "numbers above zero", "count": "whole numbers from 0"}.get(
                kind or "", "finite numbers"
            ),
            fix="leave the entry empty, as missing"
            if np.isinf(numbers[row])
            else f"correct it, or say {said_as(name, 'real')}",
        )


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
    raise _no_entries_of(name, str(series.dtype))


def _no_entries_of(name: str, kind: str) -> InvalidInput:
    return InvalidInput(
        f"columns {name}",
        got=f"entries of {kind}",
        expected="numbers, texts or categories",
        fix=f"convert it to a number, or leave it out: {said_as(name, DROP)}",
    )


def _numbers_of_objects(name: str, series: pandas.Series, kind: Kind | None) -> np.ndarray | None:
    import pandas

    seen = series.dropna()
    if not len(seen):
        raise _nothing_in(name)
    if all(isinstance(entry, bool | np.bool_) for entry in seen):
        return None
    texts = [isinstance(entry, str | bytes) for entry in seen]
    other = next((e for e, is_text in zip(seen, texts) if not is_text and not _is_number(e)), None)
    if other is not None:
        raise _no_entries_of(name, type(other).__name__)
    if not any(texts):
        return series.map(lambda entry: np.nan if pandas.isna(entry) else float(entry)).to_numpy(
            dtype=np.float64
        )
    read = pandas.to_numeric(seen, errors="coerce")
    if (all(texts) and read.isna().all()) or kind in ("category", "ordinal", "binary"):
        return None
    if all(texts) and len(seen) > MANY // 2 and read.isna().mean() > 0.5:
        return None
    if not read.isna().any():
        raise InvalidInput(
            f"columns {name}",
            got=f"numbers written as texts, such as {str(seen.iloc[0])[:30]!r}",
            expected="numbers, or texts",
            fix=f"convert them (pandas.to_numeric), or say {said_as(name, 'category')}",
        )
    raise InvalidInput(
        f"columns {name}",
        got=f"numbers beside texts ({int(read.isna().sum())} of {len(seen)} are no numbers, as "
        f"{str(seen[read.isna()].iloc[0])[:30]!r})",
        expected="one or the other",
        fix=f"correct the entries, or say {said_as(name, 'category')}",
    )


def _is_number(entry: object) -> bool:
    return isinstance(entry, Number | np.generic) and not isinstance(entry, complex)


def _nothing_in(name: str) -> InvalidInput:
    return InvalidInput(
        f"columns {name}",
        got="a column without an entry",
        expected="some that are not missing",
        fix=f"leave it out: {said_as(name, DROP)}",
    )


def _in_the_order(name: str, series: pandas.Series, order: list[str]) -> Numbers:
    """An ordinal column whose categories are named in their order."""
    places = {each: i for i, each in enumerate(order)}
    texts = [None if missing else text_of(entry) for entry, missing in zip(series, series.isna())]
    other = next((text for text in texts if text is not None and text not in places), None)
    if other is not None:
        raise InvalidInput(
            f"columns {name}",
            got=repr(other),
            expected=f"one of {', '.join(order)}",
            fix="name all categories in their order",
        )
    numbers = np.array([np.nan if text is None else places[text] for text in texts])
    return Numbers(Column(name, "ordinal", tuple(order)), numbers)


def text_of(entry: object) -> str:
    """The name of a category, whatever kind of table its entry stands in.

    A column with gaps makes 3.0 of 3, and one of days and times puts midnight behind the days.

    Example:
        >>> [text_of(entry) for entry in (3, 3.0, 2.5, True, b"a", "2020-01-31 00:00:00")]
        ['3', '3', '2.5', 'True', 'a', '2020-01-31']
    """
    if isinstance(entry, bytes):
        return entry.decode("utf-8", "replace")
    if isinstance(entry, float | np.floating) and entry % 1 == 0:
        return str(int(entry))
    return MIDNIGHT.sub(r"\1", str(entry))


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
        names = [text_of(each) for each in series.cat.categories]
        codes = series.cat.codes.to_numpy()
        _check_names(name, names)
        ordered = bool(series.cat.ordered)
    elif numbers is None and all(isinstance(e, bool | np.bool_) for e in series.dropna()):
        names = [text_of(False), text_of(True)]
        codes = series.map({False: 0, True: 1}).fillna(-1).to_numpy(dtype=np.float64)
    else:
        values = pandas.Series(numbers) if numbers is not None else series.reset_index(drop=True)
        values = values.map(text_of, na_action="ignore")
        names = in_order(values.dropna().unique().tolist())
        if numbers is not None:
            names = sorted(names, key=float)
        codes = values.map({each: i for i, each in enumerate(names)}).fillna(-1).to_numpy()
    if said == "ordinal" and numbers is None and not ordered:
        raise InvalidInput(
            f"columns {name}",
            got=f"texts without an order ({', '.join(names[:4])})",
            expected="categories in their order",
            fix=f"name them from the lowest: {said_as(name, '<'.join(names))}",
        )
    if said == "binary" and len(names) > 2:
        raise InvalidInput(
            f"columns {name}",
            got=f"{len(names)} values, such as {', '.join(names[:3])}",
            expected="two",
            fix=f"say {said_as(name, 'category')}",
        )
    if said in ("real", "positive", "count"):
        raise InvalidInput(
            f"columns {name}",
            got="texts, categories or truth values",
            expected=f"numbers ({said})",
            fix=f"say {said_as(name, 'category')}",
        )
    kind = said or ("ordinal" if ordered else "binary" if len(names) == 2 else "category")
    if said is None and len(names) > max(MANY, len(series) // 2):
        raise InvalidInput(
            f"columns {name}",
            got=f"{len(names)} different texts in {len(series)} rows, such as {names[0]!r}",
            expected="categories that return",
            fix=f"leave it out: {said_as(name, DROP)}, or say that it is a 'category'",
        )
    values = np.where(codes < 0, np.nan, codes.astype(np.float64))
    return Numbers(Column(name, kind, tuple(names), likelihood=likelihood), values)


def _check_names(column: str, names: Sequence[str]) -> None:
    """Raise `InvalidInput` if two categories have one name, as 1 and the text "1" have."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(
            f"columns {column}",
            got=f"two categories named {twice!r}",
            expected="a name for each",
            fix="make the entries all texts or all numbers",
        )


def _kind_of(name: str, numbers: np.ndarray) -> Kind:
    """The narrowest kind that holds all numbers of a column."""
    seen = numbers[~np.isnan(numbers)]
    if not len(seen):
        raise _nothing_in(name)
    rules: dict[Kind, Callable[[], bool]] = {
        "binary": lambda: seen.min() == 0 and seen.max() == 1 and bool(np.all(seen % 1 == 0)),
        "count": lambda: bool(
            np.all((seen >= 0) & (seen % 1 == 0)) and (seen.max() <= LARGE or seen.min() == 0)
        ),
        "positive": lambda: bool(np.all(seen > 0)) and len(seen) >= FEW,
    }
    return next((kind for kind, holds in rules.items() if holds()), "real")
