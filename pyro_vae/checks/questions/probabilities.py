"""Calibration of the probabilities of binary entries."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import Check, Finding, is_clear
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.leave_one_out import ROWS, predicted
from pyro_vae.checks.subject import DoesNotApply, Subject

__all__ = ["Probabilities"]

BINS = 10
FEWEST = 20  # entries of a group
TOLERATED = 0.05


class Probabilities(Check):
    r"""Binary entries are 1 as often as the model says, given the others.

    .. math:: P(x_{nd} = 1 \mid P(x_d = 1 \mid x_{n,-d}) = p) = p

    In up to ten groups of equal size, by the predicted probability; errors are over data.

    Source: DeGroot and Fienberg (1983), The Comparison and Evaluation of Forecasters.
    """

    name = "calibration of probabilities"
    question = "Does the model fit?"
    calls, rows = 20, 2 * ROWS + 1

    def look(self, subject: Subject) -> Finding:
        binary = {
            part.name: part.places[part.is_binary & _binary(part.real)] for part in subject.entries
        }
        if not any(map(len, binary.values())):
            raise DoesNotApply("the data have no binary entries")
        some = [
            (part.x[:, binary[part.name]], part.one[:, binary[part.name]])
            for part in subject.once(predicted)
            if part.name in binary
        ]
        x, p = (torch.cat(parts, dim=1).numpy() for parts in zip(*some))
        known = ~(np.isnan(x) | np.isnan(p))
        whole = _of_group(x, p, known, _design_effect(x, p, known))[2]
        said, seen, error = _groups(x, p, known)
        z = (seen - said) / error
        worst = int(np.abs(z).argmax())
        groups = "in one group" if len(z) == 1 else f"in {len(z)} groups"
        few = f", {groups} of {known.sum():,} entries"
        return Finding(
            means=f"entries that are 1 with probability {said[worst]:.2f} by the model are so in "
            f"{seen[worst]:.2f} +- {error[worst]:.2f} of the cases{few}",
            numbers={
                "data": len(x),
                "binary entries": x.shape[1],
                "groups": len(z),
                "said": float(said[worst]),
                "seen": float(seen[worst]),
                "its standard error": float(error[worst]),
                "mean absolute difference": float(np.abs(seen - said).mean()),
            },
            p_value=_p_value(z, len(x)),
            matters=bool((np.abs(seen - said)[np.abs(z) > 3] > TOLERATED).any()),
            clear=is_clear(whole),
            faults=["probabilities are not calibrated"],
            change="Train the decoder longer or make it larger; a prior that learns may help.",
            figure=on_axes(lambda ax: _draw(ax, said, seen, error), (4.5, 4.0)),
        )


def _binary(x: Tensor) -> Tensor:
    """Which entries of the data are 0 or 1 (D,)."""
    return ((x == 0) | (x == 1) | x.isnan()).all(0)


def _groups(x: np.ndarray, p: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The mean probability, the share of ones and its error (3, G), by group."""
    bins = int(np.clip(known.sum() // FEWEST, 1, BINS))
    edges = np.unique(np.quantile(p[known], np.linspace(0, 1, bins + 1)).round(9))
    group = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, max(len(edges) - 2, 0))
    effect = _design_effect(x, p, known)
    chosen = (known & (group == g) for g in np.unique(group))
    return np.array([_of_group(x, p, some, effect) for some in chosen]).T


def _p_value(z: np.ndarray, count: int) -> float:
    """One p-value of the groups' differences in standard errors, each from so many data."""
    return min(1.0, len(z) * float(2 * stats.t.sf(np.abs(z).max(), max(1, count - 1))))


def _design_effect(x: np.ndarray, p: np.ndarray, known: np.ndarray) -> float:
    """How many times the variance of a datum's sum is that of entries that are independent."""
    residual = np.where(known, x - p, 0.0).sum(1)
    independent = np.where(known, p * (1 - p), 0.0).sum()
    return max(1.0, float(len(x) * residual.var() / max(independent, 1e-9)))


def _of_group(
    x: np.ndarray, p: np.ndarray, chosen: np.ndarray, effect: float
) -> tuple[float, float, float]:
    """The mean probability, the share of ones and its error over data.

    Where by chance all are the same, the error is that of the probability, times the design effect
    of all groups (Rao and Scott, 1992).
    """
    count = chosen.sum()
    residual = np.where(chosen, x - p, 0.0).sum(1)
    said, seen = p[chosen].mean(), x[chosen].mean()
    error = np.sqrt((residual**2).sum()) / count
    least = np.sqrt(effect * max(said * (1 - said), 1e-4) / count)
    return float(said), float(seen), float(max(error, least))


def _draw(ax, said: np.ndarray, seen: np.ndarray, error: np.ndarray) -> None:
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    ax.errorbar(said, seen, 2 * error, fmt="o", markersize=4)
    ax.set(xlabel="probability by the model", ylabel="share of ones", title="calibration")
