"""Scores of a fitted program: the ELBO and the importance-sampled log-likelihood, per datum and with errors.

Everything is made of the log-weights (K, N) of `pyro_vae.traces`. Words: scores are nats per datum, higher is
better. Two errors are kept apart: ``mc_se``, one for each datum, is the Monte Carlo error of its score and falls
with K; ``se`` is the standard error of the mean over data and falls with N.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from pyro import validation_enabled
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vae.arviz_compat import psis_tail_shape
from pyro_vae.datasets import Data
from pyro_vae.execution import checked_data, evaluating, isolated_random
from pyro_vae.programs import AnyProgram
from pyro_vae.progress import progress_bar
from pyro_vae.traces import NonFiniteLogWeight, Structure, log_weights, structure
from pyro_vae.validation import check_count

__all__ = ["ImportanceScore", "Score", "UnreliableEstimate", "elbo", "evaluate", "log_likelihood", "pareto_k", "pareto_k_threshold"]

DEFAULT_MEMORY = 256 * 2**20


class UnreliableEstimate(UserWarning):
    """Some data's importance weights have so heavy a tail that the estimate's error cannot be believed."""


@dataclass(frozen=True)
class Score:
    """A score for each datum, in nats, with both of its errors.

    Args:
        values: the scores (N,).
        mc_se: the Monte Carlo error of each (N,); NaN where a single draw cannot tell.
        num_samples: the number of draws K behind each.
    """

    values: Tensor
    mc_se: Tensor
    num_samples: int

    @property
    def mean(self) -> float:
        """The mean over data."""
        return self.values.double().mean().item()

    @property
    def se(self) -> float:
        """The standard error of that mean over data; NaN for a single datum."""
        return self.values.double().std().item() / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    @property
    def mean_mc_se(self) -> float:
        """The Monte Carlo error of the mean: the errors of the data are independent."""
        return self.mc_se.double().square().sum().sqrt().item() / len(self.values)

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
    def above_threshold(self) -> int:
        """How many data have a Pareto k above `pareto_k_threshold`: their scores are likely too low."""
        return int((self.pareto_k > pareto_k_threshold(self.num_samples)).sum())


def elbo(program: AnyProgram, data: Data, num_samples: int = 100, *, seed: int = 0,
         memory_budget: int = DEFAULT_MEMORY, progress: bool = False) -> Score:
    r"""The evidence lower bound of each datum.

    .. math:: \widehat{\mathrm{ELBO}}(x) = \frac1K \sum_k \log w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: number of draws K.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of activations allowed at once.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a bound.

    Example:
        >>> pv.elbo(vae, torch.zeros(3, 1, 8, 8), num_samples=10).values.shape
        torch.Size([3])
    """
    return evaluate(program, data, num_samples, seed=seed, memory_budget=memory_budget, progress=progress,
                    summaries={"elbo": _elbo_score})["elbo"]


def log_likelihood(program: AnyProgram, data: Data, num_samples: int = 1000, *, seed: int = 0,
                   memory_budget: int = DEFAULT_MEMORY, progress: bool = False) -> ImportanceScore:
    r"""The log marginal likelihood log p(x) of each datum, by importance sampling with the guide as proposal.

    .. math:: \widehat{\log p}(x) = \log \frac1K \sum_k w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    Its expectation is a lower bound on log p(x) that tightens with K. The Monte Carlo error is the delta method's,
    :math:`\mathrm{sd}(w) / (\sqrt K\, \bar w)`. It can be believed where Pareto k lies under its threshold; above
    it the estimate is likely too low by more than its error. Neither k nor ESS can see a mode of the posterior that
    q misses altogether. (ArviZ's group ``log_likelihood`` holds log p(x | z) for each draw; this is log p(x).)

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context); with a context it is log p(x | context).
        num_samples: number of draws K.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of activations allowed at once.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a density.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders; Vehtari et al. (2024) for k.

    Example:
        >>> score = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), num_samples=20)
        >>> score.values.shape, score.ess.shape, score.pareto_k.shape
        (torch.Size([3]), torch.Size([3]), torch.Size([3]))
    """
    score = evaluate(program, data, num_samples, seed=seed, memory_budget=memory_budget, progress=progress,
                     summaries={"log_likelihood": _importance_score})["log_likelihood"]
    assert isinstance(score, ImportanceScore)
    if score.above_threshold:
        warnings.warn(
            f"Pareto k is above {pareto_k_threshold(num_samples):.2f} for {score.above_threshold} of "
            f"{len(score.values)} data: their log-likelihoods are likely too low by more than the stated error. "
            "Raise num_samples, or use a more flexible posterior", UnreliableEstimate, stacklevel=2)
    return score


def evaluate(program: AnyProgram, data: Data, num_samples: int = 1000, *, seed: int = 0,
             memory_budget: int = DEFAULT_MEMORY, progress: bool = False,
             summaries: dict[str, Callable[[Tensor], Score]] | None = None) -> dict[str, Score]:
    """Several scores from one set of draws: by default ``"elbo"`` and ``"log_likelihood"``.

    Arguments and errors are those of `log_likelihood`; ``summaries`` maps a name to a function from log-weights
    (K, n) to a `Score`. Each datum is encoded once, its K draws taken together; only where K alone exceeds the memory
    budget are they taken in parts.

    Example:
        >>> sorted(evaluate(vae, torch.zeros(3, 1, 8, 8), num_samples=50))
        ['elbo', 'log_likelihood']
    """
    check_count("num_samples", num_samples)
    summaries = summaries or {"elbo": _elbo_score, "log_likelihood": _importance_score}
    parts: dict[str, list[Score]] = {name: [] for name in summaries}
    with evaluating(program, seed):
        x, context = checked_data(program, data)
        where = structure(program, x, context)
        rows = max(1, memory_budget // _bytes_per_draw(program, x, context, where))
        bar = progress_bar(f"log-weights, K = {num_samples}", total=len(x), shown=progress)
        with validation_enabled(False), isolated_random(x.device, seed), bar as advance:
            for weights in _log_weights_in_chunks(program, x, context, num_samples, where, rows):
                for name, summary in summaries.items():
                    parts[name].append(summary(weights))
                advance(weights.shape[1])
    return {name: _concatenate(scores) for name, scores in parts.items()}


def _elbo_score(weights: Tensor) -> Score:
    weights = weights.double()
    num_samples = len(weights)
    return Score(weights.mean(0), weights.std(0, correction=1) / math.sqrt(num_samples) if num_samples > 1
                 else torch.full_like(weights[0], math.nan), num_samples)


def _importance_score(weights: Tensor) -> ImportanceScore:
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

    The largest :math:`M = \min(K / 5, 3 \sqrt K)` weights are fitted by a generalised Pareto distribution; its shape k
    says how many moments the weights have. NaN where the tail has fewer than five draws (nothing can be said), -inf
    where it is constant (an exact posterior): neither is a warning.

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


def _log_weights_in_chunks(program: AnyProgram, x: Tensor, context: Tensor | None, num_samples: int,
                           where: Structure, rows: int) -> Iterator[Tensor]:
    """Log-weights (K, n) of a few data at a time, in order, from at most ``rows`` draws at once."""
    draws = [min(rows, num_samples - done) for done in range(0, num_samples, rows)]
    size = max(1, rows // num_samples)
    for start in range(0, len(x), size):
        few = slice(start, start + size)
        labels = None if context is None else context[few]
        try:
            yield torch.cat([log_weights(program, x[few], labels, k, where) for k in draws])
        except NonFiniteLogWeight as error:
            raise error.shifted_by(start) from None


def _bytes_per_draw(program: AnyProgram, x: Tensor, context: Tensor | None, where: Structure) -> int:
    """What one more draw for one datum allocates, all tensors counted: an upper bound on what it keeps alive."""
    few = slice(0, 1)
    labels = None if context is None else context[few]
    used = []
    for num_samples in (1, 2):
        with _AllocationMeter() as meter:
            log_weights(program, x[few], labels, num_samples, where)
        used.append(meter.bytes)
    return max(1, used[1] - used[0])


class _AllocationMeter(TorchDispatchMode):
    """Adds up the size of every tensor that operations return while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.bytes += sum(leaf.nbytes for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out


def _concatenate(scores: list[Score]) -> Score:
    """One score for all data from those of consecutive chunks."""
    first = scores[0]
    per_datum = [field.name for field in fields(first) if field.name != "num_samples"]
    return type(first)(num_samples=first.num_samples,
                       **{name: torch.cat([getattr(score, name) for score in scores]) for name in per_datum})
