"""What of a context goes where: known quantities to the likelihood, the rest to a module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_vae.contracts import (
    EventShape,
    ProgramLike,
    Quantity,
    StatesEntries,
    Tensors,
    context_of,
    known_by,
)
from pyro_vae.datasets.known import REST
from pyro_vae.validation import InvalidInput, check_known_context, tensors_of

__all__ = [
    "check_context",
    "context_for",
    "context_of_draws",
    "known_values",
    "marks_of",
    "needed_by",
    "with_labels",
    "with_marks",
]


@runtime_checkable
class ChecksContext(Protocol):
    """A context module that refuses values it cannot turn into features."""

    def check(self, values: Tensors) -> None: ...


def check_context(
    program: ProgramLike, num_data: int, context: Tensors | None, x: Tensors | None = None
) -> None:
    """Raise `InvalidInput` if the context is missing, of another length or out of range.

    A program that takes a context has a module ``program.context``, which may be one that
    `ChecksContext`; one whose likelihood takes known quantities has ``program.known``.
    """
    module, known = context_of(program), known_by(program)
    if module is None and not known:
        return
    if context is None:
        names = ", ".join(map(repr, known))
        raise InvalidInput(
            "context",
            got="none",
            expected=f"a dictionary with {names}, of each of the {num_data} data"
            if known
            else f"{num_data} labels or covariates, one for each datum",
            fix=_how_to_give(next(iter(known)), "a pair (x, {})")
            if known
            else "pass a pair (x, context), or data that carry labels (y in an .npz)",
        )
    for name, part in tensors_of(context).items():
        if len(part) != num_data:
            raise InvalidInput(
                f"context[{name!r}]" if name else "context",
                got=f"{len(part)} entries",
                expected=f"{num_data}, one for each datum of x",
                fix="align it with the data",
            )
    values = known_values(known, context)
    for name in values:
        _check_quantity(name, values, known[name], program.event_shape or (), x)
    rest = context_for(module, context, known)
    if module is not None and rest is not None:
        check_known_context(rest)
        if isinstance(module, ChecksContext):
            module.check(rest)


def _check_quantity(
    name: str,
    known: dict[str, Tensor],
    quantity: Quantity,
    event_shape: EventShape,
    x: Tensors | None,
) -> None:
    """Raise `InvalidInput` unless a known quantity has a shape and values that it can have."""
    argument, value = f"context[{name!r}]", known[name]
    shapes = [*event_shape.values()] if isinstance(event_shape, dict) else [event_shape]
    # Of several parts of x, it is of the one whose shape it has.
    shape = next((each for each in shapes if _fits(value.shape[1:], each)), shapes[0])
    if not _fits(value.shape[1:], shape):
        words = ", ".join(["N", *map(str, shape)])
        raise InvalidInput(
            argument,
            got=f"shape {tuple(value.shape)}",
            expected=f"shape (N,), one number for each datum, or ({words}), one for each entry",
            fix="reshape it",
        )
    aligned = _aligned(value, shape)
    unseen = torch.full(aligned.shape, torch.nan, device=value.device)
    holds = quantity.holds(aligned, x.to(value.device) if isinstance(x, Tensor) else unseen)
    if quantity.used is not None:
        beside, at = quantity.used
        holds = holds | (_aligned(known[beside], shape) != at)
    if not holds.all():
        datum, *place = (~holds).nonzero()[0].tolist()
        first = aligned.expand(holds.shape)[(datum, *place)]
        raise InvalidInput(
            argument,
            got=f"{first:.6g} in datum {datum}",
            expected=quantity.expected,
            fix=f"correct {name}",
        )


def _aligned(value: Tensor, event: Sequence[int]) -> Tensor:
    """A quantity as (N, ...) with as many dimensions as x."""
    return value.reshape(len(value), *(value.shape[1:] or (1,) * len(event)))


def _fits(shape: Sequence[int], event: Sequence[int]) -> bool:
    """Whether a quantity of a datum is one number, or one for each entry of an event."""
    return not shape or (
        len(shape) == len(event) and all(size in (1, full) for size, full in zip(shape, event))
    )


def known_values(known: Iterable[str], context: Tensors | None) -> dict[str, Tensor]:
    """The known quantities in a context dictionary.

    Raises:
        InvalidInput: if one is not there.
    """
    entries = context if isinstance(context, dict) else {}
    missing = [name for name in known if name not in entries]
    if missing:
        got = "a tensor" if isinstance(context, Tensor) else ", ".join(map(repr, entries)) or "none"
        raise InvalidInput(
            f"context[{missing[0]!r}]",
            got=f"none (the context is {got})",
            expected="a known quantity of each datum, which the likelihood takes",
            fix=_how_to_give(missing[0], "it in the context, {}"),
        )
    return {name: entries[name] for name in known}


def _how_to_give(name: str, where: str) -> str:
    """How a known quantity reaches the likelihood, in Python and on the command line."""
    passed = where.format(f"{{{name!r}: values}}")
    said = f"known={{{name!r}: 'COLUMN'}} (--known.{name} COLUMN)"
    return f"pass {passed}, or say which column or array of a file holds it: {said}"


def marks_of(program: ProgramLike) -> dict[str, float]:
    """The known quantities that tell bounds from values, with what they are of values."""
    return {name: one.drawn for name, one in known_by(program).items() if one.drawn is not None}


def needed_by(program: ProgramLike) -> list[str]:
    """The known quantities that must be given of new data: all but marks and ends of intervals."""
    marks = marks_of(program)
    return [n for n, one in known_by(program).items() if n not in marks and one.used is None]


def with_labels(program: ProgramLike, context: Tensors | None, labels: Tensor) -> Tensors:
    """A context with other labels, and with the same known quantities if it has some."""
    if not isinstance(context, dict):
        return labels
    known = known_by(program)
    return {name: value for name, value in context.items() if name in known} | {REST: labels}


def with_marks(program: ProgramLike, num: int, context: Tensors | None) -> Tensors | None:
    """A context of data that are drawn: what tells bounds from values need not be given.

    Nor need what is used of bounds alone.
    """
    known = known_by(program)
    ends = {name: math.nan for name, one in known.items() if one.used is not None}
    marks = {**ends, **marks_of(program)}
    if not marks or (isinstance(context, Tensor) and known.keys() - marks.keys()):
        return context
    own = {REST: context} if isinstance(context, Tensor) else context or {}
    return {name: torch.full((num,), float(mark)) for name, mark in marks.items()} | own


def context_of_draws(program: ProgramLike, context: Tensors | None) -> Tensors | None:
    """The context of data that are drawn under a context: all of them are values, none a bound."""
    if not isinstance(context, dict):
        return context
    marks = {name: mark for name, mark in marks_of(program).items() if name in context}
    return context | {name: torch.full_like(context[name], mark) for name, mark in marks.items()}


def context_for(
    module: object, context: Tensors | None, known: Iterable[str] = ()
) -> Tensors | None:
    """What a context module takes of a context: the entries that are not known quantities.

    A module that `StatesEntries` takes a dictionary of these; any other the one entry there is.

    Raises:
        InvalidInput: if there are others than the module takes.

    Example:
        >>> sizes, labels = torch.ones(2), torch.tensor([0, 1])
        >>> context_for(None, {"size_factor": sizes, "batch": labels}, ["size_factor"])
        tensor([0, 1])
    """
    wanted = module.entries if isinstance(module, StatesEntries) else ()
    if not isinstance(context, dict):
        if context is not None and wanted:
            raise _other_entries("a tensor", ", ".join(map(repr, wanted)))
        return context
    known = set(known)
    rest = {name: value for name, value in context.items() if name not in known}
    names = ", ".join(map(repr, rest))
    if wanted:
        if set(wanted) - set(rest):
            raise _other_entries(names or "none", ", ".join(map(repr, wanted)))
        return {name: rest[name] for name in wanted}
    if module is not None and len(rest) > 1:
        raise _other_entries(names, "one entry")
    return next(iter(rest.values()), None)


def _other_entries(got: str, expected: str) -> InvalidInput:
    return InvalidInput(
        "context",
        got=f"{got} for the program's context module",
        expected=expected,
        fix="name the entries that it takes: pv.networks.Covariates({'age': torch.nn.Identity()})",
    )
