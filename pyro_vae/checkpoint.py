"""What is on disk: weights as safetensors, everything else as JSON, replaced atomically, never a pickle.

A state is two files. ``NAME-DIGEST.safetensors`` holds the tensors and is written first, under a name that no older
state has; ``NAME.json`` names that file with its SHA-256 and is then replaced in one rename. So a reader, or a run
that is killed or meets a full disk at any moment, finds the old state or the new one, whole.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import types
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pyro_vae.validation import InvalidInput

__all__ = ["CheckpointError", "build", "describe", "exists", "load", "read_state", "save", "write_state", "write_text"]

FORMAT = 1


class CheckpointError(InvalidInput):
    """A state that cannot be written, or read back, as it should be."""


def save(program: nn.Module, folder: str | Path) -> None:
    """Writes a program, its classes with their arguments and its weights, to ``program.json`` and beside it.

    Args:
        program: any program; its components keep their constructor arguments as attributes of the same name.
        folder: where to; made if it is not there.

    Raises:
        InvalidInput: if a component does not keep its arguments.
        CheckpointError: if the disk is full or the folder cannot be written; what was there before is still whole.

    Example:
        >>> pv.save(vae, folder)
        >>> torch.equal(pv.load(folder).posterior.head.layer.weight, vae.posterior.head.layer.weight)
        True
    """
    write_state(folder, "program", program.state_dict(), {"program": describe(program)})


def load(folder: str | Path, program: nn.Module | None = None) -> nn.Module:
    """Reads a program that `save` wrote.

    Args:
        folder: the folder, also one that training wrote.
        program: a program of the same structure to put the weights into, for one whose functions cannot be imported;
            by default it is built anew from the classes' import paths.

    Raises:
        CheckpointError: if the state is missing, truncated, altered, of another format or of another structure.
            Nothing is ever unpickled, and only module classes are called.
    """
    tensors, meta = read_state(folder, "program")
    source = Path(folder) / "program.json"
    if program is None:
        with torch.random.fork_rng():  # building draws initial weights; the caller's random numbers stay untouched
            program = build(meta.get("program"), source)
        floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
        if floating:
            program.to(floating[0])
    try:
        program.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(str(source), got="weights that do not fit the program " +
                              "; ".join(str(error).splitlines()[1:3]), expected="the structure that was saved",
                              fix="load it with the version and the classes that saved it") from None
    return program.eval()


# -------------------------------------------------------------------------------------------------------- states

def exists(folder: str | Path, name: str) -> bool:
    """Whether ``folder`` holds a state of that name."""
    return (Path(folder) / f"{name}.json").exists()


def write_state(folder: str | Path, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes tensors and JSON as one state, atomically; see the head of this module."""
    folder = Path(folder)
    data = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = folder / f"{name}-{digest[:12]}.safetensors"
    text = json.dumps({"format": FORMAT, "weights": weights.name, "sha256": digest, **meta}, indent=1)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _replace(weights, data)
        _replace(folder / f"{name}.json", text.encode())
        for old in folder.glob(f"{name}-*.safetensors"):
            if old != weights:
                old.unlink(missing_ok=True)


def read_state(folder: str | Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_state` wrote, as (tensors, meta), after checking it."""
    folder = Path(folder)
    index = folder / f"{name}.json"
    expected = f"{name}.json and the .safetensors file that it names, as training or pv.save writes them"
    if not index.is_file():
        strangers = [path.name for path in folder.glob("*") if path.suffix in {".pt", ".pth", ".pkl", ".ckpt", ".bin"}]
        got = f"{folder}, which does not exist" if not folder.exists() else f"{folder} without {index.name}"
        if strangers:
            got += f" but with {strangers[0]}, a pickle, which is never loaded"
        raise CheckpointError("run", got=got, expected=expected, fix="check the path, or train first")
    try:
        meta = json.loads(index.read_bytes())
        weights, digest = folder / Path(meta["weights"]).name, meta["sha256"]
        version = meta["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("run", got=f"{index}, which is damaged ({type(error).__name__}: {error})", expected=expected,
                              fix="restore it from a copy, or train again") from None
    if version != FORMAT:
        raise CheckpointError("run", got=f"{index} of format {version}", expected=f"format {FORMAT}",
                              fix="load it with the version that wrote it")
    try:
        data = weights.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError("run", got=f"{weights}, whose SHA-256 is not the one in {index.name}: truncated or altered",
                                  expected=f"SHA-256 {digest[:12]}...", fix="restore it from a copy, or train again")
        return safetensors.torch.load(data), meta
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError("run", got=f"{weights}, which cannot be read ({error})", expected=expected,
                              fix="restore it from a copy, or train again") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text.encode())


class writing_to:
    """Turns the operating system's refusals into one line that says what is still there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise CheckpointError("out", got=f"{self.folder}, which cannot be written ({error.strerror or error})",
                                  expected="a folder with space left and permission to write",
                                  fix="free some space or choose another folder; the last good checkpoint is whole, "
                                      "and --resume continues from it") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


# -------------------------------------------------------------------------- a module as its class and arguments

def describe(value: Any) -> Any:
    """A module, or an argument of one, as JSON: its import path and its constructor's arguments.

    A module's arguments are read from its attributes of the same names, or from its ``init_args()`` if it has that
    method. A module that occurs twice is written once and referred to after that, so shared weights stay shared.

    Raises:
        InvalidInput: for an argument that is not kept, a value that JSON cannot hold, or a function or class that
            cannot be imported.

    Example:
        >>> describe(pv.priors.GaussianMixture(2, components=3))["args"]
        {'latent': [2], 'components': 3}
    """
    return _describe(value, "program", {})


def _describe(value: Any, where: str, seen: dict[int, str]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_describe(item, f"{where}[{i}]", seen) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _describe(item, f"{where}.{key}", seen) for key, item in value.items()}
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return {"same_as": seen[id(value)]}
        seen[id(value)] = where
        return {"class": import_path(type(value), where), "args": {
            name: _describe(argument, f"{where}.{name}", seen) for name, argument in _init_args(value).items()}}
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return {"import": import_path(value, where)}
    raise InvalidInput(where, got=f"a {type(value).__name__}", expected="a number, a text, a list, a module, or a "
                       "class or function with an import path", fix="give the component an init_args() method that "
                       "returns such arguments, or load with pv.load(folder, program=...)")


def import_path(target: Any, where: str = "class") -> str:
    """The dotted path under which a class or function is found again; `InvalidInput` if there is none."""
    path = f"{target.__module__}.{target.__qualname__}"
    try:
        found = resolve(path)
    except (ImportError, AttributeError):
        found = None
    if found is not target:
        raise InvalidInput(where, got=f"{target.__qualname__}, which cannot be imported as {path}",
                           expected="a class or function at the top level of a module",
                           fix="move it to a file of its own")
    return path


def resolve(path: str) -> Any:
    """The object at a dotted import path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _init_args(module: Any) -> dict[str, Any]:
    if hasattr(module, "init_args"):
        return module.init_args()
    for container, arguments in _CONTAINERS.items():
        if type(module) is container:
            return arguments(module)
    if type(module).__init__ is nn.Module.__init__:
        return {}
    args = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if hasattr(module, name):
            value = getattr(module, name)
            # torch's layers keep `bias`, a flag, as the parameter that it asks for.
            args[name] = value is not None if isinstance(parameter.default, bool) and not isinstance(value, bool) else value
        elif name not in ("device", "dtype"):  # torch's layers keep neither; the weights carry both
            raise InvalidInput(f"{type(module).__name__}.{name}", got="a constructor argument that is not kept",
                               expected="an attribute of the same name", fix=f"add self.{name} = {name} to its __init__")
    return args


_CONTAINERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    nn.Sequential: lambda m: {"*": [OrderedDict(m.named_children())]},
    nn.ModuleList: lambda m: {"modules": list(m)},
    nn.ModuleDict: lambda m: {"modules": dict(m.items())},
}


def build(description: Any, source: Path | str = "description") -> nn.Module:
    """The module that a description stands for, with freshly drawn weights.

    Raises:
        CheckpointError: if it names what is no module class, or arguments that the class does not take.
    """
    try:
        module = _build(description, "program", {})
    except (ImportError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointError(str(source), got=f"a program that cannot be built ({type(error).__name__}: {error})",
                              expected="classes that can be imported and arguments that they take",
                              fix="run it where the same classes can be imported") from None
    if not isinstance(module, nn.Module):
        raise CheckpointError(str(source), got="no description of a program", expected="a module's class and arguments",
                              fix="restore it from a copy")
    return module


def _build(value: Any, where: str, built: dict[str, nn.Module]) -> Any:
    if isinstance(value, list):
        return [_build(item, f"{where}[{i}]", built) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "same_as" in value:
        return built[value["same_as"]]
    if "import" in value:
        return resolve(value["import"])
    if "class" not in value:
        return OrderedDict((key, _build(item, f"{where}.{key}", built)) for key, item in value.items())
    cls = resolve(value["class"])
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"{value['class']} is no module class")
    args = {name: _build(argument, f"{where}.{name}", built) for name, argument in value["args"].items()}
    built[where] = cls(*args.pop("*", ()), **args)
    return built[where]
