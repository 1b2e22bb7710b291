"""The likelihood of entries with more zeros than others have."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.contracts import Quantity, known_by
from pyro_vae.distributions import ZeroInflatedEntries, entries_of
from pyro_vae.likelihoods.inner import Inner, likelihood_on
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of

__all__ = ["ZeroInflated"]


class ZeroInflated(nn.Module):
    r"""Another likelihood with extra zeros, whose log-odds the network computes.

    .. math:: p(x \mid z) = \prod_d g_d\, [x_d = 0] + (1 - g_d)\, p_0(x_d \mid z), \quad g =
              \mathrm{sigmoid}(a(z))

    Of counts, such as Poisson; or of positive numbers, such as Gamma for rain or claims, which are
    never zero themselves: g is then the probability of a zero, and the rest a density (a hurdle).

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        of: the likelihood beside the zeros: a name, or a mapping with ``class_path`` and
            ``init_args`` as in `Mixed`. Its entries are independent.

    Raises:
        InvalidInput: if there is no such likelihood.

    Source: Lambert (1992), Zero-Inflated Poisson Regression.

    Example:
        >>> p = ZeroInflated(3, pv.networks.MLP(2, [8]), of="Gamma")(torch.zeros(5, 2))
        >>> p.log_prob(torch.tensor([0.0, 1.3, 0.0])).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        of: str | Inner = "Poisson",
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.of = of
        self.part = likelihood_on(of, self.event_shape, network)
        self.gate = Head(out_shape_of(network), self.event_shape)

    @property
    def known(self) -> Mapping[str, Quantity]:
        return known_by(self.part)

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, **known: Tensor
    ) -> dist.TorchDistribution:
        features = features_of(self.network, z, context)
        entries = entries_of(self.part(features, **known), "of")
        (gate,) = self.gate(features)
        return ZeroInflatedEntries(entries, gate).to_event(len(self.event_shape))
