"""Coverage of regions of q for the latents of simulated data."""

from __future__ import annotations

import torch
from scipy import stats

from pyro_vae.checks.base import Check, Finding, Number, is_clear
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import RANKS, SIMULATED, Subject
from pyro_vae.evaluation.widening import error_of_share
from pyro_vae.plotting import plot_coverage

__all__ = ["Coverage"]

LEVELS = (0.5, 0.9)
TOLERATED = 0.05
LEVEL = 0.01
MORE = "Raise --minutes: more simulated data would show a departure of ten points."


class Coverage(Check):
    """Regions of highest density of q hold the simulated latents as often as they say.

    All latent dimensions count together, so that it sees what their ranks one by one cannot.

    Source: Hermans et al. (2022), A Trust Crisis in Simulation-Based Inference?
    """

    name = "coverage of regions of q"
    question = "Does q match the posterior?"
    calls, rows, least = 20, 2 * SIMULATED * RANKS, 0.05

    def look(self, subject: Subject) -> Finding:
        ranks = subject.calibration(self.size)
        levels, _, covered = ranks.coverage(torch.tensor(LEVELS, dtype=torch.float64))
        count = len(ranks.density_ranks)
        numbers: dict[str, Number] = {"simulated data": count}
        p_values, gaps, errors = [], [], []
        for level, share in zip(levels.tolist(), covered.tolist()):
            test = stats.binomtest(round(share * count), count, level)
            p_values.append(float(test.pvalue))
            gaps.append(share - level)
            errors.append(error_of_share(share, count))
            numbers[f"covered by regions of {level:.0%}"] = share
            numbers[f"its standard error at {level:.0%}"] = errors[-1]
        worst = min(range(len(gaps)), key=lambda i: p_values[i])
        low = gaps[worst] < 0
        p_value = min(1.0, len(LEVELS) * p_values[worst])
        matters = max(map(abs, gaps)) > TOLERATED
        little = (
            f": off by a little, for up to {TOLERATED:.0%} does not matter"
            if p_value < LEVEL and not matters
            else ""
        )
        return Finding(
            means=f"regions of q that should hold {levels[worst].item():.0%} hold "
            f"{covered[worst].item():.1%} +- {errors[worst]:.1%} of {count:,} simulated latents"
            + little,
            numbers=numbers,
            p_value=p_value,
            matters=matters,
            clear=is_clear(max(errors)),
            more=MORE,
            faults=["q covers too little" if low else "q covers too much"],
            change="Do not use intervals of q as they are; widen it by a more flexible posterior, "
            "or by an objective such as IWAE.",
            figure=on_axes(lambda ax: plot_coverage(ranks, ax)),
        )
