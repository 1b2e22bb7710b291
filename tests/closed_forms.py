"""Programs whose log p(x) is known in closed form or by quadrature."""

import math

import pyro
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
            self.weight = torch.linalg.qr(self.weight)[0] * torch.linspace(
                0.5, 2.0, latent, dtype=torch.float64
            )
        self.mean = torch.randn(features, generator=generator, dtype=torch.float64)
        self.noise, self.latent, self.features = noise, latent, features
        precision = self.weight.T @ self.weight + noise**2 * torch.eye(latent, dtype=torch.float64)
        self.gain = torch.linalg.solve(precision, self.weight.T)  # posterior mean = gain (x - mu)
        self.covariance = noise**2 * torch.linalg.inv(precision)

    @property
    def marginal(self):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(
            self.features, dtype=torch.float64
        )
        return torch.distributions.MultivariateNormal(self.mean, covariance)

    def data(self, num: int):
        generator = torch.Generator().manual_seed(5)
        z = torch.randn(num, self.latent, generator=generator, dtype=torch.float64)
        noise = torch.randn(num, self.features, generator=generator, dtype=torch.float64)
        return z @ self.weight.T + self.mean + self.noise * noise

    def program(self, widen: float = 1.0, shift: float = 0.0, mean_field: bool = False) -> pv.VAE:
        """The model with the exact posterior as its guide, widened and shifted.

        The guide's scale is multiplied by ``widen`` and its mean moved by ``shift`` scales. With
        ``mean_field`` the best mean-field normal, that of the highest ELBO, stands in its place.
        """
        likelihood = pv.likelihoods.Normal(
            self.features, pv.networks.MLP(self.latent, []), scale=self.noise
        ).double()
        affine(likelihood, self.weight, self.mean)
        return pv.VAE(
            pv.priors.StandardNormal(self.latent).double(),
            likelihood,
            ExactPosterior(self, widen, shift, mean_field),
        )

    def elbo(self, x, widen: float):
        """log p(x) - KL(q || p(z | x)) for the widened guide."""
        kl = self.latent * (0.5 * (widen**2 - 1) - math.log(widen))
        return self.marginal.log_prob(x) - kl

    @property
    def mean_field_kl(self) -> float:
        """KL of the best mean-field normal to the exact posterior: what correlations cost."""
        precision = torch.linalg.inv(self.covariance)
        return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()


class ExactPosterior(nn.Module):
    def __init__(self, exact: LinearGaussian, widen: float, shift: float, mean_field: bool):
        super().__init__()
        self.exact, self.widen, self.shift, self.mean_field = exact, widen, shift, mean_field
        self.encoded = 0

    def forward(self, x, *, context=None):
        self.encoded += len(x)
        loc = (x - self.exact.mean) @ self.exact.gain.T
        if self.mean_field:
            scale = torch.linalg.inv(self.exact.covariance).diagonal() ** -0.5
            return dist.Normal(loc + self.shift * scale, self.widen * scale).to_event(1)
        tril = torch.linalg.cholesky(self.exact.covariance)
        return dist.MultivariateNormal(
            loc + self.shift * tril.diagonal(), scale_tril=self.widen * tril
        )


class Hierarchy:
    """Two normal levels and a label, with the exact conditionals, widened, as the guide.

    z2 ~ N(0, I), z1 ~ N(A z2, s1^2 I), x ~ N(B z1 + shift(y), s^2 I).
    """

    def __init__(self, widen: float = 1.0, labels: int = 0, narrow_top: float = 1.0):
        generator = torch.Generator().manual_seed(3)
        self.a, self.b = (
            torch.randn(*shape, generator=generator, dtype=torch.float64)
            for shape in ((3, 2), (5, 3))
        )
        self.shifts = torch.randn(max(labels, 1), 5, generator=generator, dtype=torch.float64)
        self.s1, self.s, self.widen, self.top, self.labels = 0.8, 0.7, widen, narrow_top, labels
        eye = torch.eye
        self.prior1 = self.a @ self.a.T + self.s1**2 * eye(3, dtype=torch.float64)
        self.covariance = self.b @ self.prior1 @ self.b.T + self.s**2 * eye(5, dtype=torch.float64)

    def shift(self, y):
        return self.shifts[y] if self.labels else self.shifts[0]

    def model(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample(
                "z2", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)
            )
            z1 = pyro.sample("z1", dist.Normal(z2 @ self.a.T, self.s1).to_event(1))
            pyro.sample(
                "x", dist.Normal(z1 @ self.b.T + self.shift(context), self.s).to_event(1), obs=x
            )

    def guide(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            gain = torch.linalg.solve(self.covariance, self.b @ self.a).T
            covariance = torch.eye(2, dtype=torch.float64) - gain @ self.b @ self.a
            loc = (x - self.shift(context)) @ gain.T
            tril = torch.linalg.cholesky(covariance)
            z2 = pyro.sample(
                "z2", dist.MultivariateNormal(loc, scale_tril=self.top * self.widen * tril)
            )
            precision = (
                torch.eye(3, dtype=torch.float64) / self.s1**2 + self.b.T @ self.b / self.s**2
            )
            mean = (
                z2 @ self.a.T / self.s1**2 + (x - self.shift(context)) @ self.b / self.s**2
            ) @ torch.linalg.inv(precision)
            tril = torch.linalg.cholesky(torch.linalg.inv(precision))
            pyro.sample("z1", dist.MultivariateNormal(mean, scale_tril=self.widen * tril))

    def log_p(self, x, y=None):
        return torch.distributions.MultivariateNormal(
            self.shift(y).expand(x.shape), self.covariance
        ).log_prob(x)

    def data(self, num: int):
        y = torch.arange(num) % max(self.labels, 1)
        noise = torch.randn(num, 5, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
        return noise @ torch.linalg.cholesky(self.covariance).T + self.shift(y), y

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=5)


class OneLatent:
    """One latent on an interval of the line, and x given z; log p(x) by the trapezoidal rule."""

    def __init__(self, prior, observed, guide, interval):
        self.prior, self.observed, self.posterior, self.interval = prior, observed, guide, interval

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", self.observed(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))

    def log_p(self, x, points: int = 200_001):
        z = torch.linspace(*self.interval, points, dtype=torch.float64)[1:-1]
        step = (self.interval[1] - self.interval[0]) / (points - 1)
        terms = self.prior.log_prob(z) + self.observed(z).log_prob(x[:, None])
        return terms.logsumexp(1) + math.log(step)

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=())


def two_modes(widen: float = 1.4) -> OneLatent:
    """x = z^2 + noise: modes at +-sqrt(x), and a guide that sits on the positive one."""
    return OneLatent(
        dist.Normal(0.0, 2.0),
        lambda z: dist.Normal(z**2, 0.5),
        lambda x: dist.Normal(x.sqrt(), widen * 0.25 / x.sqrt()),
        (-12.0, 12.0),
    )


def positive(widen: float = 1.0) -> OneLatent:
    """A latent on the positive half-line: z ~ Gamma(2, 1), x ~ N(z, 0.5^2)."""
    return OneLatent(
        dist.Gamma(2.0, 1.0),
        lambda z: dist.Normal(z, 0.5),
        lambda x: dist.LogNormal(x.clamp(min=0.2).log(), widen * 0.4),
        (0.0, 40.0),
    )


class TwoLevelGaussian:
    """Two normal levels: every marginal and conditional is normal.

    z2 ~ N(0, I), z1 ~ N(A z2 + a, t^2 I), x ~ N(W z1 + mu, s^2 I).
    """

    def __init__(
        self, sizes: tuple[int, int, int] = (2, 3, 4), noise: tuple[float, float] = (0.6, 0.7)
    ):
        generator = torch.Generator().manual_seed(12)
        (top, middle, features), (t, s) = sizes, noise
        self.sizes, self.noise = sizes, noise
        self.a, self.mu = (
            torch.randn(n, generator=generator, dtype=torch.float64) for n in (middle, features)
        )
        self.A = torch.randn(middle, top, generator=generator, dtype=torch.float64)
        self.W = torch.randn(features, middle, generator=generator, dtype=torch.float64)
        # The joint of (z2, z1, x): each is an affine map of independent noise.
        to_z2 = torch.cat([torch.eye(top), torch.zeros(top, middle + features)], 1).double()
        to_z1 = self.A @ to_z2 + t * torch.eye(
            middle, top + middle + features, dtype=torch.float64
        ).roll(top, 1)
        to_x = self.W @ to_z1 + s * torch.eye(
            features, top + middle + features, dtype=torch.float64
        ).roll(top + middle, 1)
        maps = torch.cat([to_z2, to_z1, to_x])
        self.mean = torch.cat([torch.zeros(top).double(), self.a, self.W @ self.a + self.mu])
        self.covariance = maps @ maps.T
        self.at = {
            "z2": slice(0, top),
            "z1": slice(top, top + middle),
            "x": slice(top + middle, None),
        }

    def conditional(
        self, of: str, given: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gain, offset and covariance of one block given others: mean = gain g + offset."""
        index = torch.arange(sum(self.sizes))
        a, b = index[self.at[of]], torch.cat([index[self.at[name]] for name in given])
        gain = torch.linalg.solve(self.covariance[b][:, b], self.covariance[b][:, a]).T
        return (
            gain,
            self.mean[a] - gain @ self.mean[b],
            self.covariance[a][:, a] - gain @ self.covariance[b][:, a],
        )

    @property
    def marginal(self):
        return torch.distributions.MultivariateNormal(
            self.mean[self.at["x"]], self.covariance[self.at["x"], self.at["x"]]
        )

    def program(self, inference: str = "bottom_up", widen: float = 1.0) -> pv.HierarchicalVAE:
        """The model with the exact posterior as its guide, in either order.

        Each conditional's scale is multiplied by ``widen``.
        """
        top, middle, features = self.sizes
        prior = affine(
            pv.likelihoods.Normal(middle, pv.networks.MLP(top, []), scale=self.noise[0]),
            self.A,
            self.a,
        )
        likelihood = affine(
            pv.likelihoods.Normal(features, pv.networks.MLP(middle, []), scale=self.noise[1]),
            self.W,
            self.mu,
        )
        given = {"bottom_up": [["x"], ["z1"]], "top_down": [["x", "z2"], ["x"]]}[inference]
        posteriors = [
            AffineNormal(*self.conditional(name, names), widen)
            for name, names in zip(["z1", "z2"], given)
        ]
        return pv.HierarchicalVAE(
            [prior, pv.priors.StandardNormal(top).double()],
            likelihood,
            posteriors,
            inference=inference,
        )


def affine(likelihood, weight, bias):
    """Set a normal likelihood's mean to that affine map."""
    with torch.no_grad():
        likelihood.double().head.layer.weight.copy_(weight)
        likelihood.head.layer.bias.copy_(bias)
    return likelihood


class AffineNormal(nn.Module):
    """The normal N(G g + b, C) given g, joined by the context if there is one; trainable."""

    def __init__(self, gain, offset, covariance, widen=1.0):
        super().__init__()
        self.gain, self.offset = nn.Parameter(gain), nn.Parameter(offset)
        self.tril = nn.Parameter(widen * torch.linalg.cholesky(covariance))

    def forward(self, given, *, context=None):
        if context is not None:
            given = torch.cat([given.expand(*context.shape[:-1], -1), context], -1)
        return dist.MultivariateNormal(
            given @ self.gain.T + self.offset, scale_tril=self.tril.tril()
        )
