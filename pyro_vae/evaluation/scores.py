"""Scores: per-datum estimates with their errors and diagnostics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.text import END
from pyro_vae.evaluation.arviz_compat import inference_data, psis_tail_shape

__all__ = [
    "AnnealedScore",
    "ImportanceScore",
    "Score",
    "UnreliableEstimate",
    "UpperBound",
    "bias_of_log_mean",
    "bits_per_dim",
    "concatenate",
    "convergence",
    "draws_needed",
    "elbo_score",
    "pareto_k",
    "pareto_k_threshold",
    "perplexity",
    "share_of_bounds",
    "summarize",
    "versions",
]


class UnreliableEstimate(UserWarning):
    """Some data's importance weights have so heavy a tail that the estimate's error cannot be believed."""


@dataclass(frozen=True)
class Score:
    r"""A score for each datum, in nats, with both of its errors.

    The Monte Carlo error is stated so that 1.96 of it on either side are a 95% interval. It is the
    standard error of the K draws times :math:`t_{0.975, K - 1} / 1.96`, because it is estimated
    from the same draws.

    Args:
        values: the scores (N,).
        mc_se: the Monte Carlo error of each (N,); NaN where a single draw cannot tell.
        num_samples: the number of draws K behind each.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data, see `pyro_vae.datasets.Dataset.sha256`; empty where none
            was taken.
    """

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
        return (
            self.values.double().std().item() / math.sqrt(len(self.values))
            if len(self.values) > 1
            else math.nan
        )

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

        The errors of the data are independent and average out; their bias does not.
        """
        bias = self.bias.double()
        spread = (self.mc_se.double().square() - bias.square()).clamp(min=0).sum().sqrt()
        return math.hypot(spread.item() / len(self.values), bias.mean().item())

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends (N,) of an interval for each datum; the upper one is infinite for a bound.

        Example:
            >>> low, high = summarize(torch.zeros(100, 2)).interval()
            >>> bool((low == high).all())
            True
        """
        reach = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()
        high = self.values + reach * self.mc_se
        return self.values - reach * self.mc_se, high.masked_fill(self.is_bound, math.inf)

    @property
    def per_datum(self) -> dict[str, Tensor]:
        """Everything that has one entry for each datum, by name."""
        everything = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in everything.items() if isinstance(value, Tensor)}

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON: summaries, what it was made from, and the numbers of each datum."""
        rest = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in self.per_datum
        }
        return {
            "mean": self.mean,
            "se": self.se,
            "mean_mc_se": self.mean_mc_se,
            "num_data": len(self.values),
            **rest,
            "versions": versions(),
            **{name: value.tolist() for name, value in self.per_datum.items()},
        }

    def to_inference_data(self) -> Any:
        """The same as ArviZ data: a group ``scores`` with a variable (obs) for each per-datum number."""
        rest = {
            key: value
            for key, value in self.to_dict().items()
            if not isinstance(value, list | dict)
        }
        variables = {
            name: (("obs",), value.cpu().numpy()) for name, value in self.per_datum.items()
        }
        return inference_data({"scores": (variables, rest | versions())})

    def __str__(self) -> str:
        if self.is_bound.any():
            return (
                f">= {self.mean:.2f} nats (standard error over data {self.se:.2f}, "
                f"K = {self.num_samples})"
            )
        return (
            f"{self.mean:.2f} +- {self.se:.2f} nats (Monte Carlo error {self.mean_mc_se:.2g}, "
            f"K = {self.num_samples})"
        )


@dataclass(frozen=True)
class ImportanceScore(Score):
    r"""A `Score` by importance sampling, with what tells whether to believe it.

    Its Monte Carlo error has the bias of the logarithm in it:
    :math:`\sqrt{\mathrm{se}^2 + \mathrm{bias}^2}` with
    :math:`\mathrm{bias} \approx \mathrm{Var}\,w / (2 K\, (\mathrm{E}\,w)^2)`. A value is a lower
    bound where its Pareto k is above `pareto_k_threshold`, or where K is too small for a k.

    Args:
        ess: the effective number of draws (N,), :math:`(\sum_k w_k)^2 / \sum_k w_k^2`.
        pareto_k: the tail shape of each datum's weights (N,), see `pareto_k`.
    """

    ess: Tensor
    pareto_k: Tensor

    @property
    def bias(self) -> Tensor:
        return bias_of_log_mean(self.ess, self.num_samples)

    @property
    def is_bound(self) -> Tensor:
        return self.pareto_k.isnan() | (self.pareto_k > pareto_k_threshold(self.num_samples))

    @property
    def above_threshold(self) -> int | None:
        """How many data have a Pareto k above `pareto_k_threshold`: their scores are likely too low. ``None`` if K is too
        small for any to have a k."""
        return (
            None
            if self.pareto_k.isnan().all()
            else int((self.pareto_k > pareto_k_threshold(self.num_samples)).sum())
        )

    def __str__(self) -> str:
        above, threshold = self.above_threshold, pareto_k_threshold(self.num_samples)
        said = (
            "too few draws for Pareto k"
            if above is None
            else f"Pareto k above {threshold:.2f} for {above} of {len(self.values)} data"
        )
        return f"{super().__str__()}; {said}"


FEWEST_AT_WORK = 8  # effective chains: with fewer, the spread of their weights is not known
FEWEST_DRAWS = 21  # for a Pareto k: the tail is a fifth of them, and needs five


def share_of_bounds(score: Score) -> float:
    """The share of data whose estimate is known only to be a lower bound on log p(x).

    A datum's estimate is a bound where its Pareto k is above `pareto_k_threshold`, or where it has
    no Pareto k because K is too small: its stated error then covers neither the tail of the weights
    nor the bias of the logarithm. Where the share is not zero, the mean is a bound too. A score
    without Pareto k, such as an ELBO, has a share of 0.

    Example:
        >>> [share_of_bounds(summarize(torch.zeros(K, 2))) for K in (5, 1000)]
        [1.0, 0.0]
    """
    return score.is_bound.double().mean().item()


def draws_needed(score: ImportanceScore, bias: float = 0.01) -> int:
    r"""How many draws K would bring the bias of the mean estimate below a number of nats.

    .. math:: K = \frac{1}{2\,\mathrm{bias}} \; \frac1N \sum_n
              \frac{\mathrm{Var}\,w_n}{(\mathrm{E}\,w_n)^2}

    The variances are those of the draws at hand, which too few draws make too small. The least
    answer is the number that a Pareto k needs.

    Args:
        score: an estimate from few draws.
        bias: the bias to reach, in nats.

    Source: Nowozin (2018), Debiasing Evidence Approximations.

    Example:
        >>> draws_needed(summarize(torch.tensor([[0.0], [1.0], [2.0]])))
        40
    """
    if score.num_samples == 1:
        return FEWEST_DRAWS
    spread = (score.num_samples / score.ess.double() - 1) * (
        score.num_samples / (score.num_samples - 1)
    )
    return max(FEWEST_DRAWS, math.ceil(spread.mean().item() / (2 * bias)))


AnyScore = TypeVar("AnyScore", bound=Score)


def convergence(log_weights: Tensor, points: int = 20) -> list[ImportanceScore]:
    """The estimate from the first K of given draws, for K from 1 to all of them, equally spaced in log K.

    Args:
        log_weights: log-weights (K, N), see `importance_weights`.
        points: at how many K, those that coincide counted once.

    Example:
        >>> [score.num_samples for score in convergence(torch.randn(1000, 2), points=4)]
        [1, 10, 100, 1000]
    """
    ends = (
        torch.logspace(0, math.log10(len(log_weights)), points, dtype=torch.float64)
        .round()
        .long()
        .unique()
    )
    return [summarize(log_weights[:end]) for end in ends.tolist()]


def bits_per_dim(score: Score, event_shape: Sequence[int], levels: int | None = None) -> float:
    r"""Bits per entry of x, a number that compares models of the same quantised data only.

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

    Source: Theis, van den Oord and Bethge (2016), A Note on the Evaluation of Generative Models.

    Example:
        >>> round(bits_per_dim(Score(torch.tensor([-8 * math.log(2)]), torch.zeros(1), 1), (8,)), 6)
        1.0
    """
    return -score.mean / (math.log(2) * math.prod(event_shape)) + (
        0.0 if levels is None else math.log2(levels)
    )


def perplexity(score: Score, data: Dataset) -> float | None:
    r"""The perplexity of a word of text, the end of each sentence counted as one; ``None`` where the data are no text.

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
    words = (data.x != END).sum() + (data.x == END).any(-1).sum()
    return math.exp(-score.values.double().sum().item() / words.item())


def versions() -> dict[str, str]:
    """The versions that numbers depend on; of a package that was not installed, but is run from its sources, ``"sources"``."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "sources"

    return {name: of(name) for name in ("pyro-vae", "pyro-ppl", "torch", "arviz")}


def elbo_score(weights: Tensor) -> Score:
    """The ELBO that log-weights (K, N) amount to, with its errors."""
    rows, num_samples = _rows(weights), len(weights)
    error = rows.std(axis=1, ddof=1) * _widening(num_samples) if num_samples > 1 else np.nan
    values = rows.mean(axis=1)
    return Score(
        _like(weights, values),
        _like(weights, np.broadcast_to(error / math.sqrt(num_samples), values.shape)),
        num_samples,
    )


def summarize(weights: Tensor) -> ImportanceScore:
    """The log-likelihood that log-weights (K, N) amount to, with its errors and diagnostics."""
    rows, num_samples = _rows(weights), len(weights)
    largest = rows.max(axis=1)
    # Free of overflow: the largest is 1.
    relative = np.exp(rows - largest[:, None])
    mean = relative.mean(axis=1)
    ess = _like(weights, relative.sum(axis=1) ** 2 / (relative**2).sum(axis=1))
    spread = np.full_like(mean, np.nan)
    if num_samples > 1:
        spread = relative.std(axis=1, ddof=1) * _widening(num_samples)
    error = _like(weights, spread / (math.sqrt(num_samples) * mean))
    return ImportanceScore(
        values=_like(weights, largest + np.log(mean)),
        mc_se=torch.hypot(error, bias_of_log_mean(ess, num_samples)),
        num_samples=num_samples,
        ess=ess,
        pareto_k=pareto_k(weights),
    )


def bias_of_log_mean(ess: Tensor, num_samples: int) -> Tensor:
    r"""How far the logarithm of a mean of K weights lies too low, in nats (N,).

    .. math:: \log \mathrm{E}\,w - \mathrm{E} \log \bar w
              \approx \frac{\mathrm{Var}\,w}{2 K (\mathrm{E}\,w)^2}
              = \frac{1}{2 (K - 1)} \Big( \frac{K}{\mathrm{ESS}} - 1 \Big)

    NaN for a single draw.

    Source: Nowozin (2018), Debiasing Evidence Approximations.

    Example:
        >>> bias_of_log_mean(torch.tensor([50.0]), 101)
        tensor([0.0051])
    """
    if num_samples == 1:
        return torch.full_like(ess, math.nan)
    return (num_samples / ess - 1) / (2 * (num_samples - 1))


def _rows(weights: Tensor) -> np.ndarray:
    """Log-weights (K, N) as rows of a datum each (N, K).

    A row is reduced on its own, so that its sums are rounded alike whatever else is there.
    """
    return np.ascontiguousarray(weights.detach().double().cpu().numpy().T)


def _like(weights: Tensor, values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=weights.device)


def _widening(num_samples: int) -> float:
    """How much wider a 95% interval is because its spread was estimated from the same K draws."""
    return float(special.stdtrit(num_samples - 1, 0.975) / special.ndtri(0.975))


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""The tail shape k of importance weights, by Pareto-smoothed importance sampling.

    The largest :math:`M = \min(K / 5, 3 \sqrt K)` weights are fitted by a generalised Pareto
    distribution; its shape k says how many moments the weights have. NaN where the tail has fewer
    than five draws (nothing can be said), -inf where it is constant (an exact posterior): neither
    is a warning.

    Args:
        log_weights: log-weights (K, N).

    Returns:
        k for each datum (N,), by ArviZ's implementation.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto Smoothed Importance Sampling.

    Example:
        >>> pareto_k(torch.zeros(1000, 2))
        tensor([-inf, -inf], dtype=torch.float64)
    """
    shapes = psis_tail_shape(log_weights.double().T.cpu().numpy())
    return torch.from_numpy(shapes).to(log_weights.device)


def pareto_k_threshold(num_samples: int) -> float:
    """The k above which an estimate from K draws is unreliable, min(1 - 1 / log10 K, 0.7).

    Source: Vehtari et al. (2024).

    Example:
        >>> round(pareto_k_threshold(1000), 3), pareto_k_threshold(100_000)
        (0.667, 0.7)
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


def concatenate(scores: Sequence[AnyScore]) -> AnyScore:
    """One score for all data from those of consecutive chunks, of one kind and made with the same settings."""
    first = scores[0]
    per_datum: dict[str, Any] = {
        name: torch.cat([score.per_datum[name] for score in scores]) for name in first.per_datum
    }
    return replace(first, **per_datum)


# scores


@dataclass(frozen=True)
class AnnealedScore(Score):
    """A `Score` by annealing; ``num_samples`` is the number of chains for each datum.

    Args:
        ess: the effective number of chains (N,).
        acceptance: the mean acceptance probability of each datum's transitions (N,).
        num_temperatures: intermediate densities, the last being the posterior.
        num_leapfrog: leapfrog steps of a transition.
        start: where the chains start, ``"prior"`` or ``"guide"``.
    """

    ess: Tensor
    acceptance: Tensor
    num_temperatures: int
    num_leapfrog: int
    start: str

    @property
    def bias(self) -> Tensor:
        return bias_of_log_mean(self.ess, self.num_samples)

    @property
    def is_bound(self) -> Tensor:
        return (self.ess < FEWEST_AT_WORK) | self.mc_se.isnan()


@dataclass(frozen=True)
class UpperBound(AnnealedScore):
    """An upper bound on log p(x) of simulated data, from chains that start at one posterior draw.

    Its Monte Carlo error is that of the chains, given the draw that they all start from. Another
    draw would give another value, so the error is no interval of log p(x).
    """

    @property
    def bias(self) -> Tensor:
        return -super().bias

    @property
    def is_bound(self) -> Tensor:
        return torch.ones_like(self.values, dtype=torch.bool)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends (N,) of an interval for each datum, the lower one infinite."""
        low = torch.full_like(self.values, -math.inf)
        return low, self.values + (self.values - super().interval(level)[0])

    def __str__(self) -> str:
        return f"<= {self.mean:.2f} nats (standard error over data {self.se:.2f})"
