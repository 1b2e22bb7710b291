"""Describe modules as JSON, and build them from it without pickles."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from pyro_vae.checkpoint.files import CheckpointError
from pyro_vae.validation import InvalidInput

__all__ = ["build", "current_path", "describe", "resolve", "with_current_paths"]

# Modules whose classes version 0.1.0 wrote into run folders, and where these classes live now.
FORMER_MODULES = {
    "pyro_vae.config": "pyro_vae.networks",
    "pyro_vae.corruptions": "pyro_vae.networks.corruptions",
    "pyro_vae.proposals": "pyro_vae.evaluation.proposals",
    "pyro_vae.schedules": "pyro_vae.training.schedules",
}

Json = Any  # None, a number, a text, or lists and dictionaries of these, as json reads them


@runtime_checkable
class StatesArguments(Protocol):
    """A module that states its constructor's arguments; ``None`` if it cannot be rebuilt."""

    def init_args(self) -> dict[str, object] | None: ...


def describe(value: object) -> Json:
    """Describe a module, or an argument of one, as JSON: import path and arguments.

    A module's arguments are read from its attributes of the same names, or from `StatesArguments`.
    A module that occurs twice is written once and referred to after that, so shared weights stay
    shared.

    Raises:
        InvalidInput: for an argument that is not kept, a value that JSON cannot hold, or a function
            or class that cannot be imported.

    Example:
        >>> describe(pv.priors.GaussianMixture(2, components=3))["args"]
        {'latent': [2], 'components': 3}
    """
    return _describe(value, "program", {})


def _describe(value: object, place: str, seen: dict[int, str]) -> Json:
    def each(values: dict[str, object]) -> dict[str, Json]:
        return {key: _describe(item, f"{place}.{key}", seen) for key, item in values.items()}

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_describe(item, f"{place}[{i}]", seen) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": each(value)}
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return {"same_as": seen[id(value)]}
        seen[id(value)] = place
        path, args = import_path(type(value), place), _init_args(value)
        described: dict[str, Json] = {"class": path, "args": None if args is None else each(args)}
        if type(value).__module__.startswith("torch.") and "out_shape" in vars(value):
            described["out_shape"] = list(vars(value)["out_shape"])  # set to make it a network
        return described
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        return {"method": value.__name__, "of": _describe(value.__self__, f"{place}.of", seen)}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"import": import_path(value, place)}
    raise InvalidInput(
        place,
        got=f"a {type(value).__name__}",
        expected="a number, a text, a list, a module, or a class or function with an import path",
        fix="give the component an init_args() method that returns such arguments, "
        "or load with pv.load(folder, program=...)",
    )


def import_path(target: type, place: str = "class") -> str:
    """The dotted path from which a class can be imported.

    Raises:
        InvalidInput: if there is none.
    """
    path = f"{target.__module__}.{target.__qualname__}"
    try:
        found = resolve(path)
    except (ImportError, AttributeError):
        found = None
    if found is not target:
        raise InvalidInput(
            place,
            got=f"{target.__qualname__}, which cannot be imported as {path}",
            expected="a class at the top level of a module",
            fix="move it to a file of its own",
        )
    # A package's name for a class, such as pyro_vae.likelihoods.Normal, outlives the file's name.
    parts, name = target.__module__.split("."), target.__qualname__
    for package in (".".join(parts[:depth]) for depth in range(2, len(parts))):
        if getattr(sys.modules.get(package), name, None) is target:
            return f"{package}.{name}"
    return path


def current_path(path: str) -> str:
    """The present import path of a class saved by an earlier version.

    Example:
        >>> current_path("pyro_vae.schedules.Cosine")
        'pyro_vae.training.schedules.Cosine'
    """
    module, _, name = path.rpartition(".")
    return f"{FORMER_MODULES[module]}.{name}" if module in FORMER_MODULES else path


def with_current_paths(value: Json) -> Json:
    """The same description with every class at its present import path."""
    if isinstance(value, dict):
        return {key: with_current_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_current_paths(item) for item in value]
    return current_path(value) if isinstance(value, str) else value


def resolve(path: str) -> Any:
    """The object at a dotted import path."""
    module, _, name = current_path(path).rpartition(".")
    return getattr(importlib.import_module(module), name)


def _init_args(module: nn.Module) -> dict[str, object] | None:
    """A module's arguments by name, positional ones under ``*``; ``None`` if they are unknown."""
    if isinstance(module, StatesArguments):
        return module.init_args()
    for container, arguments in _CONTAINERS.items():
        if type(module) is container:
            return arguments(module)
    if type(module).__init__ is nn.Module.__init__:
        return {}
    args: dict[str, object] = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name.startswith("_"):  # initial values of torch's layers, which the weights replace
            continue
        value = getattr(module, name, NOT_KEPT)
        # Torch's layers keep neither device nor dtype, which the weights carry, nor arguments that
        # torch has given up.
        is_torchs = type(module).__module__.startswith("torch.")
        needless = name in ("device", "dtype") or (is_torchs and parameter.default is None)
        if value is not NOT_KEPT and parameter.kind is not parameter.VAR_KEYWORD:
            # Torch's layers keep the flag `bias` as the parameter that it asks for.
            is_flag = isinstance(parameter.default, bool) and not isinstance(value, bool)
            args[name] = value is not None if is_flag else value
        elif not needless:
            raise InvalidInput(
                f"{type(module).__name__}.{name}",
                got="a constructor argument that is not kept",
                expected="an attribute of the same name",
                fix=f"add self.{name} = {name} to its __init__",
            )
    return args


NOT_KEPT = object()

_RECURRENT = {
    *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
}

_CONTAINERS: dict[type, Callable[[nn.Module], dict[str, object]]] = {
    nn.Sequential: lambda m: {"*": [OrderedDict(m._modules)]},
    nn.ModuleList: lambda m: {"modules": [*m._modules.values()]},
    nn.ModuleDict: lambda m: {"modules": dict(m._modules)},
    nn.Identity: lambda m: {},
    **dict.fromkeys(
        (nn.RNN, nn.GRU, nn.LSTM),
        lambda m: {name: value for name, value in vars(m).items() if name in _RECURRENT},
    ),
}


def build(description: Json, source: Path | str = "description") -> nn.Module:
    """The module that a description stands for, with freshly drawn weights.

    Raises:
        CheckpointError: if it names anything but module classes, or arguments that they do not
            take.
    """
    try:
        module = _build(description, "program", {})
    except Exception as error:  # whatever a class raises on the arguments in the file
        raise CheckpointError(
            str(source),
            got=f"a program that cannot be built ({type(error).__name__}: {error})",
            expected="classes that can be imported and arguments that they take",
            fix="run it where the same classes can be imported",
        ) from None
    if not isinstance(module, nn.Module):
        raise CheckpointError(
            str(source),
            got="no description of a program",
            expected="a module's class and arguments",
            fix="restore it from a copy",
        )
    return module


def _build(value: Any, place: str, built: dict[str, nn.Module]) -> Any:
    """Build what a file describes; raise on anything malformed."""

    def each(values: dict[str, Json]) -> OrderedDict:
        parts = {key: _build(item, f"{place}.{key}", built) for key, item in values.items()}
        return OrderedDict(parts)

    if isinstance(value, list):
        return [_build(item, f"{place}[{i}]", built) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "same_as" in value:
        return built[value["same_as"]]
    if "method" in value:
        return getattr(_build(value["of"], f"{place}.of", built), value["method"])
    if "dict" in value:
        return each(value["dict"])
    path = value["import"] if "import" in value else value["class"]
    cls = resolve(path)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"{path} is not a module class")
    if "import" in value:
        return cls
    if value["args"] is None:
        raise TypeError(f"a {cls.__name__} of plain functions: pass pv.load(folder, program=...)")
    args = each(value["args"])
    module = built[place] = cls(*args.pop("*", ()), **args)
    if "out_shape" in value:
        vars(module)["out_shape"] = tuple(value["out_shape"])
    return module
