"""Priors whose own parameters have priors."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.distributions import Mixture
from pyro_vae.networks import Sample, Size, WithGlobals, as_shape
from pyro_vae.priors.real import SOFTPLUS_OF_THIS_IS_ONE
from pyro_vae.validation import check_count, check_positive

__all__ = ["BayesianMixture"]


class BayesianMixture(WithGlobals):
    r"""A `GaussianMixture` with hyperpriors on its weights and scales.

    .. math:: \pi \sim \mathrm{Dirichlet}(\alpha / C, \ldots), \quad \sigma_{cd} \sim
              \mathrm{LogNormal}(0, s^2), \quad
              p(z \mid \pi, \sigma) = \sum_c \pi_c \prod_d \mathcal{N}(z_d; \mu_{cd}, \sigma_{cd}^2)

    With :math:`\alpha / C` below one the weights are sparse: components that the data do not need
    lose theirs. The guide of the weights is a Dirichlet and that of the scales log-normal, both
    with parameters in here; the means are learned as points. Outside of a program the prior is that
    at the guide's means.

    Args:
        latent: event shape of z.
        components: number of components C.
        concentration: :math:`\alpha`, the total concentration of the weights.
        spread: s, of the logarithm of a scale.

    Raises:
        InvalidInput: unless concentration and spread are positive.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, 10.2; Rousseau and Mengersen
    (2011) for sparse weights.

    Example:
        >>> prior = BayesianMixture(2, components=5)
        >>> prior().sample((3,)).shape, prior().log_prob(torch.zeros(4, 7, 2)).shape
        (torch.Size([3, 2]), torch.Size([4, 7]))
    """

    def __init__(
        self,
        latent: Size,
        components: int = 10,
        concentration: float = 5.0,
        spread: float = 0.5,
    ):
        super().__init__()
        check_count("components", components)
        check_positive("concentration", concentration)
        check_positive("spread", spread)
        self.latent, self.components = as_shape(latent), components
        self.concentration, self.spread = concentration, spread
        shape = (components, *self.latent)
        self.loc = nn.Parameter(torch.randn(shape))
        # The guide starts with equal weights that are almost known, and scales near one.
        self.log_counts = nn.Parameter(torch.full((components,), math.log(100 / components)))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.raw_spread = nn.Parameter(torch.full(shape, SOFTPLUS_OF_THIS_IS_ONE - 2))

    def draw(self, sample: Sample, *, prior: bool) -> dict[str, Tensor]:
        counts: Tensor = self.log_counts.exp()
        log_scale: Tensor = self.log_scale
        spread = softplus(self.raw_spread)
        if prior:
            counts = torch.full_like(counts, self.concentration / self.components)
            log_scale = torch.zeros_like(log_scale)
            spread = torch.full_like(spread, self.spread)
        return {
            "weights": sample("weights", dist.Dirichlet(counts)),
            "scales": sample("scales", dist.LogNormal(log_scale, spread).to_event(spread.dim())),
        }

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        weights, scales = self.values["weights"], self.values["scales"]
        return Mixture(
            dist.Categorical(weights), dist.Normal(self.loc, scales).to_event(len(self.latent))
        )
