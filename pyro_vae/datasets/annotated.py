"""AnnData: single cells' counts with the names of genes and what is known of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from torch import Tensor

from pyro_vae.datasets.arrays import read_array
from pyro_vae.datasets.columns import Column, Columns, Kind
from pyro_vae.datasets.sources import Reading, Source, parts_of
from pyro_vae.datasets.tables import check_named, context_notes, given_rows
from pyro_vae.validation import InvalidInput, nearest_name

if TYPE_CHECKING:
    import pandas

__all__ = ["read_annotated"]


class Matrix(Protocol):
    """What holds a matrix of cells and genes: an AnnData, or its raw counts."""

    X: object
    var_names: pandas.Index


class Annotated(Matrix, Protocol):
    """The part of an AnnData that is read."""

    layers: Mapping[str, object]
    obsm: Mapping[str, object]
    obs: pandas.DataFrame
    raw: Matrix | None
    isbacked: bool

    def to_memory(self) -> Annotated: ...


def read_annotated(splits: Mapping[str, object], reading: Reading) -> Source:
    """AnnData by split: x is X, or the layer or ``obsm`` entry that ``reading.key`` names.

    ``key="raw"`` names the counts that were put aside. Genes of other splits, or of other data than
    a program was trained on, are matched by name. Columns of obs are the context.

    Raises:
        InvalidInput: for an unknown key or column, or genes that are not there.
    """
    import pandas

    cells = {split: cast(Annotated, data) for split, data in splits.items()}
    cells = {split: each.to_memory() if each.isbacked else each for split, each in cells.items()}
    first = next(iter(cells.values()))
    read = {split: _matrix(each, reading.key) for split, each in cells.items()}
    wanted = reading.like.names if reading.like is not None else next(iter(read.values()))[1]
    notes: list[str] = []
    values = []
    for matrix, names in read.values():
        found = read_array("x", matrix)
        values.append(_by_name(found.values, names, wanted, notes))
        notes += found.notes
    x = np.concatenate(values)
    known = [str(name) for name in first.obs.columns]
    given = reading.given
    check_named(given, known)
    obs = pandas.concat([each.obs for each in cells.values()], ignore_index=True)
    y, context_columns = given_rows(obs, given, reading, wanted)
    seen = x[~np.isnan(x)] if x.dtype.kind == "f" else x
    is_count = bool((seen >= 0).all() and (seen % 1 == 0).all())
    kind: Kind = "count" if is_count else "real"
    check_named(list(reading.columns), wanted)
    said = reading.columns
    columns = Columns(tuple(Column(name, kind, likelihood=said.get(name)) for name in wanted))
    used = {*given, *reading.known_columns}
    unused = [name for name in known if name not in used]
    if unused and context_columns is None:
        more = ", ..." if len(unused) > 5 else ""
        notes.append(f"obs columns {', '.join(unused[:5])}{more} are left out; context= names some")
    notes += context_notes(context_columns, reading)
    others = [*first.layers, *(["raw"] if first.raw is not None else [])]
    if reading.key is None and others and not is_count:
        notes.append(f"x is X, whose values are no counts; key= names others: {', '.join(others)}")
    return Source(
        "cells",
        parts_of([len(each) for each in values], list(cells), x, y),
        missing=bool(np.isnan(x).any()) if x.dtype.kind == "f" else False,
        columns=reading.like or columns,
        context_columns=context_columns,
        known=reading.known,
        notes=tuple(dict.fromkeys(notes)),
    )


def _matrix(cells: Annotated, key: str | None) -> tuple[object, list[str]]:
    """The values of cells, and the names of their columns."""
    genes = [str(name) for name in cells.var_names]
    if key is None and cells.X is not None:
        return cells.X, genes
    if key == "raw" and cells.raw is not None:
        return cells.raw.X, [str(name) for name in cells.raw.var_names]
    if key is not None and key in cells.layers:
        return cells.layers[key], genes
    if key is not None and key in cells.obsm:
        found = cells.obsm[key]
        values = read_array("x", found).values
        return values.reshape(len(values), -1), [
            f"{key}_{i}" for i in range(values.reshape(len(values), -1).shape[1])
        ]
    known = [*cells.layers, *cells.obsm, *(["raw"] if cells.raw is not None else [])]
    raise InvalidInput(
        "key",
        got=repr(key) if key else "an AnnData without X",
        expected="a layer, an entry of obsm, or raw",
        fix=nearest_name(key or "", known) if known else "put the data in X",
    )


def _by_name(
    values: Tensor, names: Sequence[str], wanted: Sequence[str], notes: list[str]
) -> np.ndarray:
    """Values with the columns that are wanted, in their order."""
    if list(names) == list(wanted):
        return values.numpy()
    places = {name: i for i, name in enumerate(names)}
    absent = [name for name in wanted if name not in places]
    if absent or len(places) < len(names):
        raise InvalidInput(
            "data",
            got=f"cells without the gene {absent[0]!r}" if absent else "two genes of one name",
            expected=f"the {len(wanted)} genes of the training data, each with a name of its own",
            fix="choose data of the same genes",
        )
    left = len(names) - len(wanted)
    notes.append("genes are matched by name" + (f", {left} are left out" if left else ""))
    return values.numpy()[:, [places[name] for name in wanted]]
