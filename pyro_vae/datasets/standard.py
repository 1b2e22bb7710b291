"""Standardisation by the training rows, which belongs to the data set and is undone by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.in_memory import Dataset
from pyro_vae.datasets.known import REST, rest_of, with_rest
from pyro_vae.datasets.units import OF_X, in_new_units
from pyro_vae.validation import InvalidInput, counted, short, tensors_of

if TYPE_CHECKING:
    import pandas

__all__ = ["context_frame", "in_units_of", "standardized"]

MOST_NAMED = 6  # columns in a line


def standardized(
    train: Dataset, test: Dataset, rows: str = "the training rows"
) -> tuple[Dataset, Dataset]:
    """Training and test data in the units of the training rows.

    Columns of covariates are standardised likewise, and known quantities in the units of x, such
    as its noise, are put into the new ones. So are the validation data that a data set was
    published with.

    Raises:
        InvalidInput: unless x is a table (N, C) of numbers that are not binarised.
    """
    shape = train.event_shape
    if len(shape) != 1 or isinstance(shape, dict) or train.binarize != "none" or train.text:
        raise InvalidInput(
            "standardize",
            got=f"data of shape {shape}"
            + (", to be binarised" if train.binarize != "none" else ""),
            expected="a table (N, C) of numbers",
            fix="leave it out, or pass scale=255 (--scale 255) for bytes",
        )
    columns = train.columns or Columns(tuple(Column(f"x{i}", "real") for i in range(shape[0])))
    columns = columns.fitted(train.kept)
    given, context = train.context_columns, _covariates(train)
    if given is not None and context is not None:
        given = given.fitted(context)
    changed = [column.name for column in columns if (column.center, column.scale) != (0.0, 1.0)]
    which = f": {', '.join(map(short, changed))}" if 0 < len(changed) <= MOST_NAMED else ""
    note = f"{len(changed)} of {counted(len(columns), 'column')} "
    note += f"{'is' if len(changed) == 1 else 'are'} standardised by {rows}{which}"
    parts = [_in_units(part, columns, given, note) for part in (train, test)]
    if train.published_validation is not None:
        parts[0].published_validation = _in_units(train.published_validation, columns, given, note)
    return parts[0], parts[1]


def in_units_of(data: Dataset, columns: Columns, given: Columns | None) -> Dataset:
    """Data in the units of other training rows.

    Raises:
        InvalidInput: if they have other columns.
    """
    if data.event_shape != (len(columns),):
        raise InvalidInput(
            "data",
            got=f"data of shape {data.event_shape}",
            expected=f"{len(columns)} columns, as the training data",
            fix="choose data with the same columns",
        )
    return _in_units(data, columns, given, "standardised as the training rows were")


def context_frame(data: Dataset) -> pandas.DataFrame | None:
    """The context as a table, as `Dataset.frame` is of x; ``None`` where it has no columns."""
    import pandas

    given, rest, as_read = data.context_columns, rest_of(data.context), data.as_read
    frames = [_known_frame(data)]
    if given is not None and rest is not None:
        values = as_read.get(REST, rest)
        frames.insert(0, given.frame(values.reshape(len(values), -1), restored=REST in as_read))
    whole = pandas.concat(frames, axis=1)
    whole = whole.loc[:, ~whole.columns.duplicated()]  # a covariate may be a known quantity too
    return whole if len(whole.columns) else None


def _known_frame(data: Dataset) -> pandas.DataFrame:
    """The known quantities as a table, as they were read."""
    import pandas

    entries = tensors_of(data.context)
    columns: dict[str, object] = {}
    for quantity, names in data.known.items() if data.columns is not None else ():
        if quantity not in entries:  # of data that were given another context
            continue
        values = data.as_read.get(quantity, entries[quantity]).detach().cpu()
        columns |= {
            name: values.reshape(len(values), -1)[:, i].numpy() for i, name in enumerate(names)
        }
    return pandas.DataFrame(columns, index=range(len(data)))


def _covariates(data: Dataset) -> Tensor | None:
    rest = rest_of(data.context)
    return rest if rest is not None and rest.is_floating_point() else None


def _in_units(data: Dataset, columns: Columns, given: Columns | None, note: str) -> Dataset:
    context, as_read = _covariates(data), {"x": data.kept}
    if given is not None and context is not None:
        as_read[REST] = context
        data = data.with_context(with_rest(data.context, given.standardize(context)))
    in_units = {name: each for name, each in tensors_of(data.context).items() if name in OF_X}
    changed, left = in_new_units(data.context, *columns.units())
    as_read |= in_units
    part = data._like(columns.standardize(data.kept), changed, {})
    part.in_old_units = left
    part.columns, part.context_columns, part.as_read = columns, given, as_read
    known = [name for name in tensors_of(changed) if name in OF_X]
    also = f"; {', '.join(known)} of the context likewise" if known else ""
    part.notes = (*data.notes, note + also)
    return part
