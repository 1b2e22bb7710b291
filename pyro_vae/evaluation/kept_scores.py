"""Scores written while they are made, so that a long evaluation goes on where it was ended.

The draws of a block of data follow from the seed and the block's place. So scores of the blocks
before an interruption and after it are those of one evaluation, to the bit.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pyro_vae.evaluation.scores import AnyScore, Score, concatenate
from pyro_vae.files.reading import Kind, parsing, read_npz
from pyro_vae.files.writing import remove, write_bytes
from pyro_vae.validation import InvalidInput

__all__ = ["KeptScores"]

PART = Kind("run", "a part of the scores of a run", "remove it", 2**40)

SECONDS = 20.0  # of scores that are lost at most


@dataclass
class KeptScores:
    """A folder with the scores of consecutive data, a file for each few.

    Args:
        folder: the folder.
        key: what decides the scores: program, data, draws and seed. Files of others are left alone.
        seconds: how often to write.
    """

    folder: Path
    key: str
    seconds: float = SECONDS
    found: list[dict[str, np.ndarray]] = field(default_factory=list, init=False)
    start: int = field(default=0, init=False)  # the first datum whose scores are not known
    new: list[Mapping[str, Score]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.clock = time.monotonic()
        while path := next(iter(self.folder.glob(f"{self.key}-{self.start}-*.npz")), None):
            try:
                stop = int(path.stem.rpartition("-")[2])
                self.found.append(self._read(path, stop - self.start))
            except (InvalidInput, ValueError):  # damaged: its data are scored anew
                return
            self.start = stop

    def _read(self, path: Path, num: int) -> dict[str, np.ndarray]:
        arrays = read_npz(path, PART, inside=self.folder)
        if num < 1 or any(len(a.shape) != 1 or len(a) != num or a.dtype.kind not in "fiub"
                          for a in arrays.values()):  # fmt: skip
            PART.refuse(path, "which holds other arrays than scores")
        return arrays

    def start_of(self, number: int) -> int:
        """The first datum to score, of so many: one at least, to know what a score is made of."""
        while self.found and self.start >= number:
            self.start -= len(next(iter(self.found.pop().values())))
        return self.start

    def add(self, scores: Mapping[str, Score]) -> None:
        """Take in the scores of the next few data."""
        self.new.append(scores)
        if time.monotonic() - self.clock < self.seconds:
            return
        together = {name: concatenate([each[name] for each in self.new]) for name in scores}
        stop = self.start + len(next(iter(together.values())).values)
        whole = io.BytesIO()
        arrays = {
            f"{name}.{entry}": values.cpu().numpy()
            for name, score in together.items()
            for entry, values in score.per_datum.items()
        }
        np.savez(whole, **arrays)  # type: ignore[arg-type]
        write_bytes(self.folder / f"{self.key}-{self.start}-{stop}.npz", whole.getvalue())
        self.start, self.new, self.clock = stop, [], time.monotonic()

    def before(self, name: str, like: AnyScore) -> list[AnyScore]:
        """The scores of that name that were found, of the kind and settings of another."""
        with parsing(self.folder, PART):
            known = [
                {entry: torch.from_numpy(part[f"{name}.{entry}"]) for entry in like.per_datum}
                for part in self.found
            ]
        return [type(like)(**(vars(like) | part)) for part in known]

    def remove(self) -> None:
        """Remove the files, once the scores are written whole."""
        for path in list(self.folder.glob(f"{self.key}-*.npz")):
            remove(path)
