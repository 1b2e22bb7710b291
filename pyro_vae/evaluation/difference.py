"""The difference of two scores of the same data, taken datum by datum.

Most of the spread of scores over data is the data's own: it cancels in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pyro_vae.datasets.shown import facts_html, known, measured, plus_minus
from pyro_vae.validation import InvalidInput

__all__ = ["Difference", "check_same_data", "compare"]

OPPOSITE = {"": "", ">=": "<=", "<=": ">=", "~": "~"}

# What a difference's sign says of the true one.
MEANS = {
    "": "",
    ">=": "the true one may be larger",
    "<=": "the true one may be smaller",
    "~": "both are bounds: the true one may be larger or smaller",
}


class _Score(Protocol):
    """What a difference needs of a score."""

    @property
    def unit(self) -> str: ...
    @property
    def values(self) -> Tensor: ...
    @property
    def sha256(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def mean_mc_se(self) -> float: ...
    @property
    def sign(self) -> str: ...


@dataclass(frozen=True, repr=False)
class Difference:
    """The mean difference of two scores on the same data, per datum.

    Args:
        mean: that of the first less that of the second: positive where the first is better.
        se: its standard error over data, from the paired differences; NaN for a single datum.
        mc_se: its Monte Carlo error.
        num_data: how many pairs.
        sign: ``""``, or ``">="`` or ``"<="`` where a score is only a bound, so that the true
            difference is larger or smaller; ``"~"`` where it may be either.
        unit: of both scores.
    """

    mean: float
    se: float
    mc_se: float
    num_data: int
    sign: str = ""
    unit: str = "nats"

    @property
    def error(self) -> str:
        """The Monte Carlo error in words; unknown where a score is a bound."""
        is_unknown = bool(self.sign) or math.isnan(self.mc_se)
        return "unknown" if is_unknown else f"{self.mc_se:.2g}"

    def __str__(self) -> str:
        count = "one datum" if self.num_data == 1 else f"{self.num_data} data"
        value = f"{self.sign} {plus_minus(self.mean, self.se, sign='+')}".strip()
        means = f"; {self.sign} {MEANS[self.sign]}" if self.sign else ""
        return f"{value} {self.unit} (Monte Carlo error {self.error}, {count}{means})"

    def __repr__(self) -> str:
        return f"Difference({self})"

    def _repr_html_(self) -> str:
        facts = {
            "mean": f"{self.sign} {measured(self.mean, self.se, '+')}".strip(),
            "s.e. over data": known(self.se),
            "Monte Carlo error": self.error,
            "data": self.num_data,
        }
        means = {self.sign: MEANS[self.sign]} if self.sign else {}
        return facts_html(f"difference, {self.unit} per datum", facts | means)


def compare(first: _Score, second: _Score) -> Difference:
    r"""Compare two scores on the same data by their paired difference; ``first - second`` does too.

    .. math:: \bar d = \frac1N \sum_n d_n, \quad d_n = a_n - b_n, \quad \mathrm{se} =
              \frac{\mathrm{sd}(d_n)}{\sqrt N}

    Args:
        first: the score a.
        second: the score b.

    Raises:
        InvalidInput: if the two are in different units, or not of the same data, by number or by
            hash: another split, limit or binarisation.

    Example:
        >>> a = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), 20, seed=0)
        >>> b = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), 20, seed=1)
        >>> compare(a, b).num_data, (a - b).mean == compare(a, b).mean
        (3, True)
    """
    check_same_data({"first": first, "second": second})
    a, b = (each.values.double().cpu() for each in (first, second))
    d = (a - b)[~(a.isnan() & b.isnan())]  # without data of which no entry was observed
    signs = {first.sign, OPPOSITE[second.sign]} - {""}
    return Difference(
        first.mean - second.mean,
        d.std().item() / math.sqrt(len(d)) if len(d) > 1 else math.nan,
        math.hypot(first.mean_mc_se, second.mean_mc_se),
        len(d),
        "~" if len(signs) == 2 else "".join(signs),
        first.unit,
    )


def check_same_data(scores: Mapping[str, _Score]) -> None:
    """Raise `InvalidInput` unless scores are in one unit, of the same data by number and hash."""
    (name, reference), *others = scores.items()
    for other, score in others:
        if score.unit != reference.unit:
            raise InvalidInput(
                "scores",
                got=f"{reference.unit} ({name}) and {score.unit} ({other})",
                expected="scores of one kind",
                fix="compare log-likelihoods with log-likelihoods, and errors with errors",
            )
        if (
            len(score.values) != len(reference.values)
            or score.sha256 != reference.sha256
            or not score.sha256
        ):

            def of(each: _Score) -> str:
                return f"{len(each.values)} data of SHA-256 {each.sha256[:12] or 'unknown'}"

            raise InvalidInput(
                "scores",
                got=f"{of(reference)} ({name}) and {of(score)} ({other})",
                expected="scores of the same data, with the same binarisation",
                fix="evaluate both on one data set with the same --data, --split, --limit and "
                "binarisation",
            )
