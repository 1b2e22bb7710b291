"""Draws from a model at a temperature: its latents' densities, narrower around their means."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch.distributions as td
from pyro.distributions import Independent, Laplace, Normal, TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample

from pyro_vae.contracts import Site
from pyro_vae.distributions import (
    FullRankNormal,
    LowRankNormal,
    Mixture,
    MixtureOfNormals,
    PushForward,
    Reshaped,
    StudentT,
)
from pyro_vae.validation import InvalidInput

__all__ = ["Tempered", "tempered"]


def tempered(density: td.Distribution, temperature: float) -> TorchDistribution:
    r"""A density with its scales multiplied by a temperature.

    .. math:: \mathcal{N}(\mu, \sigma^2) \to \mathcal{N}(\mu, (\tau \sigma)^2)

    Of a mixture these are its components' scales, of a flow those of its noise.

    Raises:
        InvalidInput: for a density without a scale, such as one of codes or on a sphere.

    Source: Kingma and Dhariwal (2018), Glow, for flows.

    Example:
        >>> tempered(Normal(2.0, 1.0), 0.5).stddev
        tensor(0.5000)
    """
    for kind, narrower in NARROWER.items():
        if isinstance(density, kind):
            return narrower(density, temperature)
    raise InvalidInput(
        "temperature",
        got=f"{temperature} with a density {type(density).__name__}",
        expected="latents with a scale: normal, Laplace, Student t, mixtures of these, or a flow",
        fix="leave temperature out (--temperature)",
    )


NARROWER: dict[type[td.Distribution], Callable[..., TorchDistribution]] = {
    td.Normal: lambda p, tau: Normal(p.loc, tau * p.scale),
    td.Laplace: lambda p, tau: Laplace(p.loc, tau * p.scale),
    td.StudentT: lambda p, tau: StudentT(p.df, p.loc, tau * p.scale),
    td.MultivariateNormal: lambda p, tau: FullRankNormal(p.loc, scale_tril=tau * p.scale_tril),
    LowRankNormal: lambda p, tau: LowRankNormal(p.loc, tau * p.cov_factor, tau**2 * p.cov_diag),
    td.Independent: lambda p, tau: Independent(
        tempered(p.base_dist, tau), p.reinterpreted_batch_ndims
    ),
    Reshaped: lambda p, tau: Reshaped(tempered(p.base, tau), p.event_shape),
    PushForward: lambda p, tau: PushForward(tempered(p.base, tau), p.transform),
    MixtureOfNormals: lambda p, tau: MixtureOfNormals(p.logits, p.loc, tau * p.scale),
    td.MixtureSameFamily: lambda p, tau: Mixture(
        p.mixture_distribution, tempered(p.component_distribution, tau)
    ),
}


class Tempered(Messenger):
    """Draw the latents of a model at a temperature.

    It stands right around the model, where the sites of x are still observed.
    """

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"] and not site_is_subsample(cast(Message, msg)):
            msg["fn"] = tempered(msg["fn"], self.temperature)
