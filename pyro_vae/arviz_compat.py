"""ArviZ behind one door: what its 0.x and 1.x releases name, or sign, differently."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["arviz", "inference_data", "psis_tail_shape"]

FEWEST_TAIL_DRAWS = 5


def arviz() -> ModuleType:
    """The `arviz` module; imported on first use, as it takes seconds, and without its notice about 1.0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az


def inference_data(groups: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> Any:
    """ArviZ data of groups that ArviZ has no name for: each is a pair (variables, attributes), as xarray takes them."""
    import xarray

    datasets = {name: xarray.Dataset(variables, attrs=attributes) for name, (variables, attributes) in groups.items()}
    az = arviz()
    if hasattr(az, "InferenceData"):
        return az.InferenceData(warn_on_custom_groups=False, **datasets)
    return xarray.DataTree.from_dict(datasets)


def psis_tail_shape(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k of each row of log-weights (N, K) by ArviZ's PSIS; NaN for short tails, -inf for constant ones.

    ArviZ 1.x takes log-likelihoods where 0.x takes log-weights, so the sign is settled here, and tested.
    """
    num_data, num_samples = log_weights.shape
    tail = int(np.ceil(min(num_samples / 5, 3 * np.sqrt(num_samples))))
    if tail < FEWEST_TAIL_DRAWS:
        return np.full(num_data, np.nan)
    shapes = np.empty(num_data)
    constant = _is_constant(np.sort(log_weights, axis=1)[:, -tail:])
    shapes[constant] = -np.inf
    if not constant.all():
        shapes[~constant] = _psis(log_weights[~constant])
    return shapes


def _is_constant(tails: np.ndarray) -> np.ndarray:
    # Weights equal but for the rounding of single precision have no tail to fit; ArviZ would divide by zero.
    spread = tails[:, -1] - tails[:, 0]
    return spread <= np.clip(1e-6 * np.abs(tails[:, -1]), 1e-9, 1e-3)


def _psis(log_weights: np.ndarray) -> np.ndarray:
    az = arviz()
    centred = log_weights - log_weights.max(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow in the fit of a degenerate tail: the k it gives says enough
        if hasattr(az, "InferenceData"):
            _, shapes = az.psislw(centred)
        else:
            _, shapes = az.psislw(-centred)
    return np.asarray(shapes)
