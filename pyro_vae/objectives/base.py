"""What all objectives share: K draws at once, a loss that is minus the bound, and how a site is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro.infer
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.validation import check_count

__all__ = ["Objective", "Site", "is_same"]

Site = Any  # a Pyro message: a dictionary whose keys depend on its kind


class Objective(pyro.infer.ELBO):
    """What all objectives share: K draws at once, and a loss that is minus the bound summed over the batch.

    Args:
        num_particles: number of draws K for each datum.
    """

    def __init__(self, num_particles: int):
        check_count("num_particles", num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)

    @abstractmethod
    def bound(self, model: poutine.Trace, guide: poutine.Trace) -> Tensor:
        """A scalar with the bound's value and its gradient estimator's gradient."""

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return -self.bound(*traces)

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """`loss`, with its gradient added to the parameters'; what `pyro.infer.SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return loss.item()


def is_same(a: Any, b: Any) -> bool:
    """Whether two scales or masks are known to be equal without asking the device."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)
