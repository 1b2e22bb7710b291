"""Scores: an estimate for each datum, in nats, with its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_vae import __version__
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.shown import facts_html, known, measured, plus_minus
from pyro_vae.datasets.text import END
from pyro_vae.evaluation.arviz_compat import ArvizData, inference_data
from pyro_vae.evaluation.difference import Difference, compare
from pyro_vae.evaluation.widening import widening, widening_of_mean
from pyro_vae.validation import InvalidInput

__all__ = [
    "AnyScore",
    "MeanScore",
    "Score",
    "bits_per_dim",
    "concatenate",
    "elbo_score",
    "error_of_mean",
    "like_weights",
    "perplexity",
    "by_datum",
    "versions",
]


FEW_DRAWS = 20  # that are all alike say nothing about their spread


@dataclass(frozen=True, repr=False)
class Score:
    r"""A score for each datum, in nats, with both of its errors.

    The Monte Carlo error is stated so that 1.96 of it on either side are a 95% interval. It is the
    standard error of the K draws times `widening`, because it is estimated from the same draws, and
    that of a mean of K terms times `widening_of_mean`.

    Args:
        values: the scores (N,).
        mc_se: the Monte Carlo error of each (N,); NaN where the draws cannot tell: a single one, or
            a few that are all alike, as of a discrete latent.
        num_samples: the number of draws K behind each.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data, see `pyro_vae.datasets.Dataset.sha256`; empty where none
            was taken.

    A subclass whose values are no nats says by ``unit`` what they are.
    """

    unit: ClassVar[str] = "nats"
    values: Tensor
    mc_se: Tensor
    num_samples: int
    seed: int = field(default=0, kw_only=True)
    sha256: str = field(default="", kw_only=True)

    @property
    def mean(self) -> float:
        """The mean over data."""
        return self.values.double().mean().item()

    @property
    def se(self) -> float:
        """The standard error of that mean over data; NaN for a single datum."""
        if len(self.values) < 2:
            return math.nan
        return self.values.double().std().item() / math.sqrt(len(self.values))

    @property
    def bias(self) -> Tensor:
        """How far each value lies below what it estimates, in expectation (N,); 0 for a mean."""
        return torch.zeros_like(self.values)

    @property
    def is_bound(self) -> Tensor:
        """Whether each value is known only to be a lower bound, its error being too short (N,)."""
        return torch.zeros_like(self.values, dtype=torch.bool)

    @property
    def mean_mc_se(self) -> float:
        """The Monte Carlo error of the mean.

        The errors of the data are independent and average out; their bias does not. Together the
        data have draws enough to estimate a spread from, so this error is not widened.
        """
        if self.num_samples == 1 or self.mc_se.isnan().all():
            return math.nan
        bias = self.bias.double()
        spread = (self.mc_se.double().nan_to_num(0).square() - bias.square()).clamp(min=0).sum()
        num = len(self.values)
        few = widening(1 + num * (self.num_samples - 1)) / widening(self.num_samples)
        return math.hypot(few * math.sqrt(spread.item()) / num, bias.mean().item())

    def with_error(self, mc_se: Tensor) -> Self:
        """The same values with other Monte Carlo errors (N,)."""
        return replace(self, mc_se=mc_se)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends (N,) of an interval for each datum, infinite where they are not known.

        The upper one is not known for a bound.

        Example:
            >>> low, high = elbo_score(torch.zeros(100, 2)).interval()
            >>> bool((low == high).all())
            True
        """
        reach = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()
        margin = reach * self.mc_se.nan_to_num(math.inf)
        return self.values - margin, (self.values + margin).masked_fill(self.is_bound, math.inf)

    @property
    def per_datum(self) -> dict[str, Tensor]:
        """Everything that has one entry for each datum, by name."""
        return {name: value for name, value in self._fields.items() if isinstance(value, Tensor)}

    @property
    def _fields(self) -> dict[str, object]:
        return {each.name: vars(self)[each.name] for each in fields(self)}

    def to_dict(self) -> dict[str, object]:
        """Collect summaries, settings and the numbers of each datum, for JSON."""
        rest = {name: value for name, value in self._fields.items() if name not in self.per_datum}
        return {
            "mean": self.mean,
            "se": self.se,
            "mean_mc_se": self.mean_mc_se,
            "num_data": len(self.values),
            **rest,
            "versions": versions(),
            **{name: value.tolist() for name, value in self.per_datum.items()},
        }

    def to_inference_data(self) -> ArvizData:
        """Make ArviZ data: a group ``scores`` with a variable (obs) for each per-datum number."""
        rest = {
            key: value
            for key, value in self.to_dict().items()
            if not isinstance(value, list | dict)
        }
        variables = {
            name: (("obs",), value.cpu().numpy()) for name, value in self.per_datum.items()
        }
        return inference_data({"scores": (variables, rest | versions())})

    @property
    def sign(self) -> str:
        """``""``, or ``">="`` where the mean is only a lower bound, as where a value is."""
        return ">=" if self.is_bound.any() else ""

    def __sub__(self, other: Score) -> Difference:
        """The paired difference, as `compare` takes it."""
        return compare(self, other) if isinstance(other, Score) else NotImplemented

    def __str__(self) -> str:
        draws = f"K = {self.num_samples}"
        one = "one datum, " if len(self.values) == 1 else ""
        if self.sign:
            error = one or f"standard error over data {known(self.se)}, "
            mean = measured(self.mean, self.se)
            return f"{self.sign} {mean} {self.unit} ({error}{draws})"
        mean = plus_minus(self.mean, self.se)
        return f"{mean} {self.unit} ({one}Monte Carlo error {self.error}, {draws})"

    @property
    def error(self) -> str:
        """The Monte Carlo error of the mean in words; unknown for a bound, and for one draw."""
        is_unknown = bool(self.sign) or math.isnan(self.mean_mc_se)
        return "unknown" if is_unknown else f"{self.mean_mc_se:.2g}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def _repr_html_(self) -> str:
        facts = {
            "mean": f"{self.sign} {measured(self.mean, self.se)}".strip(),
            "s.e. over data": known(self.se),
            "Monte Carlo error": self.error,
            "data": f"{len(self.values):,}",
            "draws K": f"{self.num_samples:,}",
        }
        return facts_html(
            f"{type(self).__name__}, {self.unit} per datum", facts | self._more_facts()
        )

    def _more_facts(self) -> dict[str, str]:
        """What a kind of score shows besides."""
        return {}


@dataclass(frozen=True, repr=False)
class MeanScore(Score):
    """A `Score` that is the mean of K terms, such as an ELBO.

    Args:
        standard_error: that of the K terms of each datum (N,), which ``mc_se`` widens.
    """

    standard_error: Tensor

    @property
    def mean_mc_se(self) -> float:
        return error_of_mean(self, self.standard_error)

    def with_error(self, mc_se: Tensor) -> Self:
        return replace(self, mc_se=mc_se, standard_error=mc_se)


def error_of_mean(score: Score, standard_error: Tensor) -> float:
    """The Monte Carlo error of a mean over data, by that of each datum (N,), not yet widened.

    Together the data have draws enough to estimate a spread from.
    """
    if score.num_samples == 1 or score.mc_se.isnan().all():
        return math.nan
    num = len(score.values)
    error = standard_error.double().nan_to_num(0).norm().item() / num
    return widening(1 + num * (score.num_samples - 1)) * error


AnyScore = TypeVar("AnyScore", bound=Score)


def concatenate(scores: Sequence[AnyScore]) -> AnyScore:
    """Join the scores of consecutive chunks of data into one.

    They must be of one kind and made with the same settings.
    """
    first = scores[0]
    joined = {
        name: torch.cat([score.per_datum[name] for score in scores]) for name in first.per_datum
    }
    return type(first)(**(vars(first) | joined))


def elbo_score(weights: Tensor) -> MeanScore:
    """Estimate the ELBO from log-weights (K, N), with its errors."""
    rows, num_samples = by_datum(weights), len(weights)
    error, wider = np.full(len(rows), np.nan), np.ones(len(rows))
    if num_samples > 1:
        with np.errstate(invalid="ignore"):  # a log-weight of -inf: a bound of -inf, and no error
            error = rows.std(axis=1, ddof=1) / math.sqrt(num_samples)
            wider = widening_of_mean(rows)
        if num_samples <= FEW_DRAWS:
            error[np.ptp(rows, axis=1) == 0] = np.nan
    rounding = rounding_of(weights)
    return MeanScore(
        like_weights(weights, rows.mean(axis=1)),
        torch.hypot(like_weights(weights, error * wider), rounding),
        num_samples,
        torch.hypot(like_weights(weights, error), rounding),
    )


def rounding_of(weights: Tensor) -> Tensor:
    """Bound what rounding may do to log-weights (K, N) of their dtype, in nats (N,)."""
    sizes = weights.abs().masked_fill(~torch.isfinite(weights), 0)
    return torch.finfo(weights.dtype).eps * sizes.amax(0).double()


def by_datum(weights: Tensor) -> np.ndarray:
    """Turn log-weights (K, N) into rows (N, K), one for each datum.

    A row is reduced on its own, so that its sums are rounded alike whatever else is there.
    """
    return np.ascontiguousarray(weights.detach().double().cpu().numpy().T)


def like_weights(weights: Tensor, values: np.ndarray) -> Tensor:
    """Turn numbers of each datum into a double-precision tensor on the device of the weights."""
    return torch.tensor(values, dtype=torch.float64, device=weights.device)


def bits_per_dim(score: Score, event_shape: Sequence[int], levels: int | None = None) -> float:
    r"""Convert nats to bits per entry of x; compare models of the same quantised data only.

    .. math:: -\frac{\log p(x)}{D \log 2} \;[ + \log_2 L ]

    Without ``levels``, x is discrete and log p(x) a log-probability: there is nothing to add. With
    ``levels`` = L, x holds integers 0 ... L - 1 that were dequantised by uniform noise in [0, 1)
    and divided by L; log p(x) is then a log-density on [0, 1], and the Jacobian of that division
    adds :math:`\log_2 L` bits (8 for bytes). The result is an upper bound on the bits of the
    integers. A density of data that are neither has no such number.

    Args:
        score: a score in nats.
        event_shape: the shape of one datum.
        levels: L where x was dequantised, ``None`` where x is discrete.

    Raises:
        InvalidInput: on a score that is not in nats.

    Source: Theis, van den Oord and Bethge (2016), A Note on the Evaluation of Generative Models.

    Example:
        >>> round(bits_per_dim(Score(torch.tensor([-8 * math.log(2)]), torch.zeros(1), 1), (8,)), 6)
        1.0
    """
    if score.unit != Score.unit:
        raise InvalidInput(
            "score", got=score.unit, expected="nats", fix="pass a log-likelihood or an ELBO"
        )
    jacobian = 0.0 if levels is None else math.log2(levels)
    return -score.mean / (math.log(2) * math.prod(event_shape)) + jacobian


def perplexity(score: Score, data: Dataset) -> float | None:
    r"""The perplexity of a word of text; ``None`` where the data are no text.

    The end of each sentence counts as a word.

    .. math:: \exp \Big( -\frac{\sum_n \log p(x_n)}{\sum_n T_n} \Big)

    As uncertain as a choice among so many equally probable words; an upper bound where log p is a
    bound. It depends on which words count as unknown, so it compares models of the same vocabulary
    only.

    Args:
        score: log p(x) or a bound on it, of all of the data.
        data: what was scored.

    Source: Jelinek et al. (1977), Perplexity, a measure of the difficulty of speech recognition
    tasks.

    Example:
        >>> from pyro_vae.datasets.text import Vocabulary
        >>> data = Dataset(torch.tensor([[2.0, 3.0, 0.0]]), vocabulary=Vocabulary(["yes", "no"]))
        >>> round(perplexity(Score(torch.tensor([-3 * math.log(4)]), torch.zeros(1), 1), data), 6)
        4.0
    """
    if data.vocabulary is None:
        return None
    words = (data.tensor != END).sum() + (data.tensor == END).any(-1).sum()
    return (-score.values.double().sum() / words).exp().item()  # infinite where floats end


def versions() -> dict[str, str]:
    """The versions of the libraries that numbers depend on.

    A library that runs from its sources, without being installed, has ``"sources"``.
    """

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "sources"

    # An installation from a checkout keeps the number that it had when it was made.
    ours = {"pyro-vae": __version__}
    return ours | {name: of(name) for name in ("pyro-ppl", "torch", "arviz")}
