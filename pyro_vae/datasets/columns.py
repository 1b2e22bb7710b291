r"""Columns of a table: names, kinds, categories and units.

A kind says which values a column takes, and so which likelihood it has by default:

- ``"real"``: any number; `Normal` with a learned scale.
- ``"positive"``: numbers above zero; `LogNormal`.
- ``"count"``: 0, 1, 2, ...; `NegativeBinomial`.
- ``"binary"``: two values, numbered 0 and 1; `Bernoulli`.
- ``"category"``: one of C values, numbered 0, ..., C - 1; `Categorical`.
- ``"ordinal"``: one of C values with an order, numbered likewise; `Ordinal`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, get_args

import msgspec
import numpy as np
import torch
from torch import Tensor

from pyro_vae.files.reading import checked
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas

__all__ = ["DROP", "KINDS", "Column", "Columns", "Kind", "known_columns", "said_as"]

Kind = Literal["real", "positive", "count", "binary", "category", "ordinal"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DEFAULTS = {
    "real": "Normal",
    "positive": "LogNormal",
    "count": "NegativeBinomial",
    "binary": "Bernoulli",
    "category": "Categorical",
    "ordinal": "Ordinal",
}
DROP = "drop"  # said instead of a kind, of a column that is left out
LEARNS_SCALE = {"Normal", "Laplace", "StudentT", "LogNormal"}


def said_as(name: str, kind: str) -> str:
    """How the kind of a column is said, in Python and on the command line.

    Example:
        >>> said_as("mass", "drop")
        "columns={'mass': 'drop'} (--columns.mass drop)"
        >>> said_as("body size", "small<large")
        "columns={'body size': 'small<large'} (--columns.'body size' 'small<large')"
    """
    return f"columns={{{name!r}: {kind!r}}} (--columns.{shlex.quote(name)} {shlex.quote(kind)})"


@dataclass(frozen=True)
class Column:
    r"""A column: value v stands in x as :math:`(v - \mathrm{center}) / \mathrm{scale}`.

    Args:
        name: its name in the table.
        kind: which values it takes.
        categories: the names of its numbers 0, 1, ..., of a binary column, category or ordinal.
        center: what is subtracted.
        scale: what it is divided by after that.
        likelihood: the name of its likelihood; by default its kind's.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    center: float = 0.0
    scale: float = 1.0
    likelihood: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind not in ("real", "positive")

    def shown(self, value: float) -> object:
        """A value in its own units: the name of a category, a whole number of counts."""
        if self.categories:
            place = round(value) if value == value else -1
            return self.categories[place] if 0 <= place < len(self.categories) else None
        own = value * self.scale + self.center
        return round(own) if self.is_whole and own == own else own

    def group(self) -> tuple[str, tuple[tuple[str, object], ...]]:
        """The class and the arguments of its likelihood.

        Raises:
            InvalidInput: for a column of one category, which no likelihood describes.
        """
        name = self.likelihood or DEFAULTS[self.kind]
        arguments: dict[str, object] = {}
        if self.kind in ("category", "ordinal"):
            if len(self.categories) == 1:
                raise InvalidInput(
                    f"columns {self.name}",
                    got=f"one category, {self.categories[0]!r}, in all rows",
                    expected="two or more",
                    fix=f"leave it out: {said_as(self.name, DROP)}",
                )
            arguments["categories"] = len(self.categories)
        elif name in LEARNS_SCALE:
            arguments["learn_scale"] = "per_feature"
        return name, tuple(arguments.items())


@dataclass(frozen=True)
class Columns:
    """The columns of x or of a context, in order.

    Example:
        >>> columns = Columns((Column("mass", "real", center=4000.0, scale=800.0),
        ...                    Column("sex", "binary", ("female", "male"))))
        >>> columns.restore(torch.tensor([[0.5, 1.0]])).tolist()
        [[4400.0, 1.0]]
        >>> columns.frame(torch.tensor([[0.5, 1.0]])).to_dict("records")
        [{'mass': 4400.0, 'sex': 'male'}]
    """

    columns: tuple[Column, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, place: int) -> Column:
        return self.columns[place]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self]

    @property
    def is_standardized(self) -> bool:
        return any((column.center, column.scale) != (0.0, 1.0) for column in self)

    @property
    def log_scale(self) -> float:
        """The sum of log scales: what a log-density loses in the columns' own units."""
        return float(np.log([column.scale for column in self]).sum())

    def standardize(self, x: Tensor) -> Tensor:
        """Values (..., C) in the units of the model."""
        center, scale = (each.to(x.device) for each in self.units())
        return ((x.double() - center) / scale).to(x.dtype)

    def restore(self, x: Tensor) -> Tensor:
        """Values (..., C) in the columns' own units."""
        if not self.is_standardized:
            return x
        center, scale = (each.to(x.device) for each in self.units())
        return (x.double() * scale + center).to(x.dtype)

    def units(self) -> tuple[Tensor, Tensor]:
        """The centers and the scales (C,), in float64."""
        numbers = [(column.center, column.scale) for column in self]
        center, scale = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 2).unbind(1)
        return center, scale

    def fitted(self, x: Tensor) -> Columns:
        """The same columns with the center and the scale of values (N, C).

        A real column gets mean 0 and standard deviation 1; a positive one is divided by its mean,
        so that it stays positive; the others stay as they are.
        """
        return Columns(tuple(_fitted(column, x[:, i]) for i, column in enumerate(self)))

    def groups(self) -> list[dict[str, object]]:
        """Groups of columns by likelihood, as `pyro_vae.likelihoods.Mixed` takes them."""
        found: dict[tuple[str, tuple[tuple[str, object], ...]], list[int]] = {}
        for i, column in enumerate(self):
            found.setdefault(column.group(), []).append(i)
        return [
            {"columns": places, "class_path": name, "init_args": dict(arguments)}
            for (name, arguments), places in found.items()
        ]

    def frame(self, x: Tensor, *, restored: bool = False) -> pandas.DataFrame:
        """Values (N, C) as a pandas table in the columns' own units and with their categories.

        Args:
            x: the values, in the units of the model.
            restored: whether they are in the columns' own units already.
        """
        import pandas

        x = x.detach().cpu().double()
        values = (x if restored else self.restore(x)).numpy()
        return pandas.DataFrame({c.name: _named(c, values[:, i]) for i, c in enumerate(self)})

    def numbers(self, texts: dict[str, str]) -> list[float]:
        """Values in the units of the model for columns given as text, by name.

        Raises:
            InvalidInput: if a column is unknown or left out, or a value is none of its.
        """
        if set(texts) != set(self.names):
            raise InvalidInput(
                "context",
                got=", ".join(texts) or "no columns",
                expected=f"a value for each of {', '.join(self.names)}",
                fix="pass " + ",".join(f"{name}=..." for name in self.names),
            )
        return [_number(column, texts[column.name]) for column in self]

    def to_json(self) -> list[dict[str, object]]:
        """The columns as lists and dictionaries."""
        return [asdict(column) for column in self]

    @classmethod
    def from_json(cls, columns: Sequence[dict[str, object]]) -> Columns:
        """The columns that `to_json` described."""
        return cls(tuple(_column(entry) for entry in columns))


def known_columns(name: str, columns: Columns | None) -> Columns:
    """The columns of a data set; raise `InvalidInput` if it has none."""
    if columns is None:
        raise InvalidInput(
            "data",
            got=f"{name}, whose data have no columns",
            expected="a table",
            fix="read it from a table, such as a .csv",
        )
    return columns


def _fitted(column: Column, values: Tensor) -> Column:
    seen = values[~torch.isnan(values)].double()
    if column.kind == "positive" and len(seen):
        return replace(column, scale=float(seen.mean()))
    if column.kind == "real" and len(seen):
        spread = float(seen.std(correction=0))
        # A column of one value, up to rounding, has no spread to divide by.
        tiny = 1e-6 * float(seen.abs().max())
        return replace(column, center=float(seen.mean()), scale=spread if spread > tiny else 1.0)
    return column


def _named(column: Column, values: np.ndarray) -> np.ndarray | pandas.Series:
    import pandas

    if column.categories:
        return np.array([column.shown(value) for value in values], dtype=object)
    if column.is_whole:  # which numpy has no missing entries of
        return pandas.Series(values).round().astype("Int64")
    return values


def _number(column: Column, text: str) -> float:
    if text in column.categories:
        return float(column.categories.index(text))
    try:
        if column.categories:
            raise ValueError(text)
        return (float(text) - column.center) / column.scale
    except ValueError:
        known = ", ".join(column.categories[:10])
        raise InvalidInput(
            f"context {column.name}",
            got=repr(text),
            expected=f"one of {known}" if known else "a number",
            fix="correct the value",
        ) from None


class _Entry(TypedDict):
    """A column as `Columns.to_json` writes it."""

    name: str
    kind: Kind
    categories: NotRequired[list[str]]
    center: NotRequired[float]
    scale: NotRequired[float]
    likelihood: NotRequired[str | None]


def _column(entry: dict[str, object]) -> Column:
    try:
        found = checked(entry, _Entry)
        center, scale = found.get("center", 0.0), found.get("scale", 1.0)
        if not (math.isfinite(center) and math.isfinite(scale) and scale > 0):
            raise msgspec.ValidationError(f"center {center} and scale {scale}")
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "columns",
            got=f"a column with {error}",
            expected="columns as to_json writes them",
            fix="train anew",
        ) from None
    categories = tuple(found.get("categories", ()))
    return Column(found["name"], found["kind"], categories, center, scale, found.get("likelihood"))
