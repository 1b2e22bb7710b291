"""Whether data lie where a likelihood has a density; which parts would fit where others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions import innermost_support, measure_of, words_of
from pyro_vae.distributions.supports import OrElse
from pyro_vae.validation import InvalidInput

__all__ = ["OutsideSupport", "check_support", "likelihood_that_holds", "partners"]

# By the measure of a density, or the name of its support: a prior and a posterior that have one.
PAIRS = {
    "volume": ("StandardNormal", "DiagonalNormal"),
    "the area of a sphere": ("UniformOnSphere", "VonMisesFisher"),
    "the area of a simplex": ("LogisticNormal", "LogisticNormal"),
    "the unit interval and its two ends": ("RelaxedBernoulli", "RelaxedBernoulli"),
    "Boolean": ("Bernoulli", "EnumeratedBernoulli"),
    "OneHot": ("Categorical", "EnumeratedCategorical"),
    "nothing, for it is flat": ("Flat", "Delta"),
}


def partners(q: constraints.Constraint, p: constraints.Constraint) -> str:
    """Which prior goes with a posterior, and which posterior with a prior, by their supports.

    Example:
        >>> partners(constraints.real_vector, constraints.simplex)[:42]
        'choose a posterior such as LogisticNormal '
    """
    prior, posterior = _pair(q)[0], _pair(p)[1]
    found = [
        f"a posterior such as {posterior} (--posterior {posterior})" * bool(posterior),
        f"a prior such as {prior} (--prior {prior})" * bool(prior),
    ]
    known = ", or ".join(filter(None, found))
    return f"choose {known or 'a prior and a posterior on the same space'}"


def _pair(support: constraints.Constraint) -> tuple[str, str]:
    name = type(innermost_support(support)).__name__.strip("_")
    return PAIRS.get(name) or PAIRS.get(measure_of(support)) or ("", "")


def likelihood_that_holds(x: Tensor) -> str:
    """The name of a likelihood that has a density, or a probability, at all entries of x.

    Example:
        >>> [likelihood_that_holds(torch.tensor(x)) for x in ([0.0, 1.0], [0.2, 0.4], [3.0, 0.0])]
        ['Bernoulli', 'Beta', 'NegativeBinomial']
        >>> [likelihood_that_holds(torch.tensor(x)) for x in ([0.0, 0.5], [2.5, 0.1], [-1.0, 0.1])]
        ['ContinuousBernoulli', 'LogNormal', 'Normal']
    """
    seen = x[~torch.isnan(x)].double()
    if not len(seen):
        return "Normal"
    low, high = float(seen.min()), float(seen.max())
    is_whole = bool((seen % 1 == 0).all())
    rules = {
        "Bernoulli": is_whole and low >= 0 and high <= 1,
        "NegativeBinomial": is_whole and low >= 0,
        "Beta": low > 0 and high < 1,
        "ContinuousBernoulli": low >= 0 and high <= 1,
        "LogNormal": low > 0,
    }
    return next((name for name, holds in rules.items() if holds), "Normal")


class OutsideSupport(InvalidInput):
    """Data that the likelihood gives no density; the fix is of another likelihood."""


def check_support(
    x: Tensor,
    support: constraints.Constraint,
    names: Sequence[str] | None = None,
    start: int = 0,
    is_text: bool = False,
    argument: str = "x",
) -> None:
    """Raise `InvalidInput` if entries of ``x`` lie outside the likelihood's support.

    ``names`` are those of the columns of a table, ``start`` the place of the first datum of x;
    ``is_text`` says that its entries are words, ``argument`` is the name of x in errors.
    """
    inside = support.check(x)
    if inside.all():
        return
    whole = inside
    inside = inside.reshape(len(x), -1).all(dim=1)
    first = int((~inside).nonzero()[0])
    if x[first].isnan().any() and not support.check(x[:1].new_full(x[:1].shape, math.nan)).all():
        raise InvalidInput(
            argument,
            got=f"missing entries (first in datum {start + first})",
            expected="none by this likelihood",
            fix="wrap the likelihood in pv.likelihoods.Missing "
            "and the encoder in pv.networks.WithMask",
        )
    lacks = x[first].isnan()
    seen = x[first][~lacks]
    if lacks.any() and support.check(x[first].masked_fill(lacks, float(seen[0]))[None]).all():
        raise InvalidInput(
            argument,
            got=f"an event with {int(lacks.sum())} of {lacks.numel()} entries missing (first in "
            f"datum {start + first})",
            expected="events that are whole, or missing as a whole, by this likelihood",
            fix="wrap it in pv.likelihoods.Missing and its expert's network in "
            "pv.networks.WithMask",
        )
    low, high = float(seen.min()), float(seen.max())
    base = support.base_constraint if isinstance(support, constraints.independent) else support
    is_binary = _of_complete(support) is constraints.boolean
    name = likelihood_that_holds(x)
    fix = f"use one that holds x, such as {name} (--likelihood {name}), or rescale x"
    if is_binary and x.min() >= 0 and x.max() <= 1:
        fix = (
            "binarise grey values with binarize='dynamic' or 'fixed' (--binarize dynamic), "
            f"or use another likelihood, such as {name} (--likelihood {name})"
        )
    if _are_bytes(x) and support.check(torch.zeros_like(x[:1])).all():
        fix = "divide bytes by 255 (scale=255, --scale 255)" + (
            " and binarise them (binarize='dynamic', --binarize dynamic)"
            if is_binary
            else f", or use another likelihood, such as {name} (--likelihood {name})"
        )
    if is_text:
        fix = (
            "use a likelihood and an encoder of words, AutoregressiveCategorical and Recurrent "
            "(--likelihood AutoregressiveCategorical --encoder Recurrent)"
        )
    raise OutsideSupport(
        argument,
        got=f"{int((~inside).sum())} of {len(x)} data outside the likelihood's support "
        f"(datum {start + first} spans {low:.4g} to {high:.4g}"
        f"{_column_outside(whole, x, base, names)})",
        expected=f"values in {words_of(support)}",
        fix=fix,
    )


def _of_complete(support: constraints.Constraint) -> constraints.Constraint:
    """The constraint on single entries that are observed."""
    inner = innermost_support(support)
    return _of_complete(inner.base) if isinstance(inner, OrElse) else inner


def _are_bytes(x: Tensor) -> bool:
    """Whether x are images or the like whose entries look like bytes."""
    seen = x.nan_to_num()
    low, high = float(seen.min()), float(seen.max())
    return x.dim() > 2 and low >= 0 and 1 < high <= 255 and bool((seen % 1 == 0).all())


def _column_outside(
    inside: Tensor, x: Tensor, base: constraints.Constraint, names: Sequence[str] | None
) -> str:
    """The first column of a table with a value outside, in words; "" if x is no table."""
    if x.dim() != 2:
        return ""
    entries = inside if inside.shape == x.shape else base.check(x)
    if entries.shape != x.shape or entries.all():
        return ""
    column = int((~entries).any(0).nonzero()[0])
    values = x[~entries[:, column], column]
    name = repr(names[column]) if names else str(column)
    return f"; column {name} has {float(values[0]):.4g}"
