"""Results of any evaluation as JSON or ArviZ data, with what they were made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor

from pyro_vae.evaluation.arviz_compat import ArvizData, elpd_data, inference_data
from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.evaluation.scores import Score, versions

__all__ = ["to_dict", "to_elpd", "to_inference_data"]


def to_elpd(score: ImportanceScore) -> ArvizData:
    r"""Make ArviZ's ``ELPDData`` of a `log_likelihood`, for its comparisons and figures.

    With the parameters of the program fixed, the log predictive density of a datum that was not
    trained on *is* its
    :math:`\log p(x)`, so this is what ``arviz.loo`` estimates for a model of global parameters;
    Pareto k is that of the importance weights. The effective number of parameters is not defined
    here, and NaN.

    Args:
        score: what `pyro_vae.log_likelihood` gave.

    Example:
        >>> elpd = to_elpd(pv.log_likelihood(vae, torch.zeros(5, 1, 8, 8), 20))
        >>> elpd.n_samples, elpd.n_data_points
        (20, 5)
    """
    return elpd_data(
        score.values.double().cpu().numpy(),
        score.pareto_k.cpu().numpy(),
        num_samples=score.num_samples,
        good_k=pareto_k_threshold(score.num_samples),
    )


def to_dict(result: object) -> dict[str, object]:
    """Collect every number of a result by name, ready for JSON, with library versions.

    Args:
        result: a score, bounds, gaps, ranks: whatever dataclass a function of this package returns.
            NaN and infinities, which JSON does not have, become ``None``.

    Example:
        >>> sorted(to_dict(pv.evaluation.active_units(vae, torch.rand(5, 1, 8, 8).round())))
        ['mc_se', 'num_samples', 'seed', 'sha256', 'spread', 'threshold', 'variance', 'versions']
    """
    return {**_plain_fields(result), "versions": versions()}


def to_inference_data(result: object) -> ArvizData:
    """Make ArviZ data of a result: a group ``scores`` with a variable for each tensor.

    Numbers and words become attributes.

    A tensor with an entry for each datum has the dimension ``obs``; names inside one another are
    joined by a dot.

    Example:
        >>> bounds = pv.evaluation.bdmc(vae, 3, 2, 5, num_leapfrog=1)
        >>> to_inference_data(bounds).scores["lower.values"].dims
        ('obs',)
    """
    leaves = dict(_leaves(result))
    tensors = {name: value for name, value in leaves.items() if isinstance(value, Tensor)}
    is_per_datum = {"values", "ranks"}
    sizes = [len(value) for name, value in tensors.items() if name.split(".")[-1] in is_per_datum]
    per_datum = sizes[0] if sizes else None
    variables = {
        name: (_dims(name, value, per_datum), value.cpu().numpy())
        for name, value in tensors.items()
    }
    words = {
        name: value for name, value in leaves.items() if isinstance(value, bool | int | float | str)
    }
    return inference_data({"scores": (variables, {**words, **versions()})})


def _dims(name: str, value: Tensor, per_datum: int | None) -> tuple[str, ...]:
    return tuple(
        "obs" if axis == 0 and size == per_datum else f"{name}_dim_{axis}"
        for axis, size in enumerate(value.shape)
    )


def _fields_of(result: object) -> Mapping[str, object]:
    """The fields of a dataclass, or the entries of a mapping, by name."""
    if is_dataclass(result):
        return {field.name: vars(result)[field.name] for field in fields(result)}
    return result if isinstance(result, Mapping) else {}


def _plain_fields(result: object) -> dict[str, object]:
    """The numbers of a result by name, a score's summaries among them."""
    items = _fields_of(result)
    if isinstance(result, Score):
        items = {name: item for name, item in result.to_dict().items() if name != "versions"}
    return {str(name): _plain(item) for name, item in items.items()}


def _plain(value: object) -> object:
    """A value as JSON has it."""
    if is_dataclass(value) or isinstance(value, Mapping):
        return _plain_fields(value)
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """What is in a result, by names joined by dots.

    A slash, as in ``kl/z``, would be a path in ArviZ 1.x.
    """
    if not (is_dataclass(value) or isinstance(value, Mapping)):
        yield path, value
        return
    for name, item in _fields_of(value).items():
        part = str(name).replace("/", ".")
        yield from _leaves(item, f"{path}.{part}" if path else part)
