"""Replay a sequence of GPU kernels as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replay"]


class Replay:
    """Several steps as one CUDA graph: recorded once, then launched by a single call, with no Python between the steps.

    Args:
        step: from tensors (or ``None``) to a scalar tensor; what else it does, it does in place,
            without asking the device, and it has run before, so that all that is made at first is
            there. Random numbers are those of the device's own generator, from its state at each
            launch.
        inputs: of all the steps, stacked; their number is the tensors' first dimension.
    """

    def __init__(self, step: Callable[..., Tensor], inputs: Sequence[Tensor | None]):
        self.inputs = [None if x is None else x.clone() for x in inputs]
        (number,) = {len(x) for x in self.inputs if x is not None}
        device = next(x.device for x in self.inputs if x is not None)
        self.graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            torch.cuda.graph(self.graph, stream=torch.cuda.Stream(device)),
        ):
            self.out = torch.stack(
                [step(*(None if x is None else x[i] for x in self.inputs)) for i in range(number)]
            )

    def __call__(self, inputs: Sequence[Tensor | None]) -> Tensor:
        for kept, x in zip(self.inputs, inputs):
            if kept is not None and x is not None:
                kept.copy_(x)
        self.graph.replay()
        return self.out.clone()
