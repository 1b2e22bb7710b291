"""Scores of a fitted program: the ELBO and the importance-sampled log-likelihood, per datum and with errors.

Everything is made of the log-weights (K, N) of `pyro_vae.traces`. Words: scores are nats per datum, higher is
better. Two errors are kept apart: ``mc_se``, one for each datum, is the Monte Carlo error of its score and falls
with K; ``se`` is the standard error of the mean over data and falls with N.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.arviz_compat import inference_data, psis_tail_shape
from pyro_vae.compilation import CannotCapture, Captured, is_worth_compiling, warn_not_captured
from pyro_vae.datasets import Data, Dataset, as_dataset
from pyro_vae.execution import checked_data, evaluating, isolated_random, random_state, set_random_state
from pyro_vae.memory import DEFAULT_MEMORY, Cost, chunks
from pyro_vae.programs import AnyProgram
from pyro_vae.progress import progress_bar
from pyro_vae.proposals import Guide, Proposal
from pyro_vae.text import END
from pyro_vae.traces import (
    NonFiniteLogWeight,
    Structure,
    importance_traces,
    is_no_weight,
    log_weights,
    structure,
    weights_of,
)
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["ImportanceScore", "Score", "UnreliableEstimate", "bits_per_dim", "concatenate", "convergence", "elbo",
           "evaluate", "importance_weights", "log_joint", "log_likelihood", "pareto_k", "pareto_k_threshold", "perplexity", "summarize",
           "versions"]

Compile = Literal["auto", "on", "off"]
MOST_PARTS = 16  # small tensors that stay between the large ones of a chunk would leave the allocator holes: gigabytes of them
CHUNK_SAVES = 0.1  # seconds that a compiled chunk of that much memory takes less than an eager one, on two cores


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
        sha256: the SHA-256 of the data, see `pyro_vae.datasets.Dataset.sha256`; empty where none was taken.
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
        return self.values.double().std().item() / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

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
        rest = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in self.per_datum}
        return {"mean": self.mean, "se": self.se, "mean_mc_se": self.mean_mc_se, "num_data": len(self.values), **rest,
                "versions": versions(), **{name: value.tolist() for name, value in self.per_datum.items()}}

    def to_inference_data(self) -> Any:
        """The same as ArviZ data: a group ``scores`` with a variable (obs) for each per-datum number."""
        rest = {key: value for key, value in self.to_dict().items() if not isinstance(value, list | dict)}
        variables = {name: (("obs",), value.cpu().numpy()) for name, value in self.per_datum.items()}
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
        return None if self.pareto_k.isnan().all() else int((self.pareto_k > pareto_k_threshold(self.num_samples)).sum())


    def __str__(self) -> str:
        above, threshold = self.above_threshold, pareto_k_threshold(self.num_samples)
        said = "too few draws for Pareto k" if above is None else f"Pareto k above {threshold:.2f} for {above} of {len(self.values)} data"
        return f"{super().__str__()}; {said}"


AnyScore = TypeVar("AnyScore", bound=Score)


def elbo(program: AnyProgram, data: Data, num_samples: int = 100, *, seed: int = 0,
         memory_budget: int = DEFAULT_MEMORY, compile: Compile = "auto", progress: bool = False) -> Score:
    r"""The evidence lower bound of each datum.

    .. math:: \widehat{\mathrm{ELBO}}(x) = \frac1K \sum_k \log w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: number of draws K.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of activations allowed at once.
        compile: ``"auto"`` compiles the guide's log-weights as one graph where there are enough of them for it to pay, which
            is decided by counting and so is the same every time.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a bound.

    Example:
        >>> pv.elbo(vae, torch.zeros(3, 1, 8, 8), num_samples=10).values.shape
        torch.Size([3])
    """
    return evaluate(program, data, num_samples, seed=seed, memory_budget=memory_budget, compile=compile, progress=progress,
                    summaries={"elbo": _elbo_score})["elbo"]


def log_likelihood(program: AnyProgram, data: Data, num_samples: int = 1000, *, proposal: Proposal = Guide(), seed: int = 0,
                   memory_budget: int = DEFAULT_MEMORY, compile: Compile = "auto", progress: bool = False) -> ImportanceScore:
    r"""The log marginal likelihood log p(x) of each datum, by importance sampling.

    .. math:: \widehat{\log p}(x) = \log \frac1K \sum_k w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    with q the guide, or what ``proposal`` makes of it.

    Its expectation is a lower bound on log p(x) that tightens with K. The Monte Carlo error is the delta method's,
    :math:`\mathrm{sd}(w) / (\sqrt K\, \bar w)`. It can be believed where Pareto k lies under its threshold; above
    it the estimate is likely too low by more than its error. On probabilistic PCA at K = 1000, nominal 95% intervals
    covered the exact value for 95% of the data where the guide's median k is below 0.4, 92% between 0.4 and 0.5, 87% up to
    0.6, 78% up to 0.7, 59% up to 0.8, 46% up to 1 and 19% above it (``experiments/evaluation``). Neither k nor ESS can see a
    mode of the posterior that q misses altogether: there both look perfect, and annealing from the prior (`pyro_vae.ais`)
    or NUTS is the remedy. (ArviZ's group ``log_likelihood`` holds log p(x | z) for each draw; this is log p(x).)

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context); with a context it is log p(x | context).
        num_samples: number of draws K.
        proposal: what draws the latents, see `pyro_vae.proposals`; by default the guide.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of activations allowed at once.
        compile: ``"auto"`` compiles the guide's log-weights as one graph where there are enough of them for it to pay, which
            is decided by counting and so is the same every time.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data, K < 1, a program without a density, or weights that are NaN or all zero.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders; Vehtari et al. (2024) for k.

    Example:
        >>> score = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), num_samples=20)
        >>> score.values.shape, score.ess.shape, score.pareto_k.shape
        (torch.Size([3]), torch.Size([3]), torch.Size([3]))
    """
    score = evaluate(program, data, num_samples, proposal=proposal, seed=seed, memory_budget=memory_budget, compile=compile, progress=progress,
                     summaries={"log_likelihood": summarize})["log_likelihood"]
    assert isinstance(score, ImportanceScore)
    if score.above_threshold:
        warnings.warn(
            f"Pareto k is above {pareto_k_threshold(num_samples):.2f} for {score.above_threshold} of "
            f"{len(score.values)} data: their log-likelihoods are likely too low by more than the stated error. "
            "Raise num_samples, refine the guide for each datum (proposal=Refined()), anneal (ais), or use a more flexible "
            "posterior", UnreliableEstimate, stacklevel=2)
    return score


def evaluate(program: AnyProgram, data: Data, num_samples: int = 1000, *, proposal: Proposal = Guide(), seed: int = 0,
             memory_budget: int = DEFAULT_MEMORY, compile: Compile = "auto", progress: bool = False,
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
    summaries = summaries or {"elbo": _elbo_score, "log_likelihood": summarize}
    parts: dict[str, list[Score]] = {name: [] for name in summaries}
    data = as_dataset(data)
    for weights in _weights(program, data, num_samples, proposal, seed, memory_budget, compile, progress):
        for name, summary in summaries.items():
            parts[name].append(summary(weights))
            if len(parts[name]) == MOST_PARTS:
                parts[name] = [concatenate(parts[name])]
    return {name: replace(concatenate(scores), seed=seed, sha256=data.sha256) for name, scores in parts.items()}


def log_joint(program: AnyProgram, data: Data, *, seed: int = 0, memory_budget: int = DEFAULT_MEMORY) -> Score:
    r"""The log-joint of each datum and its point, for a program whose guide is a Delta: minus the loss, and no bound of log p(x).

    .. math:: \log p(x, \mu(x)), \quad q(z \mid x) = \delta(z - \mu(x))

    Under a flat prior it is :math:`\log p(x \mid \mu(x))`. Two autoencoders of one latent size can be compared by it on the
    same data; one with a wider latent always can be better, whatever it knows about x.

    Args:
        program: a program whose guide is a point.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        seed: seed of what else the guide may draw.
        memory_budget: bytes of activations allowed at once.

    Raises:
        InvalidInput: on unusable data.

    Example:
        >>> autoencoder = pv.VAE(
        ...     prior=pv.priors.Flat(2),
        ...     likelihood=pv.likelihoods.Normal(3, pv.networks.MLP(2, [8])),
        ...     posterior=pv.posteriors.Delta(2, pv.networks.MLP(3, [8])),
        ... )
        >>> log_joint(autoencoder, torch.zeros(5, 3)).values.shape
        torch.Size([5])
    """
    data = as_dataset(data)
    weights = _weights(program, data, 1, Guide(), seed, memory_budget, "off", False, scored=False)
    return replace(concatenate([_elbo_score(few) for few in weights]), seed=seed, sha256=data.sha256)


def importance_weights(program: AnyProgram, data: Data, num_samples: int = 1000, *, proposal: Proposal = Guide(),
                       seed: int = 0, memory_budget: int = DEFAULT_MEMORY) -> Tensor:
    """The log-weights (K, N) themselves, those of `log_likelihood` with the same arguments: for figures of a few data.

    Example:
        >>> importance_weights(vae, torch.zeros(3, 1, 8, 8), num_samples=50).shape
        torch.Size([50, 3])
    """
    check_count("num_samples", num_samples)
    return torch.cat(list(_weights(program, as_dataset(data), num_samples, proposal, seed, memory_budget, "auto", False)), dim=1)


def convergence(log_weights: Tensor, points: int = 20) -> list[ImportanceScore]:
    """The estimate from the first K of given draws, for K from 1 to all of them, equally spaced in log K.

    Args:
        log_weights: log-weights (K, N), see `importance_weights`.
        points: at how many K, those that coincide counted once.

    Example:
        >>> [score.num_samples for score in convergence(torch.randn(1000, 2), points=4)]
        [1, 10, 100, 1000]
    """
    ends = torch.logspace(0, math.log10(len(log_weights)), points, dtype=torch.float64).round().long().unique()
    return [summarize(log_weights[:end]) for end in ends.tolist()]


def bits_per_dim(score: Score, event_shape: Sequence[int], levels: int | None = None) -> float:
    r"""Bits per entry of x, a number that compares models of the same quantised data only.

    .. math:: -\frac{\log p(x)}{D \log 2} \;[ + \log_2 L ]

    Without ``levels``, x is discrete and log p(x) a log-probability: there is nothing to add. With ``levels`` = L, x holds
    integers 0 ... L - 1 that were dequantised by uniform noise in [0, 1) and divided by L; log p(x) is then a log-density
    on [0, 1], and the Jacobian of that division adds :math:`\log_2 L` bits (8 for bytes). The result is an upper bound on
    the bits of the integers. A density of data that are neither has no such number.

    Args:
        score: a score in nats.
        event_shape: the shape of one datum.
        levels: L where x was dequantised, ``None`` where x is discrete.

    Source: Theis, van den Oord and Bethge (2016), A Note on the Evaluation of Generative Models.

    Example:
        >>> round(bits_per_dim(Score(torch.tensor([-8 * math.log(2)]), torch.zeros(1), 1), (8,)), 6)
        1.0
    """
    return -score.mean / (math.log(2) * math.prod(event_shape)) + (0.0 if levels is None else math.log2(levels))


def perplexity(score: Score, data: Dataset) -> float | None:
    r"""The perplexity of a word of text, the end of each sentence counted as one; ``None`` where the data are no text.

    .. math:: \exp \Big( -\frac{\sum_n \log p(x_n)}{\sum_n T_n} \Big)

    As uncertain as a choice among so many equally probable words; an upper bound where log p is a bound. It depends on which
    words count as unknown, so it compares models of the same vocabulary only.

    Args:
        score: log p(x) or a bound on it, of all of the data.
        data: what was scored.

    Source: Jelinek et al. (1977), Perplexity, a measure of the difficulty of speech recognition tasks.

    Example:
        >>> from pyro_vae.text import Vocabulary
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


def _weights(program: AnyProgram, data: Dataset, num_samples: int, proposal: Proposal, seed: int, memory_budget: int,
             compile: Compile, progress: bool, scored: bool = True) -> Iterator[Tensor]:
    """Log-weights (K, n) of a few data at a time."""
    with evaluating(program, seed):
        x, context = checked_data(program, data)
        where = structure(program, x, context, scored=scored)
        repeats = num_samples if where.is_deterministic and isinstance(proposal, Guide) else 1
        num_samples //= repeats
        cost = _cost(program, x, context, where, proposal)
        rows = cost.draws_at_once(memory_budget, num_samples)
        size = cost.data_at_once(memory_budget, rows) if rows == num_samples else 1
        bar = progress_bar(f"log-weights, K = {num_samples}", total=len(x), shown=progress)
        if isinstance(proposal, Guide):
            proposal = _CompiledGuide(compile, runs=-(-len(x) // size) * -(-num_samples // rows))
        with validation_enabled(False), isolated_random(x.device, seed), bar as advance:
            for weights in _log_weights_in_chunks(program, x, context, num_samples, where, rows, size, proposal):
                yield weights.expand(repeats * num_samples, -1)
                advance(weights.shape[1])


class _CompiledGuide:
    """The proposal `Guide`, its log-weights a captured and compiled graph where that pays.

    Only the first shape of a chunk is compiled: all chunks but the last one, or the last one of each datum, have it.

    Args:
        compile: whether to; ``"auto"`` to find out.
        runs: how many chunks there will be.
    """

    def __init__(self, compile: Compile, runs: int):
        check_choice("compile", compile, ["auto", "on", "off"])
        self.compile, self.runs = compile, runs
        self.shape: tuple[int, int] | None = None
        self.graph: Captured | None = None

    def __call__(self, program: AnyProgram, x: Tensor, context: Tensor | None, where: Structure) -> Callable[[int], Tensor]:
        inputs = [x] if context is None else [x, context]

        def draw(num_samples: int) -> Tensor:
            def weights(x: Tensor, *context: Tensor) -> Tensor:
                traces = importance_traces(program, x, context[0] if context else None, num_samples, where.particle_dim)
                return weights_of(*traces, where, (num_samples, len(x)))

            if self.shape is None:
                self.shape, self.graph = (num_samples, len(x)), self._captured(weights, inputs)
            if self.graph is None or self.shape != (num_samples, len(x)):
                return log_weights(program, x, context, num_samples, where)
            before = random_state(x.device)
            (drawn,) = self.graph(*inputs)
            if is_no_weight(drawn).any():
                set_random_state(x.device, before)
                return log_weights(program, x, context, num_samples, where)  # the same draws, and the error that names the site
            return drawn

        return draw

    def _captured(self, weights: Callable[..., Tensor], inputs: list[Tensor]) -> Captured | None:
        if self.compile == "off" or (self.compile == "auto" and not is_worth_compiling(0, CHUNK_SAVES, self.runs)):
            return None
        try:
            graph = Captured(weights, inputs)
        except CannotCapture as error:
            warn_not_captured(error)
            return None
        if self.compile == "auto" and not is_worth_compiling(graph.size, CHUNK_SAVES, self.runs):
            return None
        graph.compile(inputs)
        return graph


def _elbo_score(weights: Tensor) -> Score:
    weights = weights.double()
    num_samples = len(weights)
    return Score(weights.mean(0), weights.std(0, correction=1) / math.sqrt(num_samples) if num_samples > 1
                 else torch.full_like(weights[0], math.nan), num_samples)


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
                           where: Structure, rows: int, size: int, proposal: Proposal) -> Iterator[Tensor]:
    """Log-weights (K, n) of ``size`` data at a time, in order, from ``rows`` draws of each at once."""
    draws = [few.stop - few.start for few in chunks(num_samples, rows)]
    for few in chunks(len(x), size):
        labels = None if context is None else context[few]
        try:
            draw_weights = proposal(program, x[few], labels, where)
            weights = torch.cat([draw_weights(k) for k in draws])
        except NonFiniteLogWeight as error:
            raise error.shifted_by(few.start) from None
        impossible = (weights == -torch.inf).all(0)
        if impossible.any():
            raise _no_weight(program, x, context, few.start + int(impossible.nonzero()[0]), num_samples)
        yield weights


def _no_weight(program: AnyProgram, x: Tensor, context: Tensor | None, datum: int, num_samples: int) -> InvalidInput:
    """The error for a datum to which no draw gives any weight, with the site that does it."""
    one = slice(datum, datum + 1)
    _, model = importance_traces(program, x[one], None if context is None else context[one])
    model.compute_log_prob()
    sites = [name for name, site in model.nodes.items()
             if site["type"] == "sample" and (site["unscaled_log_prob"] == -torch.inf).any()]
    return InvalidInput(
        "log-weights", got=f"-inf for all {num_samples} draws of datum {datum}" + "".join(f", first at site {s!r}" for s in sites[:1]),
        expected="at least one draw under which that datum is possible",
        fix="check that datum, the guide's support against the prior's, and that the likelihood gives it a probability")


def _cost(program: AnyProgram, x: Tensor, context: Tensor | None, where: Structure, proposal: Proposal) -> Cost:
    def run(num_data: int, num_samples: int) -> None:
        few = [0] * num_data
        proposal(program, x[few], None if context is None else context[few], where)(num_samples)

    return Cost.of(run)


def concatenate(scores: Sequence[AnyScore]) -> AnyScore:
    """One score for all data from those of consecutive chunks, of one kind and made with the same settings."""
    first = scores[0]
    per_datum: dict[str, Any] = {name: torch.cat([score.per_datum[name] for score in scores]) for name in first.per_datum}
    return replace(first, **per_datum)
