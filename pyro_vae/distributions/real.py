"""Distributions of real numbers."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["FullRankNormal", "LowRankNormal", "NormalWithNoise", "StudentT"]

LARGEST_RATIO = 1e11  # of variances, beyond which double precision loses the log-determinant


class StudentT(dist.StudentT):
    r"""Student's t, its log-density computed in double precision.

    .. math:: p(x) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\pi \nu}\, s}
              \left(1 + \frac{(x - \mu)^2}{\nu s^2}\right)^{-\frac{\nu + 1}{2}}

    In float32 the two log-gammas of torch's own cancel: at :math:`\nu = 10^4` it is off by 0.005.

    Args:
        df: degrees of freedom :math:`\nu`.
        loc: the location :math:`\mu`.
        scale: the scale s.

    Example:
        >>> StudentT(torch.tensor(1e4)).log_prob(torch.tensor(0.0))
        tensor(-0.9190)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        df, loc, scale = self.df.double(), self.loc.double(), self.scale.double()
        exact = dist.StudentT(df, loc, scale, validate_args=False).log_prob(value.double())
        return exact.to(self.loc.dtype)


class FullRankNormal(dist.MultivariateNormal):
    r"""A multivariate normal, its log-density computed in double precision.

    .. math:: p(x) = \mathcal{N}(x; \mu, L L^\top)

    Entries of L that differ by orders of magnitude cancel in float32.

    Args:
        loc: the mean (\*batch, D).
        scale_tril: L, lower triangular (\*batch, D, D).

    Example:
        >>> p = FullRankNormal(torch.zeros(2), scale_tril=torch.tensor([[1e3, 0], [1e3, 1e-3]]))
        >>> p.log_prob(torch.tensor([1e3, 1e3]))
        tensor(-2.3379)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        loc, tril = self.loc.double(), self.scale_tril.double()
        exact = dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
        return exact.log_prob(value.double()).to(self.loc.dtype)


class LowRankNormal(dist.TorchDistribution):
    r"""A normal whose covariance is diagonal plus a few directions, computed in double precision.

    .. math:: p(x) = \mathcal{N}(x; \mu, W W^\top + \mathrm{diag}\, v)

    With :math:`C = I + W^\top \mathrm{diag}(v)^{-1} W` and :math:`e = C^{-1} W^\top
    \mathrm{diag}(v)^{-1} (x - \mu)`,

    .. math:: \log p(x) = -\tfrac12 \Big(\sum_d \frac{(x - \mu - W e)_d^2}{v_d} + |e|^2 + \log |C|
              + \sum_d \log v_d + D \log 2 \pi\Big),

    a sum of squares, where Woodbury's formula is a difference of large numbers. Torch's own, in
    float32, is wrong by hundreds of nats or raises where directions are a thousand times as long as
    the standard deviations. The density is NaN where double precision is too short as well, from
    some 300,000 times on.

    Args:
        loc: the mean :math:`\mu` (\*batch, D).
        cov_factor: the directions W (\*batch, D, rank).
        cov_diag: the variances v > 0 (\*batch, D).

    Source: Woodbury (1950), Inverting modified matrices.

    Example:
        >>> p = LowRankNormal(torch.zeros(2), torch.tensor([[1e3], [1e3]]), torch.full((2,), 1e-4))
        >>> p.log_prob(torch.tensor([1e3, 1e3]))
        tensor(-4.9870)
    """

    arg_constraints = {
        "loc": dist.constraints.real_vector,
        "cov_factor": dist.constraints.independent(dist.constraints.real, 2),
        "cov_diag": dist.constraints.independent(dist.constraints.positive, 1),
    }
    support = dist.constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ):
        batch = torch.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_factor, self.cov_diag = loc, cov_factor, cov_diag
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> LowRankNormal:
        batch = torch.Size(batch_shape)
        return LowRankNormal(
            self.loc.expand(batch + self.event_shape), self.cov_factor, self.cov_diag, False
        )

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        rank = self.cov_factor.shape[-1]
        along = torch.randn(*shape[:-1], rank, 1, dtype=self.loc.dtype, device=self.loc.device)
        around = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.cov_factor @ along).squeeze(-1) + self.cov_diag.sqrt() * around

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        directions, variance = self.cov_factor.double(), self.cov_diag.double()
        distance = value.double() - self.loc.double()
        over_variance = directions.mT / variance.unsqueeze(-2)
        inner = torch.eye(directions.shape[-1], dtype=torch.float64, device=distance.device)
        inner = inner + over_variance @ directions
        largest = inner.diagonal(dim1=-2, dim2=-1).amax(-1)
        # Without a check, which would wait for the device.
        tril, _ = torch.linalg.cholesky_ex(inner)
        scores = torch.cholesky_solve(over_variance @ distance.unsqueeze(-1), tril)
        rest = distance - (directions @ scores).squeeze(-1)
        squares = (rest.square() / variance).sum(-1) + scores.square().sum((-2, -1))
        log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + variance.log().sum(-1)
        exact = -0.5 * (squares + log_det + self.event_shape[0] * math.log(2 * math.pi))
        return torch.where(largest < LARGEST_RATIO, exact, torch.nan).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        return self.loc.expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        return (self.cov_factor.square().sum(-1) + self.cov_diag).expand(self._extended_shape())

    @property
    def covariance_matrix(self) -> Tensor:
        r"""The matrix (\*batch, D, D)."""
        whole = self.cov_factor @ self.cov_factor.mT + torch.diag_embed(self.cov_diag)
        return whole.expand(*self.batch_shape, *self.event_shape, *self.event_shape)

    def entropy(self) -> Tensor:
        at_mean = self.log_prob(self.mean)
        return self.event_shape[0] / 2 - at_mean


class NormalWithNoise(dist.Normal):
    r"""A normal variable whose scale may be infinite: that entry was not measured.

    .. math:: \log p(x) = [\sigma < \infty]\; \log \mathcal{N}(x; \mu, \sigma^2)

    An entry of infinite scale says nothing about its mean, whatever number stands there. Its draws
    are NaN, or the number of a datum by `at_datum`.

    Args:
        loc: the mean.
        scale: the standard deviation, in (0, inf].
        unmeasured: what is drawn where the scale is infinite.

    Example:
        >>> p = NormalWithNoise(torch.zeros(2), torch.tensor([1.0, torch.inf]))
        >>> p.log_prob(torch.tensor([0.0, -999.0]))
        tensor([-0.9189,  0.0000])
    """

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        unmeasured: float | Tensor = math.nan,
        validate_args: bool | None = None,
    ):
        super().__init__(loc, scale, validate_args=validate_args)
        self.unmeasured = torch.as_tensor(unmeasured, dtype=self.loc.dtype, device=self.loc.device)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> NormalWithNoise:
        batch = torch.Size(batch_shape)
        loc, scale, unmeasured = (
            one.expand(batch) for one in (self.loc, self.scale, self.unmeasured)
        )
        return NormalWithNoise(loc, scale, unmeasured, validate_args=False)

    def at_datum(self, x: Tensor) -> NormalWithNoise:
        """The same distribution, whose draws have x where nothing was measured."""
        return NormalWithNoise(self.loc, self.scale, x, validate_args=False)

    @property
    def _measured(self) -> Tensor:
        return torch.isfinite(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        scale = torch.where(self._measured, self.scale, 1.0)
        distance = torch.where(self._measured, value - self.loc, 0.0)
        exact = dist.Normal(0.0, scale, validate_args=False).log_prob(distance)
        return torch.where(self._measured, exact, 0.0)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        scale = torch.where(self._measured, self.scale, 1.0)
        drawn = dist.Normal(self.loc, scale, validate_args=False).rsample(sample_shape)
        return torch.where(self._measured, drawn, self.unmeasured)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.rsample(sample_shape)
