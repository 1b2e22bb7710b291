"""Arrays as tensors, and the hash of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.validation import InvalidInput, tensors_of

__all__ = ["as_tensor", "as_tensors", "only_tensor", "sha256_of"]


def as_tensors(
    argument: str, values: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray]
) -> Tensors:
    """Arrays of numbers, one or several by name, as tensors without gradient."""
    if isinstance(values, Mapping):
        return {name: as_tensor(f"{argument}[{name!r}]", part) for name, part in values.items()}
    return as_tensor(argument, values)


def as_tensor(argument: str, value: Tensor | np.ndarray) -> Tensor:
    """A tensor or an array of numbers as a tensor without gradient."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise InvalidInput(
                argument,
                got=f"an array of {value.dtype}",
                expected="numbers",
                fix="convert it to numbers",
            )
        signed = value.astype(np.int64) if value.dtype.kind == "u" else value
        value = torch.from_numpy(np.ascontiguousarray(signed))
    return value.detach()


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


def sha256_of(x: Tensors, context: Tensors | None, words: Sequence[Sequence[str]] = ()) -> str:
    """The SHA-256 of data, their context, and the words that texts among them are spelt with."""
    digest = hashlib.sha256()
    for name, part in [*tensors_of(x).items(), *tensors_of(context).items()]:
        array = part.detach().cpu().contiguous().numpy()
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.data)
    for vocabulary in words:
        digest.update("\n".join(vocabulary).encode())
    return digest.hexdigest()
