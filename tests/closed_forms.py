"""Programs whose log p(x) is known exactly."""

import math

import pyro.distributions as dist
import torch
from torch import nn

import pyro_vae as pv


class LinearGaussian:
    """Probabilistic PCA: z ~ N(0, I), x = W z + mu + s e, so x ~ N(mu, W W' + s^2 I) exactly."""

    def __init__(self, latent: int, features: int, noise: float = 0.7, diagonal: bool = False):
        generator = torch.Generator().manual_seed(11)
        self.weight = torch.randn(features, latent, generator=generator, dtype=torch.float64)
        if diagonal:  # orthogonal columns: then the exact posterior is diagonal
            self.weight = torch.linalg.qr(self.weight)[0] * torch.linspace(0.5, 2.0, latent, dtype=torch.float64)
        self.mean = torch.randn(features, generator=generator, dtype=torch.float64)
        self.noise, self.latent, self.features = noise, latent, features
        precision = self.weight.T @ self.weight + noise**2 * torch.eye(latent, dtype=torch.float64)
        self.gain = torch.linalg.solve(precision, self.weight.T)  # posterior mean = gain (x - mu)
        self.covariance = noise**2 * torch.linalg.inv(precision)

    @property
    def marginal(self):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(self.features, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.mean, covariance)

    def data(self, num: int):
        generator = torch.Generator().manual_seed(5)
        z = torch.randn(num, self.latent, generator=generator, dtype=torch.float64)
        noise = torch.randn(num, self.features, generator=generator, dtype=torch.float64)
        return z @ self.weight.T + self.mean + self.noise * noise

    def program(self, widen: float = 1.0, shift: float = 0.0) -> pv.VAE:
        """The model with the exact posterior as its guide, its scale times ``widen``, its mean moved by ``shift`` scales."""
        likelihood = pv.likelihoods.Normal(self.features, pv.networks.MLP(self.latent, []), scale=self.noise).double()
        with torch.no_grad():
            likelihood.head.layer.weight.copy_(self.weight)
            likelihood.head.layer.bias.copy_(self.mean)
        return pv.VAE(pv.priors.StandardNormal(self.latent).double(), likelihood, ExactPosterior(self, widen, shift))

    def elbo(self, x, widen: float):
        """log p(x) - KL(q || p(z | x)) for the widened guide."""
        kl = self.latent * (0.5 * (widen**2 - 1) - math.log(widen))
        return self.marginal.log_prob(x) - kl


class ExactPosterior(nn.Module):
    def __init__(self, exact: LinearGaussian, widen: float, shift: float):
        super().__init__()
        self.exact, self.widen, self.shift = exact, widen, shift
        self.encoded = 0

    def forward(self, x, *, context=None):
        self.encoded += len(x)
        loc = (x - self.exact.mean) @ self.exact.gain.T
        tril = torch.linalg.cholesky(self.exact.covariance)
        return dist.MultivariateNormal(loc + self.shift * tril.diagonal(), scale_tril=self.widen * tril)
