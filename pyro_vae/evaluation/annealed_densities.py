"""The densities that annealing moves between, with their gradients, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import OperationCounter, Work, is_worth_compiling
from pyro_vae.compilation.passes import CannotCapture
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latents import Unconstrained, frozen
from pyro_vae.runtime.settings import Compile
from pyro_vae.validation import InvalidInput

__all__ = ["Densities", "Point", "Runs"]

FEWEST_RUNS = 200  # of a graph, for capturing it to save time
A_TEST_SET = 100  # data: the decision to compile must not follow from how many are scored


@dataclass
class Point:
    """Where chains are, with the densities and gradients there.

    They are u (C, n, D), log f_0 and log f_1 (2, C, n), and the gradients of both (2, C, n, D).
    """

    u: Tensor
    log_f: Tensor
    gradients: Tensor

    @property
    def advantage(self) -> Tensor:
        """log f_1 - log f_0 (C, n)."""
        return self.log_f[1] - self.log_f[0]

    def log_f_at(self, beta: float) -> Tensor:
        """log f_beta (C, n)."""
        return torch.lerp(self.log_f[0], self.log_f[1], beta)

    def gradient_at(self, beta: float) -> Tensor:
        """The gradient of log f_beta (C, n, D)."""
        return torch.lerp(self.gradients[0], self.gradients[1], beta)


@dataclass(frozen=True)
class Runs:
    """How often densities are computed for a block of data.

    Args:
        by_chains: how often, by the number of chains at once.
        block: data in a block.
    """

    by_chains: Mapping[int, int]
    block: int

    def over_a_test_set(self, num_chains: int) -> int:
        """How often for a test set of usual size, whatever data there are."""
        return self.by_chains[num_chains] * -(-A_TEST_SET // self.block)


class Densities:
    """log f_0 and log f_1 of a block of data at given latents, with both gradients.

    A graph of them has the bits of the program itself, without Pyro's handlers; compiled, it is
    equal within rounding. Whether it is compiled follows from the program and the chains alone, so
    that a datum's score does not depend on how many others there are.

    Args:
        latents: how the latents are packed.
        from_guide: whether f_0 is the guide, or the prior.
        runs: how often they will be computed; ``None`` to capture nothing.
        compile: whether to compile; ``"auto"`` where that pays.
    """

    def __init__(
        self,
        latents: Unconstrained,
        from_guide: bool,
        runs: Runs | None = None,
        compile: Compile = "auto",
    ):
        self.latents, self.from_guide = latents, from_guide
        self.runs, self.compile = runs, compile
        self.graphs: dict[torch.Size, Captured | None] = {}

    def __call__(self, given: Conditioned, u: Tensor) -> Point:
        """The densities at u (C, n, D) with both gradients, so that a new temperature is free."""
        tensors, form = tree_flatten([part for part in given.args if part is not None])
        inputs = [value.contiguous() for value in (u, *tensors)]  # a graph is of one layout

        def of_tensors(u: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            x, *context = tree_unflatten(tensors, form)
            return self._eager(replace(given, x=x, context=context[0] if context else None), u)

        if u.shape not in self.graphs:
            self.graphs[u.shape] = self._captured(of_tensors, given, inputs)
        graph = self.graphs[u.shape]
        log_f, gradients = (graph or of_tensors)(*inputs)
        return Point(u, log_f, gradients)

    def _eager(self, given: Conditioned, u: Tensor) -> tuple[Tensor, Tensor]:
        with frozen(given.program), torch.enable_grad():
            u = u.detach().requires_grad_()
            first, last = self._log_densities(given, u)
            (towards_last,) = torch.autograd.grad(last.sum(), u, retain_graph=True)
            (towards_first,) = torch.autograd.grad(first.sum(), u)
        return torch.stack([first, last]).detach(), torch.stack([towards_first, towards_last])

    def _log_densities(self, given: Conditioned, u: Tensor) -> tuple[Tensor, Tensor]:
        """(log f_0, log f_1) at u (C, n, D)."""
        values, log_jacobian = self.latents.unpack(u)
        log_prior, log_rest = given.log_density(given.model, values)
        log_start = given.log_density(given.guide, values)[0] if self.from_guide else log_prior
        return log_start + log_jacobian, log_prior + log_rest + log_jacobian

    def _captured(
        self, fn: Callable[..., tuple[Tensor, Tensor]], given: Conditioned, inputs: list[Tensor]
    ) -> Captured | None:
        # Random numbers of a guide's own are replayed at each run, which a graph would not do.
        replayed = self.from_guide and given.noise is not None
        if self.runs is None or replayed or given.plates.one_draw or self.compile == "off":
            return None
        num_chains = len(inputs[0])
        if self.runs.by_chains[num_chains] < FEWEST_RUNS and self.compile == "auto":
            return None
        try:
            graph = Captured(fn, inputs)
        except (CannotCapture, InvalidInput, RuntimeError):
            return None
        graph.hoist()
        with OperationCounter() as count:
            graph(*inputs)
        saved = Work(count.operations, count.multiplications).saved_by_compiling
        runs = self.runs.over_a_test_set(num_chains)
        if self.compile == "on" or is_worth_compiling(graph.size, saved, runs):
            graph.compile(inputs)
        return graph
