"""How data and results show: in a line, and in a notebook as a table of facts."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import EventShape, Tensors
from pyro_vae.datasets.sources import Binarize
from pyro_vae.validation import tensors_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "data_html",
    "data_words",
    "facts_html",
    "known",
    "measured",
    "p_words",
    "plus_minus",
    "result_html",
    "result_words",
]

HUGE = 1e9  # from there on, a number is written with its power of ten
LEAST_P = 1e-4  # p-values below it are shown as such
LONGEST = 40  # letters of a text, or of a list in words


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A table of names and values as HTML, under a title.

    Args:
        title: what the table is about; none is shown if it is empty.
        facts: by name; a value is shown as ``str`` writes it.

    Example:
        >>> facts_html("score", {"log p(x)": "< 0"})
        '<table><caption>score</caption><tr><th>log p(x)</th><td>&lt; 0</td></tr></table>'
    """
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{caption}{rows}</table>"


def plus_minus(value: float, error: float, digits: int | None = None, sign: str = "") -> str:
    """A number with its error, or alone where the error is not known.

    Args:
        value: the number.
        error: its error; NaN where there is none, as over a single datum.
        digits: decimals of both; by default two, or as many as a smaller error needs.
        sign: ``"+"`` to write the sign of a positive number.

    Example:
        >>> plus_minus(-94.346, 0.8), plus_minus(1.5, float("nan"), sign="+")
        ('-94.35 +- 0.80', '+1.50')
        >>> plus_minus(0.01234, 0.00045)
        '0.01234 +- 0.00045'
    """
    digits = _decimals(error) if digits is None else digits
    words = _written(value, digits, sign)
    return words if math.isnan(error) else f"{words} +- {_written(error, digits)}"


def measured(value: float, error: float, sign: str = "") -> str:
    """A number with as many decimals as its error, which is shown elsewhere.

    Example:
        >>> measured(-94.346, 0.8), measured(0.01234, 0.00045, sign="+")
        ('-94.35', '+0.01234')
    """
    return _written(value, _decimals(error), sign)


def known(value: float, digits: int | None = None) -> str:
    """A number, or ``"unknown"`` for NaN, as is the error over a single datum.

    It has two decimals by default, or as many as a smaller number needs.

    Example:
        >>> known(0.8), known(0.00045), known(-2.5e12), known(float("nan"))
        ('0.80', '0.00045', '-2.5e+12', 'unknown')
    """
    digits = _decimals(value) if digits is None else digits
    return "unknown" if math.isnan(value) else _written(value, digits)


def p_words(p_value: float, equals: str = "") -> str:
    """A p-value, where very small ones are all alike: their digits are those of an approximation.

    Example:
        >>> p_words(7.8e-107), p_words(0.0123), p_words(0.0123, "= "), p_words(float("nan"))
        ('< 0.0001', '0.012', '= 0.012', 'unknown')
    """
    if math.isnan(p_value):
        return "unknown"
    return f"< {LEAST_P:.4f}" if p_value < LEAST_P else f"{equals}{p_value:.2g}"


def _decimals(number: float) -> int:
    """Decimals that show two digits of a number, from two to eight."""
    size = abs(number)
    return min(1 - math.floor(math.log10(size)), 8) if 0 < size < 0.01 else 2


def _written(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}" if abs(value) < HUGE else f"{value:{sign}.3g}"


def result_words(result: DataclassInstance) -> str:
    """A result in one line: its numbers, and of arrays the shape and the range.

    Example:
        >>> @dataclasses.dataclass
        ... class Found:
        ...     ranks: Tensor
        ...     error: float
        >>> result_words(Found(torch.arange(200).reshape(100, 2), 1 / 3))
        'Found(ranks: (100, 2) from 0 to 199, error: 0.3333)'
    """
    words = ", ".join(f"{name}: {value}" for name, value in _brief(result).items())
    return f"{type(result).__name__}({words})"


def result_html(result: DataclassInstance) -> str:
    """The same as a table."""
    return facts_html(type(result).__name__, _brief(result))


def _brief(result: DataclassInstance) -> dict[str, str]:
    values = {field.name: vars(result)[field.name] for field in dataclasses.fields(result)}
    return {name: _brief_value(value) for name, value in values.items() if value is not None}


def _brief_value(value: object) -> str:
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        if value.ndim == 0 or not value.numel() or value.is_complex():
            return f"{value.item():.4g}" if value.ndim == 0 else f"{tuple(value.shape)}"
        seen = value[~value.isnan()]
        ends = f" from {seen.min().item():.4g} to {seen.max().item():.4g}" if len(seen) else ""
        return f"{tuple(value.shape)}{ends}"
    if isinstance(value, float):
        return f"{value:.4g}"
    words = str(value)
    if len(words) <= LONGEST or dataclasses.is_dataclass(value):
        return words
    if isinstance(value, Sized) and not isinstance(value, str):
        return f"{len(value)} entries"
    return f"{words[:LONGEST]}..."


class _Data(Protocol):
    """What is shown of a data set."""

    name: str
    split: str
    binarize: Binarize
    missing: bool
    context: Tensors | None

    @property
    def event_shape(self) -> EventShape: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def num_classes(self) -> int | None: ...
    @property
    def sha256(self) -> str: ...
    def __len__(self) -> int: ...


def data_words(data: _Data) -> str:
    """A data set in one line."""
    return f"Dataset({', '.join(f'{name}={value}' for name, value in _facts(data).items())})"


def data_html(data: _Data) -> str:
    """A data set as a table."""
    return facts_html("data set", _facts(data) | {"SHA-256": f"{data.sha256[:12]}..."})


def _facts(data: _Data) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": data.name,
        "split": data.split,
        "data": f"{len(data):,}",
        "shape": data.event_shape,
    }
    if data.labels is not None:
        facts["labels"] = data.num_classes
    elif data.context is not None:
        shapes = {name: tuple(part.shape[1:]) for name, part in tensors_of(data.context).items()}
        facts["context"] = shapes.get("", shapes)
    if data.binarize != "none":
        facts["binarize"] = data.binarize
    if data.missing:
        facts["missing"] = "NaN"
    return facts
