"""Save and load programs: their classes with arguments as JSON, their weights beside them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from pyro_vae.checkpoint.description import Json, add_parts, added_parts, build, describe
from pyro_vae.checkpoint.hub import is_address, pull
from pyro_vae.checkpoint.states import Meta, read_state, write_state
from pyro_vae.checkpoint.unsaved import (
    unsaved_digests,
    warn_of_changes,
    warn_of_unsaved_modules,
)
from pyro_vae.contracts import MadeAtFirstRun, ProgramLike, alone, as_module
from pyro_vae.files.writing import CheckpointError
from pyro_vae.validation import InvalidInput, check_path

__all__ = ["described_or_named", "description_of", "load", "save", "warn_unless_rebuilt"]


def save(program: ProgramLike, folder: str | Path) -> None:
    """Write a program to ``program.json``, and its weights to a file beside it.

    Args:
        program: any program; its components keep their constructor arguments as attributes of the
            same name.
        folder: where it is written; made if it does not exist.

    Raises:
        InvalidInput: if a component does not keep its arguments.
        CheckpointError: if the disk is full or the folder cannot be written; what was there before
            is still whole.

    Example:
        >>> pv.save(vae, folder)
        >>> loaded = pv.load(folder)
        >>> torch.equal(loaded.posterior.head.layer.weight, vae.posterior.head.layer.weight)
        True
    """
    check_path("folder", folder)
    warn_unless_rebuilt(program)
    write_state(folder, "program", program.state_dict(), description_of(program))


def warn_unless_rebuilt(program: ProgramLike) -> None:
    """Warn of a program whose class does not keep its arguments, before it is trained for long."""
    described = described_or_named(as_module(program))
    if isinstance(described, dict) and "reason" in described:
        warnings.warn(
            "it will be saved, but pv.load can only read it into a program that you build first, "
            f"pv.load(folder, program=...): {described['reason']}",
            UserWarning,
            stacklevel=3,
        )


def load(
    folder: str | Path, program: ProgramLike | None = None, *, trust: Sequence[str] = ()
) -> ProgramLike:
    """Read a program that `save` wrote.

    Args:
        folder: the folder that `save` or training wrote, or the address of a run on the Hugging
            Face hub, ``"hf://user/name"``, which takes the extra ``hub``.
        program: a program of the same structure, which receives the weights; by default one is
            built from the classes that the folder names. A program of plain functions needs this.
        trust: modules whose classes the folder may name, with all that lies inside of them, such as
            ``["mylab"]``. By default it may name this package's components, layers of torch, and
            classes that your program has imported from files of its own.

    Raises:
        CheckpointError: if the state is missing, truncated, altered, of another format or of
            another structure, or names a class that is not trusted.

    It warns of tensors that are neither parameters nor buffers, and differ from those of the
    program that was saved.

    Nothing is unpickled, and no name in the folder is imported unless it is trusted: see
    docs/threat-model.md for what a folder from a stranger can do.
    """
    check_path("folder", folder)
    folder = pull(str(folder)) if is_address(folder) else folder
    tensors, meta = read_state(folder, "program")
    source = Path(folder) / "program.json"
    if program is None:
        with alone(), torch.random.fork_rng():  # building draws initial weights
            size = sum(tensor.nbytes for tensor in tensors.values())
            program = cast(ProgramLike, build(meta.get("program"), source, trust, size))
    else:
        same = program.state_dict().keys() == tensors.keys()
        add_parts(as_module(program), meta["program"], trust, keeps_parameters=same)
    if isinstance(program, MadeAtFirstRun) and program.state_dict().keys() != tensors.keys():
        program.run_once()
    own = program.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [
        name for name in own if is_lazy(own[name]) or own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(
            str(source),
            got=f"weights that do not fit the program (first at {wrong[0]!r})",
            expected="the structure that was saved",
            fix="build the program from the same parts with the same sizes, as a run's recipe.yaml "
            "has them, with the classes that saved it, and load with pv.load(folder, program=...); "
            "networks that its first run makes are there once it has run on data, pv.elbo(program, "
            "data)",
        )
    for name, _ in program.named_parameters():
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(
                str(source),
                got=f"weights that are NaN or infinite (first in {name!r})",
                expected="numbers",
                fix="restore the folder from a copy, or train again",
            )
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        program.to(dtypes.pop())  # also the constants that are not saved
    for name, tensor in [*program.named_parameters(), *program.named_buffers()]:
        if name in tensors:
            tensor.data = tensors[name].to(tensor.device)
            tensor.requires_grad_(tensor.requires_grad and name not in meta.get("frozen", ()))
    program.eval()
    warn_of_changes(program, meta.get("unsaved", {}))
    return program


def description_of(program: ProgramLike) -> Meta:
    """The description that `load` needs in addition to the weights."""
    frozen = [name for name, parameter in program.named_parameters() if not parameter.requires_grad]
    described = described_or_named(as_module(program))
    _warn_of_script(described)
    _warn_of_parametrizations(as_module(program))
    warn_of_unsaved_modules(program)
    return {"program": described, "frozen": frozen, "unsaved": unsaved_digests(program)}


def described_or_named(module: nn.Module) -> Json:
    """A program's description; without arguments where its author did not keep them.

    Such a program is loaded into one that is built first, ``pv.load(folder, program=...)``.
    """
    try:
        return describe(module)
    except InvalidInput as error:
        reason, added = str(error), added_parts(module)
        if not added:  # made of components, whose contract is to keep them
            raise
    parts = {name: describe(part) for name, part in added.items()}
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    return {"class": path, "args": None, "reason": reason, "added": parts}


def _warn_of_script(described: object) -> None:
    """Warn if a class is defined in the running script, where no other script can import it."""
    names = sorted(set(re.findall(r'"__main__\.([\w.]+)"', json.dumps(described))))
    if names:
        warnings.warn(
            f"{', '.join(names)}: defined in __main__, the script or notebook that runs, so "
            "pv.load cannot find it elsewhere; move it to a file of its own and import it, or "
            "load with pv.load(folder, program=...)",
            UserWarning,
            stacklevel=4,
        )


def _warn_of_parametrizations(module: nn.Module) -> None:
    """Warn of weights that are computed from others, as by weight_norm: no file says how."""
    names = [name for name, part in module.named_modules() if is_parametrized(part)]
    if names:
        warnings.warn(
            f"{names[0]}: its weights were parametrised after it was built, which the saved file "
            "cannot say; build the program with them and load with pv.load(folder, program=...)",
            UserWarning,
            stacklevel=4,
        )
