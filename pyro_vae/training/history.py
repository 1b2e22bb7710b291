"""The history of a run: one row of numbers for each epoch."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.datasets.shown import facts_html
from pyro_vae.validation import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History", "Row", "TrainingDiverged", "curves_of", "why_not_finite"]


class TrainingDiverged(ArithmeticError):
    """A loss or a parameter that became NaN or infinite.

    Args:
        step: the step, counted from 0 over the whole run.
        site: the site or the parameter where it was first seen.
        cause: the likely cause and what to change.
        folder: where the last good checkpoint is kept, if anywhere.
    """

    def __init__(self, step: int, site: str, cause: str, folder: Path | None = None):
        self.step, self.site, self.cause, self.folder = step, site, cause, folder
        kept = (
            "the program has the weights of the last good epoch"
            if folder is None
            else f"the last good checkpoint is kept in {folder}"
        )
        super().__init__(
            f"training diverged: the loss or a parameter became NaN or infinite at step {step}, "
            f"first at {site}; {cause}; {kept}"
        )


def why_not_finite(density: Distribution, value: Tensor) -> str:
    """Why the log-probability of a value is NaN or infinite, and what to change.

    Example:
        >>> x = torch.tensor([0.0, 0.3, 1.0])
        >>> why_not_finite(torch.distributions.Beta(2.0, 2.0), x)[:43]
        'it has values at the edge of its support, w'
    """
    inside = value + 0.01 * (value.mean() - value) if value.is_floating_point() else value
    if torch.isfinite(density.log_prob(inside)).all():
        return (
            "it has values at the edge of its support, where this density is zero or infinite: "
            "move them inside, as 0.98 x + 0.01 does in [0, 1], or take another likelihood"
        )
    return "its log-probability overflowed: bound its scale, rescale x, or lower learning_rate"


class Row(TypedDict):
    """One epoch's measurements: scores in nats per datum, and rates of its last step."""

    epoch: int
    step: int
    seconds: float
    objective: float
    validation_elbo: float | None
    learning_rate: float
    kl_weight: float


def curves_of(row: Row) -> dict[str, float]:
    """The numbers of an epoch that trackers draw against the step."""
    curves = {
        "objective": row["objective"],
        "validation_elbo": row["validation_elbo"],
        "learning_rate": row["learning_rate"],
        "kl_weight": row["kl_weight"],
    }
    return {name: value for name, value in curves.items() if value is not None}


COLUMNS = tuple(Row.__annotations__)
LOG_P = "log_likelihood"  # the name under which log p(x) is logged
MANY = 10  # epochs


@dataclass
class History:
    """The rows of numbers that were measured, one for each epoch.

    Args:
        rows: the numbers of each epoch.
        logged: what callbacks logged besides, by name: pairs of an epoch and a number.
        interrupted: whether an interrupt ended the training, in a notebook or at a prompt.

    Example:
        >>> history = pv.fit(vae, torch.zeros(10, 1, 8, 8), epochs=2, progress=False)
        >>> history["epoch"], len(history["objective"])
        ([1, 2], 2)
    """

    rows: list[Row] = field(default_factory=list)
    logged: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    interrupted: bool = False

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        last = [(name, self[name][-1]) for name in self.rows[-1]]
        words = ", ".join(f"{name}={value:.6g}" for name, value in last if value is not None)
        how = ", interrupted" if self.interrupted else ""
        return f"History({counted(len(self), 'epoch')}, the last: {words}{how})"

    def _repr_html_(self) -> str:
        if not self.rows:
            return facts_html("training, no epochs", {})
        last = {name.replace("_", " "): self[name][-1] for name in self.rows[-1]}
        facts = {name: f"{value:.6g}" for name, value in last.items() if value is not None}
        for name, curve in self.logged.items():
            facts[name.replace("_", " ")] = f"{curve[-1][1]:.6g} (epoch {curve[-1][0]})"
        how = ", interrupted" if self.interrupted else ""
        return facts_html(f"training, {counted(len(self), 'epoch')}{how}; the last", facts)

    def __getitem__(self, column: str) -> list:
        return [dict(row)[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def forget(self, after: int) -> None:
        """Drop everything of later epochs than the first ``after``."""
        del self.rows[after:]
        for name, curve in list(self.logged.items()):
            self.logged[name] = [pair for pair in curve if pair[0] <= after]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the objective against epochs, with the validation ELBO and what was logged of log p.

        The first epochs lie far below the others: from eleven epochs on the axis of epochs is
        logarithmic, so that all of them can be seen.

        Args:
            ax: where to draw; by default new axes of pyplot, which a notebook shows.

        Example:
            >>> x = torch.zeros(10, 1, 8, 8)
            >>> ax = pv.fit(vae, x, epochs=2, progress=False).plot()
            >>> ax.get_xlabel()
            'epoch'
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")[1]
        from matplotlib.ticker import LogLocator, NullFormatter

        curves = {"training objective": list(zip(self["epoch"], self["objective"]))}
        measured = zip(self["epoch"], self["validation_elbo"])
        curves["validation ELBO"] = [pair for pair in measured if pair[1] is not None]
        if LOG_P in self.logged:
            curves["log p(x), held out"] = self.logged[LOG_P]
        for label, curve in curves.items():
            if curve:
                marker = "o" if len(curve) == 1 else ""  # a line through one point is invisible
                ax.plot(*zip(*curve), marker=marker, label=label)
        if len(self) > MANY:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(
            xlabel="epoch (log scale)" if len(self) > MANY else "epoch",
            ylabel="nats per datum",
            title="training",
        )
        ax.grid(alpha=0.3)
        ax.legend()
        return ax

    def to_csv(self) -> str:
        """The rows as CSV, a header first; an empty field where nothing was measured."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(row) for row in self.rows)
        return out.getvalue()
