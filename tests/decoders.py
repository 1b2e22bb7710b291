"""A likelihood whose mean is a given function, for decoders whose geometry is known."""

import torch
from torch import nn


class Mean(nn.Module):
    """x ~ N(f(z), 1), of a latent of so many dimensions."""

    def __init__(self, function, features, latent_dims=1):
        super().__init__()
        self.function, self.latent_dims, self.event_shape = function, latent_dims, (features,)

    def forward(self, z, *, context=None):
        loc = self.function(z).reshape(*z.shape[: z.dim() - self.latent_dims], *self.event_shape)
        return torch.distributions.Independent(torch.distributions.Normal(loc, 1.0), 1)
