"""Describe modules as JSON, and build them from it without pickles."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from torch import nn

from pyro_vae.checkpoint.budget import Budget, check_integers
from pyro_vae.checkpoint.trust import Untrusted, class_at, is_trusted_class
from pyro_vae.files.reading import checked
from pyro_vae.files.writing import CheckpointError
from pyro_vae.validation import InvalidInput

__all__ = [
    "add_parts",
    "added_parts",
    "build",
    "current_path",
    "describe",
    "resolve",
    "with_current_paths",
]

# Modules whose classes version 0.1.0 wrote into run folders, and where these classes live now.
FORMER_MODULES = {
    "pyro_vae.config": "pyro_vae.networks",
    "pyro_vae.corruptions": "pyro_vae.networks.corruptions",
    "pyro_vae.proposals": "pyro_vae.evaluation.proposals",
    "pyro_vae.schedules": "pyro_vae.training.schedules",
}


@runtime_checkable
class AddedPart(Protocol):
    """A part that a module gets after its constructor has run, such as at its first data."""

    is_added: bool


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
        if added := added_parts(value):
            described["added"] = each(added)
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
        needless = name in NOT_DESCRIBED or (is_torchs and parameter.default is None)
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
NOT_DESCRIBED = ("device", "dtype")  # of a layer of torch: its weights carry them

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


def build(
    description: Json,
    source: Path | str = "description",
    trust: Sequence[str] = (),
    weights: int = 0,
) -> nn.Module:
    """The module that a description stands for, with freshly drawn weights.

    Args:
        description: what `describe` gave.
        source: the file that it comes from, for errors.
        trust: the modules besides this package's whose classes it may name.
        weights: bytes of the weights that it gets, which bound what its parts may take.

    Raises:
        Untrusted: if it names a class that no file may name, see `pyro_vae.checkpoint.trust`.
        CheckpointError: if it is malformed, or a class does not take its arguments.
    """
    try:
        check_integers(description, weights)
        with Budget(weights):
            module = _Builder(trust).build(description, "program")
    except Untrusted:
        raise
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


class _Builder:
    """Builds what a file describes; raises on anything malformed.

    Args:
        trust: the modules whose classes the file may name.
    """

    def __init__(self, trust: Sequence[str]):
        self.trust = trust
        self.built: dict[str, nn.Module] = {}  # by place

    def build(self, value: Json, place: str) -> object:
        if isinstance(value, list):
            return [self.build(item, f"{place}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"same_as"}:
            return self.built[value["same_as"]]
        if value.keys() == {"dict"}:
            return self._each(value["dict"], place)
        if value.keys() == {"import"}:
            return self._class(value["import"])
        if value.keys() == {"method", "of"}:
            return self._method(self.build(value["of"], f"{place}.of"), value["method"])
        return self._module(value, place)

    def _each(self, values: dict[str, Json], place: str) -> OrderedDict[str, object]:
        parts = {key: self.build(item, f"{place}.{key}") for key, item in values.items()}
        if isinstance(named := parts.get("class_path"), str) and "." in named:
            parts["class_path"] = self._class(named)  # of a likelihood inside of another
        return OrderedDict(parts)

    def _class(self, path: str) -> type[nn.Module]:
        return class_at(current_path(path), self.trust)

    def _module(self, value: dict[str, Json], place: str) -> nn.Module:
        cls = self._class(value["class"])
        if value["args"] is None:
            reason = value.get("reason", f"a {cls.__name__} of plain functions")
            raise TypeError(f"{reason}; or pass pv.load(folder, program=...)")
        args = self._each(value["args"], place)
        positional = args.pop("*", ())
        if cls.__module__.startswith("torch."):
            # Where a layer lies and what it starts from is no file's to say.
            refused = [name for name in args if name.startswith("_") or name in NOT_DESCRIBED]
            if refused:
                raise TypeError(f"{cls.__name__} with {refused[0]}")
        module = self.built[place] = cls(*checked(positional, list[Any]), **args)
        if "out_shape" in value:
            vars(module)["out_shape"] = tuple(checked(value["out_shape"], list[int]))
        self.add_parts(module, value)
        return module

    def add_parts(
        self, module: nn.Module, value: dict[str, Json], keeps_parameters: bool = False
    ) -> None:
        """Give a module the parts that it had beside what its constructor makes."""
        for name, part in checked(value.get("added", {}), dict[str, Any]).items():
            own = module._modules.get(name)
            if keeps_parameters and own is not None and any(True for _ in own.parameters()):
                continue
            built = self.build(part, name)
            if not isinstance(built, AddedPart):
                raise TypeError(f"{name} is no part that a program adds")
            module.add_module(name, cast(nn.Module, built))

    def _method(self, module: object, name: str) -> types.MethodType:
        """A method that the module's own class defines, found without asking the module."""
        for cls in type(module).__mro__:
            if cls.__module__.startswith("torch."):
                break
            method = vars(cls).get(name)
            if (
                isinstance(method, types.FunctionType)
                and method.__module__ == cls.__module__
                and not name.startswith("_")
                and is_trusted_class(cls, self.trust)
            ):
                return types.MethodType(method, module)
        raise TypeError(f"{name} is not a method that {type(module).__name__} defines")


def added_parts(module: nn.Module) -> dict[str, object]:
    """The parts that a module got after its constructor had run, by name."""
    return {name: part for name, part in module._modules.items() if isinstance(part, AddedPart)}


def add_parts(
    module: nn.Module,
    description: Json,
    trust: Sequence[str] = (),
    *,
    keeps_parameters: bool = False,
) -> None:
    """Give a module the parts that its description has beside its constructor's arguments.

    With ``keeps_parameters`` a part that has parameters stays, for an optimiser may hold them.
    """
    _Builder(trust).add_parts(module, description, keeps_parameters)
