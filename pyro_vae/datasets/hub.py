"""Data sets of Hugging Face's ``datasets``: images with labels, or tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from pyro_vae.datasets.frames import as_frame
from pyro_vae.datasets.image_files import IMAGE, opened
from pyro_vae.datasets.known import check_known_named
from pyro_vae.datasets.sources import Part, Parts, Reading, Source, by_split, contexts_of
from pyro_vae.datasets.stored import Rows
from pyro_vae.datasets.tables import check_named, context_notes, given_rows, read_frames
from pyro_vae.files.optional import optional
from pyro_vae.files.reading import check_unpacked
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas
    from PIL.ImageFile import ImageFile

__all__ = ["HubData", "frame_of", "read_hub", "values_of"]

ARRAYS = ("Image", "Array2D", "Array3D", "Array4D", "Sequence", "List", "LargeList")


@runtime_checkable
class HubData(Protocol):
    """One split of a data set."""

    features: Mapping[str, object]

    def __len__(self) -> int: ...
    def __getitem__(self, column: str, /) -> Iterable[object]: ...
    def to_pandas(self) -> pandas.DataFrame: ...
    def with_format(self, kind: str | None) -> HubData: ...
    def cast_column(self, column: str, feature: object) -> HubData: ...


@runtime_checkable
class NamesLabels(Protocol):
    """A feature whose numbers have names."""

    names: list[str]


Held = Callable[[HubData, str, Path | None], Sequence[object] | Rows]
OfTables = Callable[[Mapping[str, HubData], Reading], Source]


def read_hub(
    data: object,
    reading: Reading,
    inside: Path | None = None,
    held: Held | None = None,
    of_tables: OfTables | None = None,
) -> Source:
    """A data set or its splits; a column of images or arrays is x, one of class labels y.

    Args:
        data: the data set.
        reading: what the user says about it.
        inside: the folder that it was read from, which must hold its images.
        held: what makes x of a column, where it is not read into memory.
        of_tables: what makes a source of tables, likewise.
    """
    import pandas

    splits: dict[str, object] = {"train": data}
    notes: list[str] = []
    if isinstance(data, Mapping):
        found = by_split(list(data), "the data set")
        if not found and len(data) != 1:
            raise InvalidInput(
                "data",
                got=f"a data set with {', '.join(map(str, data))} but no train",
                expected="a split train",
                fix="pass one of its splits, data['test'], or {'train': ..., 'test': ...}",
            )
        if not found:
            found = {"train": next(iter(data))}
            notes.append(f"the only split, {found['train']}, is the training data")
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
                fix="load it without streaming, or pass "
                "datasets.Dataset.from_list(list(stream.take(10_000)))",
            )
        tables[split] = part.with_format(None)
    features = tables["train"].features
    arrays = [name for name, kind in features.items() if type(kind).__name__ in ARRAYS]
    if reading.key is not None:
        check_named([reading.key], list(features))
        arrays = [reading.key]
    if not arrays:
        if of_tables is not None:
            source = of_tables(tables, reading)
        else:
            frames = {split: frame_of(part) for split, part in tables.items()}
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
    given = reading.given or (labels if len(labels) == 1 else [])
    check_named(given, list(features))
    check_known_named(reading.known, list(features))
    named = list(dict.fromkeys([*given, *reading.known_columns]))
    unused = [name for name in features if name not in (arrays[0], *named)]
    if unused:
        notes.append(f"columns {', '.join(unused[:5])} are left out; target= names the labels")
    held = held or values_of
    x = {split: held(part, arrays[0], inside) for split, part in tables.items()}
    for split, values in x.items():
        if isinstance(values, list) and None in values:
            raise InvalidInput(
                "data",
                got=f"no {arrays[0]} in row {values.index(None)} of {split}",
                expected="one in each row",
                fix=f"leave the row out: data.filter(lambda row: row[{arrays[0]!r}] is not None)",
            )
    whole = pandas.concat([frame_of(part, named) for part in tables.values()], ignore_index=True)
    is_label = reading.target is not None or not reading.context
    reading = replace(reading, target=given[0] if given and is_label else None)
    y, columns = given_rows(whole, given, reading)
    contexts = contexts_of([len(values) for values in x.values()], y)
    parts: Parts = {split: Part(x[split], each) for split, each in zip(x, contexts)}  # type: ignore[arg-type]
    notes += context_notes(None, reading)
    return Source("data", parts, context_columns=columns, known=reading.known, notes=tuple(notes))


def values_of(part: HubData, name: str, inside: Path | None) -> list[object]:
    """A column's arrays or images; those of a folder are opened here and lie in its tables."""
    if inside is None or type(part.features[name]).__name__ != "Image":
        return list(part[name])
    feature = optional("datasets", "hub").Image(decode=False)
    images: list[object] = []
    unpacked = stored = 0
    rows = cast(Iterable[Mapping[str, bytes] | None], part.cast_column(name, feature)[name])
    for packed in rows:
        if packed is None:
            images.append(None)
            continue
        if packed["bytes"] is None:
            IMAGE.refuse(inside, "whose images lie in other files")
        image: ImageFile = opened(io.BytesIO(packed["bytes"]), f"an image of {inside}")
        unpacked += image.width * image.height * len(image.getbands())
        stored += len(packed["bytes"])
        check_unpacked(inside, IMAGE, unpacked, stored)
        images.append(image)
    return images


def frame_of(part: HubData, names: Sequence[str] | None = None) -> pandas.DataFrame:
    """The table of a split, its class labels by name."""
    import pandas

    if names is None:
        frame = as_frame(part.to_pandas())
    else:
        frame = pandas.DataFrame({name: list(part[name]) for name in names}, index=range(len(part)))
    for name, kind in part.features.items():
        if isinstance(kind, NamesLabels) and name in frame:
            codes = frame[name].fillna(-1).astype(int)
            frame[name] = pandas.Categorical.from_codes(codes.to_list(), categories=kind.names)
    return frame
