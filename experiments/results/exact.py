"""Thirteen models with a wrong guide each, whose log p(x) and ELBO are known exactly.

Most are normal given their discrete latents, so both numbers are in closed form. The others have
one or two latents, and their integrals are sums over a grid. `test_ground_truth.py` among the tests
computes each number a second way, from the program's own densities.

All guides are too narrow and off the middle, as a trained guide may be.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.likelihoods import Missing

__all__ = ["MODELS", "Exact", "model_of"]

NARROW, OFF = 0.8, 0.9  # what a guide's scales and its means are multiplied by
NOISE = 0.7

Context = Tensor | None


@dataclass(frozen=True)
class Exact:
    """A program and its exact numbers.

    Args:
        program: the program.
        simulate: draws that many data, a pair (x, context).
        log_p: log p(x) of data (N, ...) and their context: (N,) in nats.
        elbo: the same of the bound of the program's own guide.
        discrete: whether the program has a discrete latent, so that it cannot be annealed.
        continuous: whether it has a continuous one, so that its guide can be widened or refitted.
    """

    program: nn.Module
    simulate: Callable[[int], tuple[Tensor, Context]]
    log_p: Callable[[Tensor, Context], Tensor]
    elbo: Callable[[Tensor, Context], Tensor]
    discrete: bool = False
    continuous: bool = True

    def data(self, x: Tensor, context: Context = None) -> pv.datasets.Dataset:
        """What the estimators are given."""
        return pv.datasets.Dataset(x, context, missing=bool(x.isnan().any()))


@dataclass(frozen=True)
class Linear:
    r"""The model :math:`z \sim N(m, P), x = W z + b + s e`, and what follows from it exactly.

    Args:
        weight: W (D, L).
        bias: b, (D,) or one for each datum (N, D).
        loc: m, (L,) or one for each datum.
        covariance: P (L, L).
        noise: s.
    """

    weight: Tensor
    bias: Tensor
    loc: Tensor
    covariance: Tensor
    noise: float = NOISE

    @classmethod
    def random(cls, latent: int, features: int) -> "Linear":
        """Random W and b under N(0, I)."""
        weight, bias = torch.randn(features, latent), torch.randn(features)
        return cls(weight, bias, torch.zeros(latent), torch.eye(latent))

    @property
    def prior(self) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(self.loc, self.covariance)

    @property
    def marginal(self) -> dist.MultivariateNormal:
        """p(x)."""
        spread = self.weight @ self.covariance @ self.weight.mT
        return dist.MultivariateNormal(
            self.loc @ self.weight.mT + self.bias, spread + self.noise**2 * torch.eye(len(spread))
        )

    @property
    def posterior_covariance(self) -> Tensor:
        """The covariance (L, L) of p(z | x), the same for every x."""
        precision = torch.linalg.inv(self.covariance) + self.weight.mT @ self.weight / self.noise**2
        return torch.linalg.inv(precision)

    def posterior(self, x: Tensor, narrow: float = 1.0, off: float = 1.0):
        """p(z | x), its scale and its mean multiplied by the given factors."""
        covariance = self.posterior_covariance
        pull = (x - self.bias) @ self.weight / self.noise**2
        loc = (self.loc @ torch.linalg.inv(self.covariance) + pull) @ covariance
        return dist.MultivariateNormal(off * loc, narrow**2 * covariance)

    def elbo(self, x: Tensor, q: dist.MultivariateNormal) -> Tensor:
        """The bound of a normal q: log p(x) less the KL of q from p(z | x)."""
        kl = torch.distributions.kl_divergence(q, self.posterior(x))
        return self.marginal.log_prob(x) - kl


def affine(likelihood: pv.likelihoods.Normal, weight: Tensor, bias: Tensor) -> nn.Module:
    """Set a likelihood's mean to an affine map."""
    with torch.no_grad():
        likelihood.head.layer.weight.copy_(weight)
        likelihood.head.layer.bias.copy_(bias)
    return likelihood


def normal_likelihood(of: Linear) -> nn.Module:
    features, latent = of.weight.shape
    likelihood = pv.likelihoods.Normal(features, pv.networks.MLP(latent, []), scale=of.noise)
    return affine(likelihood, of.weight, of.bias)


# normal models


def probabilistic_pca() -> Exact:
    """Five latents, eight features, random W."""
    exact = Linear.random(5, 8)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ exact.weight.T + exact.bias, NOISE).to_event(1), obs=x)

    def q(x):
        return exact.posterior(x, NARROW, OFF)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    return Exact(
        pv.Program(model, guide, event_shape=8),
        lambda n: (exact.marginal.sample((n,)), None),
        lambda x, _: exact.marginal.log_prob(x),
        lambda x, _: exact.elbo(x, q(x)),
    )


def hierarchy() -> Exact:
    """Two levels, z2 (2) and z1 (3): the guide draws z1 given x and then z2 given z1."""
    top, spread = torch.randn(3, 2), 0.6
    covariance = torch.eye(5)
    covariance[2:, 2:] = top @ top.T + spread**2 * torch.eye(3)
    covariance[2:, :2], covariance[:2, 2:] = top, top.T
    weight = torch.cat([torch.zeros(5, 2), torch.randn(5, 3)], dim=1)
    exact = Linear(weight, torch.randn(5), torch.zeros(5), covariance)
    above = Linear(top, torch.zeros(3), torch.zeros(2), torch.eye(2), spread)  # z1 given z2

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ top.T, spread).to_event(1))
            loc = z1 @ weight[:, 2:].T + exact.bias
            pyro.sample("x", dist.Normal(loc, NOISE).to_event(1), obs=x)

    below = NARROW**2 * exact.posterior_covariance[2:, 2:]  # of z1 in the guide
    gain = OFF * above.posterior_covariance @ top.T / spread**2  # of z1 in the mean of z2

    def q1(x):
        return dist.MultivariateNormal(OFF * exact.posterior(x).loc[..., 2:], below)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", q1(x))
            pyro.sample("z2", above.posterior(z1, NARROW, OFF))

    def elbo(x, _):
        loc, cross = q1(x).loc, gain @ below
        corner = cross @ gain.T + NARROW**2 * above.posterior_covariance
        rows = torch.cat([corner, cross], dim=1), torch.cat([cross.T, below], dim=1)
        both = torch.cat([loc @ gain.T, loc], dim=-1)
        return exact.elbo(x, dist.MultivariateNormal(both, torch.cat(rows)))

    return Exact(
        pv.Program(model, guide, event_shape=5),
        lambda n: (exact.marginal.sample((n,)), None),
        lambda x, _: exact.marginal.log_prob(x),
        elbo,
    )


def conditional() -> Exact:
    """Three labels move the latents' means and the features' offsets."""
    weight = torch.randn(4, 2)
    locs, biases = torch.randn(3, 2), torch.randn(3, 4)

    def given(context):
        return Linear(weight, biases[context], locs[context], torch.eye(2))

    def model(x, context):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(locs[context], 1.0).to_event(1))
            loc = z @ weight.T + biases[context]
            pyro.sample("x", dist.Normal(loc, NOISE).to_event(1), obs=x)

    def q(x, context):
        return given(context).posterior(x, NARROW, OFF)

    def guide(x, context):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x, context))

    def simulate(n):
        context = torch.arange(n) % 3
        return given(context).marginal.sample(), context

    return Exact(
        pv.Program(model, guide, event_shape=4),
        simulate,
        lambda x, context: given(context).marginal.log_prob(x),
        lambda x, context: given(context).elbo(x, q(x, context)),
    )


class ObservedPosterior(nn.Module):
    """The posterior given the observed entries of a linear model, narrowed and moved."""

    def __init__(self, exact: Linear):
        super().__init__()
        self.exact = exact

    def forward(self, x, *, context=None):
        seen = ~x.isnan()
        weight = self.exact.weight * seen[..., None]
        precision = torch.eye(weight.shape[-1]) + weight.mT @ weight / NOISE**2
        residual = torch.where(seen, x - self.exact.bias, 0.0)[..., None]
        loc = torch.linalg.solve(precision, weight.mT @ residual / NOISE**2)[..., 0]
        return dist.MultivariateNormal(OFF * loc, NARROW**2 * torch.linalg.inv(precision))


def missing() -> Exact:
    """Two latents, five features, two fifths of the entries missing."""
    exact = Linear.random(2, 5)
    posterior = ObservedPosterior(exact)

    def rows(x):
        """The linear model of each datum's observed entries, with them, its place beside."""
        for i, row in enumerate(x):
            seen = ~row.isnan()
            few = Linear(exact.weight[seen], exact.bias[seen], exact.loc, exact.covariance)
            yield i, few, row[seen]

    def log_p(x, _):
        return torch.stack([few.marginal.log_prob(row) for _, few, row in rows(x)])

    def elbo(x, _):
        q = posterior(x)
        each = [dist.MultivariateNormal(q.loc[i], q.covariance_matrix[i]) for i in range(len(x))]
        return torch.stack([few.elbo(row, each[i]) for i, few, row in rows(x)])

    def simulate(n):
        x = exact.marginal.sample((n,))
        holes = torch.rand(x.shape) < 0.4
        holes[:, 0] = False
        return torch.where(holes, torch.nan, x), None

    likelihood = Missing(normal_likelihood(exact))
    program = pv.VAE(pv.priors.StandardNormal(2), likelihood, posterior)
    return Exact(program, simulate, log_p, elbo)


def local_plate() -> Exact:
    """Five scalar latents of each datum in a plate of their own, inside the data plate."""
    exact = Linear.random(5, 6)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 5, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(5, 1), 1.0))
            loc = z.movedim(-2, -1) @ exact.weight.T + exact.bias
            loc = loc.unsqueeze(-3) if z.dim() > 2 else loc  # draws are left of both plates
            pyro.sample("x", dist.Normal(loc, NOISE).to_event(1), obs=x)

    # The best independent normals, narrowed.
    scale = NARROW * torch.linalg.inv(exact.posterior_covariance).diagonal() ** -0.5

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 5, dim=-2):
            loc = OFF * exact.posterior(x).loc.T
            pyro.sample("z", dist.Normal(loc, scale[:, None]))

    def elbo(x, _):
        loc = OFF * exact.posterior(x).loc
        return exact.elbo(x, dist.MultivariateNormal(loc, scale.square().diag()))

    return Exact(
        pv.Program(model, guide, event_shape=6),
        lambda n: (exact.marginal.sample((n,)), None),
        lambda x, _: exact.marginal.log_prob(x),
        elbo,
    )


def linear_vae(exact: Linear, posterior: nn.Module, scale: float) -> pv.VAE:
    """A linear VAE; the encoder has the exact means moved by 0.3, and one scale for all."""
    latent = exact.weight.shape[1]
    gain = exact.posterior_covariance @ exact.weight.T / NOISE**2
    with torch.no_grad():
        layer = posterior.head.layer
        layer.weight.zero_()
        layer.weight[:latent] = gain
        layer.bias[:latent] = 0.3 - layer.weight[:latent] @ exact.bias
        layer.bias[latent:] = math.log(math.expm1(scale))
    return pv.VAE(pv.priors.StandardNormal(latent), normal_likelihood(exact), posterior)


def refined(num_noises: int = 1000) -> Exact:
    """`pv.Refined`: each call refits the guide by steps that draw noise of their own.

    The bound is the mean over that noise, by a thousand guides for each datum, each in closed form.
    """
    exact = Linear.random(2, 4)
    encoder = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, []))
    program = pv.Refined(linear_vae(exact, encoder, 0.3))

    def elbo(x, _):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            many = x.repeat(num_noises, 1)
            normal = poutine.trace(program.guide).get_trace(many).nodes["z"]["fn"]
            q = dist.MultivariateNormal(normal.mean, scale_tril=normal.stddev.diag_embed())
            return exact.elbo(many, q).reshape(num_noises, len(x)).mean(0)

    return Exact(
        program,
        lambda n: (exact.marginal.sample((n,)), None),
        lambda x, _: exact.marginal.log_prob(x),
        elbo,
    )


# models with discrete latents


def discrete_and_continuous() -> Exact:
    """A category of three, and two latents whose loadings depend on it."""
    weights, biases = torch.randn(3, 4, 2), 1.5 * torch.randn(3, 4)
    log_prior = torch.rand(3).log_softmax(0)
    parts = [Linear(w, b, torch.zeros(2), torch.eye(2)) for w, b in zip(weights, biases)]

    def joint(x):
        return log_prior + torch.stack([part.marginal.log_prob(x) for part in parts], dim=-1)

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=log_prior))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = (weights[y] @ z[..., None])[..., 0] + biases[y]
            pyro.sample("x", dist.Normal(loc, NOISE).to_event(1), obs=x)

    def q(x):
        return dist.Categorical(logits=0.5 * joint(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", q(x))
            each = [part.posterior(x, NARROW, OFF) for part in parts]
            locs = torch.stack([part.loc for part in each], dim=-2)
            trils = torch.stack([part.scale_tril for part in each], dim=-3)
            at = y[..., None, None]
            loc = locs.expand(*y.shape, 3, 2).gather(-2, at.expand(*y.shape, 1, 2))[..., 0, :]
            rows = at[..., None].expand(*y.shape, 1, 2, 2)
            tril = trils.expand(*y.shape, 3, 2, 2).gather(-3, rows)[..., 0, :, :]
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    def elbo(x, _):
        bounds = [part.elbo(x, part.posterior(x, NARROW, OFF)) for part in parts]
        each = log_prior + torch.stack(bounds, dim=-1) - q(x).logits
        return (q(x).probs * each).sum(-1)

    def simulate(n):
        y = dist.Categorical(logits=log_prior).sample((n,))
        return torch.stack([part.marginal.sample((n,)) for part in parts])[y, torch.arange(n)], None

    return Exact(
        pv.Program(model, guide, event_shape=4),
        simulate,
        lambda x, _: joint(x).logsumexp(-1),
        elbo,
        discrete=True,
    )


def mixture(components: int = 6) -> Exact:
    """A finite mixture of normals; the guide is the posterior, tempered."""
    log_prior, locs = torch.rand(components).log_softmax(0), 1.5 * torch.randn(components, 2)

    def joint(x):
        return log_prior + dist.Normal(locs, 1.0).to_event(1).log_prob(x[:, None])

    def q(x):
        return dist.Categorical(logits=0.5 * joint(x))

    def model(x):
        with pyro.plate("data", len(x)):
            loc = locs[pyro.sample("z", dist.Categorical(logits=log_prior))]
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    def simulate(n):
        return dist.Normal(
            locs[dist.Categorical(logits=log_prior).sample((n,))], 1.0
        ).sample(), None

    return Exact(
        pv.Program(model, guide, event_shape=2),
        simulate,
        lambda x, _: joint(x).logsumexp(-1),
        lambda x, _: (q(x).probs * (joint(x) - q(x).logits)).sum(-1),
        discrete=True,
        continuous=False,
    )


def semi_supervised() -> Exact:
    """`pv.SemiSupervisedVAE` with linear networks and three labels, known for half of the data.

    Its log p is that of x given the label where this is known, and the sum over labels elsewhere.
    """
    exact, shifts = Linear.random(2, 4), 1.5 * torch.randn(3, 4)
    given = [
        Linear(exact.weight, exact.bias + shift, exact.loc, exact.covariance) for shift in shifts
    ]
    likelihood = pv.likelihoods.Normal(4, pv.networks.MLP(2, [], context=3), scale=NOISE)
    encoder = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [], context=3))
    program = pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(2), likelihood, encoder, pv.networks.OneHot(3), hidden=[]
    )
    gain = exact.posterior_covariance @ exact.weight.T / NOISE**2
    centres = torch.linalg.solve(exact.marginal.covariance_matrix, (exact.bias + shifts).T).T
    with torch.no_grad():
        affine(likelihood, torch.cat([exact.weight, shifts.T], 1), exact.bias)
        means = torch.cat([gain, -gain @ shifts.T], 1)
        affine(encoder, torch.cat([means, torch.zeros(2, 7)]), torch.zeros(4))
        encoder.head.layer.bias[:2] = 0.2 - gain @ exact.bias
        encoder.head.layer.bias[2:] = -1.0
        # Half of Bayes' rule, log p(y | x) up to a constant.
        program.head.layer.weight.copy_(0.5 * centres)
        program.head.layer.bias.copy_(-0.25 * (centres * (exact.bias + shifts)).sum(-1))

    def over_labels(terms, logits, context):
        """The sum over labels of terms (N, 3) with those log-weights; a known label's own term."""
        known = terms.gather(-1, context.clamp(min=0)[:, None])[:, 0]
        return torch.where(context < 0, logits, known)

    def log_p(x, context):
        each = torch.stack([part.marginal.log_prob(x) for part in given], dim=-1)
        return over_labels(each, each.logsumexp(-1) - math.log(3), context)

    def elbo(x, context):
        bounds = []
        for label, part in enumerate(given):
            q = encoder(x, context=torch.eye(3)[label].expand(len(x), 3)).base_dist
            normal = dist.MultivariateNormal(q.loc, scale_tril=q.scale.diag_embed())
            bounds.append(part.elbo(x, normal))
        each = torch.stack(bounds, dim=-1)
        (logits,) = program.head(program.network(x))
        log_q = logits.log_softmax(-1)
        unknown = (log_q.exp() * (each - math.log(3) - log_q)).sum(-1)
        return over_labels(each, unknown, context).detach()

    def simulate(n):
        labels = torch.randint(3, (n,))
        x = torch.stack([part.marginal.sample((n,)) for part in given])[labels, torch.arange(n)]
        return x, torch.where(torch.arange(n) % 2 == 0, labels, -1)

    return Exact(program, simulate, log_p, elbo, discrete=True)


# models by quadrature


@dataclass(frozen=True)
class Grid:
    """Sums over a grid of latents in place of integrals over them."""

    points: Tensor  # (G, L)
    log_cell: float

    @classmethod
    def over(cls, low: float, high: float, points: int, latent: int = 1) -> "Grid":
        line = torch.linspace(low, high, points + 2)[1:-1]
        grid = torch.cartesian_prod(*[line] * latent).reshape(-1, latent)
        return cls(grid, latent * math.log(line[1] - line[0]))

    def log_integral(self, log_values: Tensor) -> Tensor:
        """log of the integral of exp(values), values (..., G)."""
        return log_values.logsumexp(-1) + self.log_cell


def by_quadrature(prior, likelihood, q, grid: Grid, program: nn.Module) -> Exact:
    """A model of one event-shaped latent, its numbers by sums over a grid.

    Args:
        prior: p(z).
        likelihood: from latents to p(x | z).
        q: from data (n, event) to the guide's q(z | x).
        grid: where the sums are taken.
        program: the program.
    """
    log_prior, given = prior.log_prob(grid.points), likelihood(grid.points)

    def joint(x):
        return log_prior + given.log_prob(x[:, None])

    def elbo(x):
        log_q = q(x[:, None]).log_prob(grid.points).detach()
        return (log_q.exp() * (joint(x) - log_q)).sum(-1) * math.exp(grid.log_cell)

    return Exact(
        program,
        lambda n: (likelihood(prior.sample((n,))).sample(), None),
        lambda x, _: torch.cat([grid.log_integral(joint(few)) for few in x.split(20)]),
        lambda x, _: torch.cat([elbo(few) for few in x.split(20)]),
    )


def program_of(prior, likelihood, q, event: int) -> nn.Module:
    """A program of one latent, from its three distributions."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(pyro.sample("z", prior)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    return pv.Program(model, guide, event_shape=event)


def curved(latent: int) -> Exact:
    """x is a bent function of z with noise, in one dimension or two."""

    def likelihood(z):
        return dist.Normal(torch.cat([z + 0.3 * z**2, torch.sin(z)], dim=-1), 0.5).to_event(1)

    def q(x):
        loc = torch.tanh(x[..., :latent]) * 0.9
        return dist.Normal(loc, torch.full_like(loc, 0.4)).to_event(1)

    prior = dist.Normal(torch.zeros(latent), 1.0).to_event(1)
    grid = Grid.over(-7.0, 7.0, {1: 2001, 2: 201}[latent], latent)
    program = program_of(prior, likelihood, q, 2 * latent)
    return by_quadrature(prior, likelihood, q, grid, program)


def positive() -> Exact:
    """A latent on the positive half-line: a gamma prior and a log-normal guide."""

    def q(x):
        return dist.LogNormal(x.clamp(min=0.2).log(), 0.25).to_event(1)

    def likelihood(z):
        return dist.Normal(z, 0.5).to_event(1)

    prior = dist.Gamma(torch.full((1,), 2.0), 1.0).to_event(1)
    grid = Grid.over(0.0, 100.0, 100_000)
    return by_quadrature(prior, likelihood, q, grid, program_of(prior, likelihood, q, 1))


def flow() -> Exact:
    """A linear VAE whose guide is an autoregressive flow; its bound by a sum over a grid."""
    exact = Linear.random(2, 4)
    posterior = pv.posteriors.Flow(2, pv.networks.MLP(4, []), transforms=1, hidden=[8])
    program = linear_vae(exact, posterior, 0.35)
    by_sum = by_quadrature(
        program.prior(),
        program.likelihood,
        posterior,
        Grid.over(-6.0, 6.0, 301, 2),
        program,
    )
    return replace(by_sum, log_p=lambda x, _: exact.marginal.log_prob(x))


MODELS: dict[str, Callable[[], Exact]] = {
    "probabilistic PCA, 5 dimensions": probabilistic_pca,
    "a curved decoder, 1 dimension": partial(curved, 1),
    "a curved decoder, 2 dimensions": partial(curved, 2),
    "a positive latent": positive,
    "a hierarchy of two levels": hierarchy,
    "conditional on a label": conditional,
    "missing entries": missing,
    "a local plate of five latents": local_plate,
    "a `Refined` program": refined,
    "a flow as the guide": flow,
    "a category and two normal latents": discrete_and_continuous,
    "semi-supervised": semi_supervised,
    "a mixture of 6": mixture,
}


def model_of(name: str) -> Exact:
    """Build a model, the same whenever it is built: in float64, its parameters by a fixed seed."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(list(MODELS).index(name))
            return MODELS[name]()
    finally:
        torch.set_default_dtype(default)
