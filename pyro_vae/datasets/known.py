"""Known quantities of each datum beside x: columns of a table, or arrays of a file, by name.

The context is then a dictionary of them, with the labels or covariates, if any, as one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.kinds import plain_numbers
from pyro_vae.validation import InvalidInput, nearest_name, short

if TYPE_CHECKING:
    import pandas

__all__ = [
    "REST", "Given", "Known", "beside", "check_complete", "check_known_named", "known_names",
    "known_of_table", "known_in_words", "labels_in", "names_in", "rest_of", "with_rest",
]  # fmt: skip

Array = np.ndarray | Tensor
# Labels or covariates; or a dictionary of them and of known quantities, by name.
Given = Array | Mapping[str, Array]
Known = Mapping[str, tuple[str, ...]]  # for each quantity the columns, or the array, that hold it

REST = "context"  # the entry of a context that is its labels or covariates, beside quantities

# Quantities that are used of some data alone; those of the others may be missing.
USED_OF_SOME = ("upper",)


def known_names(said: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """The columns of each known quantity, which may be named in one text, separated by commas.

    Raises:
        InvalidInput: for a quantity without a column, or one named as the labels or covariates are.

    Example:
        >>> known_names({"censored": "c1,c2", "scale": ["noise"]})
        {'censored': ('c1', 'c2'), 'scale': ('noise',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for quantity, named in (said or {}).items():
        listed = named.split(",") if isinstance(named, str) else list(named)
        names = tuple(each.strip() for each in listed if each.strip())
        if not names or quantity == REST:
            raise InvalidInput(
                f"known {quantity}",
                got="no column" if not names else "labels or covariates",
                expected="a known quantity, with the column or columns that hold it",
                fix="name one: known={'scale': 'noise'} (--known.scale noise)"
                if not names
                else f"name them as the context: --context {','.join(names)}",
            )
        found[quantity] = names
    return found


def names_in(known: Known) -> list[str]:
    """All columns that hold known quantities, each once."""
    return list(dict.fromkeys(name for names in known.values() for name in names))


def known_in_words(known: Known) -> str:
    """Which quantity is which column.

    Example:
        >>> known_in_words({"scale": ("noise",), "censored": ("c1", "c2")})
        'scale is noise, censored is c1, c2'
    """
    return ", ".join(
        f"{short(quantity)} is {', '.join(map(short, names[:5]))}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for quantity, names in known.items()
    )


# contexts


def rest_of(context: Tensors | None) -> Tensor | None:
    """The labels or covariates of a context: all of it, or its entry beside known quantities."""
    return context.get(REST) if isinstance(context, dict) else context


def with_rest(context: Tensors | None, rest: Tensor) -> Tensors:
    """A context with other labels or covariates, and the same known quantities."""
    return {**context, REST: rest} if isinstance(context, dict) else rest


def labels_in(context: Tensors | None) -> Tensor | None:
    """The labels (N,) of a context, if its labels or covariates are labels."""
    rest = rest_of(context)
    return None if rest is None or rest.is_floating_point() or rest.dim() != 1 else rest


def beside(known: Mapping[str, Array], rest: Array | None) -> Given | None:
    """The context with known quantities, of which there may be none, and with the rest."""
    if not known:
        return rest
    return dict(known) if rest is None else {**known, REST: rest}


# tables


def check_known_named(known: Known, names: Sequence[str], what: str = "a column") -> None:
    """Raise `InvalidInput`, with the nearest name, unless a table or a file has all of them."""
    for quantity, wanted in known.items():
        for name in wanted:
            if name not in names:
                raise InvalidInput(
                    f"known {quantity}",
                    got=repr(name),
                    expected=f"{what} of the data",
                    fix=nearest_name(name, names),
                )


def known_of_table(
    frame: pandas.DataFrame, known: Known, entries: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Known quantities of a table's rows: (N,) of one column, (N, C) of one for each entry of x.

    Args:
        frame: the table.
        known: the columns of each quantity.
        entries: the names of the entries of x; none where x is no table.

    Raises:
        InvalidInput: for columns that are not there, that hold texts or gaps, or are too few.
    """
    check_known_named(known, [str(name) for name in frame.columns])
    found: dict[str, np.ndarray] = {}
    for quantity, names in known.items():
        if len(names) > 1 and entries and len(names) != len(entries):
            raise InvalidInput(
                f"known {quantity}",
                got=f"{len(names)} columns for the {len(entries)} of x",
                expected="one column for all of them, or one for each in their order",
                fix=f"name one, or {len(entries)}, for {', '.join(map(short, entries[:6]))}"
                + (", ..." if len(entries) > 6 else ""),
            )
        columns = [_numbers(quantity, name, frame[name]) for name in names]
        found[quantity] = columns[0] if len(columns) == 1 else np.column_stack(columns)
    return found


def _numbers(quantity: str, name: str, series: pandas.Series) -> np.ndarray:
    """A column's numbers; truth values are 0 and 1."""
    import pandas

    if pandas.api.types.is_bool_dtype(series.dtype):
        series = series.astype("Float64")
    numbers = plain_numbers(name, series, "category")  # texts that are numbers are none
    if numbers is None:
        raise InvalidInput(
            f"known {quantity}",
            got=f"texts or categories in column {short(name)}",
            expected="numbers",
            fix="convert the column to numbers",
        )
    check_complete(quantity, name, numbers)
    return numbers


def check_complete(quantity: str, name: str, values: np.ndarray) -> None:
    """Raise `InvalidInput` where a quantity (N, ...) that is used of all data is missing."""
    if quantity in USED_OF_SOME or values.dtype.kind != "f":
        return
    missing = np.isnan(values).reshape(len(values), -1).any(1)
    if missing.any():
        raise InvalidInput(
            f"known {quantity}",
            got=f"a missing entry in row {int(missing.argmax())} of {short(name)}",
            expected="a quantity that is known of each datum",
            fix="fill it in, or leave the row out",
        )
