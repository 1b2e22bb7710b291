"""Distributions on the unit sphere: uniform, and von Mises-Fisher."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Beta

__all__ = ["SphericalUniform", "VonMisesFisher", "unit_vector"]

PROPOSALS = 32  # Wood's acceptance rate is above 0.65, so that none is accepted once in 10^14


class SphericalUniform(TorchDistribution):
    r"""The uniform distribution on the unit sphere in D dimensions.

    .. math:: p(z) = \frac{\Gamma(D / 2)}{2 \pi^{D / 2}}

    Args:
        like: a tensor (\*batch, D) that says the shape, the dtype and the device.

    Example:
        >>> SphericalUniform(torch.zeros(3)).log_prob(torch.tensor([0.0, 0.0, 1.0]))
        tensor(-2.5310)
    """

    arg_constraints: dict = {}
    support = constraints.sphere
    has_rsample = True  # nothing to differentiate with respect to

    def __init__(self, like: Tensor):
        self.like = like
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance=None) -> SphericalUniform:
        return SphericalUniform(self.like.expand(*batch_shape, *self.event_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        z = torch.randn(
            self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device
        )
        return torch.nn.functional.normalize(z, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(value.shape[-1]))

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.like)

    def entropy(self) -> Tensor:
        return self.like.new_full(self.batch_shape, log_area(self.event_shape[0]))


class VonMisesFisher(TorchDistribution):
    r"""The von Mises-Fisher distribution on the unit sphere in D dimensions, :math:`D \ge 2`.

    .. math:: p(z) = \frac{\kappa^{D/2 - 1}}{(2\pi)^{D/2} I_{D/2 - 1}(\kappa)} \exp(\kappa \mu^\top
              z)

    The normaliser is computed from the integral representation of the exponentially scaled Bessel
    function,

    .. math:: e^{-\kappa} I_{D/2-1}(\kappa) \propto
              \kappa^{D/2-1} \int_{-1}^1 (1 - t^2)^{(D-3)/2}\, e^{-\kappa (1 - t)}\, dt,

    by the trapezoid rule in :math:`u = \mathrm{artanh}\, t` around the integrand's mode, which
    converges exponentially for every order and concentration, in either precision; so does its
    derivative in :math:`\kappa`.

    Draws are Wood's: of a fixed number of proposals the first that is accepted. The gradient is
    pathwise in :math:`\mu` and implicit in :math:`\kappa`: with :math:`w = \mu^\top z` and its
    distribution function F,
    :math:`\partial w / \partial \kappa = -\partial_\kappa F(w) / p(w)`, so
    rejections need no correction.

    Args:
        loc: the mean direction :math:`\mu` (\*batch, D), of length one.
        concentration: :math:`\kappa \ge 0` (\*batch).

    Source: Wood (1994), Simulation of the von Mises Fisher distribution; Davidson et al. (2018),
    Hyperspherical variational auto-encoders; Figurnov, Mohamed and Mnih (2018) for implicit
    gradients.

    Example:
        >>> q = VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(4.0))
        >>> q.log_prob(torch.tensor([0.0, 1.0, 0.0])), q.mean
        (tensor(-4.4512), tensor([0.7507, 0.0000, 0.0000]))
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.nonnegative}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None):
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.concentration = concentration.expand(batch)
        # From the concentrations before they are expanded, which would repeat the quadrature.
        log_integral, shortfall = _quadrature(concentration, loc.shape[-1])
        self._log_integral, self._shortfall = log_integral.expand(batch), shortfall.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> VonMisesFisher:
        new = self._get_checked_instance(VonMisesFisher, _instance)
        new.loc = self.loc.expand(*batch_shape, *self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        new._log_integral = self._log_integral.expand(batch_shape)
        new._shortfall = self._shortfall.expand(batch_shape)
        batch = torch.Size(batch_shape)
        TorchDistribution.__init__(new, batch, self.event_shape, validate_args=False)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        # kappa (mu'z - 1) from a squared distance, for mu'z - 1 itself loses its digits near 0.
        distance = (value - self.loc).square().sum(-1)
        log_normaliser = self._log_integral + log_area(self.event_shape[0] - 1)
        return -0.5 * self.concentration * distance - log_normaliser

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape, dim = self._extended_shape(sample_shape), self.event_shape[0]
        loc, concentration = self.loc.expand(shape), self.concentration.expand(shape[:-1])
        with torch.no_grad():
            gap = _propose(concentration, dim)  # 1 - w
            tangent = torch.nn.functional.normalize(torch.randn_like(loc[..., 1:]), dim=-1)
            slope = _slope(gap, concentration, self._shortfall, dim)
        gap = gap - slope * (concentration - concentration.detach())
        # A reflection takes the first axis to the mean direction, or to its opposite where that is
        # nearer to singular.
        sign = torch.where(loc[..., :1] >= 0, -1.0, 1.0).to(loc.dtype)
        drawn = torch.cat(
            [sign * (1 - gap).unsqueeze(-1), (gap * (2 - gap)).sqrt().unsqueeze(-1) * tangent],
            dim=-1,
        )
        normal = torch.cat([loc[..., :1] - sign, loc[..., 1:]], dim=-1)
        share = (normal * drawn).sum(-1, keepdim=True) / normal.square().sum(-1, keepdim=True)
        return drawn - 2 * normal * share

    @property
    def mean(self) -> Tensor:
        return (1 - self._shortfall).unsqueeze(-1) * self.loc

    def entropy(self) -> Tensor:
        log_normaliser = self._log_integral + log_area(self.event_shape[0] - 1)
        return log_normaliser + self.concentration * self._shortfall


def log_area(dim: int) -> float:
    r"""The log-area of the unit sphere in D dimensions, :math:`\log 2 \pi^{D/2} / \Gamma(D/2)`."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def unit_vector(x: Tensor) -> Tensor:
    r"""The direction (\*batch, D) of vectors of any length; of a zero vector, the first axis.

    Example:
        >>> unit_vector(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [1.0000, 0.0000]])
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    first = torch.zeros_like(x)
    first[..., 0] = 1
    # Divided first, so that no square underflows or overflows.
    scaled = torch.where(largest > 0, x / torch.where(largest > 0, largest, 1), first)
    return torch.nn.functional.normalize(scaled, dim=-1)


def _hypotenuse(concentration: Tensor, dim: int) -> Tensor:
    """sqrt(4 kappa^2 + (D - 1)^2), also where the square is beyond floats."""
    return torch.hypot(2 * concentration, torch.full_like(concentration, dim - 1))


def _gap(u: Tensor) -> Tensor:
    """1 - tanh(u), without cancellation."""
    return 2 * torch.sigmoid(-2 * u)


def _log_integrand(u: Tensor, concentration: Tensor, dim: int) -> Tensor:
    """log sech(u)^(D-1) exp(-kappa (1 - tanh u)), artanh(w)'s log-density up to a constant."""
    log_sech = math.log(2) - u.abs() - torch.log1p(torch.exp(-2 * u.abs()))
    return (dim - 1) * log_sech - concentration * _gap(u)


def _mode(concentration: Tensor, dim: int) -> Tensor:
    root = dim - 1 + _hypotenuse(concentration, dim)
    t, one_minus_t_squared = 2 * concentration / root, 2 * (dim - 1) / root
    return torch.log1p(t) - 0.5 * torch.log(one_minus_t_squared)


def _quadrature(concentration: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The log of the scaled integral, and 1 - A for A the mean of w; both of shape (\\*batch)."""
    # The integrand's width in u depends on D alone; its tails fall off like exp(-(D - 1) |u|) at
    # least.
    step = min(0.12, 0.4 / math.sqrt(dim - 1))
    reach = 40 / (dim - 1) + 9 / math.sqrt(dim - 1)
    count = math.ceil(reach / step)
    dtype, device = concentration.dtype, concentration.device
    offsets = torch.arange(-count, count + 1, dtype=dtype, device=device) * step
    u = _mode(concentration.detach(), dim).unsqueeze(-1) + offsets
    log_terms = _log_integrand(u, concentration.unsqueeze(-1), dim)
    return log_terms.logsumexp(-1) + math.log(step), (log_terms.softmax(-1) * _gap(u)).sum(-1)


def _propose(concentration: Tensor, dim: int) -> Tensor:
    """Draws of 1 - w by Wood's rejection sampler, with a fixed number of proposals at once."""
    m = dim - 1
    root = _hypotenuse(concentration, dim)
    b = m / (root + 2 * concentration)
    a = (m + 2 * concentration + root) / 4
    d = 4 * a * b / (1 + b) - m * math.log(m)
    half = concentration.new_tensor(m / 2)
    epsilon = Beta(half, half, validate_args=False).sample((PROPOSALS, *concentration.shape))
    t = 2 * a * b / (1 - (1 - b) * epsilon)
    accepted = m * torch.log(t) - t + d >= torch.log(torch.rand_like(t))
    gap = 2 * b * epsilon / (1 - (1 - b) * epsilon)
    first = accepted.to(torch.int8).argmax(0, keepdim=True)
    limits = torch.finfo(gap.dtype)
    return gap.gather(0, first).squeeze(0).clamp(limits.tiny, 2 - 2 * limits.eps)


def _slope(gap: Tensor, concentration: Tensor, shortfall: Tensor, dim: int) -> Tensor:
    """dw / d kappa at fixed F(w), by exponential quadrature over the tail in which w lies."""
    x = torch.arange(-4.0, 4.6, 0.1, dtype=gap.dtype, device=gap.device)
    nodes = torch.exp(x - torch.exp(-x)) / math.sqrt(dim - 1)
    weights = nodes * (1 + torch.exp(-x)) * 0.1
    u = 0.5 * (torch.log(2 - gap) - torch.log(gap))
    side = torch.where(u > _mode(concentration, dim), 1.0, -1.0).to(gap.dtype)
    tail = u.unsqueeze(-1) + side.unsqueeze(-1) * nodes
    kappa = concentration.unsqueeze(-1)
    at_u = _log_integrand(u.unsqueeze(-1), kappa, dim)
    relative = torch.exp(_log_integrand(tail, kappa, dim) - at_u)
    integral = ((shortfall.unsqueeze(-1) - _gap(tail)) * relative * weights).sum(-1)
    return side * gap * (2 - gap) * integral
