"""Log-weights of many data in blocks of fixed shape, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pyro_vae.contracts import ProgramLike, as_module, sites_of
from pyro_vae.datasets.dataset import Data
from pyro_vae.evaluation.first_graph import A_TEST_SET, SAVED_BY_A_BLOCK, FirstGraph, of_block
from pyro_vae.evaluation.proposals import (
    Guide,
    Proposal,
    draws_states,
    in_one_step,
    never_reaches_all,
)
from pyro_vae.evaluation.rare_states import WithRareStates
from pyro_vae.ranks.group import of_this_process
from pyro_vae.runtime.blocks import BLOCK_BYTES, Blocks, fewest_runs, with_noise_of
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.constants import Constants
from pyro_vae.runtime.environment import random_state, seed_generators, set_random_state
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.settings import Compile, Settings
from pyro_vae.runtime.traces import NonFiniteLogWeight, is_no_weight, weights_of
from pyro_vae.validation import InvalidInput

__all__ = [
    "BLOCK_BYTES",
    "MOST_PARTS",
    "Blocks",
    "CompiledGuide",
    "Passes",
    "Weighed",
    "iterate_log_weights",
    "weights_of_block",
]


# Small tensors that stay between the large ones of a block would leave the allocator gigabytes of
# holes.
MOST_PARTS = 16


@dataclass(frozen=True)
class Weighed:
    """Log-weights of a few data.

    Args:
        weights: log-weights (K, n).
        runs: of a guide with random numbers of its own, how many draws each of its runs made, in
            order; empty for any other guide, whose draws are all independent.
        is_exact: whether all draws are one, as of a guide that chooses a code.
        is_restricted: whether draws never reach some values of a discrete latent, as those of such
            a guide do not.
        with_states: log-weights (K, n) of the same mean, in which rare states of discrete latents
            are summed over (`WithRareStates`); ``None`` where the guide has no such latents.
        log_error: the log of the standard error (n,) of what these add to p(x).
        hides_states: whether there may be states of a discrete latent that no draw has.
    """

    weights: Tensor
    runs: tuple[int, ...] = ()
    is_exact: bool = False
    is_restricted: bool = False
    with_states: Tensor | None = None
    log_error: Tensor | None = None
    hides_states: bool = False


def iterate_log_weights(
    program: ProgramLike,
    data: Data,
    num_samples: int,
    proposal: Proposal,
    settings: Settings,
    *,
    scored: bool = True,
    looked_at: bool = False,
    start: int = 0,
    passes: Passes | None = None,
) -> Generator[Weighed, None, None]:
    """Yield log-weights of a few data at a time, in order, from the block of one of them on.

    If this is one of many passes over the same data, they share a graph.

    In between, the program is in evaluation mode and gradients are off. `contextlib.closing` ends
    that, even where an error keeps the generator alive.
    """
    opened = conditioned(program, data, settings.seed, scored=scored, looked_at=looked_at)
    with opened as given:
        is_guide = isinstance(proposal, Guide)
        is_restricted = never_reaches_all(given, proposal)
        torch.empty(num_samples)  # what one datum takes: too much is said now, and not in hours
        repeats = num_samples if given.plates.is_deterministic and is_guide else 1
        probe = in_one_step(proposal)  # what is measured is the memory of its draws
        blocks = Blocks.of(given, probe, num_samples // repeats, fewest_runs(given))
        states = WithRareStates.of(proposal, given, num_samples) if scored else None
        hides = scored and states is None and draws_states(proposal, given)
        if states is not None:
            proposal = states
        elif is_guide:
            runs = -(-A_TEST_SET // blocks.size) * len(blocks.draws)
            compile = "off" if given.plates.one_draw else settings.compile
            scored_runs = -(-len(given) // blocks.size) * len(blocks.draws)
            if passes is None:
                proposal = CompiledGuide(compile, runs, scored_runs)
            else:
                is_copy = given.program is not program  # made for this pass alone
                proposal = passes.guide(given, "off" if is_copy else compile, scored_runs)
        runs_of_guide = blocks.draws if given.noise is not None else ()

        def weigh(own: int, few: slice) -> Tensor:
            seed_generators(given.device, own)
            part = with_noise_of(given[blocks.rows(few)], own)
            return weights_of_block(part, few, proposal, blocks.draws)

        seeded = blocks.seeded(given.device, len(given), settings.seed)
        tasks = (partial(weigh, own, few) for own, few in seeded if few.start >= start)
        group = of_this_process()
        label = f"log-weights, K = {num_samples}"
        shown = settings.progress
        with progress_bar(label, total=len(given), shown=shown, start=start) as advance:
            computed = (task() for task in tasks) if group is None else group.in_turns(tasks)
            for weights in computed:
                if states is not None:
                    weights, with_states, log_error = weights
                    yield Weighed(weights, with_states=with_states, log_error=log_error[0])
                else:
                    weights = weights.expand(num_samples, -1) if repeats > 1 else weights
                    exact = repeats > 1
                    yield Weighed(weights, runs_of_guide, exact, is_restricted, hides_states=hides)
                advance(weights.shape[1])
        if passes is not None:
            passes.passed()


def weights_of_block(
    part: Conditioned, few: slice, proposal: Proposal, draws: tuple[int, ...]
) -> Tensor:
    r"""Log-weights (\*, K, n) of the data of a block, without those that pad it."""
    try:
        draw_weights = proposal(part)
        weights = torch.cat([draw_weights(count) for count in draws], dim=-2)
    except NonFiniteLogWeight as error:
        raise error.within(few) from None
    weights = weights[..., : few.stop - few.start]
    impossible = (weights == -torch.inf).all(-2)
    if impossible.any():
        impossible = impossible.reshape(-1, impossible.shape[-1]).any(0)
        datum = int(impossible.nonzero()[0])
        raise _no_weight(part[datum : datum + 1], few.start + datum, sum(draws))
    return weights


class CompiledGuide:
    """The proposal `Guide`, its log-weights a captured and compiled graph where that pays."""

    def __init__(self, compile: Compile, runs: int, scored_runs: int = 1):
        self.first = FirstGraph(compile, SAVED_BY_A_BLOCK, runs, scored_runs)

    def __call__(self, given: Conditioned) -> Callable[[int], Tensor]:
        def draw(num_samples: int) -> Tensor:
            shape = (num_samples, len(given))
            inputs, weights = of_block(
                given,
                lambda here: weights_of(*here.traces(num_samples), here.plates, shape),
            )
            graph = self.first.of(weights, inputs, shape)
            if graph is None:
                return given.log_weights(num_samples)
            before = random_state(given.device)
            (drawn,) = graph(*inputs)
            if is_no_weight(drawn).any():
                # The same draws again, for the error that names the site.
                set_random_state(given.device, before)
                return given.log_weights(num_samples)
            return drawn

        return draw


class Passes:
    """Passes over the same data while the program is trained, with one graph for all.

    A graph computes with the tensors and numbers that the program had in the first pass. Once it
    has others, all passes run eagerly; and so do those after the first if each changes a number.

    Args:
        number: how many there will be.
    """

    def __init__(self, number: int):
        self.number = number
        self.kept: CompiledGuide | None = None
        self.constants: Constants | None = None

    @property
    def is_compiled(self) -> bool | None:
        """Whether there is a graph; ``None`` before the first pass."""
        return None if self.kept is None else self.kept.first.graph is not None

    def guide(self, given: Conditioned, compile: Compile, runs: int) -> CompiledGuide:
        """What draws in the next pass, which has so many runs."""
        module = as_module(given.program)
        if self.kept is None:
            self.kept = CompiledGuide(compile, runs * self.number, scored_runs=0)
            self.constants = Constants(module)
        elif self.is_compiled and not self._is_as_before(module):
            self.kept = CompiledGuide("off", 0)
        self.kept.first.refresh()
        return self.kept

    def _is_as_before(self, module: nn.Module) -> bool:
        known = self.constants
        return known is not None and known.hold() and all(map(known.has, module.parameters()))

    def passed(self) -> None:
        """Find out, after a pass, whether such a pass changes what the next would compute with."""
        if self.is_compiled and self.constants is not None and self.constants.number_changed():
            self.kept = CompiledGuide("off", 0)


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
