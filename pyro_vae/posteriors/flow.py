"""A normalising flow as the posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions import PushForward, Reshaped
from pyro_vae.distributions.flows import zuko_transform
from pyro_vae.networks import Head, Size, as_shape, features_of, flatten_event, out_shape_of
from pyro_vae.validation import InvalidInput, as_counts, check_choice, check_count

__all__ = ["Flow"]


class Flow(nn.Module):
    r"""Normal noise pushed through transforms that are conditioned on the encoder's features.

    .. math:: z = f(\epsilon; h(x)), \quad \epsilon \sim \mathcal{N}(\mu(x), \mathrm{diag}\,
              \sigma(x)^2), \quad \log q(z \mid x) = \log \mathcal{N}(\epsilon) - \log |\det
              \partial f / \partial \epsilon|

    with :math:`\sigma = s(\rho(x)) + 10^{-4}`, s the softplus. ``"autoregressive"`` is the inverse
    autoregressive flow: one pass for a draw and its own density, one for each entry of z for the
    density of any other point; ``"spline"`` the same with monotonic rational quadratic splines on
    [-5, 5]; ``"coupling"`` RealNVP.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.
        kind: what the transforms are.
        transforms: how many of them.
        hidden: widths of the layers of each transform's network.

    Raises:
        InvalidInput: on an unknown kind, or coupling of a single entry.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow;
    Durkan et al. (2019), Neural spline flows.

    Example:
        >>> q = Flow(2, pv.networks.MLP((1, 8, 8), [16]), kind="spline", hidden=[16])
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((3,)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        latent: Size,
        network: nn.Module,
        kind: Literal["autoregressive", "coupling", "spline"] = "autoregressive",
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
    ):
        super().__init__()
        check_choice("kind", kind, ["autoregressive", "coupling", "spline"])
        check_count("transforms", transforms)
        self.latent, self.network, self.kind = as_shape(latent), network, kind
        self.transforms, self.hidden = transforms, as_counts("hidden", hidden)
        entries, features = math.prod(self.latent), out_shape_of(network)
        if kind == "coupling" and entries < 2:
            raise InvalidInput(
                "latent",
                got=str(self.latent),
                expected="a shape with 2 entries or more for coupling",
                fix="pass latent=2 or more, or kind='autoregressive'",
            )
        self.head = Head(features, entries, parameters=2)
        self.transform = zuko_transform(
            kind, entries, math.prod(features), transforms, tuple(self.hidden)
        )

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        features = features_of(self.network, x, context)
        loc, raw_scale = self.head(features)
        noise = dist.Normal(loc, nn.functional.softplus(raw_scale) + 1e-4).to_event(1)
        flow = PushForward(noise, self.transform(flatten_event(features, len(self.head.in_shape))))
        return flow if len(self.latent) == 1 else Reshaped(flow, self.latent)
