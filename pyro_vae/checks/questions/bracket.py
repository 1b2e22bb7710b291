"""Importance sampling against bounds from both sides on simulated data."""

from __future__ import annotations

import math

from scipy import stats

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject
from pyro_vae.datasets.dataset import as_dataset
from pyro_vae.evaluation.annealing import bdmc
from pyro_vae.evaluation.importance import evaluate

__all__ = ["Bracket"]

DATA, CHAINS, TEMPERATURES, LEAPFROG = 40, 8, 150, 5
TIGHT = 0.5  # nats between the bounds
TOLERATED = 0.1  # nats
ANNEAL = (
    "Anneal in more steps: pyro-vae anneal RUN --num-temperatures 2000, or pv.evaluation.bdmc of "
    "the program with num_temperatures=2000."
)


class Bracket(Check):
    r"""log p(x) by importance sampling lies between the bounds of bidirectional Monte Carlo.

    .. math:: \mathrm{E}\,\underline{\log p}(x) \le \log p(x) \le \mathrm{E}\,\overline{\log p}(x)

    The bounds come from chains that start at the prior and at the latents that made the data, so
    they know of all modes. Importance sampling below them misses some of the posterior; an estimate
    or an ELBO above them is no bound, and one of the program's densities is wrong.

    Source: Grosse, Ghahramani and Adams (2015), Sandwiching the Marginal Likelihood.
    """

    name = "importance sampling within bounds"
    question = "Does the bound hold?"
    calls, rows = 2 * TEMPERATURES * LEAPFROG * 2, 8 * DATA * CHAINS * TEMPERATURES * LEAPFROG
    least = 0.2

    def look(self, subject: Subject) -> Finding:
        subject.need_real_latents()
        steps = round(self.size * TEMPERATURES)
        found = bdmc(
            subject.local, DATA, CHAINS, steps, like=subject.few, num_leapfrog=LEAPFROG,
            seed=subject.seed,
        )  # fmt: skip
        data = as_dataset(found.x if found.context is None else (found.x, found.context))
        data.missing = subject.few.missing
        scores = evaluate(subject.local, data, subject.num_samples, seed=subject.seed)
        lower, upper = found.lower.values.double(), found.upper.values.double()
        ll, elbo = scores["log_likelihood"].values.double(), scores["elbo"].values.double()
        root = math.sqrt(len(ll))
        below, below_error = (lower - ll).mean().item(), (lower - ll).std().item() / root
        above, above_error = (ll - upper).mean().item(), (ll - upper).std().item() / root
        p_below = _tail(below, below_error, len(ll))
        p_above = _tail(above, above_error, len(ll))
        gap, is_low = found.gap, p_below <= p_above
        side = "below the lower" if is_low else "above the upper"
        far, error = (below, below_error) if is_low else (above, above_error)
        inside = max(below, above) <= TOLERATED
        means = (
            f"importance sampling lies within the bounds, which are {gap:.2g} nats apart, on "
            f"{len(ll)} simulated data with {CHAINS} chains of {steps} temperatures"
            if inside
            else f"importance sampling lies {far:.2g} +- {error:.2g} nats {side} bound"
        )
        numbers = {
            "simulated data": len(ll),
            "chains": CHAINS,
            "temperatures": steps,
            "lower bound": lower.mean().item(),
            "upper bound": upper.mean().item(),
            "their gap": gap,
            "its standard error": found.gap_se,
            "importance sampling": ll.mean().item(),
            "ELBO": elbo.mean().item(),
            "below the lower bound by": below,
            "standard error of that": below_error,
            "above the upper bound by": above,
        }
        figure = on_axes(lambda ax: _draw(ax, lower, upper, ll, elbo))
        if inside and gap > TIGHT:
            means = (
                f"the bounds are {gap:.2g} nats apart with {steps} temperatures: too far to say "
                "more than that"
            )
            more = "Raise --minutes: more temperatures bring the bounds together."
            return Finding(means, numbers, change=ANNEAL if self.size == 1 else more, figure=figure)
        return Finding(
            means=means,
            numbers=numbers,
            p_value=min(1.0, 2 * min(p_below, p_above)),
            matters=not inside,
            clear=inside,
            more="Raise --minutes: more temperatures make the difference, or its error, smaller.",
            faults=["q misses part of the posterior" if is_low else "the bound does not hold"],
            change="Score by annealing (pv.evaluation.ais) and use a posterior with more modes or "
            "a wider one."
            if is_low
            else "Look for a density that does not integrate to one: pyro_vae.testing checks each "
            "component.",
            figure=figure,
        )


def _tail(mean: float, error: float, count: int) -> float:
    return float(stats.t.sf(mean / error, count - 1)) if error > 0 else float(mean <= 0)


def _draw(ax, lower, upper, ll, elbo) -> None:
    order = ((lower + upper) / 2).argsort()
    place = range(len(order))
    middle = ((lower + upper) / 2)[order]
    ax.vlines(place, (lower[order] - middle), (upper[order] - middle), linewidth=3, alpha=0.5,
              label="bounds")  # fmt: skip
    ax.plot(place, ll[order] - middle, "k.", label="importance sampling")
    ax.plot(place, elbo[order] - middle, "C1_", label="ELBO")
    ax.set(xlabel="simulated datum", ylabel="nats from the middle", title="log p(x) and its bounds")
    ax.legend()
