"""Likelihoods of real numbers, each with a location from the network and a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.contracts import Quantity
from pyro_vae.likelihoods.parameters import Positive, as_bounds, per_entry, required
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, as_number, check_choice

__all__ = ["Laplace", "Normal", "NormalWithNoise", "StudentT"]


class Normal(nn.Module):
    r"""Independent normal entries with means from the network and a fixed or learned scale.

    .. math:: p(x \mid z) = \prod_d \mathcal{N}(x_d; f_d(z), \sigma_d^2)

    A free, unbounded variance makes the likelihood diverge wherever the decoder can fit an entry
    exactly, which is the usual cause of a NaN loss. So a learned scale moves between bounds on a
    log scale,
    :math:`\log \sigma = \log a + (\log b - \log a)\, \mathrm{sigmoid}(\rho)`, and starts at
    ``scale``.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        scale: the standard deviation, in the units of x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        scale_bounds: the interval (a, b) of a learned scale.

    Raises:
        InvalidInput: if the scale does not lie strictly within its bounds.

    Source: Kingma and Welling (2014); Rybkin, Daniilidis and Levine (2021), Simple and Effective
    VAE Training with Calibrated Decoders, for the learned shared scale.

    Example:
        >>> p = Normal((3,), pv.networks.MLP(2, []), scale=0.5, learn_scale="shared")
        >>> p(torch.zeros(5, 2)).variance[0]
        tensor([0.2500, 0.2500, 0.2500], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        scale: float = 1.0,
        learn_scale: Literal["shared", "per_feature", "network"] | None = None,
        scale_bounds: Sequence[float] = (1e-3, 1e3),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.scale, self.learn_scale = scale, learn_scale
        self.scale_bounds = as_bounds("scale_bounds", scale_bounds)
        count = 1 + (learn_scale == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        self.sigma = Positive(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        loc, *raw = self.head(features_of(self.network, z, context))
        return dist.Normal(loc, self.sigma(*raw)).to_event(len(self.event_shape))


class Laplace(nn.Module):
    r"""Independent Laplace entries with medians from the network and a fixed or learned scale.

    .. math:: p(x \mid z) = \prod_d \frac{1}{2 b_d} \exp\left(-\frac{|x_d - f_d(z)|}{b_d}\right)

    The likelihood of absolute errors: a gross error moves the fit less than under `Normal`. The
    standard deviation is :math:`\sqrt 2\, b`. A learned scale moves between bounds as that of
    `Normal` does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        scale: the scale b, in the units of x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        scale_bounds: the interval of a learned scale.

    Raises:
        InvalidInput: if the scale does not lie strictly within its bounds.

    Source: Laplace (1774).

    Example:
        >>> p = Laplace((3,), pv.networks.MLP(2, [8]), scale=0.5)
        >>> p(torch.zeros(5, 2)).variance[0]
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        scale: float = 1.0,
        learn_scale: Literal["shared", "per_feature", "network"] | None = None,
        scale_bounds: Sequence[float] = (1e-3, 1e3),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.scale, self.learn_scale = scale, learn_scale
        self.scale_bounds = as_bounds("scale_bounds", scale_bounds)
        count = 1 + (learn_scale == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        self.spread = Positive(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        loc, *raw = self.head(features_of(self.network, z, context))
        return dist.Laplace(loc, self.spread(*raw)).to_event(len(self.event_shape))


class StudentT(nn.Module):
    r"""Independent Student t entries, located by the network, with a fixed or learned scale.

    .. math:: p(x \mid z) = \prod_d \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\pi
              \nu}\, s_d} \left(1 + \frac{(x_d - f_d(z))^2}{\nu s_d^2}\right)^{-\frac{\nu + 1}{2}}

    Its tails fall as a power of x, so that an outlier costs its logarithm and not its square: for
    tables with outliers. A learned scale moves between bounds as that of `Normal` does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        df: degrees of freedom nu, above 1, so that the mean exists, which generation shows.
        scale: the scale s, in the units of x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        scale_bounds: the interval of a learned scale.

    Raises:
        InvalidInput: if df is not above 1, or the scale does not lie strictly within its bounds.

    Source: Lange, Little and Taylor (1989), Robust Statistical Modeling Using the t Distribution;
    Takahashi et al. (2018), Student-t Variational Autoencoder for Robust Density Estimation.

    Example:
        >>> p = StudentT(3, pv.networks.MLP(2, [8]), df=4.0)
        >>> p(torch.zeros(5, 2)).variance[0]
        tensor([2., 2., 2.])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        df: float = 4.0,
        scale: float = 1.0,
        learn_scale: Literal["shared", "per_feature", "network"] | None = None,
        scale_bounds: Sequence[float] = (1e-3, 1e3),
    ):
        super().__init__()
        if not 1 < as_number(df) < math.inf:
            raise InvalidInput(
                "df",
                got=repr(df),
                expected="more than 1 degree of freedom, else there is no mean",
                fix="pass df=4",
            )
        self.event_shape, self.network, self.df = as_shape(event_shape), network, df
        self.scale, self.learn_scale = scale, learn_scale
        self.scale_bounds = as_bounds("scale_bounds", scale_bounds)
        count = 1 + (learn_scale == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        self.spread = Positive(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        loc, *raw = self.head(features_of(self.network, z, context))
        return distributions.StudentT(loc.new_tensor(self.df), loc, self.spread(*raw)).to_event(
            len(self.event_shape)
        )


class NormalWithNoise(nn.Module):
    r"""Independent normal entries whose noise is known of each, as of a calibrated instrument.

    .. math:: p(x \mid z) = \prod_d \mathcal{N}(x_d;\, f_d(z),\, \sigma_d^2)

    The noise travels with the data: the context dictionary's entry of the name ``noise``, (N,
    \*event) or (N,), is the scale :math:`\sigma`, or the inverse variance :math:`1 / \sigma^2`. An
    entry of infinite scale (inverse variance 0) was not measured: it adds nothing, whatever number
    stands in x, and draws of it are NaN. The posterior's network sees that number, so let it be 0.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        noise: ``"scale"`` or ``"inverse_variance"``, what the entry is called and what it holds.

    Raises:
        InvalidInput: on any other noise; when called without it.

    Source: Bailey (2012), Principal Component Analysis with Noisy and/or Missing Data.

    Example:
        >>> p = NormalWithNoise(2, pv.networks.MLP(3, [8]))
        >>> noise = torch.tensor([[0.1, torch.inf]])
        >>> p(torch.zeros(1, 3), scale=noise).log_prob(torch.tensor([[0.0, -999.0]])).shape
        torch.Size([1])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        noise: Literal["scale", "inverse_variance"] = "scale",
    ):
        super().__init__()
        check_choice("noise", noise, NOISES)
        self.event_shape, self.network, self.noise = as_shape(event_shape), network, noise
        self.head = Head(out_shape_of(network), self.event_shape)

    @property
    def known(self) -> dict[str, Quantity]:
        return {self.noise: NOISES[self.noise]}

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, **known: Tensor
    ) -> dist.TorchDistribution:
        (loc,) = self.head(features_of(self.network, z, context))
        noise = per_entry(required(self.noise, known.get(self.noise)), self.event_shape)
        scale = noise if self.noise == "scale" else noise.rsqrt()
        return distributions.NormalWithNoise(loc, scale).to_event(len(self.event_shape))


NOISES = {
    "scale": Quantity("numbers > 0, infinite where x is missing", lambda scale, x: scale > 0),
    "inverse_variance": Quantity(
        "finite numbers >= 0, 0 where x is missing",
        lambda inverse, x: (inverse >= 0) & torch.isfinite(inverse),
    ),
}
