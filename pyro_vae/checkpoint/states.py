"""States on disk: weights as safetensors, all else as JSON, never a pickle.

A state is two files. ``NAME-DIGEST.safetensors`` holds the tensors and is written first, under a
name that no older state has. ``NAME.json`` names that file with its SHA-256 and is then replaced
(`pyro_vae.checkpoint.commit`). So a reader finds the old state or the new one, whole, even if the
run is killed or the disk is full.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import safetensors.torch
import torch
from torch import Tensor

from pyro_vae.checkpoint.commit import Add, committing, current, weights_named_by
from pyro_vae.files.checksums import CHECKSUM, checksum_of
from pyro_vae.files.reading import MEGABYTE, Kind, checked, parsing, read_bytes, read_json
from pyro_vae.files.writing import CheckpointError

__all__ = ["Meta", "add_state", "check_room", "exists", "read_state", "write_state"]

Meta = dict[str, Any]  # JSON beside the tensors

FORMAT = 2
UNCHECKED = 1  # of version 0.1.0, without a checksum of the JSON

INDEX, WEIGHTS = (
    Kind(
        "run",
        f"{what}, as training writes it",
        "restore it from a copy, or train again",
        size * MEGABYTE,
        CheckpointError,
    )
    for what, size in (("JSON of a state", 32), ("the weights of a state", 2**16))
)


class Index(TypedDict):
    """What the JSON of every state holds."""

    format: int
    weights: str
    sha256: str
    frozen: NotRequired[list[str]]  # parameters of a program that are not trained
    unsaved: NotRequired[dict[str, str]]  # digests of tensors that the state does not hold


PICKLES = {".pt", ".pth", ".pkl", ".ckpt", ".bin"}


def check_room(size: int) -> None:
    """Have the memory that safetensors takes for so many bytes, and give it back.

    Where it cannot have it, its Rust ends the process.

    Raises:
        RuntimeError: torch's own, which says how much was asked for.
    """
    torch.empty(2 * size + MEGABYTE, dtype=torch.uint8)


def exists(folder: str | Path, name: str) -> bool:
    """Whether ``folder`` holds a state of that name."""
    return current(Path(folder), f"{name}.json").exists()


def write_state(folder: str | Path, name: str, tensors: dict[str, Tensor], meta: Meta) -> None:
    """Write tensors and JSON as one state, so that a kill leaves the old state or the new."""
    with committing(Path(folder)) as add:
        add_state(add, name, tensors, meta)


def add_state(add: Add, name: str, tensors: dict[str, Tensor], meta: Meta) -> None:
    """Add a state to a commit that holds other files too."""
    # Tied tensors share memory, which safetensors refuses; their clones do not.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    check_room(sum(value.nbytes for value in own.values()))
    data = safetensors.torch.save(own)
    digest = hashlib.sha256(data).hexdigest()
    weights = f"{name}-{digest[:12]}.safetensors"
    rest = json.loads(json.dumps(meta))  # as it will be read
    index = {"format": FORMAT, "weights": weights, "sha256": digest, **rest}
    index["checksum"] = checksum_of(index)
    add(weights, data)
    add(f"{name}.json", json.dumps(index, indent=1).encode())


def read_state(folder: str | Path, name: str) -> tuple[dict[str, Tensor], Meta]:
    """Read what `write_state` wrote, as (tensors, meta), after checking it."""
    for _ in range(3):  # a writer may replace both files while we read them
        try:
            return _read_state(Path(folder), name)
        except CheckpointError:
            weights = weights_named_by(current(Path(folder), f"{name}.json"))
            if weights is None or (Path(folder) / weights).exists():
                raise
    return _read_state(Path(folder), name)


def _read_state(folder: Path, name: str) -> tuple[dict[str, Tensor], Meta]:
    index = current(folder, f"{name}.json")
    expected = f"{name}.json and the .safetensors file that it names, as training writes them"
    if not index.is_file():
        found = folder.exists()
        got = f"{folder} without {index.name}" if found else f"{folder}, which does not exist"
        pickles = [path.name for path in folder.glob("*") if path.suffix in PICKLES]
        if pickles:
            got += f" but with {pickles[0]}, a pickle, which is never loaded"
        raise CheckpointError(
            "run", got=got, expected=expected, fix="check the path, or train first"
        )
    meta = read_json(index, INDEX, Meta, inside=folder)
    with parsing(index, INDEX):
        stated = checked(meta, Index)
    if stated["format"] not in (FORMAT, UNCHECKED):
        raise CheckpointError(
            "run",
            got=f"{index} of format {stated['format']}",
            expected=f"format {FORMAT}",
            fix="load it with the version that wrote it",
        )
    if stated["format"] == FORMAT and meta.pop(CHECKSUM, None) != checksum_of(meta):
        INDEX.refuse(index, "altered: its checksum is not that of its values")
    weights = folder / Path(stated["weights"]).name
    data = read_bytes(weights, WEIGHTS, inside=folder)
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        WEIGHTS.refuse(weights, f"truncated or altered: its SHA-256 is not that in {index.name}")
    check_room(len(data))
    with parsing(weights, WEIGHTS):
        return safetensors.torch.load(data), meta
