"""Programs with global latents, and what is known of them in closed form."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Factors(nn.Module):
    """x = z W + noise, with the matrix W a latent outside the data plate.

    ``z @ w`` does not broadcast over draws in front; the sum of products does.
    """

    event_shape = (3,)

    def __init__(self, broadcasts=False, scale=0.3):
        super().__init__()
        self.broadcasts = broadcasts
        self.loc = nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.encoder = nn.Linear(3, 2)

    def model(self, x, context=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(2, 3), 1.0).to_event(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = (z.unsqueeze(-1) * w).sum(-2) if self.broadcasts else z @ w
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x, context=None):
        pyro.sample("w", dist.Normal(self.loc, self.log_scale.exp()).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


class Conjugate(nn.Module):
    r"""A regression with noise in two layers, all of it normal: everything is known exactly.

    w ~ N(0, I), z_n ~ N(w . c_n, t^2), x_n ~ N(z_n, s^2), so that x_n ~ N(w . c_n, s^2 + t^2) given
    w. The guide is the exact posterior of the data at hand, its covariance widened.
    """

    event_shape = (1,)
    context = nn.Identity()

    def __init__(self, c, x, s=0.7, t=0.5, widen=1.0):
        super().__init__()
        self.s, self.t = s, t
        variance = s**2 + t**2
        precision = torch.eye(c.shape[-1]) + c.T @ c / variance
        self.posterior = torch.distributions.MultivariateNormal(
            torch.linalg.solve(precision, c.T @ x[:, 0] / variance), precision_matrix=precision
        )
        covariance = c @ c.T + variance * torch.eye(len(c))
        self.log_evidence = (
            torch.distributions.MultivariateNormal(torch.zeros(len(c)), covariance)
            .log_prob(x[:, 0])
            .item()
        )
        self.loc = nn.Parameter(self.posterior.loc.clone())
        self.tril = nn.Parameter(widen * self.posterior.scale_tril)

    def model(self, x, context=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(context.shape[-1]), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            mean = (context * w).sum(-1, keepdim=True)
            z = pyro.sample("z", dist.Normal(mean, self.t).to_event(1))
            pyro.sample("x", dist.Normal(z, self.s).to_event(1), obs=x)

    def guide(self, x, context=None):
        w = pyro.sample("w", dist.MultivariateNormal(self.loc, scale_tril=self.tril.tril()))
        gain = self.t**2 / (self.t**2 + self.s**2)
        with pyro.plate("data", len(x)):
            mean = (context * w).sum(-1, keepdim=True)
            scale = math.sqrt(gain) * self.s
            pyro.sample("z", dist.Normal(mean + gain * (x - mean), scale).to_event(1))

    @property
    def kl(self):
        """KL(q(w) || p(w))."""
        standard = torch.distributions.MultivariateNormal(
            torch.zeros_like(self.loc), torch.eye(len(self.loc))
        )
        q = torch.distributions.MultivariateNormal(self.loc, scale_tril=self.tril.tril())
        return torch.distributions.kl_divergence(q, standard).item()

    def local_part(self, c, x):
        """E log N(x; w . c, s^2 + t^2) over q(w), of each datum."""
        spread = (c @ self.tril).square().sum(-1)
        marginal = torch.distributions.Normal(c @ self.loc, math.hypot(self.s, self.t))
        return marginal.log_prob(x[:, 0]) - spread / (2 * (self.s**2 + self.t**2))

    def predictive(self, c, x):
        """Log-density of new data under q(w), each by itself."""
        variance = (c @ self.tril).square().sum(-1) + self.s**2 + self.t**2
        return torch.distributions.Normal(c @ self.loc, variance.sqrt()).log_prob(x[:, 0])


def conjugate(widen=1.0, num=20, seed=0):
    """The program, its data and held-out data, as pairs (x, context)."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(num + 30, 3, generator=generator)
    w = torch.randn(3, generator=generator)
    x = (c @ w).unsqueeze(-1) + 0.86 * torch.randn(num + 30, 1, generator=generator)
    program = Conjugate(c[:num], x[:num], widen=widen)
    return program, (x[:num], c[:num]), (x[num:], c[num:])
