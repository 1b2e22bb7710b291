"""Whether the objective still rises when training ends, and what to add if it does."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyro_vae.training.callbacks import Training
from pyro_vae.training.changed import anew_from
from pyro_vae.validation import counted

__all__ = [
    "FEWEST",
    "FEW_STEPS",
    "LEVEL",
    "Fall",
    "Slope",
    "fall_of",
    "how_it_ended",
    "is_out_of_patience",
    "slope_of",
    "still_to_gain",
]

FEWEST = 6  # epochs of the last part
PART = 1 / 3  # of the epochs is the last part
SHARE = 0.01  # of all that was gained is little
SHARE_SINCE = 0.25  # of what was gained after the first third is little, if it is few nats
LEAST_SINCE = 0.1  # of that is little, however many nats it is
NATS, FEW_NATS = 0.02, 0.1  # are little, and few
MOST_KEPT = 0.9  # of a gain is the next one, of a third of the epochs
MOST_ALIKE = 0.9  # a correlation of epochs in a row
LEVEL = 0.01  # of the p-value at which a slope is said to be one
BLOWN_UP = -1e9  # nats per datum, which no further epoch mends
FEW_STEPS = 1000  # of an optimizer
ENOUGH_STEPS = 3000  # that are advised


@dataclass(frozen=True)
class Slope:
    """A line through the last third of a curve of training.

    Args:
        epochs: in the line.
        gain: what the curve rises by over them, in nats per datum.
        error: the standard error of that.
        intercept: of the line, at the first of these epochs.
        little: a gain up to which the curve is flat: 0.02 nats, or a hundredth of all that was
            gained, if that is more. It is no more than a quarter of what was gained since the first
            third, which has no first steps from afar, and where that quarter is more than 0.1 nats,
            no more than 0.1 nats or a tenth, whichever is more.
        p_value: that of a curve without a slope, one-sided.
    """

    epochs: int
    gain: float
    error: float
    intercept: float
    little: float
    p_value: float

    @property
    def rises(self) -> bool:
        """Whether the curve clearly rises still."""
        return self.gain > self.little and self.p_value < LEVEL


def slope_of(curve: Sequence[float]) -> Slope | None:
    """Fit a line to the last third of the epochs; ``None`` for too few of them.

    Example:
        >>> flat = slope_of([-9.0, -3.0] + [-1.0, -1.01] * 20)
        >>> still = slope_of([-9.0 + 0.1 * epoch for epoch in range(40)])
        >>> flat.rises, still.rises, round(still.gain, 2), slope_of([-1.0] * 5)
        (False, True, 1.3, None)
    """
    from scipy import stats

    values = np.asarray(curve, dtype=float)
    if len(values) < FEWEST:
        return None
    last = values[-max(FEWEST, round(PART * len(values))) :]
    line = stats.linregress(np.arange(len(last)), last)
    gained, since = last.max() - values[0], last.max() - values[len(values) // 3]
    stderr = np.nan_to_num(line.stderr) * _inflation(
        last - line.intercept - line.slope * np.arange(len(last))
    )
    p_value = float(stats.t.sf(line.slope / stderr, len(last) - 2)) if stderr else 1.0
    if not stderr and line.slope > 0:  # a straight line
        p_value = 0.0
    little_since = max(LEAST_SINCE * since, min(SHARE_SINCE * since, FEW_NATS))
    return Slope(
        len(last),
        float(line.slope * len(last)),
        float(stderr * len(last)),
        float(line.intercept),
        float(max(NATS, min(SHARE * gained, little_since))),
        p_value if math.isfinite(p_value) else 1.0,
    )


def still_to_gain(curve: Sequence[float], slope: Slope) -> float:
    r"""What a curve is still to gain, if its gains go on shrinking as they did.

    .. math:: g (\rho + \rho^2 + \ldots) = g \frac{\rho}{1 - \rho}, \quad
              \rho = \min(g / g_0, 0.9)

    with g the gain of the last third, and :math:`g_0` of as many epochs before it.

    Example:
        >>> halved = [-(0.5 ** (epoch / 10)) for epoch in range(30)]
        >>> round(still_to_gain(halved, slope_of(halved)), 2), round(-halved[-1], 2)
        (0.13, 0.13)
    """
    from scipy import stats

    if slope.gain <= 0:
        return 0.0
    before = np.asarray(curve, dtype=float)[-2 * slope.epochs : -slope.epochs]
    if len(before) < 2:
        return slope.gain * MOST_KEPT / (1 - MOST_KEPT)
    earlier = float(stats.linregress(np.arange(len(before)), before).slope * slope.epochs)
    kept = min(slope.gain / earlier, MOST_KEPT) if earlier > 0 else MOST_KEPT
    return slope.gain * kept / (1 - kept)


@dataclass(frozen=True)
class Fall:
    """By how much a curve fell from its best epochs to its last ones.

    Args:
        nats: the best mean of a few epochs in a row, less that of the last ones.
        error: the standard error of that, wider because the best were chosen among all.
        best: the epoch in the middle of the best, counted from 1.
    """

    nats: float
    error: float
    best: int


def fall_of(curve: Sequence[float]) -> Fall:
    """Compare the last epochs of a curve with its best, both by the mean of a few in a row.

    Example:
        >>> fall = fall_of([-9.0, -3.0, *[-1.0] * 10, *[-2.0] * 10])
        >>> round(fall.nats, 9), fall.best
        (1.0, 5)
    """
    values = np.asarray(curve, dtype=float)
    means = np.convolve(values, np.full(FEWEST, 1 / FEWEST), "valid")
    start = int(means.argmax())
    steps = np.diff(values[start:])  # of a curve with noise alone, they have twice its variance
    noise = float(steps.std()) / math.sqrt(2) if len(steps) > 1 else 0.0
    return Fall(
        float(means[start] - means[-1]),
        noise * math.sqrt(2 / FEWEST) * (1 + math.sqrt(2 * math.log(len(values))) / 3),
        start + FEWEST // 2,
    )


def _inflation(residuals: np.ndarray) -> float:
    """By how much the error of a slope is larger where epochs in a row are alike."""
    square = float((residuals**2).sum())
    alike = float((residuals[1:] * residuals[:-1]).sum()) / square if square else 0.0
    alike = min(max(alike, 0.0), MOST_ALIKE)
    return math.sqrt((1 + alike) / (1 - alike))


def is_out_of_patience(done: int, best: int | None, warmup: int, patience: int | None) -> bool:
    """Whether a training has gone on for long enough without a better score.

    Args:
        done: epochs done.
        best: the epoch with the best score; ``None`` before there is one.
        warmup: epochs of warm-up, whose scores do not count against it.
        patience: epochs that it may go on for; ``None`` for all.

    Example:
        >>> is_out_of_patience(25, 10, 20, 5), is_out_of_patience(24, 10, 20, 5)
        (True, False)
    """
    if best is None or patience is None:
        return False
    return done - max(best, warmup) >= patience


def how_it_ended(training: Training, planned: int) -> str:
    """One line for a training that was stopped, blew up or was short; nothing for another one.

    It was short if the validation ELBO, or without one the objective, still rises clearly, or if
    the optimizer has made few steps. The line then says how to go on, and for how long. Without a
    validation ELBO it says what to look at first, for the objective of training data rises too
    where a program only learns them by heart.

    Args:
        training: that has ended.
        planned: epochs.
    """
    history, folder = training.history, training.folder
    epochs = len(history)
    if training.reason:
        return f"stopped after {epochs} of {planned} epochs: {training.reason}"
    if epochs < planned:
        return ""
    steps = history["step"][-1]
    validated = [value for value in history["validation_elbo"] if value is not None]
    name = "validation ELBO" if validated else "objective of the training data"
    last = (validated or history["objective"])[-1]
    if last < BLOWN_UP:
        return (
            f"the {name} is {last:.2g} nats: training has blown up, or the data are far from what "
            "the likelihood expects; lower learning_rate (--learning-rate), or rescale the data"
        )
    slope = slope_of(validated or history["objective"])
    if slope is not None and slope.rises:
        what = (
            f"the {name} still rises: by {slope.gain:.2g} nats over the last {slope.epochs} of "
            f"{epochs} epochs"
        )
    elif steps < FEW_STEPS and not validated:
        what = (
            f"{counted(epochs, 'epoch')} of these data {'is' if epochs == 1 else 'are'} "
            f"{counted(steps, 'optimizer step')}, which {'is' if steps == 1 else 'are'} few"
        )
    else:
        return ""
    more = _round_up(max(2 * epochs, ENOUGH_STEPS * epochs / steps))
    first, *others = history["seconds"]  # the first epoch also has what is done once
    each = (others[-1] - first) / len(others) if others else first
    longer = _duration(each * (more - epochs))
    if folder is None:
        how = f"train for longer with epochs={more}"
    elif training.settings.get("epochs") is not None:  # the schedule has come to its end
        how = anew_from(folder, more)
    elif (folder / "recipe.yaml").exists():
        how = f"pyro-vae train --resume --out {shlex.quote(str(folder))} --epochs {more}"
    else:
        how = f"fit again with epochs={more}, resume=True"
    where = "" if validated else "if the test ELBO is near the objective, "
    return f"{what}; {where}go on for some {longer}: {how}"


def _duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> _duration(8), _duration(200), _duration(5000)
        ('8 s', '3 min', '1.4 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 4800 else f"{seconds / 3600:.1f} h"


def _round_up(number: float) -> int:
    """A number rounded up to one digit.

    Example:
        >>> _round_up(230), _round_up(750), _round_up(6)
        (300, 800, 6)
    """
    unit = 10 ** max(0, math.floor(math.log10(number)))
    return math.ceil(number / unit) * unit
