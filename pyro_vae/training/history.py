"""The history of a run: one row of numbers for each epoch."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

__all__ = ["History", "Row", "TrainingDiverged"]


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


class Row(TypedDict):
    """One epoch's measurements: scores in nats per datum, and rates of its last step."""

    epoch: int
    step: int
    seconds: float
    objective: float
    validation_elbo: float | None
    learning_rate: float
    kl_weight: float


COLUMNS = tuple(Row.__annotations__)


@dataclass
class History:
    """The rows of numbers that were measured, one for each epoch.

    Example:
        >>> history = pv.fit(vae, torch.zeros(10, 1, 8, 8), epochs=2, progress=False)
        >>> history["epoch"], len(history["objective"])
        ([1, 2], 2)
    """

    rows: list[Row] = field(default_factory=list)

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        last = [(name, self[name][-1]) for name in self.rows[-1]]
        words = ", ".join(f"{name}={value:.6g}" for name, value in last if value is not None)
        return f"History({len(self)} epochs, the last: {words})"

    def __getitem__(self, column: str) -> list:
        return [dict(row)[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def to_csv(self) -> str:
        """The rows as CSV, a header first; an empty field where nothing was measured."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(row) for row in self.rows)
        return out.getvalue()
