r"""Modules whose weights or scales are latents of all data together, with a guide inside.

A program draws them before its data plate, from the prior in its model and from the guide in its
guide. Their sites are named after the module: ``likelihood.network.layers.0.input.weight``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import pyro.distributions as dist
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn.functional import softplus

from pyro_vae.contracts import Quantity, known_by
from pyro_vae.networks.shapes import (
    Shape,
    Size,
    as_shape,
    features_of,
    out_shape_of,
    takes_draws,
)
from pyro_vae.validation import InvalidInput, check_positive

__all__ = ["ARD", "Bayesian", "Sample", "WithGlobals"]

Sample = Callable[[str, Distribution], Tensor]  # from a latent's name and distribution to its value


class WithGlobals(nn.Module, ABC):
    """A module some of whose tensors are global latents.

    A program puts their values into ``drawn`` while it runs. Elsewhere they are at their means
    under the guide.

    Raises:
        InvalidInput: in a model or guide that has not drawn them.
    """

    drawn: Mapping[str, Tensor] | None = None

    @abstractmethod
    def draw(self, sample: Sample, *, prior: bool) -> dict[str, Tensor]:
        """Draw the global latents by name.

        Args:
            sample: draws a latent, given its name and its distribution.
            prior: from the prior; else from the guide.
        """

    def guide_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the guide, which no other prior may be put on."""
        return self.parameters(recurse=False)

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The values of the global latents."""
        if self.drawn is not None:
            return self.drawn
        if am_i_wrapped():  # at their means a model would leave out their prior
            raise InvalidInput(
                type(self).__name__,
                got="a model or guide that does not draw its global latents",
                expected="them drawn before the plate of the data",
                fix="put `with pyro_vae.programs.global_latents(self, prior=True):` around the "
                "model's plate, and prior=False around the guide's",
            )
        return self.draw(lambda name, distribution: distribution.mean, prior=False)


def raw(scale: float) -> float:
    """The number whose softplus is a scale."""
    return torch.tensor(scale, dtype=torch.float64).expm1().log().item()


class Bayesian(WithGlobals):
    r"""A network or a likelihood with a prior on its weights, and a mean-field guide of them.

    .. math:: w_i \sim \mathcal{N}(0, s^2), \qquad q(w_i) = \mathcal{N}(m_i, s(\rho_i)^2)

    with s the softplus. The weights' own values are the means m, so that they start as a network's
    do. Wrapped around a decoder's network, it leaves the likelihood's last layer as it is; wrapped
    around the likelihood, it takes that one too, and whatever else the likelihood learns.
    Parameters that take no gradient stay as they are, as do those of other modules with global
    latents within, such as `ARD`.

    Args:
        network: the module: a network, or a likelihood.
        scale: the prior's standard deviation s of each weight.
        initial_scale: the guide's at the start.

    Raises:
        InvalidInput: for a module without weights, or scales that are not positive.

    Source: Blundell et al. (2015), Weight Uncertainty in Neural Networks.

    Example:
        >>> decoder = pv.networks.Bayesian(pv.networks.MLP(2, [16]))
        >>> bayesian = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), decoder),
        ...     posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16])),
        ... )
        >>> round(pv.elbo(bayesian, torch.zeros(3, 1, 8, 8), num_samples=5).global_kl) > 0
        True
    """

    def __init__(self, network: nn.Module, scale: float = 1.0, initial_scale: float = 0.02):
        super().__init__()
        check_positive("scale", scale)
        check_positive("initial_scale", initial_scale)
        self.network, self.scale, self.initial_scale = network, scale, initial_scale
        if not self.means:
            raise InvalidInput(
                "network",
                got=f"a {type(network).__name__} without weights",
                expected="a module with weights to put a prior on",
                fix="wrap the likelihood, whose last layer has weights: Bayesian(likelihood)",
            )
        self.raw_scales = nn.ParameterList(
            nn.Parameter(torch.full_like(mean, raw(initial_scale))) for mean in self.means.values()
        )

    @property
    def means(self) -> dict[str, Tensor]:
        """The guide's mean of each weight."""
        inner = (part for part in self.network.modules() if isinstance(part, WithGlobals))
        taken = {id(each) for part in inner for each in part.guide_parameters()}
        parameters = self.network.named_parameters()
        return {n: p for n, p in parameters if p.requires_grad and id(p) not in taken}

    def guide_parameters(self) -> Iterator[nn.Parameter]:
        return self.parameters()

    @property
    def takes_draws(self) -> bool:
        return takes_draws(self.network)

    @property
    def out_shape(self) -> Shape:
        return out_shape_of(self.network)

    @property
    def event_shape(self) -> Shape:
        shape: Size = self.network.event_shape  # type: ignore[assignment]  # of a likelihood
        return as_shape(shape)

    @property
    def known(self) -> Mapping[str, Quantity]:
        """The known quantities that a likelihood takes."""
        return known_by(self.network)

    def draw(self, sample: Sample, *, prior: bool) -> dict[str, Tensor]:
        values = {}
        for (name, mean), raw_scale in zip(self.means.items(), self.raw_scales):
            q = dist.Normal(mean, softplus(raw_scale))
            p = dist.Normal(torch.zeros_like(mean), self.scale)
            values[name] = sample(name, (p if prior else q).to_event(mean.dim()))
        return values

    def forward(self, *args: Tensor, **kwargs: Tensor | None) -> object:
        return functional_call(self.network, dict(self.values), args, kwargs)


class ARD(WithGlobals):
    r"""A scale on each dimension of the latent, which tells the relevant ones from the others.

    .. math:: \tau_d \sim \mathrm{HalfCauchy}(s), \quad f(z) = g(\tau \odot z), \qquad
              q(\tau_d) = \mathrm{LogNormal}(m_d, s(\rho_d)^2)

    It is automatic relevance determination: the scale of a column of the decoder's first layer. A
    dimension that the data do not need has its :math:`\tau_d` shrunk to zero by the prior. Weights
    that are free undo any scale, so the decoder should be Bayesian:
    ``Bayesian(likelihood(event_shape, ARD(latent, network)))``.

    Args:
        latent: event shape of z.
        network: the decoder's network g.
        scale: s, the median of the prior.

    Raises:
        InvalidInput: if the scale is not positive.

    Source: Tipping and Bishop (1999), Bishop (1999), Bayesian PCA; Carvalho, Polson and Scott
    (2010) for the half-Cauchy.

    Example:
        >>> relevance = pv.networks.ARD(2, pv.networks.MLP(2, [16]))
        >>> likelihood = pv.networks.Bayesian(pv.likelihoods.Bernoulli((1, 8, 8), relevance))
        >>> relevance.relevance.shape
        torch.Size([2])
    """

    takes_draws = True

    def __init__(self, latent: Size, network: nn.Module, scale: float = 1.0):
        super().__init__()
        check_positive("scale", scale)
        self.latent, self.network, self.scale = as_shape(latent), network, scale
        self.loc = nn.Parameter(torch.full(self.latent, math.log(scale)))
        self.raw_scale = nn.Parameter(torch.full(self.latent, raw(0.1)))

    @property
    def out_shape(self) -> Shape:
        return out_shape_of(self.network)

    @property
    def relevance(self) -> Tensor:
        """The median of each scale under the guide."""
        return self.loc.detach().exp()

    def draw(self, sample: Sample, *, prior: bool) -> dict[str, Tensor]:
        q = dist.LogNormal(self.loc, softplus(self.raw_scale))
        p = dist.HalfCauchy(torch.full_like(self.loc, self.scale))
        return {"scale": sample("scale", (p if prior else q).to_event(len(self.latent)))}

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return features_of(self.network, z * self.values["scale"], context)
