"""The likelihood of the observed entries alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.contracts import Initializable, Likelihood, Quantity, known_by
from pyro_vae.distributions import ObservedEntries, entries_of
from pyro_vae.networks import as_shape

__all__ = ["Missing"]


class Missing(nn.Module):
    r"""Another likelihood restricted to the observed entries; NaN marks a missing one.

    .. math:: p(x_\mathrm{obs} \mid z) = \prod_{d\,\mathrm{observed}} p(x_d \mid z)

    For likelihoods whose entries are independent given z: then this is the exact marginal of the
    observed entries, and `pyro_vae.log_likelihood` is log p(x_obs). That entries are missing is
    taken to carry no information about their values (missing at random). Draws and means are
    complete. The encoder needs `pyro_vae.networks.WithMask`.

    Args:
        likelihood: the likelihood of complete data.

    Raises:
        InvalidInput: when called, if the entries depend on one another given z.

    Source: Nazabal, Olmos, Ghahramani and Valera (2020), Handling Incomplete Heterogeneous Data
    using VAEs; Mattei and Frellsen (2019), MIWAE.

    Example:
        >>> p = Missing(pv.likelihoods.Normal(2, pv.networks.MLP(3, [8])))(torch.zeros(1, 3))
        >>> p.log_prob(torch.tensor([torch.nan, torch.nan]))
        tensor([0.], grad_fn=<SumBackward1>)
    """

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        self.likelihood = cast(Likelihood, likelihood)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    @property
    def known(self) -> Mapping[str, Quantity]:
        return known_by(self.likelihood)

    def initialize(self, x: Tensor, features: Tensor | None = None) -> None:
        """Initialise the likelihood of complete data, if it takes its start from data."""
        if isinstance(self.likelihood, Initializable):
            self.likelihood.initialize(x, features)

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, **known: Tensor
    ) -> dist.TorchDistribution:
        entries = entries_of(self.likelihood(z, context=context, **known))
        return ObservedEntries(entries).to_event(len(self.event_shape))
