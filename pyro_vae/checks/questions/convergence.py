"""Whether the curve of training still rose when it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from pyro_vae.checks.base import Check, Finding, Number, exceeds
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import MOST, Subject
from pyro_vae.evaluation.importance import elbo
from pyro_vae.training.convergence import (
    FEW_STEPS,
    FEWEST,
    LEVEL,
    Fall,
    Slope,
    fall_of,
    slope_of,
    still_to_gain,
)
from pyro_vae.training.history import History, Row
from pyro_vae.validation import InvalidInput

__all__ = ["Convergence"]

DRAWS = 20
TOLERATED, TOLERATED_FALL = 0.03, 0.25  # standard deviations of a datum's ELBO
DECAYED = 0.5  # of a learning rate
QUARTILES = 1.349  # standard deviations of a normal between them


class Convergence(Check):
    r"""The validation ELBO of the last third of the epochs has no slope left, and did not fall.

    A rise matters where it is more than 0.02 nats, than little of what was gained before, and than
    0.03 standard deviations of a datum's ELBO, taken from its quartiles. Where the learning rate
    has fallen by half over these epochs, a rise g slows down with it, and what is still to be
    gained has to matter too. With the gain :math:`g_0` of as many epochs before, it is

    .. math:: g \frac{\rho}{1 - \rho}, \quad \rho = \min(g / g_0, 0.9).

    A learning rate that fell within a thousand steps flattens any curve: then it could not tell.

    Where no data were kept for validation, the curve is the objective of the training data, which
    rises too where a program only learns them by heart.

    A validation ELBO that fell by more than a quarter of a standard deviation from its best epochs
    to the last ones does not pass, unless `pyro_vae.fit` kept the weights of its best epoch.
    """

    name = "slope of the last epochs"
    question = "Has training converged?"
    calls, rows = DRAWS, MOST * DRAWS

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
        spread = _spread_of_scores(subject)
        little = max(slope.little, TOLERATED * spread)
        to_come = still_to_gain(curve, slope)
        decayed, steps = _has_decayed(rows, slope.epochs), rows[-1].get("step", FEW_STEPS)
        in_haste = decayed and steps < FEW_STEPS
        at_stake = min(slope.gain, to_come) if decayed and not in_haste else slope.gain
        fall = None if of_training else fall_of(curve)
        numbers: dict[str, Number] = {
            "curve": name,
            "epochs": len(curve),
            "of them in the line": slope.epochs,
            "nats gained over them": slope.gain,
            "its standard error": slope.error,
            "still to be gained": to_come,
            "standard deviation of a datum's ELBO": spread,
            "little is up to": little,
        }
        figure = on_axes(lambda ax: _draw(ax, curve, slope, name))
        if fall is not None and fall.nats > max(slope.little, TOLERATED_FALL * spread):
            numbers |= {"fall since the best epochs": fall.nats, "error of the fall": fall.error}
            if exceeds(fall.nats, fall.error, 0.0):
                return _fallen(fall, numbers, figure, kept=isinstance(subject.history, History))
        is_small = slope.p_value < LEVEL and at_stake <= little
        return Finding(
            means=f"over the last {slope.epochs} epochs the {name} "
            f"{'falls' if slope.gain < 0 else 'rises'} by {abs(slope.gain):.3g} +- "
            f"{slope.error:.2g} nats"
            + (_why_little(slope.gain, to_come, little) if is_small and slope.gain > 0 else ""),
            numbers=numbers,
            p_value=slope.p_value,
            matters=at_stake > little,
            clear=not in_haste and (at_stake <= little or slope.error <= little),
            more=f"Train for more epochs: within {steps:,} steps a learning rate that falls "
            "flattens any curve."
            if in_haste
            else "Train for more epochs: these vary too much to see whether the curve rises.",
            faults=["under-trained"],
            change="Train longer (--epochs with --resume), or with a higher or decaying learning "
            f"rate{', unless training data score higher than test data' * of_training}.",
            figure=figure,
        )


def _why_little(gain: float, to_come: float, little: float) -> str:
    """Why a rise does not matter."""
    if gain <= little:
        return f", up to {little:.2g} is little"
    return (
        f", and {to_come:.2g} are still to come as the learning rate falls: up to {little:.2g} is "
        "little"
    )


def _has_decayed(rows: Sequence[Row], epochs: int) -> bool:
    """Whether the learning rate fell to less than half over the last epochs."""
    rates = [row.get("learning_rate", 1.0) for row in rows[-epochs:]]
    return rates[-1] < DECAYED * rates[0]


def _fallen(
    fall: Fall, numbers: dict[str, Number], figure: Callable[[], Figure], *, kept: bool
) -> Finding:
    """What a fall means, by whether the weights of the best epoch were kept."""
    means = (
        f"the validation ELBO fell by {fall.nats:.3g} +- {fall.error:.2g} nats from its best "
        f"epochs, about {fall.best}, to its last ones"
    )
    if kept:
        return Finding(f"{means}; fit kept the weights of the best", numbers, passed=True)
    return Finding(
        means,
        numbers,
        change="Over-trained, if the program has the weights of the last epoch: take those of the "
        "best one, which pv.fit keeps (pass the history that it returned), or check with train=.",
        figure=figure,
    )


def _spread_of_scores(subject: Subject) -> float:
    """The standard deviation of a datum's ELBO by its quartiles, which a few outliers do not move.

    It is 0 for a program without an ELBO, and for a single datum.
    """
    if len(subject.few) < 2:
        return 0.0
    try:
        values = elbo(subject.local, subject.few, DRAWS, seed=subject.seed).values.double()
    except InvalidInput:
        return 0.0
    low, high = np.quantile(values.cpu().numpy(), [0.25, 0.75])
    return float(high - low) / QUARTILES if np.isfinite(high - low) else 0.0


def _draw(ax, curve: list[float], slope: Slope, name: str) -> None:
    epochs = np.arange(1, len(curve) + 1)
    shown = slice(-2 * slope.epochs, None)  # the first epochs, far below, would hide the slope
    ax.plot(epochs[shown], curve[shown], ".-", markersize=3, label=name)
    line = slope.intercept + slope.gain / slope.epochs * np.arange(slope.epochs)
    ax.plot(epochs[-slope.epochs :], line, label="line")
    ax.set(xlabel="epoch", ylabel="nats per datum", title="the last epochs")
    ax.legend()
