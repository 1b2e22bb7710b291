"""q beside draws of NUTS on a few data."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from pyro_vae.checks.base import Check, Finding, is_clear
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject, seeded_rows
from pyro_vae.diagnostics.inference_data import LARGEST_R_HAT, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import compare_posteriors, draws_of, largest_r_hat
from pyro_vae.plotting import plot_comparison

__all__ = ["Reference"]

DATA, DRAWS, CHAINS, WARMUP = 3, 400, 2, 150
TOLERATED = 0.1  # of the accuracy above a half
OUTSIDE = 0.1  # of the draws


class Reference(Check):
    """A classifier cannot tell draws of q from draws of NUTS, the reference, datum by datum.

    Chains start at draws of the prior, so that they can meet a mode that q misses.

    Source: Hoffman and Gelman (2014) for NUTS; Lopez-Paz and Oquab (2017) for the test.
    """

    name = "q against NUTS"
    question = "Does q match the posterior?"
    calls, rows, least = DATA * (CHAINS * WARMUP + DRAWS) * 4, 0, 1 / (2 * DATA)

    def look(self, subject: Subject) -> Finding:
        subject.need_real_latents()
        seed, data = subject.seed, max(1, math.floor(self.size * DATA))
        few, part = seeded_rows(subject.few, data, seed), min(1.0, self.size * DATA / data)
        count, warmup = CHAINS * round(part * DRAWS / CHAINS), round(part * WARMUP)
        chains = to_inference_data(
            subject.local, few, count, sampler=NUTS(CHAINS, warmup), seed=seed
        )
        r_hat = largest_r_hat(chains)
        guide = to_inference_data(subject.local, few, count, seed=seed)
        found = compare_posteriors(guide, chains, seed=seed)
        worst = max(test.z_score for test in found.tests)
        p_value = min(1.0, len(found.tests) * float(stats.norm.sf(worst)))
        largest = float(found.accuracy.max())
        error = found.tests[int(found.accuracy.argmax())].se
        met = not r_hat > LARGEST_R_HAT
        worst_datum = int(found.accuracy.argmax())
        ours, theirs = (draws_of(draws)[0][:, :, worst_datum] for draws in (guide, chains))
        missed, beyond = _outside(theirs, ours), _outside(ours, theirs)
        numbers = {
            "data": len(few),
            "draws": count,
            "chains": CHAINS,
            "largest accuracy of a classifier": largest,
            "its standard error": error,
            "mean accuracy": float(found.accuracy.mean()),
            "mean distance in standard deviations": float(found.wasserstein.mean()),
            "that of two halves of NUTS": float(found.noise.mean()),
            "largest R-hat": r_hat,
            "share of NUTS where q never is": missed,
            "share of q where NUTS never is": beyond,
        }
        figure = on_axes(lambda ax: plot_comparison(found, ax))
        means = (
            f"a classifier tells {count} draws of q from those of NUTS with accuracy "
            f"{largest:.2f} +- {error:.2f} at most, where 0.5 is no difference, on {len(few)} "
            f"{'datum' if len(few) == 1 else 'data'}"
        )
        # How often chains visit modes that they do not move between says nothing; where they are
        # and q never is does, and where q is and they are not may be their fault.
        if missed < OUTSIDE and (not met or beyond > OUTSIDE):
            means = (
                f"chains of NUTS do not move between the modes of q (R-hat {r_hat:.2f}), so they "
                "are no reference"
                if not met
                else f"{beyond:.0%} of the draws of q lie where NUTS never went: either q is too "
                "wide or the chains miss a mode"
            )
            change = (
                "Raise --minutes for longer chains; where modes lie far apart, go by ranks, "
                "coverage and annealing (pyro-vae anneal RUN), which no chain has to cross."
            )
            return Finding(means, numbers, change=change, figure=figure)
        apart = "" if met else f"; chains did not meet (R-hat {r_hat:.2f}): there are several modes"
        return Finding(
            means=means + apart,
            numbers=numbers,
            p_value=p_value,
            matters=largest - 0.5 > TOLERATED,
            clear=is_clear(error, 2 * TOLERATED),
            more="Raise --minutes: longer chains would show a departure of ten points.",
            faults=[
                "q misses part of the posterior" if missed > OUTSIDE else "q is not the posterior"
            ],
            change="Use a more flexible posterior; where chains do not meet, one with several "
            "modes.",
            figure=figure,
        )


def _outside(draws: np.ndarray, others: np.ndarray) -> float:
    """The share of draws (chain, draw, D) that have none of the others near.

    Near is thrice as far as the others' nearest neighbours mostly are from one another.
    """
    scale = others.reshape(-1, others.shape[-1]).std(0)
    ours, theirs = (each.reshape(-1, each.shape[-1]) / scale for each in (draws, others))
    tree = cKDTree(theirs)
    usual = np.quantile(tree.query(theirs, k=2)[0][:, 1], 0.95)
    return float((tree.query(ours)[0] > 3 * usual).mean())
