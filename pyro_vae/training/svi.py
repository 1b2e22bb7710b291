"""A compiled drop-in for Pyro's `SVI`."""

from __future__ import annotations

import warnings

import pyro.infer
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.checkpoint.references import modules_of
from pyro_vae.compilation.gradients import LossAndGradients, shapes_of
from pyro_vae.compilation.optimizer import Update
from pyro_vae.contracts import StochasticFunction
from pyro_vae.objectives import ELBO
from pyro_vae.objectives.base import ObjectiveLike
from pyro_vae.programs.store import Store
from pyro_vae.runtime.constants import Constants
from pyro_vae.validation import InvalidInput

__all__ = ["CompiledSVI"]

MOST_DISCARDED = 10  # graphs of a program that changes all the time are not worth their making


class CompiledSVI:
    """A drop-in for `pyro.infer.SVI` whose step is one compiled graph.

    The first step for a new shape of arguments runs with Pyro's validation on, then captures and
    compiles. A program with data-dependent control flow, or one that gives a buffer a new tensor,
    runs eagerly, and a warning says so once. Where a part of the module is replaced between steps,
    or a mode or a number of it changed, the next step captures anew.

    Args:
        model: a Pyro model; its buffers are those of the module whose method it is.
        guide: a Pyro guide, likewise.
        optim: a torch optimiser over all parameters of both, such as
            ``torch.optim.Adam(module.parameters(), fused=True)``; a Pyro optimiser makes one
            optimiser for each tensor.
        loss: ``pyro.infer.Trace_ELBO()``, or an objective of `pyro_vae.objectives`.

    Raises:
        InvalidInput: for a Pyro optimiser, a loss of another kind, or a part put in later whose
            parameters the optimiser lacks.

    Example:
        >>> optim = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
        >>> loss = pyro.infer.Trace_ELBO()
        >>> svi = pv.CompiledSVI(vae.model, vae.guide, optim, loss)  # doctest: +SKIP
        >>> svi.step(torch.zeros(5, 1, 8, 8))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        optim: torch.optim.Optimizer,
        loss: object,
    ):
        if not isinstance(optim, torch.optim.Optimizer):
            raise InvalidInput(
                "optim",
                got=type(optim).__name__,
                expected="a torch optimiser over all parameters",
                fix="pass torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)",
            )
        self.optim, self.objective = optim, objective_of(loss)
        self.modules = nn.ModuleList(modules_of(model, guide))
        self.constants: Constants | None = None  # of the graphs
        self.discarded = 0
        self._start()
        store = Store()
        self.model, self.guide = (self._in_store(fn, store) for fn in (model, guide))

    def _start(self) -> None:
        """Start without any graph."""
        given = [p for group in self.optim.param_groups for p in group["params"]]
        self.parameters = [p for p in given if p.requires_grad]
        self.places = [p.data_ptr() for p in self.parameters]
        self.update = Update(self.optim, self.parameters)
        self.steps: dict[object, LossAndGradients] = {}

    def step(self, *args: object, **kwargs: object) -> float:
        """Take one gradient step; return the loss, summed over the batch, as Pyro's does."""
        self._forget_what_was_replaced()
        leaves, spec = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        static = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (spec, static, shapes_of(tensors))
        if key in self.steps:
            value, gradients = self.steps[key](*tensors)
        else:

            def loss(*values: Tensor) -> Tensor:
                rest = iter(values)
                whole = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                args, kwargs = tree_unflatten(whole, spec)
                return self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)

            # Eager at first, and as validated as the process is.
            self.steps[key] = LossAndGradients(loss, self.parameters)
            value, gradients = self.steps[key](*tensors)
            self.constants = Constants(self.modules)  # what the first run has set is among them
            if tensors and self.discarded <= MOST_DISCARDED:  # a graph has inputs
                step = LossAndGradients(loss, self.parameters, lambda n: True, self.modules)
                self.steps[key] = step
                graph = step.captured(*tensors)
                if graph is not None and graph.is_compiled:
                    self.update.compile()
                if name := self.constants.number_changed():
                    step.run_eagerly()
                    reason = f"{name} changes each time that it is run"
                    warnings.warn(f"this program runs eagerly: {reason}", stacklevel=2)
        self.update(gradients)
        return value.item()

    def _in_store(self, fn: StochasticFunction, store: Store) -> StochasticFunction:
        """A function that finds its own parameters in Pyro's store, and leaves none there."""

        def run(*args: object, **kwargs: object) -> object:
            with store.scope(self.modules, adopts=True):
                made = fn(*args, **kwargs)
            own = {id(parameter) for parameter in self.parameters}
            for name, parameter in store.named_parameters():
                if id(parameter) not in own:
                    raise InvalidInput(
                        "optim",
                        got=f"no parameter of pyro.param({name!r}), which is made at the first run",
                        expected="a torch optimiser over all parameters",
                        fix="write program = pv.Program(model, guide); program.prepare(x), and "
                        "pass program.model, program.guide and an optimiser over "
                        "program.parameters()",
                    )
            return made

        return run

    def _forget_what_was_replaced(self) -> None:
        """Discard the graphs of a program that has changed, for they compute as it was before.

        Raises:
            InvalidInput: if a part came in whose parameters the optimiser lacks.
        """
        before, places = self.constants, [p.data_ptr() for p in self.parameters]
        if places == self.places and (before is None or before.hold()):
            return
        known = {id(p) for group in self.optim.param_groups for p in group["params"]}
        for name, parameter in self.modules.named_parameters():
            is_known = id(parameter) in known or before is None or before.has(parameter)
            if parameter.requires_grad and not is_known:
                raise InvalidInput(
                    "optim",
                    got=f"an optimiser without the new parameter {name.partition('.')[2]!r}",
                    expected="one over all parameters of the part that was put in",
                    fix="make a new CompiledSVI, with an optimiser over module.parameters()",
                )
        self.constants = Constants(self.modules)
        has_graphs = any(any(step.graphs.values()) for step in self.steps.values())
        if has_graphs or places != self.places or not self._is_frozen_as_before():
            self.discarded += has_graphs
            self._start()

    def _is_frozen_as_before(self) -> bool:
        return all(p.requires_grad for p in self.parameters)

    def evaluate_loss(self, *args: object, **kwargs: object) -> float:
        """Compute the loss without taking a step."""
        with torch.no_grad():
            return self.objective.differentiable_loss(
                self.model, self.guide, *args, **kwargs
            ).item()


def objective_of(loss: object) -> ObjectiveLike:
    """An objective of ours as it is; Pyro's `Trace_ELBO` as ours.

    Ours computes the same without waiting for a device. Draws that Pyro's makes one after another
    stay so: a model need not broadcast over them.

    Raises:
        InvalidInput: for a loss of another kind.
    """
    if type(loss) is pyro.infer.Trace_ELBO:
        objective = ELBO(loss.num_particles)
        objective.vectorize_particles = loss.vectorize_particles and loss.num_particles > 1
        objective.max_plate_nesting = loss.max_plate_nesting
        return objective
    if isinstance(loss, ObjectiveLike) and type(loss).__module__.split(".")[0] != "pyro":
        return loss
    raise InvalidInput(
        "loss",
        got=type(loss).__name__,
        expected="Trace_ELBO or an objective of pyro_vae.objectives",
        fix="pass pyro_vae.objectives.ELBO()",
    )
