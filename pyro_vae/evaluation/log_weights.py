"""Log-weights of many data, a few at a time under a memory budget, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import is_worth_compiling
from pyro_vae.compilation.passes import CannotCapture, warn_not_captured
from pyro_vae.contracts import ProgramLike, sites_of
from pyro_vae.datasets.dataset import Data
from pyro_vae.evaluation.proposals import Guide, Proposal
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.environment import isolated_random, random_state, set_random_state
from pyro_vae.runtime.memory import Cost, chunks
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.settings import Compile, Settings
from pyro_vae.runtime.traces import NonFiniteLogWeight, is_no_weight, weights_of
from pyro_vae.validation import InvalidInput

__all__ = ["MOST_PARTS", "iterate_log_weights"]


# Small tensors that stay between the large ones of a chunk would leave the allocator gigabytes of
# holes.
MOST_PARTS = 16


# Seconds that compiling saves in a chunk of that much memory, on two cores.
CHUNK_SAVES = 0.1


def iterate_log_weights(
    program: ProgramLike,
    data: Data,
    num_samples: int,
    proposal: Proposal,
    settings: Settings,
    *,
    scored: bool = True,
) -> Iterator[Tensor]:
    """Yield log-weights (K, n) of a few data at a time, in order."""
    with conditioned(program, data, settings.seed, scored=scored) as given:
        is_guide = isinstance(proposal, Guide)
        repeats = num_samples if given.plates.is_deterministic and is_guide else 1
        num_samples //= repeats
        cost = _cost(given, proposal)
        rows = cost.draws_at_once(settings.memory_budget, num_samples)
        size = cost.data_at_once(settings.memory_budget, rows) if rows == num_samples else 1
        draws = [few.stop - few.start for few in chunks(num_samples, rows)]
        label = f"log-weights, K = {num_samples}"
        bar = progress_bar(label, total=len(given), shown=settings.progress)
        if is_guide:
            runs = -(-len(given) // size) * len(draws)
            proposal = _CompiledGuide(settings.compile, runs)
        with isolated_random(given.x.device, settings.seed), bar as advance:
            for part, few in given.in_chunks(size):
                weights = _log_weights_of(part, draws, proposal, few.start)
                yield weights.expand(repeats * num_samples, -1)
                advance(len(part))


class _CompiledGuide:
    """The proposal `Guide`, its log-weights a captured and compiled graph where that pays.

    Only the first shape of a chunk is compiled: all chunks but the last one, or the last one of
    each datum, have it.

    Args:
        compile: whether to; ``"auto"`` to find out.
        runs: how many chunks there will be.
    """

    def __init__(self, compile: Compile, runs: int):
        self.compile, self.runs = compile, runs
        self.shape: tuple[int, int] | None = None
        self.graph: Captured | None = None

    def __call__(self, given: Conditioned) -> Callable[[int], Tensor]:
        inputs = [part for part in given.args if part is not None]

        def draw(num_samples: int) -> Tensor:
            shape = (num_samples, len(given))

            def weights(x: Tensor, *context: Tensor) -> Tensor:
                here = replace(given, x=x, context=context[0] if context else None)
                return weights_of(*here.traces(num_samples), given.plates, shape)

            if self.shape is None:
                self.shape, self.graph = shape, self._captured(weights, inputs)
            if self.graph is None or self.shape != shape:
                return given.log_weights(num_samples)
            before = random_state(given.x.device)
            (drawn,) = self.graph(*inputs)
            if is_no_weight(drawn).any():
                # The same draws again, for the error that names the site.
                set_random_state(given.x.device, before)
                return given.log_weights(num_samples)
            return drawn

        return draw

    def _captured(self, weights: Callable[..., Tensor], inputs: list[Tensor]) -> Captured | None:
        if self.compile == "off" or (
            self.compile == "auto" and not is_worth_compiling(0, CHUNK_SAVES, self.runs)
        ):
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


def _log_weights_of(given: Conditioned, draws: list[int], proposal: Proposal, start: int) -> Tensor:
    """Log-weights (K, n) of a few data, of which the first has the index ``start``."""
    try:
        draw_weights = proposal(given)
        weights = torch.cat([draw_weights(count) for count in draws])
    except NonFiniteLogWeight as error:
        raise error.shifted_by(start) from None
    impossible = (weights == -torch.inf).all(0)
    if impossible.any():
        datum = int(impossible.nonzero()[0])
        raise _no_weight(given[datum : datum + 1], start + datum, sum(draws))
    return weights


def _no_weight(given: Conditioned, datum: int, num_samples: int) -> InvalidInput:
    """The error for a datum to which no draw gives any weight, with the site that does it."""
    _, model = given.traces()
    model.compute_log_prob()
    sites = [
        name
        for name, site in sites_of(model).items()
        if (site["unscaled_log_prob"] == -torch.inf).any()
    ]
    culprit = "".join(f", first at site {name!r}" for name in sites[:1])
    return InvalidInput(
        "log-weights",
        got=f"-inf for all {num_samples} draws of datum {datum}{culprit}",
        expected="at least one draw under which that datum is possible",
        fix="check that datum, the guide's support against the prior's, and that the likelihood "
        "gives it a probability",
    )


def _cost(given: Conditioned, proposal: Proposal) -> Cost:
    return Cost.of(lambda num_data, num_samples: proposal(given[[0] * num_data])(num_samples))
