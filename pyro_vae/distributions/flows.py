"""Base distributions pushed through invertible transforms."""

from __future__ import annotations

from typing import Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["AlongVelocity", "PushForward", "VelocityField", "zuko_transform"]


class FlowTransform(Protocol):
    """An invertible map with its log-determinant, as Zuko defines it."""

    @property
    def inv(self) -> FlowTransform: ...
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


class VelocityField(Protocol):
    """A velocity v(z, t) with its divergence."""

    def conditions(self, t: Tensor) -> tuple[Tensor, ...]:
        """What both take of times (\\*batch), as tensors (\\*batch, F)."""

    def velocity(self, z: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """The velocity (\\*batch, D) at points (\\*batch, D)."""

    def divergence(self, z: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """The divergence (\\*batch) at points (\\*batch, D)."""


class AlongVelocity:
    r"""The map from :math:`z_1` to :math:`z_0` along an ODE, in n steps of equal length.

    .. math:: \frac{dz_t}{dt} = v(z_t, t), \qquad
              \log \left|\det \frac{\partial z_0}{\partial z_1}\right|
              = -\int_0^1 \nabla \cdot v(z_t, t)\, dt

    The path is that of the classical Runge-Kutta method, the integral Simpson's over the path's
    points and the middles between them, which lie on a cubic. The errors of all three fall as
    :math:`n^{-4}`. The map back solves the ODE the other way, so the two are inverses, and the
    determinant is that of the map, up to those errors.

    Args:
        field: the velocity and its divergence.
        steps: n.
        inverse: whether the map is from :math:`z_0` to :math:`z_1`.

    Source: Chen, Rubanova, Bettencourt and Duvenaud (2018), Neural ordinary differential equations.
    """

    def __init__(self, field: VelocityField, steps: int, inverse: bool = False):
        self.field, self.steps, self.inverse = field, steps, inverse

    @property
    def inv(self) -> AlongVelocity:
        return AlongVelocity(self.field, self.steps, not self.inverse)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # half precision is no density's
            return self._solve(x)

    def _solve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        start, end = (0.0, 1.0) if self.inverse else (1.0, 0.0)
        t = torch.linspace(start, end, 2 * self.steps + 1, dtype=x.dtype, device=x.device)
        conditions = self.field.conditions(t.reshape(-1, *(1,) * (x.dim() - 1)))
        # Expanded here, their gradients are summed over the data once, not at each velocity.
        conditions = tuple(part.expand(-1, *x.shape[:-1], -1) for part in conditions)
        at = list(zip(*(part.unbind() for part in conditions)))
        velocity, h = self.field.velocity, (end - start) / self.steps
        path, speeds = [x], [velocity(x, at[0])]
        for middle, after in zip(at[1::2], at[2::2]):
            v1 = speeds[-1]
            v2 = velocity(x + h / 2 * v1, middle)
            v3 = velocity(x + h / 2 * v2, middle)
            v4 = velocity(x + h * v3, after)
            x = x + h / 6 * (v1 + 2 * (v2 + v3) + v4)
            path.append(x)
            speeds.append(velocity(x, after))
        points, speed = torch.stack(path), torch.stack(speeds)
        middles = (points[:-1] + points[1:]) / 2 + h / 8 * (speed[:-1] - speed[1:])
        there = self.field.divergence(points, tuple(part[::2] for part in conditions))
        between = self.field.divergence(middles, tuple(part[1::2] for part in conditions))
        return x, h / 6 * (2 * there.sum(0) - there[0] - there[-1] + 4 * between.sum(0))


class PushForward(TorchDistribution):
    r"""The distribution of :math:`z = f(\epsilon)` for a base variable :math:`\epsilon`.

    .. math:: \log p(z) = \log p(\epsilon) - \log |\det \partial f / \partial \epsilon|, \quad
              \epsilon = f^{-1}(z)

    The last draw is kept with its log-density, so a guide that scores its own draw runs f once and
    needs no inverse.

    Args:
        base: the distribution of the noise, event shape (D,).
        transform: f, one of Zuko's transforms on vectors, or `AlongVelocity`.

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
