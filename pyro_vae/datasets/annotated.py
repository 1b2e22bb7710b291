"""AnnData: single cells' counts with the names of genes and what is known of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from pyro_vae.datasets.columns import Column, Columns, Kind
from pyro_vae.datasets.sources import Part, Reading, Source
from pyro_vae.datasets.tables import check_named, covariates
from pyro_vae.validation import InvalidInput, nearest_name

if TYPE_CHECKING:
    import pandas

__all__ = ["read_annotated"]


class Annotated(Protocol):
    """The part of an AnnData that is read."""

    X: object
    layers: Mapping[str, object]
    obs: pandas.DataFrame
    var_names: pandas.Index
    is_view: bool
    isbacked: bool

    def to_memory(self) -> Annotated: ...


def read_annotated(data: object, reading: Reading) -> Source:
    """An AnnData: x is X or the layer that ``reading.key`` names, a context comes from obs."""
    from pyro_vae.datasets.arrays import as_tensor

    cells = cast(Annotated, data)
    cells = cells.to_memory() if cells.isbacked else cells
    layers = {name: cells.layers[name] for name in cells.layers}
    matrix = cells.X if reading.key is None else layers.get(reading.key)
    if matrix is None:
        raise InvalidInput(
            "key",
            got=repr(reading.key) if reading.key else "an AnnData without X",
            expected="a layer",
            fix=nearest_name(reading.key or "", layers) if layers else "put the data in X",
        )
    x = as_tensor("x", matrix)
    given = [reading.target] if reading.target is not None else list(reading.context)
    check_named(given, list(map(str, cells.obs.columns)))
    y, context_columns = covariates(cells.obs.reset_index(drop=True), given, reading)
    is_count = bool((x >= 0).all() and (x % 1 == 0).all())
    kind: Kind = "count" if is_count else "real"
    names = [str(name) for name in cells.var_names]
    check_named(list(reading.columns), names)
    said = reading.columns
    columns = Columns(tuple(Column(name, kind, likelihood=said.get(name)) for name in names))
    notes = []
    unused = [str(name) for name in cells.obs.columns if name not in given]
    if unused:
        more = ", ..." if len(unused) > 5 else ""
        notes.append(f"obs columns {', '.join(unused[:5])}{more} are left out; context= names some")
    if reading.key is None and layers and not is_count:
        notes.append(f"x is X, whose values are no counts; key= names a layer: {', '.join(layers)}")
    return Source(
        "cells",
        {"train": Part(x.numpy(), y)},
        missing=bool(np.isnan(x.numpy()).any()) if x.is_floating_point() else False,
        columns=columns,
        context_columns=context_columns,
        notes=tuple(notes),
    )
