"""Base distributions pushed through invertible transforms."""

from __future__ import annotations

from typing import Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["PushForward", "zuko_transform"]


class FlowTransform(Protocol):
    """An invertible map with its log-determinant, as Zuko defines it."""

    @property
    def inv(self) -> FlowTransform: ...
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


class PushForward(TorchDistribution):
    r"""The distribution of :math:`z = f(\epsilon)` for a base variable :math:`\epsilon`.

    .. math:: \log p(z) = \log p(\epsilon) - \log |\det \partial f / \partial \epsilon|, \quad
              \epsilon = f^{-1}(z)

    The last draw is kept with its log-density, so a guide that scores its own draw runs f once and
    needs no inverse.

    Args:
        base: the distribution of the noise, event shape (D,).
        transform: f, one of Zuko's transforms on vectors.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> flow = zuko_transform("coupling", 2, 0, 2, (8,))()
        >>> PushForward(Independent(Normal(torch.zeros(2), 1.0), 1), flow.inv).rsample((3,)).shape
        torch.Size([3, 2])
    """

    arg_constraints: dict = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: Distribution, transform: FlowTransform):
        self.base, self.transform = base, transform
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance=None) -> PushForward:
        return PushForward(self.base.expand(torch.Size(batch_shape)), self.transform)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        noise = self.base.rsample(sample_shape)
        z, log_det = self.transform.call_and_ladj(noise)
        self._last = (z, self.base.log_prob(noise) - log_det)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        # Couplings write entries in place, so the value needs the context's batch dimensions.
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        value = value.expand(shape)
        noise, log_det = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(noise) + log_det


def zuko_transform(
    kind: str, features: int, context: int, transforms: int, hidden: tuple[int, ...]
) -> nn.Module:
    """A module whose call gives one of Zuko's transforms, from values to noise.

    It is called with a context (\\*batch, C), or with nothing. Importing Zuko turns off the
    validation of all torch distributions; here it is put back as it was.
    """
    before = Distribution._validate_args
    try:
        from zuko.flows import MAF, NICE, NSF
    finally:
        Distribution._validate_args = before
    kinds = {"coupling": NICE, "autoregressive": MAF, "spline": NSF}
    flow = kinds[kind](features, context, transforms=transforms, hidden_features=hidden)
    return flow.transform
