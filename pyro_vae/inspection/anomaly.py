"""Anomaly scores of data under a program."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data
from pyro_vae.datasets.shown import facts_html
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.evaluation.reconstruction import reconstruction_score
from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["Anomaly", "SCORES", "anomaly"]


@dataclass(frozen=True, repr=False)
class Anomaly:
    """How well a score tells data that belong from other data.

    Args:
        inside: the scores of data like those trained on (N,), higher for what belongs.
        outside: those of other data (M,).
        auroc: the probability that one of the former scores above one of the latter, a tie counting
            half.
        se: its standard error over both sets of data, by DeLong's method.
    """

    inside: Tensor
    outside: Tensor
    auroc: float
    se: float

    def __str__(self) -> str:
        counts = f"{len(self.inside):,} inside, {len(self.outside):,} outside"
        return f"AUROC {self.auroc:.4f} +- {self.se:.4f} ({counts})"

    def __repr__(self) -> str:
        return f"Anomaly({self})"

    def _repr_html_(self) -> str:
        return facts_html(
            "anomalies",
            {
                "AUROC": f"{self.auroc:.4f}",
                "standard error": f"{self.se:.4f}",
                "data inside": f"{len(self.inside):,}",
                "data outside": f"{len(self.outside):,}",
            },
        )


Scorer = Callable[[ProgramLike, Data, int, int], Tensor]


SCORES: dict[str, Scorer] = {
    "elbo": lambda program, data, num_samples, seed: (
        evaluate(program, data, num_samples, seed=seed)["elbo"].values
    ),
    "log_likelihood": lambda program, data, num_samples, seed: (
        evaluate(program, data, num_samples, seed=seed)["log_likelihood"].values
    ),
    "reconstruction": reconstruction_score,
}


def anomaly(
    program: ProgramLike,
    inside: Data,
    outside: Data,
    score: str | Scorer = "elbo",
    *,
    num_samples: int = 50,
    seed: int = 0,
) -> Anomaly:
    """Measure how well a program's score tells its own data from others, as an AUROC.

    A density need not be low where data are foreign: models of clothes give digits a higher one
    than their own test data. The score says what this program does with these two sets, no more.

    Args:
        program: any program.
        inside: data like those trained on, but not trained on.
        outside: other data of the same event shape.
        score: ``"elbo"``, ``"log_likelihood"``, ``"reconstruction"``, or a function (program, data,
            num_samples, seed) -> (N,).
        num_samples: draws for each datum.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data or an unknown score.

    Source: Nalisnick et al. (2019), Do Deep Generative Models Know What They Don't Know?; DeLong et
    al. (1988) for the error.

    Example:
        >>> own, others = torch.zeros(5, 1, 8, 8), torch.ones(4, 1, 8, 8)
        >>> anomaly(vae, own, others, num_samples=5).inside.shape
        torch.Size([5])
    """
    if isinstance(score, str):
        check_choice("score", score, SCORES)
        score = SCORES[score]
    own, foreign = (
        score(program, data, num_samples, seed).double().cpu() for data in (inside, outside)
    )
    auroc, se = _auroc(own, foreign)
    return Anomaly(own, foreign, auroc, se)


def _auroc(high: Tensor, low: Tensor) -> tuple[float, float]:
    """The area and its standard error.

    DeLong's error is 0 where all of one kind lie above all of the other, and too small near that.
    So it is at least that of Hanley and McNeil (1982) at an area of one win and one loss more.
    """
    if torch.isnan(high).any() or torch.isnan(low).any():
        raise InvalidInput(
            "scores",
            got="NaN",
            expected="a number for each datum",
            fix="check the data and the scales that the networks return for them",
        )
    below = torch.searchsorted(low.sort().values, high).double()
    ties = torch.searchsorted(low.sort().values, high, right=True).double() - below
    wins = (below + ties / 2) / len(low)  # of each datum inside
    under = torch.searchsorted(high.sort().values, low).double()
    equal = torch.searchsorted(high.sort().values, low, right=True).double() - under
    losses = 1 - (under + equal / 2) / len(high)  # of each datum outside
    variance = sum(part.var().item() / len(part) for part in (wins, losses) if len(part) > 1)
    area, n, m = wins.mean().item(), len(high), len(low)
    near = (area * n * m + 1) / (n * m + 2)
    near = max(near, 1 - near)
    both, same = near / (2 - near) - near**2, 2 * near**2 / (1 + near) - near**2
    least = (near * (1 - near) + (n - 1) * both + (m - 1) * same) / (n * m)
    return area, math.sqrt(max(variance, least))
