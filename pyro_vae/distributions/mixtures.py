"""A mixture of normals whose draws can be differentiated."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.special import ndtr

__all__ = ["MixtureOfNormals"]


class MixtureOfNormals(TorchDistribution):
    r"""A mixture of normals with diagonal covariances, with pathwise gradients.

    .. math:: p(z) = \sum_c \pi_c \prod_d \mathcal{N}(z_d; \mu_{cd}, \sigma_{cd}^2)

    The choice of a component cannot be differentiated, the place of the draw can. With
    :math:`u_d = F(z_d \mid z_{<d})`, the conditional distribution functions, the gradient of a draw
    is :math:`-(\partial u / \partial z)^{-1} \partial u / \partial \phi` at fixed u, a triangular
    system: the implicit gradient, unbiased for weights, means and scales. Its variance grows with
    the gaps between components.

    Args:
        logits: of the weights (\*batch, C).
        loc: means (\*batch, C, D).
        scale: standard deviations (\*batch, C, D).

    Source: Graves (2016), Stochastic backpropagation through mixture density distributions;
    Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients.

    Example:
        >>> q = MixtureOfNormals(torch.zeros(3), torch.randn(3, 2), torch.ones(3, 2))
        >>> q.rsample((5,)).shape
        torch.Size([5, 2])
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ):
        batch = torch.broadcast_shapes(logits.shape[:-1], loc.shape[:-2], scale.shape[:-2])
        self.logits = logits.expand(*batch, -1)
        loc, scale = torch.broadcast_tensors(loc, scale)
        self.loc, self.scale = loc.expand(*batch, -1, -1), scale.expand(*batch, -1, -1)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> MixtureOfNormals:
        batch = torch.Size(batch_shape)
        return MixtureOfNormals(
            self.logits.expand(*batch, -1),
            self.loc.expand(*batch, -1, -1),
            self.scale.expand(*batch, -1, -1),
            validate_args=False,
        )

    @property
    def mean(self) -> Tensor:
        return (self.logits.softmax(-1).unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        spread = self.scale.square() + (self.loc - self.mean.unsqueeze(-2)).square()
        return (self.logits.softmax(-1).unsqueeze(-1) * spread).sum(-2)

    def _standardised(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(z - mu) / sigma and log N(z; mu, sigma^2), for each component and entry."""
        x = (value.unsqueeze(-2) - self.loc) / self.scale
        return x, -0.5 * x.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def log_prob(self, value: Tensor) -> Tensor:
        _, log_density = self._standardised(value)
        return (self.logits.log_softmax(-1) + log_density.sum(-1)).logsumexp(-1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        with torch.no_grad():
            *batch, dim = self._extended_shape(sample_shape)
            gumbel = -self.loc.new_empty(*batch, self.logits.shape[-1]).exponential_().log()
            chosen = (self.logits + gumbel).argmax(-1)[..., None, None].expand(*batch, 1, dim)
            loc, scale = (
                t.expand(*batch, *t.shape[-2:]).gather(-2, chosen).squeeze(-2)
                for t in (self.loc, self.scale)
            )
            z = loc + scale * torch.randn_like(loc)
        if not torch.is_grad_enabled():
            return z
        moved, jacobian = self._distribution_functions(z)
        step = torch.linalg.solve_triangular(
            jacobian, (moved - moved.detach()).unsqueeze(-1), upper=False, unitriangular=True
        )
        return z - step.squeeze(-1)

    def _distribution_functions(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Each :math:`u_d` and the rows of :math:`\partial u / \partial z`, over the density of d.

        The division makes the diagonal one. The Jacobian is a constant.
        """
        x, log_density = self._standardised(z)
        before = log_density.cumsum(-1) - log_density  # of the entries before d
        log_weights = (self.logits.unsqueeze(-1) + before).log_softmax(-2)
        weights = log_weights.exp()
        with torch.no_grad():
            # Above the median the complement is summed, which differs by a constant and loses no
            # digits in the upper tail.
            above = (weights * ndtr(x)).sum(-2, keepdim=True) > 0.5
            density = (log_weights + log_density).logsumexp(-2).exp()
            density = density.clamp_min(torch.finfo(z.dtype).tiny)
        phi = torch.where(above, -ndtr(-x), ndtr(x))
        u = (weights * phi).sum(-2)
        with torch.no_grad():
            slope = -x / self.scale
            excess = weights * (phi - u.unsqueeze(-2))
            jacobian = torch.einsum("...cd,...cj->...dj", excess, slope) / density.unsqueeze(-1)
        return u / density, jacobian.tril(-1)
