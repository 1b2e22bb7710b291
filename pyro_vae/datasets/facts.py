"""The one pass over a data set on disk: its hash, and what its values are."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.forms import sha256_of
from pyro_vae.datasets.on_disk import OnDisk
from pyro_vae.datasets.sources import say
from pyro_vae.files.cache import cache_folder
from pyro_vae.files.checksums import with_checksum
from pyro_vae.files.reading import MEGABYTE, Kind, read_json
from pyro_vae.files.writing import write_text
from pyro_vae.validation import InvalidInput, refuse_not_finite, tensors_of

__all__ = ["Facts", "PartFacts", "check_facts", "facts_of"]

CACHE = Kind("data", "what a pass over the data found", "remove it", MEGABYTE)

RULES = 2  # how facts are found; those found by others are found again
LONG = 2 * 2**30  # bytes of which it is said that they are read


@dataclass
class PartFacts:
    """What the values of one part of x are, and the first or farthest datum of each kind.

    Args:
        nan: how many are NaN.
        infinite: how many are infinite.
        low: the least of the others.
        high: the largest.
        nan_at: the first datum with a NaN.
        infinite_at: the first with an infinite value.
        low_at: one with the least value.
        high_at: one with the largest.
        fraction_at: the first with a value that is no whole number.
    """

    nan: int = 0
    infinite: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    nan_at: int | None = None
    infinite_at: int | None = None
    low_at: int | None = None
    high_at: int | None = None
    fraction_at: int | None = None

    def see(self, start: int, block: Tensor) -> None:
        """Take in the data from ``start`` on."""
        if not block.is_floating_point():
            block = block.double()
        rows, places = block.reshape(len(block), -1), torch.arange(len(block))
        low, high = (float(value) for value in rows.aminmax())
        if not math.isfinite(high - low):  # one of them is infinite, or NaN, as others then are
            known = self._see_holes(start, rows)
            places = known.any(1).nonzero().flatten()  # a datum without a number tells nothing
            if not len(places):
                return
            rows = torch.where(known, rows, rows[known][0])[places]
            low, high = (float(value) for value in rows.aminmax())
        if low < self.low:
            self.low, self.low_at = low, start + int(places[rows.amin(1).argmin()])
        if high > self.high:
            self.high, self.high_at = high, start + int(places[rows.amax(1).argmax()])
        if self.fraction_at is None:
            is_fraction = (rows != rows.trunc()).any(1)
            if is_fraction.any():
                self.fraction_at = start + int(places[is_fraction.nonzero()[0]])

    def _see_holes(self, start: int, rows: Tensor) -> Tensor:
        """Count what is NaN or infinite; which entries are neither."""
        nan, infinite = torch.isnan(rows), torch.isinf(rows)
        if self.nan_at is None and nan.any():
            self.nan_at = start + int(nan.any(1).nonzero()[0])
        if self.infinite_at is None and infinite.any():
            self.infinite_at = start + int(infinite.any(1).nonzero()[0])
        self.nan, self.infinite = self.nan + int(nan.sum()), self.infinite + int(infinite.sum())
        return ~(nan | infinite)

    @property
    def telling(self) -> list[int]:
        """The data that lie in an interval, and on whole numbers, only if all do."""
        places = (self.low_at, self.high_at, self.fraction_at, self.nan_at)
        return sorted({place for place in places if place is not None})

    @property
    def extremes(self) -> list[int]:
        """The data with the largest and the least number, if all are whole."""
        places = [place for place in (self.high_at, self.low_at) if place is not None]
        return places if self.fraction_at is None else []


@dataclass(frozen=True)
class Facts:
    """The hash of a data set, and what its values are, by part."""

    sha256: str
    parts: dict[str, PartFacts]


def facts_of(
    name: str, x: Tensors, context: Tensors | None, words: Sequence[Sequence[str]] = ()
) -> Facts:
    """What one pass over data finds; the pass over a file that stays as it was is not repeated."""
    key = _key(x, context, words)
    path = None if key is None else _cache(key)
    if path is not None and path.exists():
        with suppress(InvalidInput, TypeError, KeyError):
            found = read_json(path, CACHE, dict[str, object])
            parts = {name: PartFacts(**part) for name, part in found["parts"].items()}  # type: ignore[attr-defined]
            return Facts(str(found["sha256"]), parts)
    size = sum(part.nbytes for part in tensors_of(x).values())
    if size > LONG:
        say(name, [f"its {size / 1e9:,.1f} GB are read once, to hash and to check each value"])
    parts = {name: PartFacts() for name in tensors_of(x)}
    sha256 = sha256_of(x, context, words, {name: part.see for name, part in parts.items()})
    for part in tensors_of(x).values():
        if isinstance(part, OnDisk):
            part.source.check_same()
    if path is not None:
        kept = {"sha256": sha256, "parts": {name: asdict(part) for name, part in parts.items()}}
        with suppress(InvalidInput, OSError):  # a cache that cannot be written is none
            write_text(path, json.dumps(with_checksum(kept)) + "\n")
    return Facts(sha256, parts)


def check_facts(facts: Mapping[str, PartFacts], missing: bool) -> None:
    """Raise `InvalidInput` on an infinity, or on a NaN unless NaN may mark ``missing``."""
    for name, part in facts.items():
        count = part.infinite + (0 if missing else part.nan)
        places = [part.infinite_at, None if missing else part.nan_at]
        if count:
            first = min(place for place in places if place is not None)
            refuse_not_finite(f"x[{name!r}]" if name else "x", count, first)


def _key(x: Tensors, context: Tensors | None, words: Sequence[Sequence[str]]) -> str | None:
    """What decides the facts, as a hash; ``None`` where nothing tells whether data changed."""
    parts = [
        [name, part.identity if isinstance(part, OnDisk) else sha256_of(part, None)]
        for name, part in tensors_of(x).items()
    ]
    if not all(identity for _, identity in parts):
        return None
    dtypes = [str(part.dtype) for part in tensors_of(x).values()]
    given = sha256_of({}, context, words)
    return hashlib.sha256(
        json.dumps([RULES, platform.node(), parts, dtypes, given]).encode()
    ).hexdigest()


def _cache(key: str) -> Path | None:
    """The file of the cache for a key; ``None`` for a user without a home."""
    folder = cache_folder()
    return folder and folder / "sha256" / f"{key[:32]}.json"
