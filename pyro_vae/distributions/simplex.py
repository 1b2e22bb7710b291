"""The logistic normal distribution on the simplex."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Tensor

__all__ = ["LogisticNormal"]


class LogisticNormal(TorchDistribution):
    r"""The softmax of a normal, a distribution on the simplex of D proportions.

    .. math:: z = \mathrm{softmax}(V y), \quad y_d \sim \mathcal{N}(\mu_d, \sigma_d^2), \quad d < D,

    with V an orthonormal basis (D, D - 1) of the vectors that sum to zero, so that at
    :math:`\mu = 0` and equal scales no entry is special. With respect to the volume of the first D
    - 1 entries, as for the Dirichlet distribution,

    .. math:: \log p(z) = \log \mathcal{N}(V^\top \log z; \mu, \sigma^2) - \sum_d \log z_d -
              \tfrac12 \log D.

    Args:
        loc: :math:`\mu` (\*batch, D - 1), log-ratios in nats.
        scale: :math:`\sigma` (\*batch, D - 1).

    Source: Aitchison and Shen (1980), Logistic-normal distributions; Egozcue et al. (2003) for the
    coordinates.

    Example:
        >>> LogisticNormal(torch.zeros(2), torch.ones(2)).rsample((5,)).sum(-1).round(decimals=4)
        tensor([1., 1., 1., 1., 1.])
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.base = Normal(loc, scale, validate_args=validate_args).to_event(1)
        self.basis = balances(loc.shape[-1] + 1, loc.device).to(loc.dtype)
        super().__init__(
            self.base.batch_shape, torch.Size([loc.shape[-1] + 1]), validate_args=False
        )

    def expand(self, batch_shape: torch.Size, _instance=None) -> LogisticNormal:
        new = self._get_checked_instance(LogisticNormal, _instance)
        new.base, new.basis = self.base.expand(torch.Size(batch_shape)), self.basis
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        z = (self.base.rsample(sample_shape) @ self.basis.T).softmax(-1)
        return z.clamp_min(torch.finfo(z.dtype).tiny)  # its logarithm stays finite

    def log_prob(self, value: Tensor) -> Tensor:
        log_value = value.log()
        return (
            self.base.log_prob(log_value @ self.basis)
            - log_value.sum(-1)
            - 0.5 * math.log(self.event_shape[0])
        )


def balances(dim: int, device: torch.device | None = None) -> Tensor:
    """Helmert's orthonormal basis (dim, dim - 1) of the vectors that sum to zero."""
    steps = torch.arange(1, dim, dtype=torch.float64, device=device)
    above = torch.triu(torch.ones(dim, dim - 1, dtype=torch.float64, device=device))
    columns = above - torch.diag_embed(steps, offset=-1)[:, : dim - 1]
    return columns / (steps * (steps + 1)).sqrt()
