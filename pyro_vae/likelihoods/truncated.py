"""The likelihood of entries that occur only within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.contracts import Quantity, known_by
from pyro_vae.distributions import TruncatedEntries, entries_of
from pyro_vae.likelihoods.inner import Inner, likelihood_on
from pyro_vae.networks import Size, as_shape, features_of
from pyro_vae.validation import InvalidInput, as_number

__all__ = ["Truncated"]


class Truncated(nn.Module):
    r"""Another likelihood given that every entry lies within bounds.

    .. math:: p(x \mid z) = \prod_d \frac{p(x_d \mid z)}{P(a \le X_d \le b \mid z)}, \quad a \le x_d
              \le b

    For data that cannot lie outside, such as counts of what was seen at least once (a = 1, of
    Poisson) or reactions within a time limit. Where those outside were seen as such, `Censored` is
    the likelihood.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        of: the likelihood that is truncated: a name, or a mapping with ``class_path`` and
            ``init_args`` as in `Mixed`. Its entries are independent and have a distribution
            function, as those of all real and positive numbers and of counts do.
        low: a; ``None`` for no lower bound. That of counts need not be a whole number, and one
            beyond what the likelihood gives cuts nothing off.
        high: b; ``None`` for no upper bound.

    Raises:
        InvalidInput: if there is no such likelihood, or a < b does not hold; when called, if it
            gives nothing between the bounds.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous Univariate Distributions.

    Example:
        >>> p = Truncated(3, pv.networks.MLP(2, [8]), of="Poisson", low=1)(torch.zeros(1, 2))
        >>> p.log_prob(torch.tensor([[0.0, 1.0, 2.0]])).item()
        -inf
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        of: str | Inner = "Normal",
        low: float | None = 0.0,
        high: float | None = None,
    ):
        super().__init__()
        self.event_shape, self.network, self.of = as_shape(event_shape), network, of
        self.low, self.high = low, high
        below, above = -math.inf if low is None else low, math.inf if high is None else high
        self.bounds = (as_number(below), as_number(above))
        if not self.bounds[0] < self.bounds[1]:
            raise InvalidInput(
                "low",
                got=f"{low!r} with high={high!r}",
                expected="low < high",
                fix="pass low=0, high=1, or None for no bound",
            )
        self.part = likelihood_on(of, self.event_shape, network)

    @property
    def known(self) -> Mapping[str, Quantity]:
        return known_by(self.part)

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, **known: Tensor
    ) -> dist.TorchDistribution:
        features = features_of(self.network, z, context)
        entries = entries_of(self.part(features, **known), "of")
        return TruncatedEntries(entries, *self.bounds).to_event(len(self.event_shape))
