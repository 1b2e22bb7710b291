"""Posteriors of several modalities: an expert for each, multiplied or mixed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.distributions import (
    MixtureOfNormals,
    Reshaped,
    TorchToPyro,
    entries_of,
    is_missing,
)
from pyro_vae.networks import Size, as_shape, tell_event_dim
from pyro_vae.validation import InvalidInput

__all__ = ["MixtureOfExperts", "ProductOfExperts"]


class Experts(nn.Module, ABC):
    """A posterior made of one expert for each modality; that of a missing one is left out."""

    def __init__(self, latent: Size, experts: Mapping[str, nn.Module]):
        super().__init__()
        self.latent, self.experts = as_shape(latent), nn.ModuleDict(experts)

    def forward(
        self, x: Mapping[str, Tensor], *, context: Tensor | None = None
    ) -> dist.TorchDistribution:
        seen = [name for name in self.experts if name in x]
        if not seen:
            raise InvalidInput(
                "x",
                got=f"parts {sorted(x)}",
                expected=f"one or more of {', '.join(self.experts)}",
                fix="name the parts of x and the experts alike",
            )
        observed = torch.stack([~is_missing(x[name], x[name].dim() - 1) for name in seen], -1)
        normals = [self._normal(name, x[name], context) for name in seen]
        loc, scale = (torch.stack([n[i] for n in normals], -2) for i in (0, 1))
        density = self.combined(loc, scale, observed)
        return density if len(self.latent) == 1 else Reshaped(density, self.latent)

    @abstractmethod
    def combined(self, loc: Tensor, scale: Tensor, observed: Tensor) -> dist.TorchDistribution:
        r"""The posterior of M experts over D entries.

        Args:
            loc: the experts' means (\*batch, M, D).
            scale: their standard deviations (\*batch, M, D).
            observed: whether each has something to go by (\*batch, M).
        """

    def _normal(self, name: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """An expert's means and scales (N, D); what it says of a missing event is not used."""
        event_dim = x.dim() - 1
        missing = is_missing(x, event_dim).reshape(-1, *(1,) * event_dim)
        tell_event_dim(self.experts[name], event_dim)
        density = self.experts[name](x.masked_fill(missing, 0.0), context=context)
        entries = entries_of(density, "experts")
        base = entries.wrapped if isinstance(entries, TorchToPyro) else entries
        if not isinstance(base, Normal):
            raise InvalidInput(
                "experts",
                got=f"{type(base).__name__} for {name!r}",
                expected="independent normals, which are combined in closed form",
                fix="choose DiagonalNormal for each expert",
            )
        rank = len(self.latent)
        size = math.prod(self.latent)
        loc, scale = base.loc, base.scale
        return tuple(v.reshape(*v.shape[: v.dim() - rank], size) for v in (loc, scale))  # type: ignore[return-value]


class ProductOfExperts(Experts):
    r"""A product of normals, one for each modality that is there, and a standard normal.

    .. math:: q(z \mid x) \propto \mathcal{N}(z; 0, I) \prod_{m\,\mathrm{observed}} \mathcal{N}(z;
              \mu_m(x_m), \mathrm{diag}\, \sigma_m(x_m)^2)

    It is normal again: precisions add up. A missing modality is left out exactly, and with none
    there q is N(0, I). If each expert is what its modality alone says about z, and the modalities
    are independent given z, the product is the posterior.

    Args:
        latent: event shape of z.
        experts: a posterior of independent normals for each modality, by its name.

    Raises:
        InvalidInput: on an expert that is not normal, when called.

    Source: Wu and Goodman (2018), Multimodal generative models for scalable weakly-supervised
    learning.

    Example:
        >>> expert = pv.posteriors.DiagonalNormal
        >>> q = ProductOfExperts(2, {
        ...     "image": expert(2, pv.networks.MLP((1, 8, 8), [16])),
        ...     "sound": expert(2, pv.networks.MLP(30, [16])),
        ... })
        >>> q({"image": torch.zeros(5, 1, 8, 8), "sound": torch.zeros(5, 30)}).batch_shape
        torch.Size([5])
    """

    def combined(self, loc: Tensor, scale: Tensor, observed: Tensor) -> dist.TorchDistribution:
        precision = observed.unsqueeze(-1) / scale.square()
        total = 1 + precision.sum(-2)
        return dist.Normal((precision * loc).sum(-2) / total, total.rsqrt()).to_event(1)


class MixtureOfExperts(Experts):
    r"""A mixture of normals, one for each modality that is there, with equal weights.

    .. math:: q(z \mid x) = \frac1M \sum_{m\,\mathrm{observed}} \mathcal{N}(z; \mu_m(x_m),
              \mathrm{diag}\, \sigma_m(x_m)^2)

    with M the number of modalities that are there; with none of them q is N(0, I). Every expert
    alone must explain all modalities, which makes for coherence and for a looser bound. Draws are
    reparametrised implicitly (`pyro_vae.distributions.MixtureOfNormals`).

    Args:
        latent: event shape of z.
        experts: a posterior of independent normals for each modality, by its name.

    Raises:
        InvalidInput: on an expert that is not normal, when called.

    Source: Shi, Siddharth, Paige and Torr (2019), Variational mixture-of-experts autoencoders for
    multi-modal deep generative models.

    Example:
        >>> expert = pv.posteriors.DiagonalNormal
        >>> q = MixtureOfExperts(2, {
        ...     "image": expert(2, pv.networks.MLP((1, 8, 8), [16])),
        ...     "sound": expert(2, pv.networks.MLP(30, [16])),
        ... })
        >>> q({"sound": torch.zeros(5, 30)}).rsample().shape
        torch.Size([5, 2])
    """

    def combined(self, loc: Tensor, scale: Tensor, observed: Tensor) -> dist.TorchDistribution:
        alone = ~observed.any(-1, keepdim=True)  # then the standard normal, the last one, counts
        counts = torch.cat([observed, alone], -1)
        logits = loc.new_zeros(counts.shape).masked_fill(~counts, -math.inf)
        standard = torch.zeros_like(loc[..., :1, :])
        return MixtureOfNormals(
            logits,
            torch.cat([loc, standard], -2),
            torch.cat([scale, standard + 1], -2),
            validate_args=False,
        )
