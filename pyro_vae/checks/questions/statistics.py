"""Statistics of the data against those of data that the model makes."""

from __future__ import annotations

import numpy as np

from pyro_vae.checks.base import Check, Finding, Number
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.statistics_by_kind import Departure, departures, statistics_of
from pyro_vae.checks.subject import MOST, REPLICATES, Entries, Subject
from pyro_vae.plotting.files import named

__all__ = ["Statistics"]

LEVEL = 0.01
SHOWN = 4  # faults that are named


class Statistics(Check):
    r"""Statistics that suit the data's kind are those of data drawn from the model.

    .. math:: z \sim p(z), \; \tilde x \sim p(x \mid z): \quad T(\tilde x) \sim T(x)

    Counts: their dispersion, zeros, round numbers. Numbers: location, spread, tails, repeated
    values. No draw of q takes part, so that a poor q cannot hide a poor fit.
    """

    name = "statistics of the data"
    question = "Does the model fit?"
    calls, rows = 40, MOST * REPLICATES

    def look(self, subject: Subject) -> Finding:
        found: list[tuple[Entries, Departure]] = []
        for part in subject.entries:
            arrays = part.real.numpy(), part.simulated.numpy()
            kinds = part.is_discrete.numpy(), part.is_binary.numpy()
            found += [(part, each) for each in statistics_of(*arrays, *kinds)]
        tests = [each for _, each in found]
        looks = max(1, sum(int((each.p_value < 1).sum()) for each in tests))
        smallest = min(float(each.p_value.min()) for each in tests)
        wrong = departures(tests, LEVEL)
        faults = list(dict.fromkeys(each.fault(d) for each, d in wrong))[:SHOWN]
        numbers: dict[str, Number] = {
            "real data": len(subject.few),
            "simulated data": len(subject.few) * REPLICATES,
            "comparisons": looks,
            "comparisons that differ": len(wrong),
        }
        for part, each in found:
            d = int(each.p_value.argmin())
            numbers[f"{each.statistic}, most at"] = subject.column(part.name, d)
            numbers[f"{each.statistic}, larger by"] = float(each.size[d])
        return Finding(
            means="; ".join(faults)
            if faults
            else f"{looks} comparisons of the data with the model's own find no difference that "
            "matters",
            numbers=numbers,
            p_value=min(1.0, smallest * looks),
            matters=bool(wrong),
            faults=faults,
            change="Choose a likelihood for this kind of data: NegativeBinomial or a "
            "zero-inflated one for counts, StudentT or a learned scale for numbers, Censored for "
            "limits.",
            figure=on_axes(lambda ax: _draw(ax, subject, found)),
        )


def _draw(ax, subject: Subject, found: list[tuple[Entries, Departure]]) -> None:
    """Draw real and simulated values of the entry that differs most."""
    part, each = min(found, key=lambda pair: float(pair[1].p_value.min()))
    d = int(each.p_value.argmin())
    real, made = part.real[:, d].numpy(), part.simulated[:, :, d].flatten().numpy()
    both = np.concatenate([real[~np.isnan(real)], made[~np.isnan(made)]])
    low, high = np.quantile(both, [0.005, 0.995])
    bins = np.linspace(low, high, 31)
    if part.is_discrete[d]:
        bins = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    for values, name in ((real, "data"), (made, "drawn from the model")):
        ax.hist(values, bins=bins, density=True, histtype="step", linewidth=1.5, label=name)
    ax.set(title=f"{named(subject.column(part.name, d))}: {each.statistic}", ylabel="density")
    ax.legend()
