"""A context for each of some data, where one may be given for all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, StatesClasses, Tensors, as_module, context_of, known_by
from pyro_vae.networks import Covariates
from pyro_vae.programs import is_unconditional
from pyro_vae.programs.contexts import context_for, with_marks
from pyro_vae.runtime.environment import evaluating, like_parameters
from pyro_vae.validation import InvalidInput

__all__ = ["Context", "Entry", "context_for_each"]

Entry = int | float | Tensor | list
Context = Entry | Mapping[str, Entry] | None


@runtime_checkable
class StatesContext(Protocol):
    """A network that states how many features of a context it takes."""

    context: int


def context_for_each(program: ProgramLike, context: Context, num: int) -> Tensors | None:
    """A context for each of ``num`` data, where one may be given for all.

    The program's context module decides what a vector is. Where it takes labels, it is one label
    for each. Where it takes covariates, a vector of another length is one of all data. One of
    ``num`` numbers is a number for each, unless the program's networks take ``num`` features of a
    datum and not one.

    Raises:
        InvalidInput: for a context that the program would take no notice of.
    """
    if context is not None and is_unconditional(program):
        raise InvalidInput(
            "context",
            got="one for a program that is not conditional",
            expected="none",
            fix="leave context out, or build the program with context=networks.OneHot(10)",
        )
    if context is None:
        return like_parameters(program, with_marks(program, num, None))
    entries = dict(context) if isinstance(context, Mapping) else {"": context}
    ways = [_ways(program, name, torch.as_tensor(x), num) for name, x in entries.items()]

    def made(values: tuple[Tensor, ...]) -> Tensors:
        named = dict(zip(entries, values))
        return named if isinstance(context, Mapping) else values[0]

    readings = [made(values) for values in itertools.product(*ways)]
    fitting = readings if len(readings) == 1 else [x for x in readings if _fits(program, x)]
    found = (fitting or readings)[0]
    return like_parameters(program, with_marks(program, num, found))


def _ways(program: ProgramLike, name: str, given: Tensor, num: int) -> list[Tensor]:
    """What an entry of a context may mean for ``num`` data, the likeliest first."""
    for_all = given.expand(num, *given.shape)
    if given.dim() == 0:
        return [for_all]
    module = context_of(program)
    part = (
        module.parts[name] if isinstance(module, Covariates) and name in module.entries else module
    )
    is_known = name in known_by(program)
    takes_integers = isinstance(module, Covariates)
    is_vector = given.dim() == 1 and (given.is_floating_point() or takes_integers)
    may_be_all = is_vector and (is_known or not isinstance(part, StatesClasses))
    if tuple(given.shape) == program.event_shape or may_be_all:
        if len(given) != num:
            return [for_all]
        return [given, for_all] if may_be_all and not is_known else [given]
    return [given]


def _fits(program: ProgramLike, context: Tensors) -> bool:
    """Whether the program's networks take as many features as its module makes of a context."""
    module = context_of(program)
    if module is None:
        return False
    sizes = {
        part.context
        for part in as_module(program).modules()
        if isinstance(part, StatesContext) and isinstance(part.context, int)
    }
    values = context_for(module, like_parameters(program, context), known_by(program))
    try:
        with evaluating(program, 0):
            features = module(values)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return features.dim() == 2 and features.shape[-1] in sizes
