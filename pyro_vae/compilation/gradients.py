"""A loss and its gradients as one captured function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import OperationCounter, Work
from pyro_vae.compilation.passes import CannotCapture, warn_not_captured
from pyro_vae.compilation.writes import same_buffers, without_writes

__all__ = ["LossAndGradients", "shapes_of"]

Shapes = tuple[tuple[torch.Size, torch.dtype, torch.device] | None, ...]


class LossAndGradients:
    """A scalar loss and its gradient: eager, or a captured graph for each shape of inputs.

    Args:
        loss: a function of tensors (or ``None``) that returns a scalar.
        parameters: what to differentiate by.
        compiled: whether to capture and compile, for a number of data in a batch (the length of
            the first input).
        module: the module whose buffers a graph must update as the function does.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> step = LossAndGradients(lambda x: (x * weight).sum(), [weight])
        >>> loss, gradients = step(torch.ones(3, 2))
        >>> loss, gradients[0]
        (tensor(6.), tensor([3., 3.]))
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        parameters: Sequence[Tensor],
        compiled: Callable[[int], bool] = lambda n: False,
        module: nn.Module | None = None,
    ):
        self.loss, self.parameters = loss, list(parameters)
        self.compiled, self.module = compiled, module
        self.graphs: dict[Shapes, Captured | None] = {}

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        graph = self.captured(*inputs)
        if graph is None:
            loss, *gradients = self.eager(*inputs)
        else:
            loss, *gradients = graph(*(value for value in inputs if value is not None))
        return loss, tuple(gradients)

    def captured(self, *inputs: Tensor | None) -> Captured | None:
        """The graph for inputs of these shapes, ``None`` if they run eagerly.

        It is captured and compiled when such inputs first come.
        """
        key = shapes_of(inputs)
        if key not in self.graphs:
            tensors = [value for value in inputs if value is not None]
            number = len(tensors[0]) if tensors and tensors[0].dim() > 0 else 1
            self.graphs[key] = self._captured(inputs, tensors) if self.compiled(number) else None
        return self.graphs[key]

    def run_eagerly(self) -> None:
        """Do without graphs from here on."""
        self.graphs.clear()
        self.compiled = lambda n: False

    def eager(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Run the function itself: the loss, then the gradients."""
        loss = self.loss(*inputs)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), *map(_laid_out_as, gradients, self.parameters)

    def _captured(self, inputs: Sequence[Tensor | None], tensors: list[Tensor]) -> Captured | None:
        try:
            with same_buffers(self.module) as replaced:
                captured = Captured(self._of_tensors(inputs), tensors)
            if replaced:
                raise CannotCapture(
                    f"buffer {replaced[0]!r} is given a new tensor, where copy_ would write to it",
                    "its assignment in a forward pass",
                )
        except CannotCapture as error:
            warn_not_captured(error)
            self.compiled = lambda n: False
            return None
        captured.compile(tensors)
        return captured

    def work(self, *inputs: Tensor | None) -> Work:
        """Estimate the graph's work from an eager run, in a hundredth of the time."""
        with validation_enabled(False), without_writes(self.module), OperationCounter() as count:
            self.eager(*inputs)
        return Work(count.operations, count.multiplications)

    def _of_tensors(self, inputs: Sequence[Tensor | None]) -> Callable[..., tuple[Tensor, ...]]:
        given = [value is not None for value in inputs]

        def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            return self.eager(*(next(rest) if is_given else None for is_given in given))

        return of_tensors


def _laid_out_as(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """A gradient with its parameter's memory layout, as `Tensor.backward` leaves it.

    A fused update reads both in the order of memory.
    """
    if gradient is None:
        return torch.zeros_like(parameter)
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def shapes_of(inputs: Sequence[Tensor | None]) -> Shapes:
    """The shapes, dtypes and devices of the inputs that a graph is made for."""
    return tuple(
        None if value is None else (value.shape, value.dtype, value.device) for value in inputs
    )
