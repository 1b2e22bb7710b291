"""A classifier of data against data that the model makes."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import TOLD, Check, Finding, is_clear
from pyro_vae.checks.subject import MOST, Subject
from pyro_vae.checks.two_samples import told_apart

__all__ = ["Generated"]

TOLERATED = 0.1  # of the accuracy above a half
MOST_LABELS = 50


class Generated(Check):
    """A classifier cannot tell the data from data drawn from the model.

    It sees what no entry shows alone, such as how entries go together. With a context it is told
    that, too. Entries that are missing are missing in both.

    Source: Lopez-Paz and Oquab (2017), Revisiting Classifier Two-Sample Tests.
    """

    name = "data against generated data"
    question = "Does the model fit?"
    calls, rows = 40, MOST

    def look(self, subject: Subject) -> Finding:
        known = [_told(part) for part in subject.told.values()]
        real = torch.cat([*(part.real for part in subject.entries), *known], dim=1)
        made = torch.cat([*(part.simulated[0] for part in subject.entries), *known], dim=1)
        test = told_apart(
            real.nan_to_num(0).numpy(), made.nan_to_num(0).numpy(), subject.seed, paired=True
        )
        return Finding(
            means=f"a classifier tells the data from generated ones with accuracy "
            f"{test.accuracy:.2f} +- {test.se:.2f}, where 0.5 is no difference",
            numbers={
                "accuracy": test.accuracy,
                "its standard error": test.se,
                "data": test.num_samples,
            },
            p_value=float(stats.norm.sf(test.z_score)),
            matters=test.accuracy - 0.5 > TOLERATED,
            clear=is_clear(test.se, TOLD),
            faults=["generated data are not like the data"],
            change="Look at samples beside data (pyro-vae sample); a larger decoder, a prior that "
            "learns, or another likelihood.",
        )


def _told(context: Tensor) -> Tensor:
    """A context as rows of numbers (N, D); labels have no order, so each has a column."""
    if not context.is_floating_point():
        labels, place = context.unique(return_inverse=True)
        if len(labels) <= MOST_LABELS:
            context = torch.nn.functional.one_hot(place, len(labels))
    return context.double().reshape(len(context), -1).cpu()
