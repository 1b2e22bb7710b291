"""Likelihoods p(x | z), or p(x | z, context): a decoder with a density.

The contract: sizes come first (``likelihood(event_shape, network, ...)``); ``forward(z, *, context=None)`` returns
a distribution whose event shape is x's and whose batch shape is z's, broadcast against the context's; the module
states ``event_shape``, which is what generation needs. Constructor arguments are kept as attributes of the same
name. Nothing needs to be inherited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["Bernoulli", "Normal"]


class Bernoulli(nn.Module):
    r"""Independent binary entries; the network computes their log-odds.

    .. math:: p(x \mid z) = \prod_d p_d^{x_d} (1 - p_d)^{1 - x_d}, \quad p = \mathrm{sigmoid}(f(z))

    A density on {0, 1} only: grey values in between have no probability, and are refused.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> p = Bernoulli((1, 8, 8), pv.networks.MLP(2, [16]))
        >>> p(torch.zeros(3, 5, 2)).mean.shape
        torch.Size([3, 5, 1, 8, 8])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(len(self.event_shape))


class Normal(nn.Module):
    r"""Independent normal entries; the network computes the mean, and the scale is fixed or learned.

    .. math:: p(x \mid z) = \prod_d \mathcal{N}(x_d; f_d(z), \sigma_d^2)

    A free, unbounded variance makes the likelihood diverge wherever the decoder can fit an entry exactly, which is
    the usual cause of a NaN loss. So a learned scale moves between bounds on a log scale,
    :math:`\log \sigma = \log a + (\log b - \log a)\, \mathrm{sigmoid}(\rho)`, and starts at ``scale``.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        scale: the standard deviation, in the units of x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries, ``"per_feature"`` one each.
        scale_bounds: the interval (a, b) of a learned scale.

    Raises:
        InvalidInput: if the scale does not lie strictly within its bounds.

    Source: Kingma and Welling (2014); Rybkin, Daniilidis and Levine (2021), Simple and Effective VAE Training with
    Calibrated Decoders, for the learned shared scale.

    Example:
        >>> p = Normal((3,), pv.networks.MLP(2, []), scale=0.5, learn_scale="shared")
        >>> p(torch.zeros(5, 2)).variance[0]
        tensor([0.2500, 0.2500, 0.2500], grad_fn=<SelectBackward0>)
    """

    def __init__(self, event_shape: Size, network: nn.Module, scale: float = 1.0,
                 learn_scale: Literal["shared", "per_feature"] | None = None,
                 scale_bounds: Sequence[float] = (1e-3, 1e3)):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.scale, self.learn_scale, self.scale_bounds = scale, learn_scale, tuple(scale_bounds)
        self.head = Head(out_shape_of(network), self.event_shape)
        self.sigma = Scale(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (loc,) = self.head(features_of(self.network, z, context))
        return dist.Normal(loc, self.sigma()).to_event(len(self.event_shape))


class Scale(nn.Module):
    """A positive scale: fixed, or learned between bounds; one number, or one for each entry of an event."""

    value: Tensor

    def __init__(self, value: float, event_shape: Sequence[int], learn: str | None, bounds: Sequence[float]):
        super().__init__()
        shapes: dict[str | None, tuple[int, ...]] = {None: (), "shared": (), "per_feature": tuple(event_shape)}
        check_choice("learn_scale", learn, shapes)  # type: ignore[arg-type]
        low, high = self.bounds = tuple(bounds)
        if not 0 < low < value < high < math.inf:
            raise InvalidInput("scale", got=f"{value} with scale_bounds {self.bounds}", expected="0 < low < scale < high",
                               fix="move the scale or widen scale_bounds")
        self.learned = learn is not None
        if self.learned:
            fraction = math.log(value / low) / math.log(high / low)
            self.raw = nn.Parameter(torch.full(shapes[learn], math.log(fraction / (1 - fraction))))
        else:
            self.register_buffer("value", torch.tensor(value), persistent=False)

    def forward(self) -> Tensor:
        if not self.learned:
            return self.value
        low, high = self.bounds
        return low * torch.exp(math.log(high / low) * torch.sigmoid(self.raw))
