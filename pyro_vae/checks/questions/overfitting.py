"""Whether the program scores its training data better than new ones."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import Check, Finding, is_clear
from pyro_vae.checks.subject import MOST, Subject, seeded_rows
from pyro_vae.evaluation.importance import elbo

__all__ = ["Overfitting"]

DRAWS = 20
TOLERATED = 0.25  # standard deviations of a datum's score


class Overfitting(Check):
    r"""The mean ELBO of training data is that of test data, but for a small gap.

    The gap is held against the spread of the data's scores, so that it has no unit. It is tested by
    Welch's t-test and by ranks, and the larger p-value counts, for few scores are not normal. Where
    the history has a validation ELBO, its fall since its best epoch is told too.
    """

    name = "training against test data"
    question = "Has training converged?"
    calls, rows = 20, 2 * MOST * DRAWS

    def look(self, subject: Subject) -> Finding:
        seen = seeded_rows(subject.need_train(), MOST, subject.seed)
        ours, theirs = (
            elbo(subject.local, data, DRAWS, seed=subject.seed).values.double()
            for data in (subject.few, seen)
        )
        gap = (theirs.mean() - ours.mean()).item()
        error = math.sqrt(ours.var().item() / len(ours) + theirs.var().item() / len(theirs))
        spread = math.sqrt((ours.var().item() + theirs.var().item()) / 2)
        fallen = _fallen(subject)
        told = "" if fallen is None else f", and the validation ELBO fell by {fallen:.3g} nats"
        return Finding(
            means=f"training data score {abs(gap):.3g} +- {error:.2g} nats "
            f"{'lower' if gap < 0 else 'higher'} than test data{told}",
            numbers={
                "training less test ELBO": gap,
                "its standard error": error,
                "in standard deviations of a datum's score": gap / spread if spread else 0.0,
                "fall of the validation ELBO since its best epoch": fallen,
                "training data": len(theirs),
                "test data": len(ours),
            },
            p_value=_p_value(theirs, ours) if error else float(gap <= 0),
            matters=gap > TOLERATED * spread,
            clear=is_clear(error, spread),
            faults=["over-trained"],
            change="Stop at the best validation epoch (--validation), use a smaller network or "
            "more data.",
        )


def _p_value(high: Tensor, low: Tensor) -> float:
    """That of scores which are not larger than others; NaN for a single one."""
    moments = [(each.mean().item(), each.std().item(), len(each)) for each in (high, low)]
    means = stats.ttest_ind_from_stats(
        *moments[0], *moments[1], equal_var=False, alternative="greater"
    )
    ranks = stats.mannwhitneyu(high.numpy(), low.numpy(), alternative="greater")
    return float(np.maximum(means.pvalue, ranks.pvalue))


def _fallen(subject: Subject) -> float | None:
    """By how much the validation ELBO fell after its best epoch, if it was measured."""
    if not subject.history:
        return None
    measured = [row["validation_elbo"] for row in subject.need_history()]
    curve = torch.tensor([value for value in measured if value is not None])
    return (curve.max() - curve[-1]).item() if len(curve) else None
