"""The context of new data, as it is written on the command line."""

from __future__ import annotations

import shlex

import torch
from torch import Tensor

from pyro_vae.cli.run_data import RunData
from pyro_vae.contracts import ProgramLike, StatesClasses, Tensors, context_of, num_classes_of
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.known import REST
from pyro_vae.datasets.units import in_new_units
from pyro_vae.programs import is_unconditional
from pyro_vae.programs.contexts import needed_by
from pyro_vae.validation import InvalidInput, short, tensors_of

__all__ = ["example_of", "in_own_units", "parse_context"]


def example_of(program: ProgramLike, columns: Columns | None) -> str:
    """A value of --context that a run takes."""
    if columns is not None and len(columns) == 1 and columns[0].categories:
        return shlex.quote(columns[0].categories[0])
    if columns:
        return ",".join(f"{name}=..." for name in columns.names)
    return "0.5,1" if num_classes_of(program) is None else "0"


def in_own_units(context: Tensors | None, data: RunData) -> dict[str, Tensor]:
    """A context that `parse_context` made, by name and in the units of the data."""
    parts = tensors_of(context)
    known = {name: part for name, part in parts.items() if name not in ("", REST)}
    rest = parts.get("", parts.get(REST))
    if data.columns is not None and known:
        center, scale = data.columns.units()
        known = tensors_of(in_new_units(known, -center / scale, 1 / scale)[0])
    if rest is None:
        return known
    columns = data.context_columns
    return known | {REST: rest if columns is None else columns.restore(rest)}


def parse_context(
    program: ProgramLike, text: str | None, num: int, data: RunData = RunData()
) -> Tensors | None:
    """The context from the command line; by default, each label in turn.

    Where the run's data have names for it, columns are given as ``island=Biscoe,year=2007``, and so
    are the columns of known quantities, in the units of the data.

    Raises:
        InvalidInput: for a context that the run does not take, or without one that it needs.
    """
    if context_of(program) is None and is_unconditional(program):
        if text is None:
            return None
        raise InvalidInput(
            "context",
            got=repr(text),
            expected="none: this run is not conditional",
            fix="leave --context out, or train with --context labels, or of a table with names "
            "of columns",
        )
    pairs = _pairs(text) if text is not None and _has_names(data) else {}
    known = _known(pairs, num, data)
    needed = [name for name in needed_by(program) if name not in known]
    if needed and data.known:
        raise InvalidInput(
            "context",
            got=repr(text) if text else "none",
            expected=f"{', '.join(needed)} of the new data, which the likelihood takes",
            fix=f"pass for instance --context {shlex.quote(_example(program, data))}",
        )
    if pairs:
        rest: Tensor | None = _of_columns(pairs, num, data, program)
    elif text is None or known:
        rest = _labels_in_turn(program, num)
    else:
        rest = _of_text(program, text, num, data.context_columns)
    if rest is None and known and data.context_columns is not None and context_of(program):
        rest = _of_columns(pairs, num, data, program)  # which says what is left out
    if not known:
        return rest
    center, scale = data.columns.units() if data.columns is not None else (0.0, 1.0)
    changed, _ = in_new_units(known, center, scale)
    context = changed if isinstance(changed, dict) else known
    return context if rest is None else {**context, REST: rest}


def _has_names(data: RunData) -> bool:
    return data.context_columns is not None or bool(data.known)


def _pairs(text: str) -> dict[str, str]:
    """Names and what they are, in ``island=Biscoe,year=2007``; none of another text."""
    if "=" not in text:
        return {}
    for part in text.split(","):
        if "=" not in part:
            raise InvalidInput(
                "context", got=repr(part), expected="name=value, as of the others", fix="name it"
            )
    pairs = (part.split("=", 1) for part in text.split(","))
    return {name.strip(): value.strip() for name, value in pairs}


def _known(pairs: dict[str, str], num: int, data: RunData) -> dict[str, Tensor]:
    """The known quantities among named columns, which are taken out of them."""
    covariates = [] if data.context_columns is None else data.context_columns.names
    found: dict[str, Tensor] = {}
    for quantity, names in data.known.items():
        whole = {quantity} if quantity in pairs and quantity not in covariates else set()
        given = [name for name in (whole or names) if name in pairs]
        if not given:
            continue
        if not whole and len(given) < len(names):
            missing = next(name for name in names if name not in pairs)
            raise InvalidInput(
                f"context {short(missing)}",
                got="none",
                expected=f"{quantity} of each column of x, which {', '.join(names)} are",
                fix=f"add {short(missing)}=..., or pass {quantity}=... for all of them",
            )
        numbers = torch.tensor([_number(name, pairs[name]) for name in given])
        each = numbers if len(given) > 1 else numbers[0]
        found[quantity] = each.expand(num, *each.shape)
    used = {*data.known, *(name for names in data.known.values() for name in names)}
    for name in used.difference(covariates):
        pairs.pop(name, None)
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(
            f"context {short(name)}", got=repr(text), expected="a number", fix="correct the value"
        ) from None


def _of_columns(pairs: dict[str, str], num: int, data: RunData, program: ProgramLike) -> Tensor:
    """The labels or covariates whose columns are named."""
    columns = data.context_columns
    if columns is None and list(pairs) == [REST]:  # of an array without names
        return _of_text(program, pairs[REST], num, None)
    if columns is None:
        raise InvalidInput(
            "context",
            got=", ".join(pairs),
            expected=f"columns that the run was trained with, {', '.join(_names(data))}",
            fix=f"pass for instance --context {shlex.quote(_example(program, data))}",
        )
    if data.known and set(pairs) < set(columns.names):
        raise InvalidInput(
            "context",
            got=f"none of {', '.join(name for name in columns.names if name not in pairs)}",
            expected=f"a value for each of {', '.join(_names(data))}",
            fix=f"pass for instance --context {shlex.quote(_example(program, data))}",
        )
    named = columns.numbers(pairs)
    if len(columns) == 1 and columns[0].categories:  # labels: of shape (num,)
        return torch.full((num,), int(named[0]))
    return torch.tensor(named).expand(num, len(named))


def _names(data: RunData) -> list[str]:
    covariates = [] if data.context_columns is None else data.context_columns.names
    return list(dict.fromkeys([*(n for names in data.known.values() for n in names), *covariates]))


def _example(program: ProgramLike, data: RunData) -> str:
    """A context that the run takes: 1 for a quantity, the first category or mean of a covariate."""
    wanted = [name for quantity in needed_by(program) for name in data.known.get(quantity, ())]
    parts = {name: "1" for name in wanted}
    for column in data.context_columns or () if context_of(program) is not None else ():
        typical = column.shown(float(column.kind == "positive"))  # a category, or a mean
        parts[column.name] = str(typical) if column.categories else f"{typical:.4g}"
    return ",".join(f"{name}={value}" for name, value in parts.items())


def _labels_in_turn(program: ProgramLike, num: int) -> Tensor | None:
    classes = num_classes_of(program)
    return None if classes is None else torch.arange(num) * classes // max(num, classes)


def _of_text(program: ProgramLike, text: str, num: int, columns: Columns | None) -> Tensor:
    """A label, its name, or covariates separated by commas."""
    embed = context_of(program)
    names = [*columns[0].categories] if columns is not None and len(columns) == 1 else []
    if text in names:
        return torch.full((num,), names.index(text))
    parts = text.split(",")
    if columns is not None and not names and len(parts) == len(columns):
        return torch.tensor(columns.numbers(dict(zip(columns.names, parts)))).expand(num, -1)
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise InvalidInput(
            "context",
            got=repr(text),
            expected=f"one of {', '.join(names[:10])}"
            if names
            else "a label, or numbers separated by commas",
            fix="pass for instance --context " + example_of(program, columns),
        ) from None
    value = torch.tensor(values if len(values) > 1 else values[0])
    takes_labels = isinstance(embed, StatesClasses) or (embed is None and "." not in text)
    is_label = takes_labels and value.dim() == 0 and value % 1 == 0
    return (value.long() if is_label else value).expand(num, *value.shape)
