"""A normalising flow as the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import PushForward, Reshaped
from pyro_vae.distributions.flows import zuko_transform
from pyro_vae.networks import Size, as_context, as_shape
from pyro_vae.validation import InvalidInput, as_counts, check_choice, check_count

__all__ = ["Flow"]


class Flow(nn.Module):
    r"""A normalising flow from latents to standard normal noise, learned with the rest.

    .. math:: p(z) = \mathcal{N}(f(z); 0, I)\, |\det \partial f / \partial z|

    with f a stack of Zuko's transforms: ``"autoregressive"`` is MAF, whose density takes one pass
    and whose draws take one for each entry; ``"coupling"`` is RealNVP, two passes either way;
    ``"spline"`` is an autoregressive neural spline, monotonic rational quadratics on [-5, 5]. With
    a context it is p(z | c).

    Args:
        latent: event shape of z.
        kind: what the transforms are.
        transforms: how many of them.
        hidden: widths of the layers of each transform's network.
        context: number of context features, 0 for none.

    Raises:
        InvalidInput: on an unknown kind, or coupling of a single entry.

    Source: Papamakarios, Pavlakou and Murray (2017); Dinh, Sohl-Dickstein and Bengio (2017); Durkan
    et al. (2019).

    Example:
        >>> prior = Flow(2, kind="coupling", hidden=[16])
        >>> prior().sample((3,)).shape, prior().log_prob(torch.zeros(4, 7, 2)).shape
        (torch.Size([3, 2]), torch.Size([4, 7]))
    """

    noise: Tensor

    def __init__(
        self,
        latent: Size,
        kind: Literal["autoregressive", "coupling", "spline"] = "autoregressive",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
    ):
        super().__init__()
        check_choice("kind", kind, ["autoregressive", "coupling", "spline"])
        check_count("transforms", transforms)
        self.latent, self.kind, self.transforms = as_shape(latent), kind, transforms
        self.hidden, self.context = as_counts("hidden", hidden), as_context(context)
        features = math.prod(self.latent)
        if kind == "coupling" and features < 2:
            raise InvalidInput(
                "latent",
                got=str(self.latent),
                expected="a shape with 2 entries or more for coupling",
                fix="pass latent=2 or more, or kind='autoregressive'",
            )
        self.transform = zuko_transform(
            kind, features, self.context, transforms, tuple(self.hidden)
        )
        self.register_buffer("noise", torch.zeros(features), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        given = context if self.context else None
        base = dist.Normal(self.noise, torch.ones_like(self.noise)).to_event(1)
        if given is not None:
            base = base.expand(given.shape[:-1])
        flow = PushForward(base, self.transform(given).inv)
        return flow if len(self.latent) == 1 else Reshaped(flow, self.latent)
