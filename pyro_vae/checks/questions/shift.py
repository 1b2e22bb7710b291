"""Whether test data are distributed as the training data."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pyro_vae.checks.base import TOLD, Check, Finding, is_clear
from pyro_vae.checks.subject import MOST, Subject, rows_of_entries, seeded_rows
from pyro_vae.checks.two_samples import rank_test, told_apart

__all__ = ["Shift"]

TOLERATED = 0.1


class Shift(Check):
    """Test data are like the training data: a split at random, not another population.

    A classifier is asked to tell them apart, and each entry's location is compared.
    """

    name = "test data like the training data"
    question = "Is the score honest?"
    calls, rows = 0, 1

    def look(self, subject: Subject) -> Finding:
        train = seeded_rows(subject.need_train(), MOST, subject.seed)
        ours, theirs = (rows_of_entries(data.x).numpy() for data in (subject.few, train))
        told = told_apart(np.nan_to_num(ours), np.nan_to_num(theirs), subject.seed)
        p, size = rank_test(ours, theirs)
        p_value = (len(p) + 1) * min(float(p.min()), float(stats.norm.sf(told.z_score)))
        wrong = (p * len(p) < 0.01) & (np.abs(size) > TOLERATED)
        return Finding(
            means=f"a classifier tells test from training data with accuracy {told.accuracy:.2f} "
            f"+- {told.se:.2f}, where 0.5 is no difference",
            numbers={
                "accuracy": told.accuracy,
                "its standard error": told.se,
                "entries whose location differs": int(wrong.sum()),
                "test data": len(ours),
                "training data": len(theirs),
            },
            p_value=min(1.0, p_value),
            matters=told.accuracy - 0.5 > TOLERATED or bool(wrong.any()),
            clear=is_clear(told.se, TOLD),
            faults=["test data are not like the training data"],
            change="Split at random, or say that the score is of another population.",
        )
