"""The form in which a data set holds what was read: numbers, channels, hashes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.on_disk import blocks_of
from pyro_vae.validation import InvalidInput, check_choice, check_finite, check_seed, tensors_of

__all__ = [
    "channels_first",
    "check_grey",
    "check_held_out",
    "check_lengths",
    "check_one_each",
    "check_set_by_part",
    "check_some",
    "is_exact",
    "only_tensor",
    "scaled",
    "sha256_of",
    "shuffled",
]


COMMON = (torch.float16, torch.float32, torch.float64)

BLOCK = 4096  # data that are looked at together


def is_exact(values: Tensor) -> bool:
    """Whether float32 holds these numbers, if they are whole."""
    if values.dtype in (torch.bool, torch.uint8) or not values.numel():
        return True
    exact = 2**24  # up to which it holds every integer
    return max(-int(values.min()), int(values.max())) <= exact


def scaled(values: Tensor, scale: float, exact: bool | None = None) -> Tensor:
    """Values as floating point, divided by ``scale``; float64 where float32 would round them.

    ``exact`` says whether float32 holds all that these are a part of; by default they are all.
    """
    if not values.is_floating_point():
        exact = is_exact(values) if exact is None else exact
        values = values.float() if exact else values.double()
    elif values.dtype not in COMMON:  # which numpy does not know; float32 holds all their numbers
        values = values.float()
    return values if scale == 1 else values / scale


def channels_first(values: Tensor, channels: Literal["first", "last"] | None) -> Tensor:
    """Images with their channels before height and width, and films before their frames.

    Raises:
        InvalidInput: if they look as if channels come last, and nothing was said about them.
    """
    if channels is not None:
        check_choice("channels", channels, ["first", "last"])
    if channels == "first":
        return values
    if channels == "last":
        if values.dim() not in (4, 5):
            raise InvalidInput(
                "channels",
                got=f"channels='last' of data of shape {tuple(values.shape)}",
                expected="images (N, H, W, C) or films (N, T, H, W, C)",
                fix="leave channels out",
            )
        return values.movedim(-1, 1).contiguous()
    if values.dim() not in (4, 5):
        return values
    *_, first, second, last = values.shape
    if last in range(1, 5) and first > 4 and second > 4:
        moved = (len(values), last, *values.shape[1:-1])
        raise InvalidInput(
            "x",
            got=f"shape {tuple(values.shape)}, as of images whose channels come last",
            expected=f"channels first: {moved}",
            fix="pass channels='last' (--channels last) to move them, or channels='first' if "
            f"there are {values.shape[1]} channels",
        )
    return values


def check_grey(values: Tensor, missing: bool) -> None:
    """Raise `InvalidInput` unless all values are grey values in [0, 1], or may be missing."""
    check_finite("x", values, missing)
    low, high = math.inf, -math.inf
    for part in values.split(BLOCK):  # the places of all numbers take ten times their memory
        seen = part[~torch.isnan(part)]
        if len(seen):
            low, high = min(low, seen.min().item()), max(high, seen.max().item())
    if low < 0 or high > 1:
        advice = "pass scale=255 (--scale 255) for bytes" if 1 < high <= 255 else "rescale x"
        raise InvalidInput(
            "x",
            got=f"values from {low:.4g} to {high:.4g} to binarise",
            expected="grey values in [0, 1]",
            fix=f"{advice}, or pass binarize='none'",
        )


def check_some(values: Tensor) -> None:
    """Raise `InvalidInput` unless there is a datum."""
    if values.dim() and len(values) and not values.numel():
        raise InvalidInput(
            "x",
            got=f"data of shape {tuple(values.shape)}, without a number",
            expected="at least one for each datum",
            fix="check the columns",
        )
    if values.dim() == 0 or len(values) == 0:
        raise InvalidInput(
            "x",
            got="no data" if values.dim() else "a single number",
            expected="at least one datum" if values.dim() else "data (N, *event)",
            fix="check the split or the file" if values.dim() else "stack the data",
        )


def check_one_each(context: Tensors | None, num_data: int) -> None:
    """Raise `InvalidInput` unless there is an entry of the context for each datum."""
    for key, part in tensors_of(context).items():
        if part.dim() == 0 or len(part) != num_data:
            raise InvalidInput(
                "y" + f"[{key!r}]" * bool(key),
                got=f"{len(part) if part.dim() else 'one'} labels",
                expected=f"{num_data}, one for each datum",
                fix="align y with x",
            )


def check_set_by_part(parts: Iterable[str], **settings: object) -> None:
    """Raise `InvalidInput` on a setting of a single site's data, where there are several sites."""
    for name, value in settings.items():
        if value not in (None, "none"):
            raise InvalidInput(
                name,
                got=f"{value!r} for several sites, {', '.join(parts)}",
                expected="a setting for each of them",
                fix=f"pass Dataset({{name: Dataset(x, {name}={value!r}), ...}}), or convert the "
                "arrays of the file and leave it out",
            )


def check_held_out(size: int, most: int, total: int) -> None:
    """Raise `InvalidInput` unless some of the data can be held out, and some are left."""
    if not 0 < size <= most:
        raise InvalidInput(
            "validation",
            got=str(size),
            expected=f"1 to {most} data held out of {total}",
            fix="hold out fewer",
        )


def shuffled(size: int, seed: int) -> Tensor:
    """The places (size,) of all data, in an order drawn by ``seed``."""
    check_seed(seed)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def check_lengths(lengths: dict[str, int]) -> None:
    """Raise `InvalidInput` unless the parts of each datum are as many."""
    if len(set(lengths.values())) != 1:
        raise InvalidInput(
            "x",
            got=f"parts of lengths {lengths}" if lengths else "an empty dictionary",
            expected="the same number of data in each",
            fix="align them, with NaN where a datum lacks a part (missing=True)",
        )


def only_tensor(values: Tensors) -> Tensor:
    """The tensor of data with one observed site; raise `InvalidInput` if there are several."""
    if isinstance(values, dict):
        raise InvalidInput(
            "x",
            got=f"a dictionary of {', '.join(values)}",
            expected="one tensor of data",
            fix=f"choose one of its parts, data.parts[{next(iter(values))!r}]",
        )
    return values


def sha256_of(
    x: Tensors,
    context: Tensors | None,
    words: Sequence[Sequence[str]] = (),
    seen_by: Mapping[str, Callable[[int, Tensor], None]] | None = None,
) -> str:
    """The SHA-256 of data, their context, and the words that texts among them are spelt with.

    Those on disk are read some at a time, in order. ``seen_by`` maps a part of x to what else takes
    in its blocks, each with the place of its first datum.
    """
    digest, see = hashlib.sha256(), seen_by or {}
    for name, part in tensors_of(x).items():
        for few, block in _hashed(name, part, digest):
            if name in see:
                see[name](few.start, block)
    for name, part in tensors_of(context).items():
        for _ in _hashed(name, part, digest):
            pass
    for vocabulary in words:
        digest.update("\n".join(vocabulary).encode())
    return digest.hexdigest()


def _hashed(name: str, part: Tensor, digest: hashlib._Hash) -> Iterator[tuple[slice, Tensor]]:
    """The blocks of a tensor, each after it has been added to a hash."""
    dtype = str(part.dtype).removeprefix("torch.")
    digest.update(f"{name}{tuple(part.shape)}{dtype}".encode())
    for few, block in blocks_of(part):
        in_bytes = block.detach().cpu().contiguous().view(torch.uint8)  # NumPy has no bfloat16
        digest.update(in_bytes.numpy().data)
        yield few, block
