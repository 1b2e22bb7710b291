"""Copies of functions together with the modules that they refer to."""

from __future__ import annotations

import copy
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from pyro.poutine.messenger import _bound_partial
from torch import Tensor, nn

from pyro_vae.checkpoint.references import is_of_library, names_used_by, referred_to

__all__ = ["copied"]


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a function, with copies of the modules and tensors that it uses.

    What refers to none is no copy. `copy.deepcopy` itself leaves functions as they are.

    Args:
        value: a function, or what it refers to.
        memo: copies by the identity of what they are copies of, as deepcopy keeps them.

    Example:
        >>> net = torch.nn.Linear(2, 3)
        >>> other = copied(lambda: net, {})
        >>> other() is net, torch.equal(other().weight, net.weight)
        (False, True)
    """
    if id(value) in memo:
        return memo[id(value)]
    if not any(isinstance(part, nn.Module | Tensor) for _, part in referred_to(value)):
        return value
    if isinstance(value, FunctionType):
        return _copied_function(value, memo)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, copied(value.__self__, memo))
    if isinstance(value, _bound_partial):  # what a handler of Pyro makes of a function
        made: Any = _bound_partial(copied(value.func, memo))
    elif isinstance(value, partial):
        args = [copied(part, memo) for part in value.args]
        given = {name: copied(part, memo) for name, part in value.keywords.items()}
        made = partial(copied(value.func, memo), *args, **given)
    elif type(value) in (list, tuple):
        made = type(value)(copied(part, memo) for part in value)
    elif type(value) is dict:
        made = {name: copied(part, memo) for name, part in value.items()}
    else:
        return copy.deepcopy(value, memo)
    memo[id(value)] = made
    return made


def _copied_function(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    if is_of_library(function):
        return function
    namespace = dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    made = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, cells or None
    )
    memo[id(function)] = made  # before what it refers to, which may be itself
    made.__kwdefaults__, made.__module__ = function.__kwdefaults__, function.__module__
    made.__qualname__, made.__dict__ = function.__qualname__, dict(function.__dict__)
    for name, value in names_used_by(function).items():
        if name in function.__globals__ and name not in function.__code__.co_freevars:
            namespace[name] = copied(value, memo)
    if "__wrapped__" in made.__dict__:
        made.__dict__["__wrapped__"] = copied(made.__dict__["__wrapped__"], memo)
    for cell, own in zip(function.__closure__ or (), cells):
        try:
            own.cell_contents = copied(cell.cell_contents, memo)
        except ValueError:  # a name that has no value yet
            continue
    return made
