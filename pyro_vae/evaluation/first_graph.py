"""Work that is repeated on blocks of one shape, compiled as one graph where that pays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.compilation.capture import Captured, TensorFunction
from pyro_vae.compilation.cost import is_worth_compiling
from pyro_vae.compilation.passes import CannotCapture, warn_not_captured
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.settings import Compile

__all__ = ["A_TEST_SET", "SAVED_BY_A_BLOCK", "FirstGraph", "of_block"]

# Seconds that compiling saves in a block, on two cores, and the data of a test set of usual size:
# compiled numbers differ from others by rounding, so what decides must not be how many are scored.
SAVED_BY_A_BLOCK, A_TEST_SET = 0.006, 1000


class FirstGraph:
    """The graph of the first of many like functions, captured and compiled where that pays.

    Only the shape of the first run is captured: all have it but the last draws of each datum.

    Args:
        compile: whether to; ``"auto"`` to find out.
        saved: seconds that a compiled run takes less.
        runs: how many runs there are, for a score those of a test set of usual size.
        scored_runs: how many runs there will be: with few, nobody is told that they run eagerly.
    """

    def __init__(self, compile: Compile, saved: float, runs: int, scored_runs: int = 1):
        self.compile, self.saved = compile, saved
        self.runs, self.scored_runs = runs, scored_runs
        self.shape: Hashable = None
        self.graph: Captured | None = None

    def of(self, fn: TensorFunction, inputs: Sequence[Tensor], shape: Hashable) -> Captured | None:
        """The graph for a function of inputs of some shape; ``None`` where it is to run eagerly."""
        if self.shape is None:
            self.shape, self.graph = shape, self._captured(fn, inputs)
        return self.graph if self.shape == shape else None

    def refresh(self) -> None:
        """Go on with the weights as they are now."""
        if self.graph is not None:
            self.graph.refresh()

    def _captured(self, fn: TensorFunction, inputs: Sequence[Tensor]) -> Captured | None:
        if self.compile == "off" or not self._pays(0, self.runs):
            return None
        try:
            graph = Captured(fn, inputs)
        except CannotCapture as error:
            if self._pays(0, self.scored_runs):
                warn_not_captured(error)
            return None
        if not self._pays(graph.size, self.runs):
            return None
        graph.hoist()
        graph.compile(inputs)
        return graph

    def _pays(self, operations: int, runs: int) -> bool:
        return self.compile == "on" or is_worth_compiling(operations, self.saved, runs)


def of_block(
    given: Conditioned, fn: Callable[[Conditioned], Tensor | tuple[Tensor, ...]]
) -> tuple[list[Tensor], TensorFunction]:
    """The tensors of a block's data, and a function of such as a function of them."""
    inputs, form = tree_flatten([part for part in given.args if part is not None])

    def of_tensors(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, *context = tree_unflatten(tensors, form)
        return fn(replace(given, x=x, context=context[0] if context else None))

    return inputs, of_tensors
