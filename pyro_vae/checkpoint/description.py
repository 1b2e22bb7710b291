"""Describe modules as JSON, and build them from it without pickles."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


# a module as its class and arguments


def describe(value: Any) -> Any:
    """A module, or an argument of one, as JSON: its import path and its constructor's arguments.

    A module's arguments are read from its attributes of the same names, or from its ``init_args()``
    if it has that method (which returns ``None`` for a module that cannot be built anew). A module
    that occurs twice is written once and referred to after that, so shared weights stay shared.

    Raises:
        InvalidInput: for an argument that is not kept, a value that JSON cannot hold, or a function
            or class that cannot be imported.

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
        return {
            "dict": {key: _describe(item, f"{where}.{key}", seen) for key, item in value.items()}
        }
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return {"same_as": seen[id(value)]}
        seen[id(value)] = where
        args = _init_args(value)
        described: dict[str, Any] = {
            "class": import_path(type(value), where),
            "args": None
            if args is None
            else {
                name: _describe(argument, f"{where}.{name}", seen)
                for name, argument in args.items()
            },
        }
        if type(value).__module__.startswith("torch.") and "out_shape" in vars(value):
            described["out_shape"] = list(
                vars(value)["out_shape"]
            )  # a torch module that was made a network
        return described
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        return {"method": value.__name__, "of": _describe(value.__self__, f"{where}.of", seen)}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"import": import_path(value, where)}
    raise InvalidInput(
        where,
        got=f"a {type(value).__name__}",
        expected="a number, a text, a list, a module, or a class or function with an import path",
        fix="give the component an init_args() method that "
        "returns such arguments, or load with pv.load(folder, program=...)",
    )


def import_path(target: Any, where: str = "class") -> str:
    """The dotted path under which a class or function is found again; `InvalidInput` if there is none."""
    path = f"{target.__module__}.{target.__qualname__}"
    try:
        found: Any = resolve(path)
    except (ImportError, AttributeError):
        found = None
    if found is not target:
        raise InvalidInput(
            where,
            got=f"{target.__qualname__}, which cannot be imported as {path}",
            expected="a class or function at the top level of a module",
            fix="move it to a file of its own",
        )
    # A family's name for it outlives the file that it lies in: pyro_vae.likelihoods.Normal,
    # wherever in that package.
    parts = target.__module__.split(".")
    packages = (".".join(parts[:depth]) for depth in range(2, len(parts)))
    name = target.__qualname__
    return next(
        (
            f"{package}.{name}"
            for package in packages
            if getattr(sys.modules.get(package), name, None) is target
        ),
        path,
    )


def current_path(path: str) -> str:
    """The import path today of a class that a run of an earlier version names.

    Example:
        >>> current_path("pyro_vae.schedules.Cosine")
        'pyro_vae.training.schedules.Cosine'
    """
    module, _, name = path.rpartition(".")
    return f"{FORMER_MODULES[module]}.{name}" if module in FORMER_MODULES else path


def with_current_paths(value: Any) -> Any:
    """A description, the classes of earlier versions under their import paths of today."""
    if isinstance(value, dict):
        return {key: with_current_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_current_paths(item) for item in value]
    return current_path(value) if isinstance(value, str) else value


def resolve(path: str) -> Any:
    """The object at a dotted import path."""
    module, _, name = current_path(path).rpartition(".")
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
            args[name] = (
                value is not None
                if isinstance(parameter.default, bool) and not isinstance(value, bool)
                else value
            )
        elif not (
            name in ("device", "dtype")
            or (type(module).__module__.startswith("torch.") and parameter.default is None)
        ):
            # Torch's layers keep neither device nor dtype, which the weights carry, nor names that
            # they have given up.
            raise InvalidInput(
                f"{type(module).__name__}.{name}",
                got="a constructor argument that is not kept",
                expected="an attribute of the same name",
                fix=f"add self.{name} = {name} to its __init__",
            )
    return args


_CONTAINERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    nn.Sequential: lambda m: {"*": [OrderedDict(m._modules)]},
    nn.ModuleList: lambda m: {"modules": list(m)},
    nn.ModuleDict: lambda m: {"modules": dict(m.items())},
    nn.Identity: lambda m: {},
    **dict.fromkeys(
        (nn.RNN, nn.GRU, nn.LSTM),
        lambda m: {
            name: getattr(m, name)
            for name in (
                "input_size",
                "hidden_size",
                "num_layers",
                "bias",
                "batch_first",
                "dropout",
                "bidirectional",
            )
        },
    ),
}


def build(description: Any, source: Path | str = "description") -> nn.Module:
    """The module that a description stands for, with freshly drawn weights.

    Raises:
        CheckpointError: if it names what is no module class, or arguments that the class does not
            take.
    """
    try:
        module = _build(description, "program", {})
    except Exception as error:  # whatever a class makes of the arguments that the file gives it
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
        return OrderedDict(
            (key, _build(item, f"{where}.{key}", built)) for key, item in value["dict"].items()
        )
    path = value["import"] if "import" in value else value["class"]
    cls = resolve(path)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"{path} is no module class")
    if "import" in value:
        return cls
    if value["args"] is None:
        raise TypeError(f"a {cls.__name__} of plain functions: pass pv.load(folder, program=...)")
    args = {
        name: _build(argument, f"{where}.{name}", built) for name, argument in value["args"].items()
    }
    built[where] = cls(*args.pop("*", ()), **args)
    if "out_shape" in value:
        built[where].out_shape = tuple(value["out_shape"])  # type: ignore[assignment]
    return built[where]
