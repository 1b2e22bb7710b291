"""One interface to the 0.x and 1.x releases of ArviZ."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.files.writing import write_bytes

if TYPE_CHECKING:
    import xarray

__all__ = [
    "ArvizData",
    "LeaveOneOut",
    "arviz",
    "as_array",
    "effective_draws",
    "elpd_data",
    "group_of",
    "inference_data",
    "is_0x",
    "leave_one_out",
    "psis_tail_shape",
    "r_hat",
    "write_netcdf",
]

ArvizData = Any  # InferenceData or ELPDData of 0.x, DataTree or ELPDData of 1.x

Numbers = Mapping[str, object]

FEWEST_TAIL_DRAWS = 5


def arviz() -> ModuleType:
    """Import `arviz` on first use, without its notice about 1.0.

    The import takes seconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az


def is_0x(az: ModuleType) -> bool:
    """Whether ArviZ is of a release before 1.0."""
    # 1.x answers to the names of 0.x, with a warning and something else.
    return "InferenceData" in vars(az)


def inference_data(
    groups: Mapping[str, tuple[Numbers, Numbers]],
    attributes: Numbers | None = None,
    coordinates: Numbers | None = None,
) -> ArvizData:
    """Make ArviZ data: an ``InferenceData`` of 0.x, a ``DataTree`` of 1.x.

    Args:
        groups: by name, ArviZ's own or others: a pair (variables, attributes), as xarray takes
            them.
        attributes: those of the whole.
        coordinates: by dimension; each group takes those of its own dimensions, other ones count
            from 0.
    """
    import xarray

    datasets = {}
    for name, (variables, group_attributes) in groups.items():
        dataset = xarray.Dataset(variables, attrs=group_attributes)
        known = coordinates or {}
        datasets[name] = dataset.assign_coords(
            {str(dim): known.get(str(dim), np.arange(size)) for dim, size in dataset.sizes.items()}
        )
    az = arviz()
    if is_0x(az):
        return az.InferenceData(warn_on_custom_groups=False, attrs=attributes, **datasets)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **datasets})


def as_array(value: Tensor) -> np.ndarray:
    """A tensor as an array; bfloat16, which NumPy does not have, becomes float32.

    Example:
        >>> as_array(torch.ones(2, dtype=torch.bfloat16)).dtype
        dtype('float32')
    """
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def group_of(data: ArvizData, name: str) -> xarray.Dataset | None:
    """A group of ArviZ data; ``None`` if there is no such group."""
    return _group(data, name) if name in _groups_of(data) else None


def _group(data: ArvizData, name: str) -> xarray.Dataset:
    return data[name].to_dataset() if _is_tree(data) else data[name]


def write_netcdf(data: ArvizData, path: str | Path) -> Path:
    """Write ArviZ data as a compressed netCDF file, which `arviz.from_netcdf` reads.

    The compression loses nothing. It is made in memory, because HDF5 crashes where a disk is full,
    and the file is replaced as a whole.

    Raises:
        CheckpointError: if it cannot be written.
    """
    import xarray

    groups = {name: _group(data, name) for name in _groups_of(data)}
    tree = xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=dict(data.attrs)), **groups})
    packed = {
        f"/{name}": {
            variable: {"zlib": True}
            for variable, values in group.variables.items()
            if values.dtype.kind in "biuf"
        }
        for name, group in groups.items()
    }
    write_bytes(Path(path), bytes(tree.to_netcdf(None, encoding=packed, engine="h5netcdf")))
    return Path(path)


def _groups_of(data: ArvizData) -> list[str]:
    return list(data.children if _is_tree(data) else data.groups())


def _is_tree(data: ArvizData) -> bool:
    return hasattr(data, "children")


def r_hat(draws: np.ndarray) -> np.ndarray:
    """R-hat of draws (chains, steps, ...) for each of the other dimensions.

    Chains are split in halves.
    """
    return _of_chains(arviz().rhat, draws)


def effective_draws(draws: np.ndarray) -> np.ndarray:
    """Effective number of draws (chains, steps, ...) for each other dimension's mean."""
    return _of_chains(arviz().ess, draws)


def _of_chains(
    diagnostic: Callable[[xarray.Dataset], xarray.Dataset], draws: np.ndarray
) -> np.ndarray:
    import xarray

    dims = ["chain", "draw", *(f"dim_{i}" for i in range(draws.ndim - 2))]
    return np.asarray(diagnostic(xarray.Dataset({"z": (dims, draws)}))["z"])


def elpd_data(
    values: np.ndarray, pareto_k: np.ndarray, *, num_samples: int, good_k: float
) -> ArvizData:
    """Log predictive densities (N,) as what ``arviz.loo`` would have returned.

    They are input to ArviZ's ``compare`` and ``plot_khat``.
    """
    import xarray

    az = arviz()
    pointwise, shapes = (
        xarray.DataArray(array, dims=("obs",), coords={"obs": np.arange(len(array))})
        for array in (values, pareto_k)
    )
    numbers: dict[str, Any] = {
        "se": float(np.sqrt(len(values) * np.var(values))),
        "n_samples": num_samples,
        "n_data_points": len(values),
        "warning": bool((pareto_k > good_k).any()),
        "scale": "log",
        "good_k": good_k,
        "pareto_k": shapes,
    }
    if is_0x(az):
        from arviz.stats import ELPDData

        parts = {
            "elpd_loo": float(values.sum()),
            "se": numbers["se"],
            "p_loo": np.nan,
            **numbers,
            "loo_i": pointwise,
        }
        return ELPDData(data=list(parts.values()), index=list(parts))
    from arviz_stats import utils

    # 1.3 has a class of its own for each kind; the releases before it name the kind as an argument.
    kind = vars(utils).get("ELPDDataLOO") or partial(utils.ELPDData, kind="loo")
    return kind(elpd=float(values.sum()), p=np.nan, elpd_i=pointwise, **numbers)


@dataclass(frozen=True, repr=False)
class LeaveOneOut:
    """The log density of data given all the others, estimated by ArviZ.

    Args:
        elpd: the sum over data, in nats.
        se: its standard error over data.
        parameters: the effective number of parameters.
        pointwise: of each datum (N,).
        pareto_k: of the importance weights of each datum (N,).
    """

    elpd: float
    se: float
    parameters: float
    pointwise: np.ndarray
    pareto_k: np.ndarray

    __repr__, _repr_html_ = result_words, result_html


def leave_one_out(data: ArvizData) -> LeaveOneOut:
    """Cross-validate by `arviz.loo`, whose result has other names in 0.x and 1.x."""
    az = arviz()
    loo = az.loo(data, pointwise=True)
    names = ("elpd_loo", "p_loo", "loo_i") if is_0x(az) else ("elpd", "p", "elpd_i")
    elpd, parameters, pointwise = (loo[name] for name in names)
    return LeaveOneOut(
        float(elpd),
        float(loo.se),
        float(parameters),
        np.asarray(pointwise),
        np.asarray(loo.pareto_k),
    )


def psis_tail_shape(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k of each row of log-weights (N, K), by ArviZ's PSIS.

    It is NaN for tails that are too short and -inf for constant ones.

    ArviZ 1.x keeps its function elsewhere and takes log-likelihoods where 0.x takes log-weights:
    both are settled here.
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
    # Weights equal but for the rounding of single precision have no tail to fit; ArviZ would divide
    # by zero.
    spread = tails[:, -1] - tails[:, 0]
    return spread <= np.clip(1e-6 * np.abs(tails[:, -1]), 1e-9, 1e-3)


def _psis(log_weights: np.ndarray) -> np.ndarray:
    az = arviz()
    centred = log_weights - log_weights.max(axis=1, keepdims=True)
    with warnings.catch_warnings():
        # Fits of degenerate tails overflow; their k says enough.
        warnings.simplefilter("ignore")
        if is_0x(az):
            _, shapes = az.psislw(centred)
        elif centred.shape[1] // 5 < FEWEST_TAIL_DRAWS:  # 1.x rounds the length of a tail down
            return np.full(len(centred), np.nan)
        else:
            from arviz_stats.base import array_stats

            _, shapes = array_stats.psislw(-centred, axis=-1)
    return np.asarray(shapes)
