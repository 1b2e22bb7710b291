"""Check what users pass in; all checks raise one kind of error.

Every message names the argument, what was got, what was expected and the fix, on one line. The
command line prints that line and exits with code 2; Python users get an exception that is a
`ValueError`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:  # torch is not imported, so that the command line tells of a mistake at once
    from torch import Tensor

    from pyro_vae.contracts import EventShape, Tensors

    Rows = slice | Sequence[int] | Tensor

__all__ = [
    "InvalidInput",
    "T",
    "as_counts",
    "as_number",
    "check_choice",
    "check_count",
    "check_event_shape",
    "check_finite",
    "check_known_context",
    "check_latent",
    "check_path",
    "check_positive",
    "check_probability",
    "check_seed",
    "check_weight",
    "count_of",
    "flattened",
    "map_tensors",
    "nearest_name",
    "printable",
    "refuse_not_finite",
    "rows_of",
    "short",
    "tensors_of",
]


BLOCK = 2**22  # entries that are checked at once
LONGEST = 40  # letters of a name: more leave a figure or a line no room
MOST = 2000  # letters of what an error says was got, was expected, or mends it


class InvalidInput(ValueError):
    """An input that pyro_vae cannot use, with the argument, the value and the fix.

    Args:
        argument: the name of the argument, as the user wrote it.
        got: what was passed.
        expected: what is accepted.
        fix: what to do about it.

    Example:
        >>> str(InvalidInput("num_samples", got="0", expected="an integer >= 1", fix="pass 1000"))
        'num_samples: got 0, expected an integer >= 1; pass 1000'
    """

    def __init__(
        self,
        argument: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ):
        self.argument, self.got, self.expected, self.fix = argument, got, expected, fix
        parts = (short(str(part), MOST) for part in (argument, got, expected, fix))
        message = "{}: got {}, expected {}; {}".format(*parts)
        if got is None:
            # Pyro raises a model's errors anew, from the message with a table of shapes below it.
            message = argument.splitlines()[0]
        super().__init__(printable(" ".join(message.split())))


# What moves a terminal's cursor, turns the direction of text, or is half a character.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text, which may be a stranger's, without what a terminal would obey."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def short(name: str, most: int = LONGEST) -> str:
    """A text that data gave, as one line that leaves room for others.

    Example:
        >>> short("a\\nb"), len(short("a" * 1000))
        ('a b', 40)
    """
    name = printable(" ".join(name.split()))
    return name if len(name) <= most else f"{name[: most - 3]}..."


def flattened(x: Tensor) -> Tensor:
    """Data (N, *event) as rows of their entries (N, D); a single number is one."""
    return x[..., None].flatten(1)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with what it counts, whose plural ends in an s unless it is given.

    Example:
        >>> counted(1, "epoch"), counted(3000, "epoch"), counted(1, "datum", "data")
        ('1 epoch', '3,000 epochs', '1 datum')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """A sentence that names the closest known name, or else lists them all.

    Example:
        >>> nearest_name("mnits", ["mnist", "digits"])
        "did you mean 'mnist'?"
    """
    known = sorted(known)
    folded = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if not matches:
        return f"choose one of {', '.join(known)}"
    return f"did you mean {folded[matches[0]]!r}?"


def check_choice(argument: str, value: str | None, known: Iterable[str | None]) -> None:
    """Raise `InvalidInput`, with the nearest name, unless ``value`` is in ``known``."""
    known = list(known)
    if value not in known:
        raise InvalidInput(
            argument,
            got=repr(value),
            expected=f"one of {', '.join(map(str, known))}",
            fix=nearest_name(str(value), map(str, known)),
        )


def check_count(argument: str, value: object, minimum: int = 1) -> None:
    """Raise `InvalidInput` unless ``value`` is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < 2**63:
        is_large = isinstance(value, int) and value >= 2**63
        raise InvalidInput(
            argument,
            got=repr(value),
            expected="an integer below 2**63" if is_large else f"an integer >= {minimum}",
            fix=f"pass {argument}={minimum} or more",
        )


def check_seed(seed: object) -> None:
    """Raise `InvalidInput` unless ``seed`` is an integer from 0 to 2**63 - 1."""
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)  # numpy's too
    check_count("seed", int(seed) if is_integer else seed, minimum=0)  # type: ignore[call-overload]


def as_counts(argument: str, values: object) -> list[int]:
    """Widths of layers, or other counts, as a list.

    Raises:
        InvalidInput: unless they are a list of integers >= 1.
    """
    if not isinstance(values, Sequence) or not all(
        isinstance(value, Integral) and int(value) >= 1 for value in values
    ):
        raise InvalidInput(
            argument,
            got=repr(values),
            expected="a list of integers >= 1",
            fix=f"pass {argument}=[200, 200]",
        )
    return [int(value) for value in values]


def as_number(value: object) -> float:
    """A number as a float; NaN, which lies in no interval, for a text, a bool or anything else.

    Example:
        >>> as_number(2), as_number("2"), as_number(True), as_number(None)
        (2.0, nan, nan, nan)
    """
    if isinstance(value, str | bytes | bool):
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return float("nan")


def check_weight(argument: str, value: float) -> None:
    """Raise `InvalidInput` unless ``value`` is a finite number >= 0."""
    if not 0 <= as_number(value) < float("inf"):
        raise InvalidInput(
            argument, got=repr(value), expected="a finite number >= 0", fix=f"pass {argument}=1.0"
        )


def check_probability(argument: str, value: float) -> None:
    """Raise `InvalidInput` unless 0 <= value < 1."""
    if not 0 <= as_number(value) < 1:
        raise InvalidInput(
            argument,
            got=repr(value),
            expected="a probability in [0, 1)",
            fix=f"pass {argument}=0.2",
        )


def check_positive(argument: str, value: float) -> None:
    """Raise `InvalidInput` unless ``value`` is a finite number above zero."""
    if not 0 < as_number(value) < float("inf"):
        raise InvalidInput(
            argument, got=repr(value), expected="a finite number > 0", fix=f"pass {argument}=1.0"
        )


def check_path(argument: str, value: object) -> None:
    """Raise `InvalidInput` unless ``value`` is a path."""
    if not isinstance(value, str | os.PathLike):
        raise InvalidInput(
            argument,
            got=f"a {type(value).__name__}",
            expected="a path",
            fix=f"pass {argument}='runs/mine'",
        )


def check_latent(latent: Sequence[int], least: int, what: str) -> None:
    """Raise `InvalidInput` unless a latent's last dimension has at least ``least`` entries."""
    if not latent or latent[-1] < least:
        raise InvalidInput(
            "latent",
            got=str(tuple(latent)),
            expected=f"a shape (*, D) with D >= {least}: {what}",
            fix=f"pass latent={least} or more",
        )


def check_finite(argument: str, value: Tensors, missing: bool = False) -> None:
    """Raise `InvalidInput` on an infinity, or on a NaN unless NaN may mark ``missing``."""
    if isinstance(value, dict):
        for name, part in value.items():
            check_finite(f"{argument}[{name!r}]", part, missing)
        return
    if not value.is_floating_point():
        return
    count, first = 0, 0
    size = max(1, BLOCK // max(1, value[:1].numel()))
    for start in range(0, len(value), size):  # each takes as much memory again
        block = value[start : start + size]
        bad = block.isinf() if missing else ~block.isfinite()
        if bad.any():
            rows = bad.reshape(len(block), -1).any(dim=1).nonzero().flatten()
            first = first if count else start + int(rows[0])
            count += int(bad.sum())
    if count:
        refuse_not_finite(argument, count, first)


def refuse_not_finite(argument: str, count: int, first: int) -> NoReturn:
    """Raise `InvalidInput` on so many entries that are NaN or infinite."""
    raise InvalidInput(
        argument,
        got=f"{count} NaN or infinite entries (first in datum {first})",
        expected="finite numbers",
        fix="correct how they were scaled, or, where NaN marks a missing entry, "
        "pass Dataset(x, missing=True) (--missing true)",
    )


def check_event_shape(x: Tensors, event_shape: EventShape, argument: str = "x") -> None:
    """Raise `InvalidInput` unless ``x`` has shape ``(N, *event_shape)`` with N >= 1."""
    if isinstance(x, dict) or isinstance(event_shape, dict):
        _check_names(x, event_shape)
        for name, part in tensors_of(x).items():
            check_event_shape(part, event_shape[name], f"x[{name!r}]")  # type: ignore[call-overload]
        return
    expected = tuple(event_shape)
    if x.dim() != 1 + len(expected) or tuple(x.shape[1:]) != expected:
        wanted = ", ".join(["N", *map(str, expected)])
        fix = "reshape x or build the program for that event shape"
        if tuple(x.shape) == expected:
            fix = "add a batch dimension with x[None]"
        elif (*x.shape[-1:], *x.shape[1:-1]) == expected:  # one shape, the other order
            fix = "move the last axis to the front, x.movedim(-1, 1): a reshape would mix them"
        raise InvalidInput(
            argument, got=f"shape {tuple(x.shape)}", expected=f"shape ({wanted})", fix=fix
        )
    if len(x) == 0:
        raise InvalidInput(
            argument,
            got="no data",
            expected="at least one datum",
            fix="check the split or the slice",
        )


def _check_names(x: Tensors, event_shape: EventShape) -> None:
    """Raise `InvalidInput` unless x has the parts that a program observes."""
    ours = set(x) if isinstance(x, dict) else None
    theirs = set(event_shape) if isinstance(event_shape, dict) else None
    if ours != theirs:
        names = [f"parts {sorted(part)}" if part else "one tensor" for part in (ours, theirs)]
        raise InvalidInput(
            "x",
            got=names[0],
            expected=names[1],
            fix="pass x as the program observes it: a tensor, or a dictionary of tensors by name",
        )


T = TypeVar("T", "Tensor", "Tensors", "Tensor | None", "Tensors | None")


def map_tensors(fn: Callable[[Tensor], Tensor], values: T) -> T:
    """Apply a function to a tensor, or to each of several by name; none stays none."""
    if values is None:
        return values
    if isinstance(values, dict):
        return {name: fn(value) for name, value in values.items()}
    return fn(values)


def rows_of(values: T, rows: Rows) -> T:
    """Rows of data or of a context; none where there is none."""
    return map_tensors(lambda value: value[rows], values)


def tensors_of(values: Tensors | None) -> dict[str, Tensor]:
    """Data or a context as tensors by name; a single tensor has the name ``""``."""
    if values is None:
        return {}
    return values if isinstance(values, dict) else {"": values}


def count_of(values: Tensors) -> int:
    """The number of data: the length of a tensor, or of each of several.

    Example:
        >>> count_of({"image": torch.zeros(5, 1, 8, 8), "text": torch.zeros(5, 20)})
        5
    """
    return len(next(iter(tensors_of(values).values())))


def check_known_context(context: Tensors) -> None:
    """Raise `InvalidInput` on a label or a covariate that is NaN or infinite."""
    if isinstance(context, dict):
        for part in context.values():
            check_known_context(part)
        return
    if not context.is_floating_point() or context.isfinite().all():
        return
    bad = ~context.isfinite()
    first = int(bad.reshape(len(context), -1).any(dim=1).nonzero()[0])
    is_label = context.dim() == 1 and bool((context[~bad] % 1 == 0).all())
    raise InvalidInput(
        "context",
        got=f"{int(bad.sum())} NaN or infinite entries (first in datum {first})",
        expected="integer labels" if is_label else "covariates that are all known",
        fix="give data without a label the label -1, for a SemiSupervisedVAE, or leave them out"
        if is_label
        else "fill them in, leave those data out, or model that covariate as part of x",
    )
