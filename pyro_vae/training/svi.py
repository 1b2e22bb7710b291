"""A compiled drop-in for Pyro's `SVI`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.infer
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.compilation.gradients import LossAndGradients, shapes_of
from pyro_vae.compilation.optimizer import Update
from pyro_vae.objectives import ELBO
from pyro_vae.validation import InvalidInput

__all__ = ["CompiledSVI"]


class CompiledSVI:
    """A drop-in for `pyro.infer.SVI` whose step is one compiled graph.

    The first step for a new shape of arguments runs with Pyro's validation on, then captures and
    compiles; a program with data-dependent control flow, or one that gives a buffer a new tensor,
    runs eagerly, and says so once.

    Args:
        model: a Pyro model; its buffers are those of the module whose method it is.
        guide: a Pyro guide, likewise.
        optim: a torch optimiser over all parameters of both, such as
            ``torch.optim.Adam(module.parameters(), fused=True)``; a Pyro optimiser makes one
            optimiser for each tensor.
        loss: ``pyro.infer.Trace_ELBO()``, or an objective of `pyro_vae.objectives`.

    Raises:
        InvalidInput: for a Pyro optimiser, or a loss of another kind.

    Example:
        >>> optim = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
        >>> svi = pv.CompiledSVI(vae.model, vae.guide, optim, pyro.infer.Trace_ELBO())  # doctest: +SKIP
        >>> svi.step(torch.zeros(5, 1, 8, 8))  # doctest: +SKIP
    """

    def __init__(self, model: Callable, guide: Callable, optim: torch.optim.Optimizer, loss: Any):
        if not isinstance(optim, torch.optim.Optimizer):
            raise InvalidInput(
                "optim",
                got=type(optim).__name__,
                expected="a torch optimiser over all parameters",
                fix="pass torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)",
            )
        self.model, self.guide, self.optim, self.objective = model, guide, optim, objective_of(loss)
        self.parameters = [
            p for group in optim.param_groups for p in group["params"] if p.requires_grad
        ]
        self.update = Update(optim, self.parameters)
        owners = {
            id(owner): owner
            for owner in (getattr(fn, "__self__", fn) for fn in (model, guide))
            if isinstance(owner, nn.Module)
        }
        self.modules = nn.ModuleList(owners.values())
        self.steps: dict[Any, LossAndGradients] = {}
        self.places: list[int] = []

    def step(self, *args: Any, **kwargs: Any) -> float:
        """One gradient step; returns the loss, summed over the batch, as Pyro's does."""
        self._forget_what_was_replaced()
        leaves, spec = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        static = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (spec, static, shapes_of(tensors))
        if key not in self.steps:

            def loss(*values: Tensor) -> Tensor:
                rest = iter(values)
                whole = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                args, kwargs = tree_unflatten(whole, spec)
                return self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)

            self.steps[key] = LossAndGradients(loss, self.parameters)
            value, gradients = self.steps[key](
                *tensors
            )  # as validated as the process is, and eager
            if tensors:  # a graph has inputs
                self.steps[key] = LossAndGradients(
                    loss, self.parameters, lambda n: True, self.modules
                )
                graph = self.steps[key].captured(*tensors)
                if graph is not None and graph.is_compiled:
                    self.update.compile()
        else:
            value, gradients = self.steps[key](*tensors)
        self.update(gradients)
        return value.item()

    def _forget_what_was_replaced(self) -> None:
        """Starts anew where parameters are in other memory, as after ``module.double()``: graphs know that of before."""
        places = [p.data_ptr() for p in self.parameters]
        if places != self.places:
            self.places, self.steps, self.update = places, {}, Update(self.optim, self.parameters)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss without a step."""
        return self.objective.loss(self.model, self.guide, *args, **kwargs)


def objective_of(loss: Any) -> Any:
    """An objective of ours as it is; Pyro's `Trace_ELBO` as ours, which computes the same without waiting for a device."""
    if type(loss) is pyro.infer.Trace_ELBO:
        return ELBO(loss.num_particles)
    if hasattr(loss, "differentiable_loss") and type(loss).__module__.split(".")[0] != "pyro":
        return loss
    raise InvalidInput(
        "loss",
        got=type(loss).__name__,
        expected="Trace_ELBO or an objective of pyro_vae.objectives",
        fix="pass pyro_vae.objectives.ELBO()",
    )
