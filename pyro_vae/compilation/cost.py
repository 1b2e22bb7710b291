"""Whether compiling pays: the work in a graph against the seconds that compiling it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["FEWEST_STEPS", "OperationCounter", "Work", "is_worth_compiling"]


class OperationCounter(TorchDispatchMode):
    """Counts operations, and the multiplications of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.multiplications = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if func.overloadpacket in (
            torch.ops.aten.mm,
            torch.ops.aten.addmm,
            torch.ops.aten.bmm,
            torch.ops.aten.baddbmm,
        ):
            self.multiplications += out.numel() * args[-1].shape[-2]
        return out


# In CPU seconds on two cores: what compiling costs with an empty cache, and what a step then saves
# for each operation, in Python and memory, and for each multiplication of its products. All savings
# that were measured are larger, by up to three times.
SECONDS_TO_COMPILE, SECONDS_TO_COMPILE_AN_OPERATION = 6.0, 0.008


SECONDS_SAVED_BY_AN_OPERATION, SECONDS_SAVED_BY_A_MULTIPLICATION = 4.5e-6, 4e-12


FEWEST_STEPS = 300  # below, not even looked at


@dataclass(frozen=True)
class Work:
    """How much a step does: operations, and multiplications of matrix products."""

    operations: int
    multiplications: int = 0

    @property
    def saved_by_compiling(self) -> float:
        """The seconds that a compiled step takes less than an eager one, by these counts."""
        return (
            self.operations * SECONDS_SAVED_BY_AN_OPERATION
            + self.multiplications * SECONDS_SAVED_BY_A_MULTIPLICATION
        )


def is_worth_compiling(operations: int, saved_by_a_run: float, runs: float) -> bool:
    """Whether compiling a graph saves time over a number of runs: by their counts alone, so that it is reproducible.

    Args:
        operations: of the graph.
        saved_by_a_run: seconds.
        runs: how many there will be.

    Example:
        >>> is_worth_compiling(200, 1e-3, runs=1_000), is_worth_compiling(200, 1e-3, runs=100_000)
        (False, True)
    """
    return saved_by_a_run * runs > SECONDS_TO_COMPILE + operations * SECONDS_TO_COMPILE_AN_OPERATION
