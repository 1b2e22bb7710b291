"""Log-weights of many data, a few at a time under a memory budget, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import is_worth_compiling
from pyro_vae.compilation.passes import CannotCapture, warn_not_captured
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.proposals import Guide, Proposal
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.environment import evaluating, isolated_random, random_state, set_random_state
from pyro_vae.runtime.memory import Cost, chunks
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.traces import (
    NonFiniteLogWeight,
    Plates,
    find_plates,
    importance_traces,
    is_no_weight,
    log_weights,
    weights_of,
)
from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["Compile", "MOST_PARTS", "iterate_log_weights"]

Compile = Literal["auto", "on", "off"]


# small tensors that stay between the large ones of a chunk would leave the allocator holes:
# gigabytes of them
MOST_PARTS = 16


# seconds that a compiled chunk of that much memory takes less than an eager one, on two cores
CHUNK_SAVES = 0.1


def iterate_log_weights(
    program: ProgramLike,
    data: Dataset,
    num_samples: int,
    proposal: Proposal,
    seed: int,
    memory_budget: int,
    compile: Compile,
    progress: bool,
    scored: bool = True,
) -> Iterator[Tensor]:
    """Log-weights (K, n) of a few data at a time."""
    with evaluating(program, seed):
        x, context = checked_data(program, data)
        where = find_plates(program, x, context, scored=scored)
        repeats = num_samples if where.is_deterministic and isinstance(proposal, Guide) else 1
        num_samples //= repeats
        cost = _cost(program, x, context, where, proposal)
        rows = cost.draws_at_once(memory_budget, num_samples)
        size = cost.data_at_once(memory_budget, rows) if rows == num_samples else 1
        bar = progress_bar(f"log-weights, K = {num_samples}", total=len(x), shown=progress)
        if isinstance(proposal, Guide):
            proposal = _CompiledGuide(compile, runs=-(-len(x) // size) * -(-num_samples // rows))
        with validation_enabled(False), isolated_random(x.device, seed), bar as advance:
            for weights in _log_weights_in_chunks(
                program, x, context, num_samples, where, rows, size, proposal
            ):
                yield weights.expand(repeats * num_samples, -1)
                advance(weights.shape[1])


class _CompiledGuide:
    """The proposal `Guide`, its log-weights a captured and compiled graph where that pays.

    Only the first shape of a chunk is compiled: all chunks but the last one, or the last one of
    each datum, have it.

    Args:
        compile: whether to; ``"auto"`` to find out.
        runs: how many chunks there will be.
    """

    def __init__(self, compile: Compile, runs: int):
        check_choice("compile", compile, ["auto", "on", "off"])
        self.compile, self.runs = compile, runs
        self.shape: tuple[int, int] | None = None
        self.graph: Captured | None = None

    def __call__(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> Callable[[int], Tensor]:
        inputs = [x] if context is None else [x, context]

        def draw(num_samples: int) -> Tensor:
            def weights(x: Tensor, *context: Tensor) -> Tensor:
                traces = importance_traces(
                    program, x, context[0] if context else None, num_samples, where.particle_dim
                )
                return weights_of(*traces, where, (num_samples, len(x)))

            if self.shape is None:
                self.shape, self.graph = (num_samples, len(x)), self._captured(weights, inputs)
            if self.graph is None or self.shape != (num_samples, len(x)):
                return log_weights(program, x, context, num_samples, where)
            before = random_state(x.device)
            (drawn,) = self.graph(*inputs)
            if is_no_weight(drawn).any():
                set_random_state(x.device, before)
                return log_weights(
                    program, x, context, num_samples, where
                )  # the same draws, and the error that names the site
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


def _log_weights_in_chunks(
    program: ProgramLike,
    x: Tensor,
    context: Tensor | None,
    num_samples: int,
    where: Plates,
    rows: int,
    size: int,
    proposal: Proposal,
) -> Iterator[Tensor]:
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
            raise _no_weight(
                program, x, context, few.start + int(impossible.nonzero()[0]), num_samples
            )
        yield weights


def _no_weight(
    program: ProgramLike, x: Tensor, context: Tensor | None, datum: int, num_samples: int
) -> InvalidInput:
    """The error for a datum to which no draw gives any weight, with the site that does it."""
    one = slice(datum, datum + 1)
    _, model = importance_traces(program, x[one], None if context is None else context[one])
    model.compute_log_prob()
    sites = [
        name
        for name, site in model.nodes.items()
        if site["type"] == "sample" and (site["unscaled_log_prob"] == -torch.inf).any()
    ]
    return InvalidInput(
        "log-weights",
        got=f"-inf for all {num_samples} draws of datum {datum}"
        + "".join(f", first at site {s!r}" for s in sites[:1]),
        expected="at least one draw under which that datum is possible",
        fix="check that datum, the guide's support against the prior's, and that the likelihood gives it a probability",
    )


def _cost(
    program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates, proposal: Proposal
) -> Cost:
    def run(num_data: int, num_samples: int) -> None:
        few = [0] * num_data
        proposal(program, x[few], None if context is None else context[few], where)(num_samples)

    return Cost.of(run)
