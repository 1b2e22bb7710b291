"""The likelihood of entries of which only a bound may have been seen."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.contracts import Quantity, known_by
from pyro_vae.distributions import CensoredEntries, entries_of
from pyro_vae.distributions.censored import BETWEEN, EXACT
from pyro_vae.likelihoods.inner import Inner, likelihood_on
from pyro_vae.likelihoods.parameters import per_entry, required
from pyro_vae.networks import Size, as_shape, features_of

__all__ = ["Censored"]


class Censored(nn.Module):
    r"""Another likelihood, of entries of which some are bounds: survival times, detection limits.

    What a number x says of the variable X travels with the data, in the context dictionary's entry
    ``censored``, (N, \*event) or (N,):

    .. math:: p(x \mid z) = \prod_d \begin{cases} p(x_d \mid z) & \phantom{-}0: \text{observed} \\
              P(X_d \ge x_d \mid z) & \phantom{-}1: \text{right-censored, more than } x \\
              P(X_d \le x_d \mid z) & -1: \text{left-censored, less than } x \\
              P(x_d \le X_d \le u_d \mid z) & \phantom{-}2: \text{between } x \text{ and } u
              \end{cases}

    with u the entry ``upper``, for ``interval=True``; it may be infinite, and where the code is
    another, NaN. That an entry is censored
    is taken to say nothing about its value beyond the bound. Where a table has "event observed" as
    1, ``censored`` is 1 - event. Means and draws are those of X itself: to generate, no codes are
    needed.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        of: the likelihood of X: a name, or a mapping with ``class_path`` and ``init_args`` as in
            `Mixed`. Its entries are independent and have a distribution function, as those of all
            real and positive numbers and of counts do.
        interval: whether some entries are intervals.

    Raises:
        InvalidInput: if there is no such likelihood; when called without the codes, or with a
            likelihood without a distribution function.

    Source: Klein and Moeschberger (2003), Survival Analysis.

    Example:
        >>> p = Censored(1, pv.networks.MLP(2, [8]), of="Weibull")
        >>> p(torch.zeros(2, 2), censored=torch.tensor([0, 1])).log_prob(torch.ones(2, 1)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        of: str | Inner = "LogNormal",
        interval: bool = False,
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.of, self.interval = of, interval
        self.part = likelihood_on(of, self.event_shape, network)

    @property
    def known(self) -> dict[str, Quantity]:
        own = {"censored": CODES, "upper": UPPER} if self.interval else {"censored": SIMPLE_CODES}
        return {**known_by(self.part), **own}

    def forward(
        self,
        z: Tensor,
        *,
        context: Tensor | None = None,
        censored: Tensor | None = None,
        upper: Tensor | None = None,
        **known: Tensor,
    ) -> dist.TorchDistribution:
        features = features_of(self.network, z, context)
        entries = entries_of(self.part(features, **known), "of")
        codes = per_entry(required("censored", censored), self.event_shape)
        ends = None
        if self.interval:
            ends = per_entry(required("upper", upper), self.event_shape)
        return CensoredEntries(entries, codes, ends).to_event(len(self.event_shape))


SIMPLE_CODES = Quantity(
    "0 (observed), 1 (more than x) or -1 (less than x)",
    lambda codes, x: (codes == 0) | (codes.abs() == 1),
    has_units=False,
    drawn=EXACT,
    tells_x=True,
)
CODES = Quantity(
    "0 (observed), 1 (more than x), -1 (less than x) or 2 (between x and upper)",
    lambda codes, x: (codes >= -1) & (codes <= 2) & (codes == codes.round()),
    has_units=False,
    drawn=EXACT,
    tells_x=True,
)
UPPER = Quantity(
    f"numbers not below x where censored is {BETWEEN}; elsewhere any, also NaN",
    lambda upper, x: (upper >= x) | (x.isnan() & ~upper.isnan()),
    tells_x=True,
    used=("censored", BETWEEN),
)
