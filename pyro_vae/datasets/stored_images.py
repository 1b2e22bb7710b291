"""Folders of images that stay on disk, each file read when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.datasets.folders import check_shape, image_of, listing_of, resized_note
from pyro_vae.datasets.image_files import stacked
from pyro_vae.datasets.sources import Reading, Source
from pyro_vae.datasets.stored import Rows
from pyro_vae.validation import InvalidInput

__all__ = ["opened"]

OTHERS = ("state.json", "dataset_dict.json")  # of a folder of Hugging Face's


def opened(data: object, reading: Reading) -> Source | None:
    """The images of a folder; ``None`` for other data, and for sounds."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() in (".zarr", ".parquet"):
        return None
    folder = Path(data)
    if not folder.is_dir() or any((folder / name).exists() for name in OTHERS):
        return None
    listing = listing_of(folder, reading)
    if listing.are_sounds:
        return None
    first = image_of(listing.files[0], reading.resize)
    levels, scale = stacked([first])
    x = {
        split: ImageRows(folder, each.files, reading.resize, (listing.files[0], levels, scale))
        for split, each in listing.found.items()
    }
    notes = (*listing.notes, *resized_note(reading))
    return Source(listing.name, listing.parts(x), notes=notes)


class ImageRows(Rows):
    """Image files of one shape and bit depth."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        resize: Sequence[int] | None,
        first: tuple[Path, np.ndarray, float],
    ):
        self.files, self.resize, (self.of, levels, scale) = files, resize, first
        name = f"{files[0]} {len(files)} {resize}"
        super().__init__((len(files), *levels.shape[1:]), levels.dtype, folder, name, scale)

    def rows(self, places: np.ndarray) -> np.ndarray:
        images = []
        for place in places:
            path = self.files[place]
            images.append(image_of(path, self.resize))
            check_shape(path, images[-1].values.shape, self.shape[1:], self.of)
        levels, scale = stacked(images)
        if scale != self.scale:
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {self.folder}, with images of several bit depths",
                expected="one bit depth",
                fix="convert them to one, or read them into memory (--in-memory on)",
            )
        return levels

    @property
    def folder(self) -> Path | None:
        """The folder that holds them."""
        return self.path
