"""The files of a run that hold numbers: their types, and how they are read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pyro_vae import checkpoint
from pyro_vae.files.checksums import CHECKSUM, with_checksum
from pyro_vae.files.reading import MEGABYTE, Kind, read_json, read_yaml

__all__ = [
    "FILES", "Estimate", "Evaluation", "Json", "ParetoK", "ScoredData", "as_json",
    "is_bound", "read_file",
]  # fmt: skip

FILES = Kind(
    "run",
    "the file that train, evaluate or inspect wrote",
    "restore it from a copy, or run that command again",
    64 * MEGABYTE,
)

Json = dict[str, Any]  # the content of a JSON or YAML file


class Estimate(TypedDict, total=False):
    """A mean over data, in nats per datum, with its standard error and its Monte Carlo error.

    Of a program with global latents: the mean of the local parts, the KL of the global latents in
    nats for all data together, which of them are points, and the local draws under each of theirs.
    """

    mean: float | None
    se: float | None
    mc_se: float | None
    num_samples: int
    local_mean: float
    global_kl: float | None
    global_kl_se: float | None
    points: str
    local_draws: int


class ParetoK(TypedDict):
    """Pareto k over data, and the number above the threshold; ``None`` if K is too small.

    Version 0.1.0 did not write the share of data whose log p(x) is a bound.
    """

    median: float | None
    max: float | None
    above_threshold: int | None
    threshold: float | None
    share_of_bounds: NotRequired[float]


class ScoredData(TypedDict):
    """The data that were scored."""

    name: str
    split: str
    binarize: str
    sha256: str


class Evaluation(TypedDict, total=False):
    """The content of ``evaluation.json``; a program without a bound has ``refused`` and no ELBO."""

    elbo: Estimate | None
    log_likelihood: Estimate | None
    refused: str
    log_joint: Estimate
    squared_error: Estimate
    pareto_k: ParetoK
    solver_error: Estimate
    proposal: dict[str, str]
    bits_per_dim: float | None
    perplexity: float | None
    units: str
    num_data: int
    data: ScoredData
    seed: int
    versions: dict[str, str]


def is_bound(scores: Evaluation) -> bool:
    """Whether the log p(x) of an evaluation is only a lower bound.

    It is where the Pareto k of some data is above or near the threshold, or where K is too small
    for one.
    """
    shape = scores.get("pareto_k")
    if shape is None:
        return False
    return shape.get("share_of_bounds", shape["above_threshold"] != 0) > 0


def read_file(folder: Path, name: str, run: Path | None = None) -> Json:
    """Read a JSON or YAML file of a folder of a run; nothing where there is no such file.

    Raises:
        InvalidInput: if the file is damaged, or a link leads to it out of the run.
    """
    run = run or folder
    if not checkpoint.current(folder, name).exists():
        return {}
    if name.endswith(".yaml"):
        found = read_yaml(folder / name, FILES, run)
    else:
        found = checkpoint.read_current(
            folder, name, lambda path: read_json(path, FILES, dict[str, Any], run)
        )
    if not isinstance(found, dict):
        FILES.refuse(folder / name, "which holds no values by name")
    found.pop(CHECKSUM, None)
    return found


def as_json(values: Mapping[str, object], is_checked: bool = False) -> bytes:
    """Values as JSON, which has neither NaN nor infinity: both become null.

    With ``is_checked``, a checksum of them is added, which `read_file` compares.
    """
    finite = {key: _finite(value) for key, value in values.items()}
    return (json.dumps(with_checksum(finite) if is_checked else finite, indent=1) + "\n").encode()


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
