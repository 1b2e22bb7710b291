"""Scores: per-datum estimates with their errors and diagnostics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.text import END
from pyro_vae.evaluation.arviz_compat import inference_data, psis_tail_shape

__all__ = [
    "AnnealedScore",
    "ImportanceScore",
    "Score",
    "UnreliableEstimate",
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
    """A score for each datum, in nats, with both of its errors.

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
    def mean_mc_se(self) -> float:
        """The Monte Carlo error of the mean: the errors of the data are independent."""
        return self.mc_se.double().square().sum().sqrt().item() / len(self.values)

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
        return f"{self.mean:.2f} +- {self.se:.2f} nats (Monte Carlo error {self.mean_mc_se:.2g}, K = {self.num_samples})"


@dataclass(frozen=True)
class ImportanceScore(Score):
    """A `Score` by importance sampling, with what tells whether to believe it.

    Args:
        ess: the effective number of draws (N,), :math:`(\\sum_k w_k)^2 / \\sum_k w_k^2`.
        pareto_k: the tail shape of each datum's weights (N,), see `pareto_k`.
    """

    ess: Tensor
    pareto_k: Tensor

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
        if share_of_bounds(self):
            return (
                f"at least {self.mean:.2f} nats (standard error over data {self.se:.2f}, "
                f"K = {self.num_samples}); {said}"
            )
        return f"{super().__str__()}; {said}"


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
    if not isinstance(score, ImportanceScore):
        return 0.0
    is_bound = score.pareto_k.isnan() | (score.pareto_k > pareto_k_threshold(score.num_samples))
    return is_bound.double().mean().item()


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
    weights = weights.double()
    num_samples = len(weights)
    return Score(
        weights.mean(0),
        weights.std(0, correction=1) / math.sqrt(num_samples)
        if num_samples > 1
        else torch.full_like(weights[0], math.nan),
        num_samples,
    )


def summarize(weights: Tensor) -> ImportanceScore:
    """The log-likelihood that log-weights (K, N) amount to, with its errors and diagnostics."""
    weights = weights.double()
    num_samples = len(weights)
    relative = torch.exp(weights - weights.max(0).values)  # free of overflow; its largest is 1
    mean = relative.mean(0)
    spread = relative.std(0, correction=1) if num_samples > 1 else torch.full_like(mean, math.nan)
    return ImportanceScore(
        values=weights.logsumexp(0) - math.log(num_samples),
        mc_se=spread / (math.sqrt(num_samples) * mean),
        num_samples=num_samples,
        ess=relative.sum(0).square() / relative.square().sum(0),
        pareto_k=pareto_k(weights),
    )


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
