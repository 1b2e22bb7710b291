"""Decide whether compiling pays: a graph's work against the seconds that compiling it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyro_vae.compilation.watching import Watching

__all__ = ["FEWEST_STEPS", "OperationCounter", "Work", "is_worth_compiling"]

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)

# In CPU seconds on two cores: what compiling costs with an empty cache, and what a step then saves
# for each operation, in Python and memory, and for each multiplication of its products. All savings
# that were measured are larger, by up to three times.
SECONDS_TO_COMPILE, SECONDS_TO_COMPILE_AN_OPERATION = 6.0, 0.008
SECONDS_SAVED_BY_AN_OPERATION, SECONDS_SAVED_BY_A_MULTIPLICATION = 4.5e-6, 4e-12

FEWEST_STEPS = 300  # for fewer, the work is not even counted


class OperationCounter(Watching):
    """Count operations, and the multiplications of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.multiplications = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if func.overloadpacket in PRODUCTS:
            self.multiplications += out.numel() * args[-1].shape[-2]
        return out


@dataclass(frozen=True)
class Work:
    """The work of a step: operations, and multiplications of matrix products."""

    operations: int
    multiplications: int = 0

    @property
    def saved_by_compiling(self) -> float:
        """Seconds that compiling takes off a step, by these counts."""
        return (
            self.operations * SECONDS_SAVED_BY_AN_OPERATION
            + self.multiplications * SECONDS_SAVED_BY_A_MULTIPLICATION
        )


def is_worth_compiling(operations: int, saved_by_a_run: float, runs: float) -> bool:
    """Whether compiling a graph saves time over a number of runs.

    Counts alone decide, no clock, so that the decision is reproducible.

    Args:
        operations: number of operations of the graph.
        saved_by_a_run: seconds that a run then takes less.
        runs: number of runs.

    Example:
        >>> is_worth_compiling(200, 1e-3, runs=1_000), is_worth_compiling(200, 1e-3, runs=100_000)
        (False, True)
    """
    return saved_by_a_run * runs > SECONDS_TO_COMPILE + operations * SECONDS_TO_COMPILE_AN_OPERATION
