"""Whether the curve of training still rose when it ended."""

from __future__ import annotations

import numpy as np

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject
from pyro_vae.training.convergence import FEWEST, LEVEL, Slope, slope_of

__all__ = ["Convergence"]


class Convergence(Check):
    """The validation ELBO of the last third of the epochs has no slope left.

    It is flat if it gains at most 0.02 nats over them, or little of what was gained before. Where
    no data were kept for validation, it is the objective of the training data, which rises too
    where a program only learns them by heart.
    """

    name = "slope of the last epochs"
    question = "Has training converged?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        rows = subject.need_history()
        validated = [row["validation_elbo"] for row in rows if row["validation_elbo"] is not None]
        of_training = len(validated) < FEWEST
        curve = [float(row["objective"]) for row in rows] if of_training else validated
        name = "objective" if of_training else "validation ELBO"
        slope = slope_of(curve)
        if slope is None:
            return Finding(
                f"{len(curve)} epochs are too few to see a slope in; {FEWEST} are needed",
                {"epochs": len(curve)},
                change="Train for more epochs (--epochs with --resume).",
            )
        is_small = slope.p_value < LEVEL and slope.gain <= slope.little
        return Finding(
            means=f"over the last {slope.epochs} epochs the {name} "
            f"{'falls' if slope.gain < 0 else 'rises'} by {abs(slope.gain):.3g} +- "
            f"{slope.error:.2g} nats"
            + (f", up to {slope.little:.2g} is little" if is_small else ""),
            numbers={
                "curve": name,
                "epochs": len(curve),
                "of them in the line": slope.epochs,
                "nats gained over them": slope.gain,
                "its standard error": slope.error,
                "little is up to": slope.little,
            },
            p_value=slope.p_value,
            matters=slope.gain > slope.little,
            clear=slope.gain <= slope.little or slope.error <= slope.little,
            more="Train for more epochs: these vary too much to see whether the curve rises.",
            faults=["under-trained"],
            change="Train longer (--epochs with --resume), or with a higher or decaying learning "
            f"rate{', unless training data score higher than test data' * of_training}.",
            figure=on_axes(lambda ax: _draw(ax, curve, slope, name)),
        )


def _draw(ax, curve: list[float], slope: Slope, name: str) -> None:
    epochs = np.arange(1, len(curve) + 1)
    shown = slice(-2 * slope.epochs, None)  # the first epochs, far below, would hide the slope
    ax.plot(epochs[shown], curve[shown], ".-", markersize=3, label=name)
    line = slope.intercept + slope.gain / slope.epochs * np.arange(slope.epochs)
    ax.plot(epochs[-slope.epochs :], line, label="line")
    ax.set(xlabel="epoch", ylabel="nats per datum", title="the last epochs")
    ax.legend()
