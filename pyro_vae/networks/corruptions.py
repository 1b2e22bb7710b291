"""Corruptions of data in training, C(x~ | x), for the encoder of a denoising autoencoder.

The contract: a module whose ``forward`` maps data (\\*batch, \\*event) to data of the same shape,
at random while training and unchanged in evaluation, as dropout does. What is NaN, which marks a
missing entry, stays NaN: an encoder that is shown which entries are missing sees no others of them.
`pyro_vae.networks.Corrupted` puts one in front of an encoder; the likelihood scores the data as
they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.validation import InvalidInput, as_number, check_positive

__all__ = ["GaussianNoise", "Masking", "SaltAndPepper"]


class GaussianNoise(nn.Module):
    r"""Add normal noise to every entry.

    .. math:: \tilde x = x + s\, \epsilon, \quad \epsilon \sim \mathcal{N}(0, I)

    Args:
        scale: s > 0, in the units of x.

    Raises:
        InvalidInput: if the scale is not positive.

    Source: Vincent et al. (2010), Stacked Denoising Autoencoders.

    Example:
        >>> noise = GaussianNoise(0.5)
        >>> noise(torch.zeros(100, 1000)).std().round(decimals=2), noise.eval()(torch.ones(2))
        (tensor(0.5000), tensor([1., 1.]))
    """

    def __init__(self, scale: float = 0.5):
        super().__init__()
        check_positive("scale", scale)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x) if self.training else x


class Masking(nn.Module):
    r"""Set entries to zero, each with the same probability.

    .. math:: \tilde x_d = m_d x_d, \quad m_d \sim \mathrm{Bernoulli}(1 - p)

    Args:
        probability: p in (0, 1), with which an entry is lost.

    Raises:
        InvalidInput: if it does not lie there.

    Source: Vincent et al. (2008), Extracting and Composing Robust Features with Denoising
    Autoencoders.

    Example:
        >>> Masking(0.25)(torch.ones(100, 1000)).mean().round(decimals=2)
        tensor(0.7500)
    """

    def __init__(self, probability: float = 0.5):
        super().__init__()
        self.probability = check_probability(probability)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        is_lost = (torch.rand_like(x) < self.probability) & ~torch.isnan(x)
        return torch.where(is_lost, torch.zeros_like(x), x)


class SaltAndPepper(nn.Module):
    r"""Set entries to 0 or to 1, both with the same probability.

    .. math:: P(\tilde x_d = 0) = P(\tilde x_d = 1) = \tfrac p2, \quad \text{else } \tilde x_d = x_d

    Args:
        probability: p in (0, 1), with which an entry is lost.

    Raises:
        InvalidInput: if it does not lie there.

    Source: Vincent et al. (2010), Stacked Denoising Autoencoders.

    Example:
        >>> SaltAndPepper(0.5)(torch.full((100, 1000), 0.5)).unique()
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(self, probability: float = 0.3):
        super().__init__()
        self.probability = check_probability(probability)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        u, is_seen = torch.rand_like(x), ~torch.isnan(x)
        half = self.probability / 2
        salted = torch.where((u > 1 - half) & is_seen, torch.ones_like(x), x)
        return torch.where((u < half) & is_seen, torch.zeros_like(x), salted)


def check_probability(probability: float) -> float:
    """Return the probability; raise `InvalidInput` unless strictly between 0 and 1."""
    if not 0 < as_number(probability) < 1:
        raise InvalidInput(
            "probability",
            got=repr(probability),
            expected="a number between 0 and 1",
            fix="pass probability=0.3",
        )
    return probability
