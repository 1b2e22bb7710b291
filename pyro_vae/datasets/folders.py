"""Folders of images or sounds, with splits and labels by the names of the folders inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyro_vae.datasets.arrays import as_tensor
from pyro_vae.datasets.image_files import IMAGE, Levels, notes_on, opened, read_image, stacked
from pyro_vae.datasets.kinds import in_order
from pyro_vae.datasets.sounds import read_sound
from pyro_vae.datasets.sources import RESIZED, Part, Parts, Reading, Source, by_split, split_of
from pyro_vae.files.reading import Kind, check_unpacked, files_in, open_file
from pyro_vae.validation import InvalidInput, counted

__all__ = ["Listing", "check_shape", "image_of", "listing_of", "read_folder", "resized_note"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm",
          ".pgm", ".pbm", ".pnm"}  # fmt: skip
FOLDER = Kind(
    "data",
    "a folder that holds its files itself",
    "copy it into the folder, or remove it",
    2**50,
)
SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"}
NO_DATA = {"Thumbs.db", "desktop.ini", "__MACOSX"}


@dataclass(frozen=True)
class Found:
    """The data files of a split's folder, in order, with their labels."""

    files: list[Path]
    labels: list[str]  # the folder of each within its split; "" where it lies in none


@dataclass(frozen=True)
class Listing:
    """What a folder of images or sounds holds.

    Args:
        name: the data set's name.
        found: the files of each split.
        has_labels: whether their folders are labels.
        are_sounds: whether they are sounds.
        notes: what was left out, a sentence each.
    """

    name: str
    found: dict[str, Found]
    has_labels: bool
    are_sounds: bool
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """All files, those of one split after those of another."""
        return [path for each in self.found.values() for path in each.files]

    def parts(self, x: Mapping[str, object]) -> Parts:
        """The values of each split, with their labels."""
        values = {}
        for split, each in self.found.items():
            labels = [label or None for label in each.labels] if self.has_labels else None
            values[split] = Part(x[split], labels)  # type: ignore[arg-type]
        return values


def read_folder(folder: Path, reading: Reading) -> Source:
    """A folder of images of one size, or of sounds of one rate.

    Folders named train, test and val(idation) are splits; the folders in them, or in a folder
    without splits, are labels.

    Raises:
        InvalidInput: if there are no data, two kinds, sizes or rates, or files that no reader
            knows beside splits.
    """
    listing = listing_of(folder, reading)
    read = _sounds if listing.are_sounds else _images
    x, scale, missing, more = read(folder, listing.files, reading)
    ends = np.cumsum([len(each.files) for each in listing.found.values()])[:-1]
    parts = listing.parts(dict(zip(listing.found, np.split(x, ends))))
    notes = (*listing.notes, *more)
    return Source(listing.name, parts, scale=scale, missing=missing, notes=notes)


def listing_of(folder: Path, reading: Reading) -> Listing:
    """The files of a folder by split, with their labels; none is opened."""
    check_size(reading.resize)
    everything = sorted(files_in(folder, FOLDER, with_hidden=False))
    folder, name = _with_splits(folder), folder.name
    folders = [path.name for path in folder.iterdir() if path.is_dir() and _is_shown(path, folder)]
    splits = by_split(folders, str(folder))
    if not splits and any(split_of(name) for name in folders):
        raise InvalidInput(
            "data",
            got=f"{folder} with {', '.join(sorted(filter(split_of, folders)))} but no train",
            expected="a folder train beside them",
            fix="name the folder of the training data train",
        )
    roots = {split: folder / name for split, name in splits.items()} or {"train": folder}
    found = {split: _found(root, everything) for split, root in roots.items()}
    if not splits:
        _check_no_splits_inside(folder, found["train"])
    everything = [
        path for path in everything if path.is_relative_to(folder) and _is_shown(path, folder)
    ]
    used = {path for each in found.values() for path in each.files}
    endings = {path.suffix.lower() for path in used}
    if not used or (endings & SOUNDS and endings & IMAGES):
        raise InvalidInput(
            "data",
            got=f"{folder}, without images or sounds" if not used else f"{folder} with both",
            expected="images (png, jpg, tif, bmp, gif) or sounds (wav)",
            fix="check the folder",
        )
    skipped = sorted(str(path.relative_to(folder)) for path in everything if path not in used)
    notes = []
    if skipped:
        some = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        notes.append(
            f"left out {counted(len(skipped), 'file that is', 'files that are')} no data of "
            f"a split: {some}"
        )
    names, more = _labels(found, reading.context_like is not None)
    are_sounds = bool(endings & SOUNDS)
    return Listing(name, found, bool(names), are_sounds, (*notes, *more))


def _is_shown(path: Path, root: Path) -> bool:
    """Whether neither a file nor a folder that it lies in is hidden or a program's own."""
    parts = path.relative_to(root).parts
    return not any(part.startswith(".") or part in NO_DATA for part in parts)


def _with_splits(folder: Path) -> Path:
    """The folder that holds the splits, which may be the only one in this."""
    inside = [path for path in folder.iterdir() if _is_shown(path, folder)]
    if len(inside) == 1 and inside[0].is_dir() and not split_of(inside[0].name):
        below = [path.name for path in inside[0].iterdir() if path.is_dir()]
        return inside[0] if any(split_of(name) for name in below) else folder
    return folder


def _check_no_splits_inside(folder: Path, found: Found) -> None:
    for path in found.files:
        split = next((p for p in path.relative_to(folder).parts[:-1] if split_of(p)), None)
        if split is not None:
            raise InvalidInput(
                "data",
                got=f"{path}, in a folder {split} within others",
                expected=f"folders of the splits first: {folder.name}/train/..., "
                f"{folder.name}/test/...",
                fix="move them to the top, the labels' folders inside them",
            )


def check_size(resize: Sequence[int] | None) -> None:
    """Raise `InvalidInput` unless a size is a height and a width."""
    if resize is not None and not (len(resize) == 2 and all(int(each) > 0 for each in resize)):
        raise InvalidInput(
            "resize",
            got=str(list(resize)),
            expected="a height and a width of one pixel or more",
            fix="pass (32, 32), on the command line --resize '[32, 32]'",
        )


def _found(root: Path, everything: Sequence[Path]) -> Found:
    files = [
        path
        for path in everything
        if path.suffix.lower() in IMAGES | SOUNDS
        and path.is_relative_to(root)
        and _is_shown(path, root)
    ]
    inside = [path.relative_to(root).parts for path in files]
    return Found(files, [parts[0] if len(parts) > 1 else "" for parts in inside])


def _labels(found: dict[str, Found], is_known: bool) -> tuple[list[str], list[str]]:
    """The labels of all splits; none if there is only one that is not known already."""
    names = in_order({label for each in found.values() for label in each.labels} - {""})
    if len(names) < 2 and not (names and is_known):
        return [], []
    notes = []
    without = sum(label == "" for each in found.values() for label in each.labels)
    if without:
        notes.append(f"{without} files lie in no label's folder: their label is -1, unknown")
    trained = set(found["train"].labels)
    new = [name for name in names if name not in trained]
    if new:
        notes.append(f"no training data have the labels {', '.join(new[:5])}")
    return names, notes


Values = tuple[np.ndarray, float, bool, list[str]]  # x, its scale, whether some are missing, notes


def _images(folder: Path, files: Sequence[Path], reading: Reading) -> Values:
    images: list[Levels] = []
    unpacked = stored = 0
    for path in files:
        images.append(image_of(path, reading.resize))
        unpacked += images[-1].values.nbytes
        stored += path.stat().st_size
        check_unpacked(folder, IMAGE, unpacked, stored)
        check_shape(path, images[-1].values.shape, images[0].values.shape, files[0])
    x, scale = stacked(images)
    return x, scale, False, [*notes_on(images), *resized_note(reading)]


def image_of(path: Path, resize: Sequence[int] | None) -> Levels:
    """The levels of an image file."""
    try:
        with open_file(path, IMAGE) as file, opened(file, str(path)) as image:
            return read_image(image, str(path), resize)
    except InvalidInput:
        raise
    except Exception as error:  # whatever Pillow and its decoders raise on a damaged file
        raise InvalidInput(
            "data",
            got=f"{path}, which cannot be read ({error})",
            expected="an image",
            fix="remove or repair it",
        ) from None


def check_shape(path: Path, shape: Sequence[int], first: Sequence[int], of: Path) -> None:
    """Raise `InvalidInput` unless an image has the shape of the first."""
    if tuple(shape) != tuple(first):
        raise InvalidInput(
            "data",
            got=f"{path} of shape {tuple(shape)}",
            expected=f"{tuple(first)}, as {of}",
            fix="resize the images to one size (--resize '[32, 32]') and one colour mode",
        )


def resized_note(reading: Reading) -> list[str]:
    """What is said of a size that was asked for."""
    if reading.resize is None:
        return []
    return [f"{RESIZED} {tuple(reading.resize)}"]


def _sounds(folder: Path, files: Sequence[Path], reading: Reading) -> Values:
    sounds = [read_sound(path) for path in files]
    _check_one([sound.rate for sound in sounds], files, "samples a second")
    _check_one([sound.values.shape[0] for sound in sounds], files, "channels")
    lengths = {sound.values.shape[-1] for sound in sounds}
    if len(lengths) == 1:
        return np.stack([sound.values for sound in sounds]), 1.0, False, []
    # The time comes first where lengths differ, and goes back to the end.
    longest = as_tensor("x", [np.ascontiguousarray(sound.values.T) for sound in sounds])
    note = f"sounds of {min(lengths)} to {max(lengths)} samples, filled with missing (NaN)"
    return longest.transpose(1, 2).numpy(), 1.0, True, [note]


def _check_one(values: Sequence[int], files: Sequence[Path], what: str) -> None:
    for value, path in zip(values, files):
        if value != values[0]:
            raise InvalidInput(
                "data",
                got=f"{path} of {value} {what}",
                expected=f"{values[0]}, as {files[0]}",
                fix="convert the sounds to one format",
            )
