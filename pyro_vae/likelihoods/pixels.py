"""Likelihoods of images whose pixels depend on one another given z."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pyro_vae.distributions import AutoregressiveBits, CoupledLogistics
from pyro_vae.likelihoods.parameters import bounded_exp
from pyro_vae.networks import Head, Size, as_shape, bounded, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_count, check_positive

__all__ = ["AutoregressiveBernoulli", "CoupledLogisticMixture"]

MOST_CHANNELS = 16  # the channels' slopes are as many as their pairs


class AutoregressiveBernoulli(nn.Module):
    r"""Binary pixels row by row, each given z and the neighbouring pixels before it.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid x_{<i}, z), \quad
              \mathrm{logit}\, p(x_i = 1 \mid x_{<i}, z) = f_i(z) + w^\top \mathrm{relu}(V x_{N(i)}
              + b)

    N(i) are the neighbours in the ``radius`` rows above and to the left of i in its own row, no
    further away than ``radius`` columns; outside of the image there are zeros. All pixels share V,
    b and w: a masked convolution. What is local is learned there, once for the whole image, which
    leaves to z what is not. `log_prob` is exact and takes one pass, and the neighbours' part is the
    same for all draws of z; a draw goes pixel by pixel.

    There is no closed form of the mean, and the most probable image is often an empty one, where no
    stroke was ever begun: `pyro_vae.reconstruct` and `generate` give draws.

    Args:
        event_shape: the shape of x, the last two dimensions its rows and columns; the channels of
            an image follow one another as further rows, and a vector is one row.
        network: the decoder, from z to features, of which f is affine.
        radius: how far away neighbours are, in pixels.
        hidden: the width of V.

    Source: Gulrajani et al. (2017), PixelVAE: A Latent Variable Model for Natural Images.

    Example:
        >>> likelihood = AutoregressiveBernoulli((1, 8, 8), pv.networks.MLP(2, [16]), radius=2)
        >>> p = likelihood(torch.zeros(3, 5, 2))
        >>> p.log_prob(torch.ones(5, 1, 8, 8)).shape, p.sample().shape
        (torch.Size([3, 5]), torch.Size([3, 5, 1, 8, 8]))
    """

    def __init__(self, event_shape: Size, network: nn.Module, radius: int = 3, hidden: int = 16):
        super().__init__()
        check_count("radius", radius)
        check_count("hidden", hidden)
        self.event_shape, self.network = as_shape(event_shape), network
        self.radius, self.hidden = radius, hidden
        self.columns = self.event_shape[-1] if self.event_shape else 1
        self.head = Head(out_shape_of(network), self.event_shape)
        around = [(i, j) for i in range(-radius, 1) for j in range(-radius, radius + 1)]
        self.neighbours = [(down, right) for down, right in around if (down, right) < (0, 0)]
        self.into = nn.Linear(len(self.neighbours), hidden)
        self.out = nn.Linear(hidden, 1, bias=False)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        return AutoregressiveBits(logits, self, len(self.event_shape))

    def said(self, x: Tensor) -> Tensor:
        r"""The neighbours' part of the log-odds (N, \*event) of the pixels of images x."""
        rows, reach = math.prod(self.event_shape) // self.columns, self.radius
        image = x.to(self.out.weight.dtype).reshape(len(x), rows, self.columns)
        image = pad(image, (reach, reach, reach, 0))
        # Neighbours first and pixels last: a product with many columns and a sum over rows are
        # fast.
        parts = [
            image[:, reach + down :, reach + right :][:, :rows, : self.columns]
            for down, right in self.neighbours
        ]
        shifted = torch.stack(parts).flatten(1)
        hidden = torch.relu(self.into.weight @ shifted + self.into.bias.unsqueeze(1))
        return (self.out.weight.t() * hidden).sum(0).reshape(x.shape)

    def said_at(self, i: int, x: Tensor) -> Tensor:
        """The neighbours' part of the log-odds (N,) of pixel i of flat images x (N, D)."""
        row, column = divmod(i, self.columns)
        seen = [(row + down, column + right) for down, right in self.neighbours]
        values = [
            x[:, r * self.columns + c]
            if r >= 0 and 0 <= c < self.columns
            else torch.zeros_like(x[:, 0])
            for r, c in seen
        ]
        return self.out(torch.relu(self.into(torch.stack(values, -1)))).squeeze(-1)


class CoupledLogisticMixture(nn.Module):
    r"""Colours in [0, 1]: a mixture of discretised logistics at each place, its channels coupled.

    .. math:: P(x \mid z) = \prod_i \sum_m \pi_{mi} \prod_c F\Big(x_{ci};\ \mu_{mci} + \sum_{d < c}
              a_{mcdi}\, (x_{di} - \tfrac12),\ s_{mci}\Big)

    with F the mass of a `DiscretizedLogistic`. In a photograph the channels of a pixel are nearly
    one another. `DiscretizedLogisticMixture` leaves that to z; here each channel's location follows
    those before it. The network computes the weights :math:`\pi = \mathrm{softmax}(w(z))`, the
    locations :math:`\mu_m = \frac{m - 1/2}{M} + f_m(z)`, which start spread over [0, 1], the scales
    :math:`s = s_0\, e^{5 \tanh(g(z) / 5)}`, and the slopes :math:`a = 2 \tanh(b(z) / 2)`.

    The mean has no closed form: `pyro_vae.reconstruct` and `generate` give draws.

    Args:
        event_shape: the shape of x, its channels first, such as (3, 32, 32); a vector is one
            place.
        network: the decoder, from z to features.
        components: number of parts M of each place's mixture.
        levels: the number of levels.
        scale: the scale s_0 about which scales move, in the units of x.

    Raises:
        InvalidInput: if there are fewer than two levels, no component, or more than 16 channels.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++; slopes there lie within (-1, 1).

    Example:
        >>> p = CoupledLogisticMixture((3, 8, 8), pv.networks.MLP(2, [16]), components=3)
        >>> p(torch.zeros(5, 2)).log_prob(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        components: int = 5,
        levels: int = 256,
        scale: float = 0.1,
    ):
        super().__init__()
        check_count("components", components)
        check_count("levels", levels, minimum=2)
        self.event_shape, self.network = as_shape(event_shape), network
        check_positive("scale", scale)
        self.components, self.levels, self.scale = components, levels, scale
        channels, *places = self.event_shape
        if channels > MOST_CHANNELS:
            raise InvalidInput(
                "event_shape",
                got=f"{self.event_shape}, {channels} channels each of which follows all before it",
                expected=f"channels first, at most {MOST_CHANNELS}",
                fix="use DiscretizedLogisticMixture (--likelihood DiscretizedLogisticMixture)",
            )
        self.sizes = [1, channels, channels, channels * (channels - 1) // 2]
        self.head = Head(out_shape_of(network), (components * sum(self.sizes), *places))

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, z, context))
        places = len(self.event_shape) - 1
        parts = raw.split([self.components * size for size in self.sizes], -places - 1)
        weights, shift, width, slopes = (
            part.unflatten(-places - 1, (self.components, size))
            for part, size in zip(parts, self.sizes)
        )
        middles = torch.arange(self.components, dtype=raw.dtype, device=raw.device) + 0.5
        start = (middles / self.components).reshape(-1, *(1,) * (places + 1))
        return CoupledLogistics(
            weights.squeeze(-places - 1),
            start + shift,
            self.scale * bounded_exp(width, 5.0),
            bounded(slopes, 2.0),
            self.levels,
            places,
        )
