"""Pareto k and the effective number of draws of each datum."""

from __future__ import annotations

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import khat
from pyro_vae.checks.subject import MOST, Subject
from pyro_vae.evaluation.pareto import pareto_k_threshold

__all__ = ["Weights"]

TOLERATED = 0.1  # share of the data


class Weights(Check):
    r"""Importance weights :math:`p(x, z) / q(z \mid x)` have a tail that an error can be made of.

    Source: Vehtari et al. (2024), Pareto Smoothed Importance Sampling.
    """

    name = "Pareto k of the importance weights"
    question = "Does q match the posterior?"
    calls, rows = 20, MOST * 1000

    def look(self, subject: Subject) -> Finding:
        score = subject.log_p
        threshold, count = pareto_k_threshold(score.num_samples), len(score.values)
        above = int((score.pareto_k > threshold).sum())
        share = score.ess.double() / score.num_samples
        numbers = {
            "draws K": score.num_samples,
            "data": count,
            "median Pareto k": score.pareto_k.nanmedian().item(),
            "threshold": threshold,
            "data above it": above,
            "median effective share of the draws": share.median().item(),
            "smallest effective share": share.min().item(),
        }
        if score.above_threshold is None:
            return Finding(f"K = {score.num_samples} is too small for a Pareto k", numbers)
        return Finding(
            means=f"Pareto k is above {threshold:.2f} for {above} of {count} data, and "
            f"{share.median().item():.0%} of the draws count",
            numbers=numbers,
            passed=above <= TOLERATED * count,
            faults=["q is far from the posterior"],
            change="Give log p(x) as a bound, or evaluate with --proposal Refitted or by "
            "annealing; a more flexible posterior mends the cause.",
            figure=khat(score.pareto_k.cpu().numpy(), threshold),
        )
