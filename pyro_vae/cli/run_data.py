"""What a run keeps of its data: columns with their units and names, and what was changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from pyro_vae import checkpoint
from pyro_vae.contracts import EventShape
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.known import Known
from pyro_vae.files.checksums import with_checksum
from pyro_vae.files.reading import MEGABYTE, Kind, read_json

__all__ = ["RunData", "read_data", "units_of", "write_data"]

DATA = Kind(
    "run", "the description of its data, as train writes it", "restore it from a copy",
    64 * MEGABYTE,
)  # fmt: skip


class _Description(TypedDict):
    name: str
    num_train: int
    num_test: int
    sha256: NotRequired[str]  # of the test data
    event_shape: NotRequired[list[int] | dict[str, list[int]]]
    notes: list[str]
    columns: list[dict[str, object]] | None
    context_columns: list[dict[str, object]] | None
    known: NotRequired[dict[str, list[str]]]  # the columns, or arrays, of known quantities


@dataclass(frozen=True)
class RunData:
    """The columns of x, the context and known quantities of a run; the form of any run's data."""

    columns: Columns | None = None
    context_columns: Columns | None = None
    sha256: str | None = None
    event_shape: EventShape | None = None
    known: Known = field(default_factory=dict)


def write_data(folder: Path, train: Dataset, test: Dataset) -> None:
    """Save the columns of a run's data, and what was skipped, rescaled or filled in."""
    given = train.context_columns
    description: _Description = {
        "name": train.name,
        "num_train": len(train),
        "num_test": len(test),
        "sha256": test.sha256,
        "event_shape": _as_lists(train.event_shape),
        "notes": list(train.notes),
        "columns": None if train.columns is None else train.columns.to_json(),
        "context_columns": None if given is None else given.to_json(),
        "known": {quantity: list(names) for quantity, names in train.known.items()},
    }
    text = json.dumps(with_checksum(description), indent=1)
    checkpoint.write_text(folder / "data.json", text + "\n")


def read_data(folder: Path) -> RunData:
    """What `write_data` saved; nothing for a run without it."""
    path = folder / "data.json"
    if not os.path.lexists(path):
        return RunData()
    found = read_json(path, DATA, _Description, inside=folder)
    columns, given = found.get("columns"), found.get("context_columns")
    return RunData(
        None if columns is None else Columns.from_json(columns),
        None if given is None else Columns.from_json(given),
        found.get("sha256"),
        _as_tuples(found.get("event_shape")),
        {quantity: tuple(names) for quantity, names in found.get("known", {}).items()},
    )


def _as_lists(shape: EventShape) -> list[int] | dict[str, list[int]]:
    if isinstance(shape, dict):
        return {name: list(part) for name, part in shape.items()}
    return list(shape)


def _as_tuples(shape: list[int] | dict[str, list[int]] | None) -> EventShape | None:
    if isinstance(shape, dict):
        return {name: tuple(part) for name, part in shape.items()}
    return None if shape is None else tuple(shape)


def units_of(data: Dataset) -> str | None:
    """In which units the scores of standardised data are, in words."""
    columns = data.columns
    if columns is None or not columns.is_standardized:
        return None
    lower = columns.log_scale
    return (
        "scores are in standardised units; in the columns' own, log p(x) of a complete row is "
        f"{abs(lower):.2f} nats {'lower' if lower >= 0 else 'higher'}"
    )
