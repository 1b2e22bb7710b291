"""Data sets of Hugging Face's ``datasets``: images with labels, or tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.sources import Part, Parts, Reading, Source, by_split
from pyro_vae.datasets.tables import check_named, read_frames
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas

__all__ = ["read_hub"]

ARRAYS = ("Image", "Array2D", "Array3D", "Array4D", "Sequence", "List", "LargeList")


@runtime_checkable
class HubData(Protocol):
    """One split of a data set."""

    features: Mapping[str, object]

    def __len__(self) -> int: ...
    def __getitem__(self, column: str, /) -> Iterable[object]: ...
    def to_pandas(self) -> pandas.DataFrame: ...
    def with_format(self, kind: str | None) -> HubData: ...


@runtime_checkable
class NamesLabels(Protocol):
    """A feature whose numbers have names."""

    names: list[str]


def read_hub(data: object, reading: Reading) -> Source:
    """A data set or its splits; a column of images or arrays is x, one of class labels y."""
    splits: dict[str, object] = {"train": data}
    notes: list[str] = []
    if isinstance(data, Mapping):
        found = by_split(list(data), "the data set") or {"train": next(iter(data))}
        splits = {split: data[name] for split, name in found.items()}
        skipped = [str(name) for name in data if name not in found.values()]
        notes += [f"left out the splits {', '.join(skipped)}"] if skipped else []
    tables: dict[str, HubData] = {}
    for split, part in splits.items():
        if not isinstance(part, HubData):
            raise InvalidInput(
                "data",
                got=f"a stream {type(part).__name__} without a length",
                expected="data that end",
                fix="load it without streaming, or pass list(stream.take(10_000))",
            )
        tables[split] = part.with_format(None)
    features = tables["train"].features
    arrays = [name for name, kind in features.items() if type(kind).__name__ in ARRAYS]
    if reading.key is not None:
        check_named([reading.key], list(features))
        arrays = [reading.key]
    if not arrays:
        frames = {split: _frame(part) for split, part in tables.items()}
        source = read_frames(frames, reading, "table")
        return Source(**(vars(source) | {"notes": (*notes, *source.notes)}))
    if len(arrays) > 1:
        raise InvalidInput(
            "key",
            got=f"columns of arrays {', '.join(arrays)}",
            expected="one that is x",
            fix=f"pass key={arrays[0]!r} (--key {arrays[0]})",
        )
    labels = [name for name, kind in features.items() if isinstance(kind, NamesLabels)]
    label = reading.target or (labels[0] if len(labels) == 1 else None)
    unused = [name for name in features if name not in (arrays[0], label)]
    if unused:
        notes.append(f"columns {', '.join(unused[:5])} are left out; target= names the labels")
    parts: Parts = {
        split: Part(list(part[arrays[0]]), None if label is None else list(part[label]))  # type: ignore[arg-type]
        for split, part in tables.items()
    }
    named = features.get(label or "")
    columns = None
    if label is not None and isinstance(named, NamesLabels):
        columns = Columns((Column(label, "category", tuple(named.names)),))
    return Source("data", parts, context_columns=columns, notes=tuple(notes))


def _frame(part: HubData) -> pandas.DataFrame:
    """The table of a split, its class labels by name."""
    import pandas

    frame = as_frame(part.to_pandas())
    for name, kind in part.features.items():
        if isinstance(kind, NamesLabels):
            codes = frame[name].fillna(-1).astype(int)
            frame[name] = pandas.Categorical.from_codes(codes.to_list(), categories=kind.names)
    return frame
