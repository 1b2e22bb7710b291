"""The aggregate posterior against the prior."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import TOLD, Check, Finding, is_clear
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import MOST, Subject
from pyro_vae.checks.two_samples import rank_test, told_apart
from pyro_vae.contracts import StochasticFunction
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latents import in_rows

__all__ = ["Aggregate"]

REPLICATES = 4
TOLERATED = 0.05  # of a classifier's accuracy above a half, or of a rank


class Aggregate(Check):
    r"""Latents of the data, all together, are distributed as the prior.

    .. math:: \frac1N \sum_n q(z \mid x_n) \approx p(z)

    A classifier is asked to tell draws of the two apart, and each dimension's location and spread
    are compared. With a context, p is p(z | context) of the same data. Where they differ, what the
    prior generates is not like the data.

    Source: Hoffman and Johnson (2016), ELBO Surgery; Lopez-Paz and Oquab (2017) for the classifier.
    """

    name = "aggregate posterior against the prior"
    question = "Is the latent used?"
    calls, rows = 10, MOST * (REPLICATES + 1)

    def look(self, subject: Subject) -> Finding:
        with conditioned(subject.local, subject.few, subject.seed) as given:
            q = _draws(given, given.guide, 1)
            p = _draws(given, given.model, REPLICATES)
        ours, theirs = q[0].numpy(), p.flatten(0, 1).numpy()
        told = told_apart(ours, p[0].numpy(), subject.seed, paired=True)
        middle = np.median(theirs, 0)
        tests = [
            rank_test(ours, theirs),
            rank_test(np.abs(ours - middle), np.abs(theirs - middle)),
        ]
        looks = 2 * ours.shape[1] + 1
        smallest = min(float(p.min()) for p, _ in tests)
        p_value = min(1.0, looks * min(smallest, float(stats.norm.sf(told.z_score))))
        shift, spread = (size[np.abs(size).argmax()] for _, size in tests)
        matters = max(told.accuracy - 0.5, abs(shift), abs(spread)) > TOLERATED
        worst = int(np.argmin(np.minimum(tests[0][0], tests[1][0])))
        return Finding(
            means=f"a classifier tells latents of the data from draws of the prior with accuracy "
            f"{told.accuracy:.2f} +- {told.se:.2f}, where 0.5 is no difference",
            numbers={
                "accuracy of the classifier": told.accuracy,
                "its standard error": told.se,
                "largest shift of a dimension": float(shift),
                "largest excess of a dimension's spread": float(spread),
                "standard error of both": math.sqrt(
                    (len(ours) + len(theirs) + 1) / (12 * len(ours) * len(theirs))
                ),
                "data": len(ours),
            },
            p_value=p_value,
            matters=bool(matters),
            clear=is_clear(told.se, TOLD),
            faults=["the prior does not match the aggregate posterior"],
            change="Use another prior that learns, of GaussianMixture, VampPrior and Flow, or "
            "train longer.",
            figure=on_axes(lambda ax: _draw(ax, ours[:, worst], theirs[:, worst])),
        )


def _draws(given: Conditioned, fn: StochasticFunction, count: int) -> Tensor:
    """Draws of all latents of each datum (K, N, D)."""
    sites = sorted(given.draw(fn, count).items())
    rows = [in_rows(value, given.plates) for _, value in sites]
    return torch.cat([row.reshape(*row.shape[:2], -1).double() for row in rows], dim=2).cpu()


def _draw(ax, ours: np.ndarray, theirs: np.ndarray) -> None:
    low, high = np.quantile(np.concatenate([ours, theirs]), [0.002, 0.998])
    bins = np.linspace(low, high, 41)
    for values, name in ((ours, "latents of the data"), (theirs, "prior")):
        ax.hist(values, bins=bins, density=True, histtype="step", linewidth=1.5, label=name)
    ax.set(title="the dimension that differs most", xlabel="z", ylabel="density")
    ax.legend()
