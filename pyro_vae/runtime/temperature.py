"""Draws from a model at a temperature: its latents' densities, narrower around their means."""

from __future__ import annotations

from typing import cast

import torch.distributions as td
from pyro.distributions import Independent, Normal, TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample

from pyro_vae.contracts import Site
from pyro_vae.distributions import Mixture, MixtureOfNormals, Reshaped
from pyro_vae.validation import InvalidInput

__all__ = ["Tempered", "tempered"]


def tempered(density: td.Distribution, temperature: float) -> TorchDistribution:
    r"""A density with its scales multiplied by a temperature: of a mixture, its components'.

    .. math:: \mathcal{N}(\mu, \sigma^2) \to \mathcal{N}(\mu, (\tau \sigma)^2)

    Raises:
        InvalidInput: for a density that is neither normal nor a mixture of normals.

    Example:
        >>> tempered(Normal(2.0, 1.0), 0.5).stddev
        tensor(0.5000)
    """
    if isinstance(density, td.Normal):
        return Normal(density.loc, temperature * density.scale)
    if isinstance(density, td.Independent):
        base = tempered(density.base_dist, temperature)
        return Independent(base, density.reinterpreted_batch_ndims)
    if isinstance(density, Reshaped):
        return Reshaped(tempered(density.base, temperature), density.event_shape)
    if isinstance(density, MixtureOfNormals):
        return MixtureOfNormals(density.logits, density.loc, temperature * density.scale)
    if isinstance(density, td.MixtureSameFamily):
        parts = tempered(density.component_distribution, temperature)
        return Mixture(density.mixture_distribution, parts)
    raise InvalidInput(
        "temperature",
        got=f"{temperature} with a density {type(density).__name__}",
        expected="latents that are normal, or mixtures of normals",
        fix="leave temperature out (--temperature)",
    )


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
