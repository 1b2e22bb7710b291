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

    It is a check of log p(x) by draws of q. A heavy tail is not held against q itself: a q that
    is close in each dimension has one where the latents are many.

    Source: Vehtari et al. (2024), Pareto Smoothed Importance Sampling.
    """

    name = "Pareto k of the importance weights"
    question = "Does q match the posterior?"
    calls, rows = 20, MOST * 1000

    def look(self, subject: Subject) -> Finding:
        subject.need_all_values()
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
            "median effective draws": score.ess.double().median().item(),
            "effective draws of the lowest tenth of the data, at most": score.ess.double()
            .quantile(0.1)
            .item(),
            "smallest effective draws": score.ess.double().min().item(),
        }
        if score.above_threshold is None:
            return Finding(
                f"K = {score.num_samples} is too small for a Pareto k",
                numbers,
                change="Score with more draws: evaluate with --num-samples 1000.",
            )
        means = (
            f"Pareto k is above {threshold:.2f} for {above} of {count} data, and "
            f"{share.median().item():.0%} of the draws count"
        )
        is_enough = above <= TOLERATED * count
        if not is_enough:  # which a q that is good for all else may be, in many dimensions
            means += (
                ": draws of q give no more than a lower bound on log p(x). Whether q is the "
                "posterior in other respects, the other checks tell"
            )
        return Finding(
            means=means,
            numbers=numbers,
            passed=True if is_enough else None,
            change=""
            if is_enough
            else "Give log p(x) as a bound, or evaluate with --proposal "
            "Widened, then with --proposal Widened --proposal.of Refitted, or by pyro-vae anneal.",
            figure=khat(score.pareto_k.cpu().numpy(), threshold, score.ess.cpu().numpy()),
        )
