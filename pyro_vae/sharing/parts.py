"""The parts of a program as modules of tensors: encoder, decoder and sampler."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.contracts import as_module
from pyro_vae.distributions import representative_of
from pyro_vae.programs import VAE
from pyro_vae.programs.parts import density_of
from pyro_vae.sharing.noise import GivenNoise

__all__ = ["Decoder", "Encoder", "Sampler"]


class _Part(nn.Module):
    """A part of a VAE, which holds its components."""

    def __init__(self, vae: VAE):
        super().__init__()
        vae.bind_components()
        self.prior, self.posterior = as_module(vae.prior), as_module(vae.posterior)
        self.likelihood = as_module(vae.likelihood)
        self.context = vae.context
        self._vae = [vae]  # not a part: its components are

    @property
    def vae(self) -> VAE:
        return self._vae[0]

    def shown(self, z: Tensor, features: Tensor | None) -> Tensor:
        """What represents p(x | z): its mean, else its mode."""
        event_dim = len(self.vae.prior(context=features).event_shape)
        return representative_of(density_of(self.vae.likelihood, z, event_dim, features))


class Encoder(_Part):
    """From x to the mean and the standard deviation of q(z | x)."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        features = self.vae.context_features(context)
        density = density_of(self.vae.posterior, x, x.dim() - 1, features)
        return density.mean, density.stddev


class Decoder(_Part):
    """From z to the mean of p(x | z), or its mode where it has no mean."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.shown(z, self.vae.context_features(context)),)


class Sampler(_Part):
    """From standard normals to new data: the mean of p(x | z) at draws z from the prior.

    Args:
        vae: the program.
        num: a number of data on which the prior's draws are counted.
        context: as many contexts, if the program has one.
    """

    def __init__(self, vae: VAE, num: int, context: Tensor | None):
        super().__init__(vae)
        with GivenNoise(num) as given:
            self._drawn(num, vae.context_features(context))
        self.sizes = given.sizes

    def forward(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        num = noise.shape[0]  # which len() would fix
        with GivenNoise(num, noise, self.sizes):
            return (self._drawn(num, self.vae.context_features(context)),)

    def _drawn(self, num: int, features: Tensor | None) -> Tensor:
        density = self.vae.prior(context=features)
        if not density.batch_shape:  # a sample shape would be a constant of some exported mixtures
            density = density.expand(torch.Size([num]))
        return self.shown(density.sample(), features)
