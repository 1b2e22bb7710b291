"""Images whose pixels, or whose channels in a pixel, depend on those before them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_vae.distributions.levels import DiscretizedLogistic, Grid

__all__ = ["AutoregressiveBits", "CoupledLogistics"]

MOST_STATES = 4096


class BitNetwork(Protocol):
    """A network from bits to the log-odds of the bits after them."""

    def said(self, x: Tensor) -> Tensor:
        """g at every pixel of images x (N, *event), in the same shape."""

    def said_at(self, i: int, x: Tensor) -> Tensor:
        """g (N,) at pixel i of flat images x (N, D)."""


class AutoregressiveBits(TorchDistribution):
    r"""Bits row by row, each given those before it.

    .. math:: P(x) = \prod_i P(x_i \mid x_1, \dots, x_{i-1}), \quad
              \mathrm{logit}\, P(x_i = 1 \mid \cdot) = a_i + g_i(x_1, \dots, x_{i-1})

    The term g does not depend on the batch: for K draws of a and one x it is computed once. The
    mean has no closed form.

    Args:
        logits: a (\*batch, \*event).
        network: that of g, such as `pyro_vae.likelihoods.AutoregressiveBernoulli`.
        event_dims: the number of dimensions of the event.
    """

    arg_constraints: dict = {}

    def __init__(self, logits: Tensor, network: BitNetwork, event_dims: int):
        self.logits, self.network = logits, network
        batch = logits.dim() - event_dims
        super().__init__(logits.shape[:batch], logits.shape[batch:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.boolean, self.event_dim)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> AutoregressiveBits:
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        return AutoregressiveBits(logits, self.network, self.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        said = self.network.said(value.reshape(-1, *self.event_shape)).reshape(value.shape)
        logits, x = torch.broadcast_tensors(self.logits + said, value)
        nats = binary_cross_entropy_with_logits(logits, x.to(logits), reduction="none")
        return -nats.flatten(-self.event_dim).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        logits = self.logits.expand(*batch, *self.event_shape)
        logits = logits.reshape(-1, math.prod(self.event_shape))
        x = torch.zeros_like(logits)
        for i in range(x.shape[1]):
            x[:, i] = torch.bernoulli(torch.sigmoid(logits[:, i] + self.network.said_at(i, x)))
        return x.reshape(*batch, *self.event_shape)

    @property
    def has_enumerate_support(self) -> bool:
        return 2 ** math.prod(self.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        bits = torch.arange(2, dtype=self.logits.dtype, device=self.logits.device)
        every = torch.cartesian_prod(*[bits] * math.prod(self.event_shape))
        states = every.reshape(-1, *(1,) * len(self.batch_shape), *self.event_shape)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states


class CoupledLogistics(TorchDistribution):
    r"""Colours on a grid of levels in [0, 1]: at each place a mixture, its channels coupled.

    .. math:: P(x) = \prod_i \sum_m \pi_{mi} \prod_c F\Big(x_{ci};\ \mu_{mci} + \sum_{d < c}
              a_{mcdi}\, (x_{di} - \tfrac12),\ s_{mci}\Big)

    with F the mass of a `DiscretizedLogistic`. The mean has no closed form.

    Args:
        logits: log-weights of the mixtures (\*batch, M, \*places), up to a constant.
        loc: the locations mu (\*batch, M, C, \*places).
        scale: the scales s, in the same shape.
        slopes: a (\*batch, M, C (C - 1) / 2, \*places), those of the second channel first.
        levels: the number of levels.
        place_dims: the number of dimensions of the places, 2 for images.

    Example:
        >>> loc = torch.full((4, 3, 8, 8), 0.5)  # four parts, three channels
        >>> p = CoupledLogistics(torch.zeros(4, 8, 8), loc, loc, torch.zeros(4, 3, 8, 8), 256, 2)
        >>> p.log_prob(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5])
    """

    arg_constraints: dict = {}

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        slopes: Tensor,
        levels: int,
        place_dims: int,
    ):
        self.logits, self.loc, self.scale, self.slopes = logits, loc, scale, slopes
        self.levels, self.place_dims = levels, place_dims
        batch = loc.dim() - place_dims - 2
        super().__init__(loc.shape[:batch], loc.shape[batch + 1 :], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(Grid(self.levels), self.event_dim)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> CoupledLogistics:
        rank, batch = len(self.batch_shape), torch.Size(batch_shape)
        return self._with(lambda part: part.expand(*batch, *part.shape[rank:]))

    def _with(self, change: Callable[[Tensor], Tensor]) -> CoupledLogistics:
        return CoupledLogistics(
            change(self.logits),
            change(self.loc),
            change(self.scale),
            change(self.slopes),
            self.levels,
            self.place_dims,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.unsqueeze(self._channel - 1)  # the same for all parts of a mixture
        locs = torch.broadcast_tensors(*(self._loc_of(c, x) for c in range(self.event_shape[0])))
        p = DiscretizedLogistic(torch.stack(locs, self._channel), self.scale, self.levels)
        parts = p.log_prob(x).sum(self._channel) + self.logits.log_softmax(self._channel)
        nats = parts.logsumexp(self._channel)
        batch = nats.shape[: nats.dim() - self.place_dims]
        return nats.reshape(*batch, math.prod(self.event_shape[1:])).sum(-1)

    @property
    def has_enumerate_support(self) -> bool:
        return self.levels ** math.prod(self.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        levels = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device)
        every = torch.cartesian_prod(*[levels / (self.levels - 1)] * math.prod(self.event_shape))
        states = every.reshape(-1, *(1,) * len(self.batch_shape), *self.event_shape)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states

    def _loc_of(self, channel: int, x: Tensor) -> Tensor:
        """The locations (..., M, *places) of a channel, given those before it in x."""
        first, loc = channel * (channel - 1) // 2, self.loc.select(self._channel, channel)
        for before in range(channel):
            slope = self.slopes.select(self._channel, first + before)
            loc = loc + slope * (x.select(self._channel, before) - 0.5)
        return loc

    @property
    def _channel(self) -> int:
        """The dimension of the channels, and that of a mixture's parts where there are none."""
        return -self.place_dims - 1

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        wide = self.expand(torch.Size(sample_shape) + self.batch_shape)
        logits, channel = wide.logits.movedim(self._channel, -1), self._channel
        number = torch.distributions.Categorical(logits=logits).sample().unsqueeze(channel)

        def chosen(each: Tensor) -> Tensor:
            """Of parts (..., M, *rest) the one that was drawn at each place."""
            if each is wide.logits:
                return each.gather(channel, number)
            shape = list(each.shape)
            shape[channel - 1] = 1
            return each.gather(channel - 1, number.unsqueeze(channel).expand(shape))

        one = wide._with(chosen)
        x = torch.zeros_like(one.loc)
        for c in range(self.event_shape[0]):
            scale = one.scale.select(channel, c)
            drawn = DiscretizedLogistic(one._loc_of(c, x), scale, self.levels).sample()
            x.select(channel, c).copy_(drawn)
        return x.squeeze(channel - 1)
