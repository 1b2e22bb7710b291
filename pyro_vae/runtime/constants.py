"""What a captured graph has as constants: the parts of a module, their tensors, their numbers."""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import is_
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pyro_vae.checkpoint.references import is_of_library

__all__ = ["Constants"]

# Compared by what they are, all else by identity.
VALUES = (bool, int, float, complex, str, bytes, np.generic)
MOST_ENTRIES = 1000  # of a container; of larger ones only the identity counts
MOST_BYTES = 2**16  # of an array
ABSENT = object()
INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})
NO_MODULE = vars(nn.Module())  # what every module has

Contents = Mapping[object, object]


class Constants:
    """The parts, tensors, attributes and numbers of a module, as they were when this was made.

    A graph goes on computing with them when a part is replaced, a tensor moved in memory, or a mode
    or a number changed. Numbers are found where the code of the module reads them: in attributes,
    containers and plain objects there, in classes of the user's own, in globals and closures.

    Args:
        module: the module.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> constants = Constants(layer)
        >>> constants.hold()
        True
        >>> _ = layer.eval()
        >>> constants.hold()
        False
    """

    def __init__(self, module: nn.Module):
        self.holders = list(_holders(module))
        self.contents = [dict(holder.read()) for holder in self.holders]
        things = (thing for contents in self.contents for thing in contents.values())
        self.tensors = list({id(t): t for t in things if isinstance(t, Tensor)}.values())
        self.places = self._places()
        self.variables: set[tuple[int, object]] = set()  # which each run changes

    def hold(self) -> bool:
        """Whether all is as it was."""
        return self.changed() is None

    def changed(self) -> str | None:
        """The name of what is not as it was, if anything is not."""
        if self._places() != self.places:
            return "the memory of a tensor"
        return next((self._name(*place) for place, _ in self._changes()), None)

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor was there."""
        return any(tensor is each for each in self.tensors)

    def number_changed(self) -> str | None:
        """The name of a number that the last run has changed, such as a count of the runs.

        Whatever it has changed is no constant from here on: the rest is taken for a cache, with
        which no graph computes.
        """
        changes = list(self._changes())
        self.variables |= {place for place, _ in changes}
        numbers = [self._name(*place) for place, values in changes if _are_numbers(values)]
        return numbers[0] if numbers else None

    def _changes(self) -> Iterator[tuple[tuple[int, object], tuple[object, object]]]:
        """Where something is not as it was, and what it was and is."""
        for index, (holder, before) in enumerate(zip(self.holders, self.contents)):
            now = holder.read()
            if len(now) == len(before) and all(map(is_, now.values(), before.values())):
                continue
            for key in {**before, **now}:
                values = before.get(key, ABSENT), now.get(key, ABSENT)
                if not _same(*values) and (index, key) not in self.variables:
                    yield (index, key), values

    def _name(self, index: int, key: object) -> str:
        name = self.holders[index].name
        return f"{name}.{key}" if name else str(key)

    def _places(self) -> list[tuple[int, bool]]:
        return [(_place(tensor), tensor.requires_grad) for tensor in self.tensors]


def _place(tensor: Tensor) -> int:
    """Where a tensor is in memory; 0 of one that has several places, as a sparse one."""
    return tensor.data_ptr() if tensor.layout is torch.strided else 0


@dataclass
class _Holder:
    """Something that has things, by a name or a number each; ``read`` tells which now."""

    name: str
    read: Callable[[], Contents]


def _holders(module: nn.Module) -> Iterator[_Holder]:
    """Whatever holds the constants of a module: its parts, and what their code refers to."""
    seen: dict[int, object] = {}
    for name, part in module.named_modules():
        for own in (vars(part), part._modules, part._parameters, part._buffers):
            yield _Holder(name, partial(_itself, own))
        seen[id(part)] = part
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in NO_MODULE:
                yield from _within(f"{name}.{key}" if name else key, value, seen)
        for kind in _own_classes(type(part)):
            yield from _within(kind.__name__, kind, seen)


def _within(name: str, value: object, seen: dict[int, object]) -> Iterator[_Holder]:
    """What holds things in a value, and in all that it refers to."""
    if id(value) in seen or isinstance(value, (*VALUES, nn.Module, Tensor, ModuleType)):
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its identity
    read: Callable[[], Contents] | None = None
    inner: Sequence[object] = ()
    if isinstance(value, np.ndarray):
        read = partial(_bytes_of, value) if value.nbytes <= MOST_BYTES else None
    elif isinstance(value, Mapping):
        read = partial(_itself, value) if len(value) <= MOST_ENTRIES else None
    elif isinstance(value, list | tuple):
        read = partial(_entries, value) if len(value) <= MOST_ENTRIES else None
    elif isinstance(value, MethodType):
        inner = (value.__self__, value.__func__)
    elif isinstance(value, staticmethod | classmethod):
        inner = (value.__func__,)
    elif isinstance(value, property):
        inner = (value.fget,)
    elif isinstance(value, partial):
        inner = (value.func, value.args, value.keywords)
    elif isinstance(value, FunctionType):
        if _is_own(value):
            read = partial(_read, value, _globals_of(value.__code__))
            inner = (value.__defaults__, value.__kwdefaults__, vars(value).get("__wrapped__"))
    elif isinstance(value, type):
        read = partial(_itself, vars(value)) if _is_own(value) else None
    elif isinstance(value, Namespace | SimpleNamespace) or _is_own(type(value)):
        with suppress(TypeError):  # an object without attributes of its own
            read = partial(_itself, vars(value))
        inner = _own_classes(type(value))
    if read is not None:
        yield _Holder(name, read)
        for key, item in [*read().items()]:
            yield from _within(f"{name}.{key}", item, seen)
    for item in inner:
        yield from _within(name, item, seen)


def _own_classes(kind: type) -> list[type]:
    """A class and those that it inherits from, as far as they are the user's own."""
    return [each for each in kind.__mro__ if _is_own(each)]


def _is_own(thing: FunctionType | type) -> bool:
    """Whether a function or a class is the user's own, and of no library that is installed."""
    if is_of_library(thing):
        return False
    name = thing.__module__ or "__main__"
    file = vars(sys.modules[name]).get("__file__") if name in sys.modules else None
    return name == "__main__" or (isinstance(file, str) and not file.startswith(INSTALLED))


def _globals_of(code: CodeType) -> list[str]:
    """The names that a code looks up outside of functions."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = [each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"]
    return list(dict.fromkeys([*own, *(name for each in inner for name in _globals_of(each))]))


def _read(function: FunctionType, names: Sequence[str]) -> Contents:
    """The globals of some names and the closed-over variables of a function."""
    there = function.__globals__
    read: dict[object, object] = {name: there[name] for name in names if name in there}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with suppress(ValueError):  # a name that has no value yet
            read[name] = cell.cell_contents
    return read


def _itself(mapping: object) -> Contents:
    return cast(Contents, mapping)


def _entries(entries: Sequence[object]) -> Contents:
    return dict(enumerate(entries))


def _bytes_of(array: np.ndarray) -> Contents:
    return {"values": array.tobytes()}


def _same(a: object, b: object) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, VALUES) and a == b


def _are_numbers(values: Sequence[object]) -> bool:
    """Whether code could compute with some values as numbers."""
    return all(isinstance(value, (*VALUES, tuple)) for value in values) and not any(
        isinstance(entry, Tensor) for value in values if isinstance(value, tuple) for entry in value
    )
