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
import sys
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

__all__ = ["CheckpointError", "build", "describe", "exists", "load", "read_state", "save", "write_bytes", "write_state", "write_text"]

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
    write_state(folder, "program", program.state_dict(), description_of(program))


def load(folder: str | Path, program: nn.Module | None = None) -> nn.Module:
    """Reads a program that `save` wrote.

    Args:
        folder: the folder, also one that training wrote.
        program: a program of the same structure to put the weights into, for one whose functions cannot be imported;
            by default it is built anew from the classes' import paths.

    Raises:
        CheckpointError: if the state is missing, truncated, altered, of another format or of another structure.

    Nothing is ever unpickled, and nothing but subclasses of `torch.nn.Module` is called. The state names them by import
    path, and importing a module runs it: a state from a stranger is as safe as the modules that it can name here.
    """
    tensors, meta = read_state(folder, "program")
    source = Path(folder) / "program.json"
    if program is None:
        with torch.random.fork_rng():  # building draws initial weights; the caller's random numbers stay untouched
            program = build(meta.get("program"), source)
    own = program.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise CheckpointError(str(source), got=f"weights that do not fit the program (first at {wrong[0]!r})",
                              expected="the structure that was saved",
                              fix="load it with the version and the classes that saved it")
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        program.to(dtypes.pop())  # constants that are not saved follow
    for name, tensor in [*program.named_parameters(), *program.named_buffers()]:
        if name in tensors:
            tensor.data = tensors[name].to(tensor.device)
            tensor.requires_grad_(tensor.requires_grad and name not in meta.get("frozen", ()))
    return program.eval()


def description_of(program: nn.Module) -> dict[str, Any]:
    """What `load` needs beside the weights."""
    frozen = [name for name, parameter in program.named_parameters() if not parameter.requires_grad]
    return {"program": describe(program), "frozen": frozen}


# -------------------------------------------------------------------------------------------------------- states

def exists(folder: str | Path, name: str) -> bool:
    """Whether ``folder`` holds a state of that name."""
    return (Path(folder) / f"{name}.json").exists()


def write_state(folder: str | Path, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes tensors and JSON as one state, atomically; see the head of this module."""
    folder = Path(folder)
    # Clones, as tied tensors share memory, which safetensors refuses.
    data = safetensors.torch.save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = folder / f"{name}-{digest[:12]}.safetensors"
    text = json.dumps({"format": FORMAT, "weights": weights.name, "sha256": digest, **meta}, indent=1)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        before = _weights_named_by(folder / f"{name}.json")
        _replace(weights, data)
        _replace(folder / f"{name}.json", text.encode())
        if before is not None and before != weights:
            before.unlink(missing_ok=True)


def _weights_named_by(index: Path) -> Path | None:
    try:
        return index.parent / Path(json.loads(index.read_bytes())["weights"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_state(folder: str | Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_state` wrote, as (tensors, meta), after checking it."""
    index = Path(folder) / f"{name}.json"
    for _ in range(3):  # a writer may replace both files between our two looks
        try:
            return _read_state(Path(folder), name)
        except CheckpointError:
            weights = _weights_named_by(index)
            if weights is None or weights.exists():
                raise
    return _read_state(Path(folder), name)


def _read_state(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically: what was there before stays whole if the disk is full."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)


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
    method (which returns ``None`` for a module that cannot be built anew). A module that occurs twice is written once and referred to after that, so shared weights stay shared.

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
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _describe(item, f"{where}.{key}", seen) for key, item in value.items()}}
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return {"same_as": seen[id(value)]}
        seen[id(value)] = where
        args = _init_args(value)
        described: dict[str, Any] = {"class": import_path(type(value), where), "args": None if args is None else {
            name: _describe(argument, f"{where}.{name}", seen) for name, argument in args.items()}}
        if type(value).__module__.startswith("torch.") and "out_shape" in vars(value):
            described["out_shape"] = list(vars(value)["out_shape"])  # a torch module that was made a network
        return described
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        return {"method": value.__name__, "of": _describe(value.__self__, f"{where}.of", seen)}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"import": import_path(value, where)}
    raise InvalidInput(where, got=f"a {type(value).__name__}", expected="a number, a text, a list, a module, or a "
                       "class or function with an import path", fix="give the component an init_args() method that "
                       "returns such arguments, or load with pv.load(folder, program=...)")


def import_path(target: Any, where: str = "class") -> str:
    """The dotted path under which a class or function is found again; `InvalidInput` if there is none."""
    path = f"{target.__module__}.{target.__qualname__}"
    try:
        found: Any = resolve(path)
    except (ImportError, AttributeError):
        found = None
    if found is not target:
        raise InvalidInput(where, got=f"{target.__qualname__}, which cannot be imported as {path}",
                           expected="a class or function at the top level of a module",
                           fix="move it to a file of its own")
    # A family's name for it outlives the file that it lies in: pyro_vae.likelihoods.Normal, wherever in that package.
    parts = target.__module__.split(".")
    packages = (".".join(parts[:depth]) for depth in range(2, len(parts)))
    name = target.__qualname__
    return next((f"{package}.{name}" for package in packages if getattr(sys.modules.get(package), name, None) is target), path)


def resolve(path: str) -> Any:
    """The object at a dotted import path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _init_args(module: Any) -> dict[str, Any] | None:
    if hasattr(module, "init_args"):
        return module.init_args()
    for container, arguments in _CONTAINERS.items():
        if type(module) is container:
            return arguments(module)
    if type(module).__init__ is nn.Module.__init__:
        return {}
    args = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name.startswith("_"):  # torch's layers: initial values, which the weights replace
            continue
        if parameter.kind is not parameter.VAR_KEYWORD and hasattr(module, name):
            value = getattr(module, name)
            # torch's layers keep `bias`, a flag, as the parameter that it asks for.
            args[name] = value is not None if isinstance(parameter.default, bool) and not isinstance(value, bool) else value
        elif not (name in ("device", "dtype") or (type(module).__module__.startswith("torch.") and parameter.default is None)):
            # Torch's layers keep neither device nor dtype, which the weights carry, nor names that they have given up.
            raise InvalidInput(f"{type(module).__name__}.{name}", got="a constructor argument that is not kept",
                               expected="an attribute of the same name", fix=f"add self.{name} = {name} to its __init__")
    return args


_CONTAINERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    nn.Sequential: lambda m: {"*": [OrderedDict(m._modules)]},
    nn.ModuleList: lambda m: {"modules": list(m)},
    nn.ModuleDict: lambda m: {"modules": dict(m.items())},
    nn.Identity: lambda m: {},
    **dict.fromkeys((nn.RNN, nn.GRU, nn.LSTM), lambda m: {
        name: getattr(m, name) for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
                                            "bidirectional")}),
}


def build(description: Any, source: Path | str = "description") -> nn.Module:
    """The module that a description stands for, with freshly drawn weights.

    Raises:
        CheckpointError: if it names what is no module class, or arguments that the class does not take.
    """
    try:
        module = _build(description, "program", {})
    except Exception as error:  # whatever a class makes of the arguments that the file gives it
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
    if "method" in value:
        return getattr(_build(value["of"], f"{where}.of", built), value["method"])
    if "dict" in value:
        return OrderedDict((key, _build(item, f"{where}.{key}", built)) for key, item in value["dict"].items())
    path = value["import"] if "import" in value else value["class"]
    cls = resolve(path)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"{path} is no module class")
    if "import" in value:
        return cls
    if value["args"] is None:
        raise TypeError(f"a {cls.__name__} of plain functions: pass pv.load(folder, program=...)")
    args = {name: _build(argument, f"{where}.{name}", built) for name, argument in value["args"].items()}
    built[where] = cls(*args.pop("*", ()), **args)
    if "out_shape" in value:
        built[where].out_shape = tuple(value["out_shape"])  # type: ignore[assignment]
    return built[where]
