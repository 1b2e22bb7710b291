"""Events that are observed as a whole, or missing as a whole."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from pyro_vae.distributions.adapters import as_pyro
from pyro_vae.distributions.supports import (
    OrElse,
    given_datum,
    number_inside,
    representative_of,
    stated_support,
)

__all__ = ["ObservedEvents", "is_missing"]


def is_missing(x: Tensor, event_dim: int) -> Tensor:
    r"""Whether an event of x (\*batch, \*event) is missing, all of its entries NaN: (\*batch).

    Example:
        >>> is_missing(torch.tensor([[torch.nan, torch.nan], [torch.nan, 0.0]]), 1)
        tensor([ True, False])
    """
    missing = torch.isnan(x)
    return missing.flatten(x.dim() - event_dim).all(-1) if event_dim else missing


class ObservedEvents(TorchDistribution):
    r"""A distribution of events, of which a datum may have none: all of its entries are NaN.

    .. math:: \log p(x) = [x \text{ is observed}]\; \log p_0(x)

    A missing event is integrated out: its log-probability is zero, and so is its gradient. An event
    with a few missing entries is the base's own affair. Samples are complete.

    Args:
        base: any distribution.

    Example:
        >>> from torch.distributions import MultivariateNormal
        >>> d = ObservedEvents(MultivariateNormal(torch.zeros(2), torch.eye(2)))
        >>> d.log_prob(torch.tensor([[0.0, 0.0], [torch.nan, torch.nan]]))
        tensor([-1.8379,  0.0000])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution):
        self.base = as_pyro(base)
        super().__init__(self.base.batch_shape, self.base.event_shape, validate_args=False)

    @property
    def support(self):
        return OrMissingEvent(self.base.support, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def representative(self) -> Tensor:
        return representative_of(self.base)

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    @property
    def mode(self) -> Tensor:
        return representative_of(self.base)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.sample(sample_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        missing = is_missing(value, len(self.event_shape))
        filler = number_inside(stated_support(self.base), value)
        log_prob = self.base.log_prob(torch.where(self._of_events(missing), filler, value))
        return torch.where(missing, torch.zeros_like(log_prob), log_prob)

    def _of_events(self, flags: Tensor) -> Tensor:
        r"""Flags of events (\*batch) in the shape of their entries."""
        return flags.reshape(*flags.shape, *(1,) * len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> ObservedEvents:
        return ObservedEvents(self.base.expand(torch.Size(batch_shape)))

    def at_datum(self, x: Tensor) -> ObservedEvents:
        """The distribution with what an observed datum fixes of it, such as its total."""
        lacking = self._of_events(is_missing(x, len(self.event_shape)))
        return ObservedEvents(given_datum(self.base, torch.where(lacking, self.base.sample(), x)))


class OrMissingEvent(OrElse):
    """A constraint under which a whole event may also be missing, all of its entries NaN."""

    def __init__(self, base: constraints.Constraint, event_dim: int):
        self.event_dim = event_dim  # type: ignore[misc]
        super().__init__(base, "missing")

    def check(self, value: Tensor) -> Tensor:
        return is_missing(value, self.event_dim) | self.base.check(value)


@biject_to.register(OrMissingEvent)
def _of_complete_events(constraint: OrMissingEvent) -> Transform:
    return biject_to(constraint.base)
