"""Entries predicted from the others: calibration of intervals."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from pyro_vae.checks.base import Check, Finding, Number, is_clear
from pyro_vae.checks.drawing import ecdf_of_uniform
from pyro_vae.checks.leave_one_out import ROWS, predicted
from pyro_vae.checks.subject import CannotTell, Subject
from pyro_vae.checks.uniformity import uniform_test
from pyro_vae.plotting.files import named

__all__ = ["Predictions"]

TOLERATED = 0.05  # of a distribution function, or of a coverage
TAILS = 0.02  # the share of values in the outermost percentages
POINTS = np.array([TAILS / 2, *np.linspace(0.05, 0.95, 19), 1 - TAILS / 2])
MIDDLE = (POINTS > 0.2) & (POINTS < 0.8)  # where few data tell how entries depend on one another
LEVEL = 0.9


class Predictions(Check):
    r"""Intervals of an entry given the others hold as often as they say (LOO-PIT).

    .. math:: u_{nd} = P(\tilde x_d < x_{nd} \mid x_{n,-d}) \sim \mathrm{Uniform}(0, 1)

    It is randomised where x is discrete. A hump of u is a likelihood that is too wide, a U one that
    is too narrow, a slope a bias.

    Source: Gelfand, Dey and Chang (1992); Sailynoja, Burkner and Vehtari (2022) for the bands.
    """

    name = "intervals of entries given the others"
    question = "Does the model fit?"
    calls, rows = 20, 2 * ROWS

    def look(self, subject: Subject) -> Finding:
        parts = subject.once(predicted)
        u = torch.cat([part.pit for part in parts], dim=1).numpy()
        names = [subject.column(one.name, i) for one in parts for i in range(one.x.shape[1])]
        test = uniform_test(u)
        pooled, p_pooled, effective = _pooled(u)
        inside = np.abs(u - 0.5) < LEVEL / 2
        known = ~np.isnan(u)
        if known.any(1).sum() < 2:
            raise CannotTell(
                "one datum says nothing of how often intervals hold", "Check on more data."
            )
        some = known.any(1)
        by_datum = np.where(known, inside, 0)[some].sum(1) / known[some].sum(1)
        # Where nearly all or none are inside, by chance, their spread says little.
        least = np.sqrt(LEVEL * (1 - LEVEL) / effective)
        covered = float(by_datum.mean())
        error = max(float(by_datum.std(ddof=1) / np.sqrt(len(by_datum))), float(least))
        wrong = (test.p_value * len(test.p_value) < 0.01) & (test.difference > TOLERATED)
        in_tails = pooled[0] - pooled[-1]
        together = p_pooled < 0.01 and (np.abs(pooled).max() > TOLERATED or in_tails > TAILS)
        d = test.worst
        faults = [_fault(u if together and not wrong.any() else u[:, d])]
        matters = bool(wrong.any() or together)
        where = f" ({names[d]})" if wrong.any() else ""
        numbers: dict[str, Number] = {
            "data": len(u),
            "entries": u.shape[1],
            f"covered by {LEVEL:.0%} intervals": covered,
            "its standard error": error,
            "the entry that fits least": names[d],
            "largest difference of an entry": float(test.difference[d]),
            "entries that differ": int(wrong.sum()),
            "largest difference of all entries together": float(np.abs(pooled).max()),
            f"share beyond intervals of {1 - TAILS:.0%}": TAILS + float(in_tails),
        }
        return Finding(
            means=f"intervals of {LEVEL:.0%} for an entry given the others hold {covered:.1%} +- "
            f"{error:.1%}" + (f"; {faults[0]}{where}" if matters else ""),
            numbers=numbers,
            p_value=min(1.0, 2 * min(test.smallest, p_pooled)),
            matters=matters,
            clear=is_clear(error),
            faults=faults,
            change="Learn the likelihood's scale, or choose a likelihood with other tails or with "
            "several modes.",
            figure=ecdf_of_uniform(
                u[:, d][known[:, d]],
                f"LOO-PIT of {named(names[d])}, the entry that fits least",
                "LOO-PIT: probability of a smaller value",
            ),
        )


def _pooled(u: np.ndarray) -> tuple[np.ndarray, float, float]:
    r"""Differences of the distribution function of all entries, and one p-value for them.

    How many independent entries they are worth comes with it.

    Entries of a datum depend on one another, so errors are over data: the spread of the share of a
    datum's entries below a point p. Near 0 and 1 few data have any there, or none, and the spread
    says little. So it counts as :math:`\sqrt{D\, p (1 - p) / d}` at least, for d entries, where D
    is the mean ratio of the observed variance to that of entries that are independent, in the
    middle.

    Source: Rao and Scott (1992), A Simple Method for the Analysis of Clustered Binary Data, for D.
    """
    known = ~np.isnan(u)
    sizes = known.sum(1)
    below = (known[:, :, None] & (u[:, :, None] <= POINTS)).sum(1) / np.maximum(sizes, 1)[:, None]
    below, count = below[sizes > 0], int((sizes > 0).sum())
    if count < 2:
        return np.zeros(len(POINTS)), 1.0, float(max(1, count))
    difference, variance = below.mean(0) - POINTS, below.var(0, ddof=1)
    independent = POINTS * (1 - POINTS) / sizes[sizes > 0].mean()
    effect = max(1.0, float((variance / independent)[MIDDLE].mean()))
    error = np.sqrt(np.maximum(variance, effect * independent) / count)
    p = 2 * stats.t.sf(np.abs(difference) / error, count - 1)
    effective = sizes.sum() / effect
    return difference, float(min(1.0, len(POINTS) * p.min())), float(effective)


def _fault(u: np.ndarray) -> str:
    values = u[~np.isnan(u)]
    shift = (values.mean() - 0.5) * np.sqrt(12)
    spread = (values.var() - 1 / 12) * np.sqrt(180)
    ends = (np.abs(values - 0.5) > LEVEL / 2).mean() - (1 - LEVEL)
    if abs(shift) > max(0.1, abs(spread)):
        return "predictions are biased"
    if _in_tails(values) > max(2 * TAILS, 1.5 * _expected_in_tails(values)):
        return "heavier tails than in the model"
    if spread > 0.1 and ends > 0:
        return "likelihood too narrow"
    if spread < -0.1 and ends < 0:
        return "likelihood too wide"
    return "the likelihood has the wrong shape"  # its middle says one thing, and its ends another


def _in_tails(values: np.ndarray) -> float:
    return float((np.abs(values - 0.5) > 0.5 - TAILS / 2).mean())


def _expected_in_tails(values: np.ndarray) -> float:
    """The share of a normal in the tails whose scale alone is wrong, as the middle half says."""
    least = 0.5 / len(values)  # of so few all may lie inside, or none
    inside = float(np.clip((np.abs(values - 0.5) < 0.25).mean(), least, 1 - least))
    ratio = stats.norm.ppf(0.75) / stats.norm.ppf((1 + inside) / 2)
    return float(2 * stats.norm.sf(stats.norm.isf(TAILS / 2) / ratio))
