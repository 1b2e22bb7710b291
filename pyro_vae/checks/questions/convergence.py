"""Whether the objective still rose when training ended."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject

__all__ = ["Convergence"]

FEWEST = 6  # epochs of the last part
PART = 1 / 3  # of the epochs is the last part
SHARE = 0.01  # of all that was gained is little
NATS = 0.02  # are little


class Convergence(Check):
    """The objective of the last third of the epochs has no slope left.

    The line is fitted to means of neighbouring epochs, whose noise is nearly independent.
    """

    name = "slope of the last epochs"
    question = "Has training converged?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        history = subject.need_history()
        curve = np.array([row["objective"] for row in history], dtype=float)
        last = curve[-max(FEWEST, round(PART * len(curve))) :]
        if len(curve) < FEWEST:
            return Finding(
                f"{len(curve)} epochs are too few to see a slope in; {FEWEST} are needed",
                {"epochs": len(curve)},
            )
        line = stats.linregress(np.arange(len(last)), last)
        gain, error = line.slope * len(last), line.stderr * len(last)
        scale = float(last.max() - curve[0])
        little = max(NATS, SHARE * scale)
        p_value = float(stats.t.sf(line.slope / line.stderr, len(last) - 2)) if line.stderr else 1.0
        return Finding(
            means=f"over the last {len(last)} epochs the objective rises by {gain:.3g} "
            f"+- {error:.2g} nats",
            numbers={
                "epochs": len(curve),
                "of them in the line": len(last),
                "nats gained over them": float(gain),
                "its standard error": float(error),
                "little is up to": little,
            },
            p_value=p_value if math.isfinite(p_value) else 1.0,
            matters=gain > little,
            faults=["under-trained"],
            change="Train longer (--epochs with --resume), or with a higher or decaying learning "
            "rate.",
            figure=on_axes(lambda ax: _draw(ax, curve, len(last), line)),
        )


def _draw(ax, curve: np.ndarray, count: int, line) -> None:
    epochs = np.arange(1, len(curve) + 1)
    ax.plot(epochs, curve, ".-", markersize=3, label="objective")
    ax.plot(epochs[-count:], line.intercept + line.slope * np.arange(count), label="line")
    ax.set(xlabel="epoch", ylabel="nats per datum", title="the last epochs")
    ax.legend()
