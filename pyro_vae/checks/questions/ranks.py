"""Ranks of simulated latents among draws of the guide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pyro_vae.checks.base import CLEAR, Check, Finding, is_clear
from pyro_vae.checks.drawing import ecdf_of_uniform
from pyro_vae.checks.subject import RANKS, SIMULATED, Subject
from pyro_vae.checks.uniformity import Uniform, uniform_test

__all__ = ["Ranks"]

TOLERATED = 0.05  # difference of distribution functions
LEVEL = 0.01
MORE = "Raise --minutes: more simulated data would show a departure of ten points."


class Ranks(Check):
    r"""Simulation-based calibration: latents of simulated data rank uniformly among draws of q.

    .. math:: z \sim p(z), \; x \sim p(x \mid z), \; z_l \sim q(z \mid x): \quad
              \#\{l : z_{ld} < z_d\} \sim \mathrm{Uniform}\{0 \ldots L\}

    Source: Talts et al. (2018) for the ranks, Sailynoja et al. (2022) for the simultaneous bands.
    """

    name = "ranks of simulated latents"
    question = "Does q match the posterior?"
    calls, rows, least = 20, 2 * SIMULATED * RANKS, 0.05

    def look(self, subject: Subject) -> Finding:
        ranks = subject.calibration(self.size)
        noise = np.random.default_rng(subject.seed).random(ranks.ranks.shape)
        values = (ranks.ranks.numpy() + noise) / (ranks.num_samples + 1)
        test = uniform_test(values)
        worst = test.worst
        name, far = ranks.names[worst], float(test.difference[worst])
        faults = list(dict.fromkeys(_faults(test)))
        error = float(0.5 / np.sqrt(len(values)))
        matters = bool((test.difference > TOLERATED).any())
        found = "; ".join(faults) or "q differs from the posterior in shape"
        off = (
            f"the ranks of {name} leave the uniform line by {far:.3f} +- {error:.3f}, of "
            f"{len(values):,} simulated data"
        )
        means = f"latents rank among draws of q as draws of the posterior do: {off}"
        if test.smallest < LEVEL:
            little = f": off by a little, for up to {TOLERATED:g} does not matter"
            means = f"{found}: {off}" if matters else off + little
        return Finding(
            means=means,
            numbers={
                "simulated data": len(values),
                "draws each": ranks.num_samples,
                "latent dimensions": values.shape[1],
                "least uniform": name,
                "largest difference from the uniform distribution": far,
                "its standard error": error,
                "shift of its mean rank, in standard errors": float(test.shift[worst]),
                "excess of its spread, in standard errors": float(test.spread[worst]),
            },
            p_value=test.smallest,
            matters=matters,
            clear=is_clear(error),
            more=MORE,
            faults=faults or ["q is not the posterior"],
            change="Use a more flexible posterior, or train longer. log p(x) allows for a q that "
            "is off, and more so with --proposal Widened.",
            figure=ecdf_of_uniform(
                values[:, worst], f"ranks of {name}", "rank, as a share of the draws of q"
            ),
        )


def _faults(test: Uniform) -> Iterator[str]:
    """What is wrong with the columns that are not uniform."""
    for d in np.flatnonzero(test.p_value * len(test.p_value) < 0.01):
        shift, spread = test.shift[d], test.spread[d]
        if abs(shift) > max(CLEAR, abs(spread) / 2):
            yield "q is shifted"
        elif abs(spread) > CLEAR:
            yield "q is too narrow" if spread > 0 else "q is too wide"
