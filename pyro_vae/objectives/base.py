"""The base of all objectives: K draws at once, and a loss that is minus the bound."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import partial
from typing import Protocol, runtime_checkable

import pyro.infer
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.compilation.writes import without_writes
from pyro_vae.contracts import StochasticFunction, Trace
from pyro_vae.programs.handlers import AllDrawn
from pyro_vae.runtime.independence import Given
from pyro_vae.runtime.latents import Values
from pyro_vae.runtime.traces import Plates, paired_traces, plates_of
from pyro_vae.runtime.ways import Way, scored_by_vmap, tell, way_of
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Objective", "ObjectiveLike", "is_same", "look"]


@runtime_checkable
class ObjectiveLike(Protocol):
    """A bound with a loss to differentiate: one of ours, or one of Pyro's such as `Trace_ELBO`."""

    def differentiable_loss(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> Tensor: ...


class Objective(pyro.infer.ELBO):
    """A bound estimated by K draws per datum; the loss is minus its sum over the batch.

    Args:
        num_particles: number of draws K for each datum.
    """

    globals: frozenset[str] = frozenset()  # sites outside the data plate, once it has looked
    way: Way = "plate"  # in which the draws are made
    takes_ways = True  # whether each draw is one of the global latents too
    balance = False  # whether the levels of a hierarchy are weighed during the warm-up
    mixes_data = False  # whether a batch's bound is more than a sum over its data
    has_looked = False  # a second look within a captured graph would become a part of it

    def __init__(self, num_particles: int):
        check_count("num_particles", num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)

    def _guess_max_plate_nesting(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        with AllDrawn(), without_writes():
            super()._guess_max_plate_nesting(model, guide, args, kwargs)
        self._look_once(model, guide, args, kwargs)

    def _look_once(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        """Look at a program that no training has looked at.

        What it writes in training, as the statistics of batches, is undone: a look is no step.
        """
        self.has_looked = True
        model, guide = partial(model, **kwargs), partial(guide, **kwargs)
        with without_writes():
            with poutine.block(), torch.no_grad(), torch.random.fork_rng([]):
                traces = paired_traces(model, guide, *args)
            try:
                plates = plates_of(*traces, scored=False)
            except InvalidInput:  # a model of another kind, whose latents none can tell apart
                return
            if plates.globals:
                look(self, model, guide, args, plates)

    @abstractmethod
    def bound(self, model: Trace, guide: Trace) -> Tensor:
        """A scalar whose value is the bound and whose gradient is the estimator's.

        Where draws are made one after another, the share of one of them.
        """

    def differentiable_loss(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        if self.max_plate_nesting == math.inf:
            if self.vectorize_particles:
                self._guess_max_plate_nesting(model, guide, args, kwargs)
            elif not self.takes_ways and not self.has_looked:
                self._look_once(model, guide, args, kwargs)
        if self.way == "vmap":

            def bound(values: Values) -> Tensor:
                return self.bound(*self._get_trace(model, Given(values)(guide), args, kwargs))

            draws = [
                poutine.trace(guide).get_trace(*args, **kwargs) for _ in range(self.num_particles)
            ]
            return -scored_by_vmap(bound, draws).sum()
        first, *others = self._get_traces(model, guide, args, kwargs)
        return -sum((self.bound(*traces) for traces in others), start=self.bound(*first))

    def loss(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> float:
        """Minus the bound, summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> float:
        """Return `loss` and add its gradients to the parameters', as `pyro.infer.SVI` expects."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return loss.item()


def look(
    objective: ObjectiveLike,
    model: StochasticFunction,
    guide: StochasticFunction,
    args: tuple[object, ...],
    plates: Plates,
) -> None:
    """Tell an objective where its draws go, and find out how those of global latents are made.

    Args:
        objective: one of ours or of Pyro's, which is changed.
        model: the model.
        guide: the guide.
        args: what both are called with, a few data.
        plates: where their plates are.
    """
    if not isinstance(objective, pyro.infer.ELBO):
        return
    way: Way = "plate"
    in_plate = objective.vectorize_particles and objective.num_particles > 1
    if isinstance(objective, Objective):
        objective.globals = plates.globals
        in_plate, takes_ways = objective.num_particles > 1, objective.takes_ways
    else:
        takes_ways = True
    if plates.globals and in_plate and takes_ways:
        way = way_of(model, guide, args, plates)
        way = way if way == "plate" or isinstance(objective, Objective) else "scan"
        tell(way, f"{objective.num_particles} draws", plates.globals)
        objective.vectorize_particles = in_plate = way == "plate"
    if isinstance(objective, Objective):
        objective.way = way
    if plates.globals or objective.max_plate_nesting == math.inf:
        objective.max_plate_nesting = -plates.particle_dim - 1 + in_plate


def is_same(a: Tensor | float | None, b: Tensor | float | None) -> bool:
    """Whether two scales or masks are known to be equal without asking the device."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)
