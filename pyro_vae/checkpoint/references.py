"""Find the modules and tensors that a function refers to, by closures, globals and owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.contracts import ProgramLike

__all__ = ["is_of_library", "modules_of", "names_used_by", "referred_to", "referred_to_by"]

LIBRARIES = {"functools", "builtins", "numpy", "pyro", "pyro_vae", "torch"}  # not searched


@runtime_checkable
class Pair(Protocol):
    """What has a model and a guide."""

    def model(self) -> None: ...

    def guide(self) -> None: ...


def modules_of(*functions: Callable[..., object]) -> list[nn.Module]:
    """The modules that functions refer to, each once, without those that another one holds.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 3)
        >>> modules_of(lambda z: net(z)) == [net]
        True
    """
    seen: dict[int, object] = {}
    found = {
        id(value): value
        for function in functions
        for _, value in _within("", function, seen)
        if isinstance(value, nn.Module)
    }
    inner = {id(part) for m in found.values() for part in m.modules() if part is not m}
    return [module for key, module in found.items() if key not in inner]


def referred_to_by(program: ProgramLike) -> Iterator[tuple[str, object]]:
    """The modules and tensors to which the program's code refers, by one name each."""
    internal = vars(nn.Module()).keys()
    seen: dict[int, object] = {id(program): program}
    if isinstance(program, Pair):  # any module can be saved
        yield from _within("model", program.model, seen)
        yield from _within("guide", program.guide, seen)
    for path, module in program.named_modules():
        for name, value in vars(module).items():
            if name not in internal:
                full = f"{path}.{name}" if path else name.removesuffix("_fn")
                yield from _within(full, value, seen)


def referred_to(value: object) -> Iterator[tuple[str, object]]:
    """The modules and tensors to which a function or another object refers, itself among them."""
    return _within("", value, {})


def _within(name: str, value: object, seen: dict[int, object]) -> Iterator[tuple[str, object]]:
    """A value and everything it refers to: closures, globals, bound objects, containers."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its identity
    parts: dict[str, object] = {}
    if isinstance(value, nn.Module | Tensor):
        yield name, value
    elif isinstance(value, MethodType):
        parts = {f"{name}.__self__": value.__self__, name: value.__func__}
    elif isinstance(value, partial):
        arguments = {f"{name}.args[{i}]": given for i, given in enumerate(value.args)}
        parts = {name: value.func, **arguments, **value.keywords}
    elif isinstance(value, FunctionType):
        parts = {} if is_of_library(value) else names_used_by(value) | _defaults_of(value)
    elif isinstance(value, Distribution):
        parts = _attributes(name, value)
    elif isinstance(value, list | tuple):
        parts = {f"{name}[{i}]": item for i, item in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"{name}[{key!r}]": item for key, item in value.items()}
    elif isinstance(value, type):
        parts = {} if is_of_library(value) else _attributes(name, value)
    elif not isinstance(value, ModuleType) and not is_of_library(type(value)):
        # a plain object that holds the networks
        parts = {**_attributes(name, type(value)), **_attributes(name, value)}
        parts |= _slots_of(name, value)
    for part, item in parts.items():
        yield from _within(part, item, seen)


def _attributes(name: str, value: object) -> dict[str, object]:
    """What an object or a class has as attributes, by name."""
    return {f"{name}.{key}": item for key, item in getattr(value, "__dict__", {}).items()}


def _slots_of(name: str, value: object) -> dict[str, object]:
    """What an object has in slots, by name."""
    found: dict[str, object] = {}
    for owner in type(value).__mro__:
        for key, slot in vars(owner).items():
            if isinstance(slot, MemberDescriptorType) and not key.startswith("__"):
                with suppress(AttributeError):  # one that was never set
                    found[f"{name}.{key}"] = slot.__get__(value)
    return found


def _defaults_of(function: FunctionType) -> dict[str, object]:
    """The defaults of a function's arguments, by name."""
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    last = positional[len(positional) - len(defaults) :]
    return {**dict(zip(last, defaults)), **(function.__kwdefaults__ or {})}


def is_of_library(thing: FunctionType | type) -> bool:
    """Whether a function or a class is not the user's own."""
    if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith("<"):
        return False  # typed by a user into a shell, whatever module that calls itself
    return (thing.__module__ or "").split(".")[0] in LIBRARIES


def names_used_by(function: FunctionType) -> dict[str, object]:
    """The objects that a function's code refers to from outside it, by name."""
    used: dict[str, object] = {}
    codes = [function.__code__]
    for code in codes:  # which grows by the functions defined within
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        used |= {n: function.__globals__[n] for n in code.co_names if n in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            used[name] = cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    wrapped = vars(function).get("__wrapped__")
    return used if wrapped is None else {**used, "__wrapped__": wrapped}
