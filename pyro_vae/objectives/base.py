"""The base of all objectives: K draws at once, and a loss that is minus the bound."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

import pyro.infer
import torch
from torch import Tensor

from pyro_vae.contracts import StochasticFunction, Trace
from pyro_vae.validation import check_count

__all__ = ["Objective", "ObjectiveLike", "is_same"]


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

    def __init__(self, num_particles: int):
        check_count("num_particles", num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)

    @abstractmethod
    def bound(self, model: Trace, guide: Trace) -> Tensor:
        """A scalar whose value is the bound and whose gradient is the estimator's.

        Where draws are made one after another, the share of one of them.
        """

    def differentiable_loss(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
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


def is_same(a: Tensor | float | None, b: Tensor | float | None) -> bool:
    """Whether two scales or masks are known to be equal without asking the device."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)
