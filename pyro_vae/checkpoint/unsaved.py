"""Numbers that decide what a program computes, and that no file of it holds.

A file holds parameters and buffers. A tensor that is a plain attribute, or a module that a model
uses and its program does not hold, is made anew by whoever loads the program. Its digest is
written, so that a program that computes other numbers than the one that was trained says so.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyro_vae.checkpoint.references import referred_to_by
from pyro_vae.contracts import ProgramLike

__all__ = ["unsaved_digests", "warn_of_changes", "warn_of_unsaved_modules"]


def unsaved_digests(program: ProgramLike) -> dict[str, str]:
    """The digest of each tensor that a program refers to and does not save, by its name."""
    return {name: _digest(tensor) for name, tensor in _unsaved(program)}


def warn_of_changes(program: ProgramLike, written: dict[str, str]) -> None:
    """Warn if tensors that were not saved with a program have other values in it now."""
    now = unsaved_digests(program) if written else {}
    changed = [name for name, digest in written.items() if now.get(name, digest) != digest]
    if changed:
        warnings.warn(
            f"{', '.join(changed)}: not saved with the program, and not what it was then, so "
            "scores differ from those of the program that was trained; make it a buffer "
            "(register_buffer) or a module of the program, and train again",
            UserWarning,
            stacklevel=3,
        )


def warn_of_unsaved_modules(program: ProgramLike) -> None:
    """Warn of modules with weights that a program's functions use and that it does not hold."""
    own = _own(program)
    foreign = [
        name
        for name, value in referred_to_by(program)
        if isinstance(value, nn.Module) and any(id(t) not in own for t in _tensors_of(value))
    ]
    if foreign:
        warnings.warn(
            f"{', '.join(foreign)}: used by the program's functions, but no module of the program. "
            "Its weights are not saved and move to no other device; pass it in "
            "pv.Program(model, guide, modules=[...]), or make it an attribute of the program",
            UserWarning,
            stacklevel=4,
        )


def _unsaved(program: ProgramLike) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a program refers to, without its parameters and buffers."""
    seen = _own(program)
    for name, value in referred_to_by(program):
        tensors = {"": value} if isinstance(value, Tensor) else dict(_named_tensors_of(value))
        for inner, tensor in tensors.items():
            if id(tensor) not in seen and tensor.layout == torch.strided:
                seen.add(id(tensor))
                yield f"{name}.{inner}" if inner else name, tensor


def _own(program: ProgramLike) -> set[int]:
    return {id(tensor) for tensor in [*program.parameters(), *program.buffers()]}


def _named_tensors_of(value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, nn.Module):
        yield from value.named_parameters()
        yield from value.named_buffers()


def _tensors_of(module: nn.Module) -> list[Tensor]:
    return [tensor for _, tensor in _named_tensors_of(module)]


def _digest(tensor: Tensor) -> str:
    """A digest of a tensor's values, type and shape; the same on every device."""
    values = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()[:16]
