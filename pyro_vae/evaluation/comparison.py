r"""Model comparison: per-datum scores on disk, and their differences, datum by datum.

Most of the spread of scores over data is the data's own: it cancels in pairs. So differences are
taken datum by datum, on data that are the same by hash, and their error is that of the paired
difference.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from pyro_vae.checkpoint.commit import read_current
from pyro_vae.datasets.shown import facts_html, known, measured, plus_minus
from pyro_vae.evaluation.difference import Difference, check_same_data, compare
from pyro_vae.evaluation.global_score import GlobalELBO, PredictiveScore
from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.evaluation.reconstruction import SquaredError
from pyro_vae.evaluation.scores import MeanScore, Score
from pyro_vae.files.reading import Kind, checked, read_npz
from pyro_vae.files.writing import write_bytes
from pyro_vae.validation import InvalidInput, check_path

__all__ = ["Difference", "Spread", "compare", "load_scores", "save_scores", "scores_npz", "spread"]

PER_DATUM = Kind(
    "run",
    "evaluation.npz, as pyro-vae evaluate writes it",
    "run pyro-vae evaluate on that run first",
    2**32,
)


class Stated(TypedDict):
    """What the scores of a file were made from."""

    num_samples: int
    seed: int
    sha256: str


SCORES: dict[str, type[Score]] = {
    "elbo": MeanScore,
    "log_likelihood": ImportanceScore,
    "log_joint": MeanScore,
    "squared_error": SquaredError,
}
OF_GLOBALS: dict[str, type[Score]] = {"elbo": GlobalELBO, "log_likelihood": PredictiveScore}


@dataclass(frozen=True, repr=False)
class Spread:
    """Means of runs that differ in their seeds.

    Args:
        mean: the mean of their means, per datum.
        sd: the standard deviation between runs; NaN for one.
        num_runs: how many.
        unit: of the scores.
    """

    mean: float
    sd: float
    num_runs: int
    unit: str = "nats"

    def __str__(self) -> str:
        runs = "one run" if self.num_runs == 1 else f"s.d. over {self.num_runs} runs"
        return f"{plus_minus(self.mean, self.sd)} {self.unit} ({runs})"

    def __repr__(self) -> str:
        return f"Spread({self})"

    def _repr_html_(self) -> str:
        facts = {"mean": measured(self.mean, self.sd), "runs": self.num_runs}
        if self.num_runs > 1:
            facts["s.d. between runs"] = known(self.sd)
        return facts_html(f"over seeds, {self.unit} per datum", facts)


def spread(scores: Sequence[Score]) -> Spread:
    """Mean and spread of the same model's scores over training seeds, on the same data.

    Raises:
        InvalidInput: if they are not of the same data.
    """
    check_same_data({f"run {i}": score for i, score in enumerate(scores)})
    means = torch.tensor([score.mean for score in scores], dtype=torch.float64)
    sd = means.std().item() if len(means) > 1 else math.nan
    return Spread(means.mean().item(), sd, len(means), scores[0].unit)


def save_scores(path: str | Path, scores: Mapping[str, Score]) -> None:
    """Write the scores of each datum as an ``.npz`` file.

    It has an array ``SCORE/NUMBER`` for each, and what they were made from as ``SCORE``.

    Example:
        >>> scores = pv.evaluation.evaluate(vae, torch.zeros(3, 1, 8, 8), 30)
        >>> save_scores(folder / "scores.npz", scores)
        >>> bool((load_scores(folder / "scores.npz")["elbo"].values == scores["elbo"].values).all())
        True
    """
    check_path("path", path)
    write_bytes(Path(path), scores_npz(scores))


def scores_npz(scores: Mapping[str, Score]) -> bytes:
    """The scores of each datum as the content of an ``.npz`` file."""
    arrays: dict[str, Any] = {}
    for name, score in scores.items():
        arrays |= {f"{name}/{key}": value.cpu().numpy() for key, value in score.per_datum.items()}
        arrays[name] = np.array(
            json.dumps({key: v for key, v in vars(score).items() if not isinstance(v, Tensor)})
        )
    whole = io.BytesIO()
    np.savez_compressed(whole, **arrays)
    return whole.getvalue()


def load_scores(path: str | Path) -> dict[str, Score]:
    """Read the scores that `save_scores` or ``pyro-vae evaluate`` wrote.

    They are any of ``"elbo"``, ``"log_likelihood"``, ``"log_joint"`` and ``"squared_error"``.

    Raises:
        InvalidInput: if there is no such file, or it holds something else.
    """
    check_path("path", path)
    try:
        arrays = read_current(
            Path(path).parent,
            Path(path).name,
            lambda place: read_npz(place, PER_DATUM, place.parent),
        )
        scores = {}
        for name in SCORES.keys() & arrays.keys():
            numbers = {
                key.partition("/")[2]: torch.from_numpy(value)
                for key, value in arrays.items()
                if key.startswith(f"{name}/")
            }
            stated = json.loads(str(arrays[name]))
            checked(stated, Stated)
            values, mc_se = numbers["values"], numbers["mc_se"]
            if values.dim() != 1 or not len(values) or mc_se.shape != values.shape:
                raise ValueError(name)
            kind = OF_GLOBALS[name] if "mean_error" in stated else SCORES[name]
            if issubclass(kind, MeanScore):  # earlier versions wrote the wider error alone
                numbers.setdefault("standard_error", mc_se)
            scores[name] = kind(**(stated | numbers))
        return scores
    except (ValueError, TypeError, KeyError) as error:
        reason = type(error).__name__
        if isinstance(error, InvalidInput):
            reason = (error.got or "").removeprefix(f"{path}, ")
        PER_DATUM.refuse(path, f"which cannot be read as scores ({reason})")
