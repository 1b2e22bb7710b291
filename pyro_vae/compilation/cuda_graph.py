"""Replay a sequence of GPU kernels as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replay"]


class Replay:
    """Several steps as one CUDA graph, recorded once and launched by a single call.

    Args:
        step: a function from tensors (or ``None``) to a scalar tensor. Whatever else it does, it
            does in place and without reading a value from the device. It has run before, so that
            whatever a first run makes is there. Random numbers are those of the device's own
            generator, from its state at each launch.
        inputs: the inputs of all steps, stacked; the tensors' first dimension is the number of
            steps.
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
