"""More programs of which it is known whether they are sound: other kinds of data, and few data.

They were written after the checks, to see whether these do right on what they were not made for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyro
import torch
from programs import (
    NUM,
    OFFSETS,
    RATES,
    BetaBernoulli,
    Build,
    Case,
    GammaPoisson,
    Linear,
    labels,
    pyro_seed,
)
from pyro import distributions as dist
from torch import Tensor

import pyro_vae as pv
from pyro_vae.checks import Claims
from pyro_vae.datasets import Dataset


@dataclass(frozen=True)
class Topics:
    """z ~ Dirichlet(a), T words ~ Categorical(z B), x their numbers or their counts.

    With B the identity and counts, the posterior is Dirichlet(a + counts).
    """

    categories: int = 6
    length: int = 12
    concentration: float = 0.8
    ordered: bool = True

    def model(self, x):
        prior = torch.full((self.categories,), self.concentration)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Dirichlet(prior))
            if self.ordered:
                every = z[..., None, :].expand(*z.shape[:-1], self.length, self.categories)
                pyro.sample("x", dist.Categorical(every).to_event(1), obs=x)
            else:
                pyro.sample("x", dist.Multinomial(self.length, z), obs=x)

    def guide(self, x):
        one_hot = torch.nn.functional.one_hot
        counts = one_hot(x.long(), self.categories).sum(-2) if self.ordered else x
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Dirichlet(self.concentration + counts))

    def program(self):
        size = self.length if self.ordered else self.categories
        return pv.Program(self.model, self.guide, event_shape=size)

    def data(self, num: int = NUM, seed: int = 1, sticky: float = 0.0, flat: float = 1.0) -> Tensor:
        with pyro_seed(seed):
            prior = torch.full((self.categories,), self.concentration * flat)
            z = dist.Dirichlet(prior).sample((num,))
            x = torch.distributions.Categorical(z).sample((self.length,)).T
            for t in range(1, self.length):
                x[:, t] = torch.where(torch.rand(num) < sticky, x[:, t - 1], x[:, t])
            counts = torch.nn.functional.one_hot(x, self.categories).sum(-2)
        return (x if self.ordered else counts).float()


@dataclass(frozen=True)
class Precision:
    """z ~ Gamma(a, a), x_d ~ N(0, 1 / z): heavy tails that the model knows of."""

    features: int = 4
    shape: float = 2.0

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Gamma(self.shape, self.shape))
            scale = z[..., None].rsqrt().expand(*z.shape, self.features)
            pyro.sample("x", dist.Normal(torch.zeros(self.features), scale).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            rate = self.shape + x.square().sum(-1) / 2
            pyro.sample("z", dist.Gamma(self.shape + self.features / 2, rate))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.features)

    def data(self, num: int = NUM, seed: int = 1) -> Tensor:
        with pyro_seed(seed):
            z = dist.Gamma(self.shape, self.shape).sample((num, 1))
            return torch.randn(num, self.features) * z.rsqrt()


@dataclass(frozen=True)
class Waiting:
    """z ~ Gamma(a, b), x_d ~ Exponential(z): durations."""

    features: int = 5
    shape: float = 4.0

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Gamma(self.shape, self.shape))
            rate = z[..., None].expand(*z.shape, self.features)
            pyro.sample("x", dist.Exponential(rate).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Gamma(self.shape + self.features, self.shape + x.sum(-1)))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.features)

    def data(self, num: int = NUM, seed: int = 1, power: float = 1.0) -> Tensor:
        with pyro_seed(seed):
            z = dist.Gamma(self.shape, self.shape).sample((num, 1))
            waits = dist.Exponential(1.0).sample((num, self.features)) ** power
            return waits / waits.mean() / z


@dataclass(frozen=True)
class Kinds:
    """z is one of three kinds, x_d ~ N(m[z, d], 1): a discrete latent, its posterior by Bayes."""

    spread: float = 2.0
    features: int = 4
    sharpen: float = 1.0

    @property
    def means(self) -> Tensor:
        random = torch.Generator().manual_seed(4)
        return self.spread * torch.randn(3, self.features, generator=random)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("x", dist.Normal(self.means[z.long()], 1.0).to_event(1), obs=x)

    def guide(self, x):
        logits = -0.5 * (x[:, None] - self.means).square().sum(-1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Categorical(logits=self.sharpen * logits))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.features)

    def data(self, num: int = NUM, seed: int = 1) -> Tensor:
        with pyro_seed(seed):
            z = torch.randint(3, (num,))
            return self.means[z] + torch.randn(num, self.features)


def diagonal(weight: Tensor) -> Case:
    """The best normal with a diagonal covariance, where the posterior's dimensions depend on one
    another."""
    truth = Linear(weight)

    def guide(x):
        precision = weight.T @ weight / truth.noise**2 + torch.eye(weight.shape[1])
        loc = x @ weight @ torch.linalg.inv(precision) / truth.noise**2
        with pyro.plate("data", len(x), dim=-1):
            scale = precision.diagonal().rsqrt()
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(pv.Program(truth.model, guide, event_shape=len(weight)), truth.data())


class Unnormalised(dist.MultivariateNormal):
    """A normal whose constant is wrong, by one nat."""

    def log_prob(self, value):
        return super().log_prob(value) - 1


def no_bound() -> Case:
    """A guide with a density that does not integrate to one: what is called a bound is none."""
    truth = Linear.of()

    def guide(x):
        precision = truth.weight.T @ truth.weight / truth.noise**2 + torch.eye(2)
        loc = x @ truth.weight @ torch.linalg.inv(precision) / truth.noise**2
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Unnormalised(loc, precision_matrix=precision))

    return Case(pv.Program(truth.model, guide, event_shape=5), truth.data())


def skewed() -> Case:
    """Noise of an exponential, with the model's mean and variance."""
    truth = Linear.of(noise=0.8)
    with pyro_seed(5):
        noise = 0.8 * (dist.Exponential(1.0).sample((NUM, 5)) - 1)
    return Case(truth.program(), replace(truth, noise=0.0).data() + noise)


def outliers() -> Case:
    """Three rows in a hundred are ten times too large."""
    x = Linear.of().data(500)
    x[::33] *= 10
    return Case(Linear.of().program(), x)


def other_units() -> Case:
    """Test data that were not standardised as the training data were."""
    truth = Linear.of()
    return Case(truth.program(), 1.7 * truth.data(seed=2), {"train": truth.data(600)})


def swapped() -> Case:
    """Two columns of the test data changed places."""
    truth = Linear(torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.2]))[:, :3])
    x = truth.data(seed=2)[:, [1, 0, 2, 3]]
    return Case(truth.program(), x, {"train": truth.data(600)})


def factors_missed() -> Case:
    """Data of three factors under a model of one, whose entries have the right variances."""
    random = torch.Generator().manual_seed(2)
    weight = torch.randn(8, 3, generator=random)
    total = weight.square().sum(1) + 0.25
    one = weight[:, :1]
    noise = (total - one.square()[:, 0]).sqrt()
    few = Linear(one)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ one.T, noise).to_event(1), obs=x)

    def guide(x):
        scaled = one[:, 0] / noise.square()
        precision = 1 + (one[:, 0] * scaled).sum()
        loc = (x @ scaled / precision)[..., None]
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, precision**-0.5).to_event(1))

    program = pv.Program(model, guide, event_shape=8)
    return Case(program, replace(few, weight=weight, noise=0.5).data())


def one_loud_column() -> Case:
    """One entry has twice the noise of the others."""
    truth = Linear.of()
    x = truth.data()
    with pyro_seed(5):
        x[:, 3] = x[:, 3] + 1.04 * torch.randn(NUM)
    return Case(truth.program(), x)


def calm_counts() -> Case:
    """Counts whose variance given z is half of a Poisson's."""
    truth = GammaPoisson(2 * RATES)
    with pyro_seed(5):
        rate = dist.Gamma(3.0, 3.0).sample((NUM, 1)) * truth.rates
        base, share = rate.floor(), rate - rate.floor()
        x = torch.binomial(2 * base, torch.tensor(0.5)) + (torch.rand(rate.shape) < share)
    return Case(truth.program(), x)


def heaped_counts() -> Case:
    """Counts that were told in fives, a third of the time."""
    truth = GammaPoisson(4 * RATES)
    x = truth.data()
    with pyro_seed(5):
        return Case(
            truth.program(), torch.where(torch.rand(x.shape) < 0.35, (x / 5).round() * 5, x)
        )


def grid(smooth: float) -> Case:
    """Pictures of 4 by 4 pixels; neighbours agree more than z tells where ``smooth`` is not 0."""
    truth = BetaBernoulli(16)
    p = truth.grey(seed=4)
    with pyro_seed(6):
        x = torch.bernoulli(p).reshape(NUM, 4, 4)
        for j in range(1, 4):
            x[:, :, j] = torch.where(torch.rand(NUM, 4) < smooth, x[:, :, j - 1], x[:, :, j])
    return Case(Grid(truth).program(), x)


@dataclass(frozen=True)
class Grid:
    """The Beta-Bernoulli model of pictures of 4 by 4 pixels."""

    flat: BetaBernoulli

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Beta(self.flat.a, self.flat.b))
            p = z[..., None, None].expand(*z.shape, 4, 4)
            pyro.sample("x", dist.Bernoulli(p).to_event(2), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            ones = x.sum((-1, -2))
            pyro.sample("z", dist.Beta(self.flat.a + ones, self.flat.b + 16 - ones))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=(4, 4))


def covariate(slope: float, told: float = 1.0, num: int = NUM) -> Case:
    """Data that move with a covariate, under a model that knows how, or another slope."""
    truth = Along(Linear.of().weight, slope=slope)
    with pyro_seed(7):
        c = torch.randn(num, 1)
    x = truth.data(num, context=c)
    return Case(replace(truth, slope=told).program(), Dataset(x, c))


@dataclass(frozen=True)
class Along(Linear):
    """The linear model, whose mean moves with a covariate."""

    slope: float = 1.0

    def mean(self, context):
        return self.slope * context


def shared(guess: float) -> Case:
    """A mean that all data share: m ~ N(0, 1), z ~ N(0, 1), x_d ~ N(z + m, 1), its posterior known,
    or off by so many standard deviations."""
    features, num = 4, 100
    with pyro_seed(8):
        x = 0.7 + torch.randn(num, 1) + torch.randn(num, features)
    # The mean of a datum's entries is N(m, 1 + 1 / D).
    precision = 1 + num / (1 + 1 / features)
    loc = x.mean() * (num / (1 + 1 / features)) / precision + guess * precision**-0.5

    def model(x):
        m = pyro.sample("m", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            mean = (z + m)[..., None].expand(*z.shape, features)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x):
        m = pyro.sample("m", dist.Normal(loc, precision**-0.5))
        with pyro.plate("data", len(x), dim=-1):
            mean = (x - m[..., None, None] if m.dim() else x - m).sum(-1) / (1 + features)
            pyro.sample("z", dist.Normal(mean, (1 + features) ** -0.5))

    return Case(pv.Program(model, guide, event_shape=features), x)


def missing(at_random: bool) -> Case:
    """A fifth of the entries is missing: any of them, or the large ones more often."""
    truth = Linear.of(noise=0.8)
    x = truth.data()
    with pyro_seed(9):
        gone = torch.rand(x.shape) < (0.2 if at_random else 0.6 * (x > 0.5))
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Missing(pv.likelihoods.Normal(5, pv.networks.MLP(2, []), scale=0.8)),
        Exact(truth),
    )
    layer = vae.likelihood.likelihood.head.layer
    with torch.no_grad():
        layer.weight.copy_(truth.weight)
        layer.bias.zero_()
    return Case(vae, Dataset(torch.where(gone, torch.nan, x), missing=True))


class Exact(torch.nn.Module):
    """The linear model's posterior given the entries that are there."""

    def __init__(self, truth: Linear):
        super().__init__()
        self.truth, self.latent = truth, torch.Size([2])

    def forward(self, x, *, context=None):
        seen = (~x.isnan()).to(x.dtype)
        weight, noise = self.truth.weight, self.truth.noise
        given = torch.einsum("dz,...d,dw->...zw", weight, seen, weight) / noise**2
        precision = given + torch.eye(2)
        loc = torch.linalg.solve(precision, x.nan_to_num(0) @ weight / noise**2)
        return dist.MultivariateNormal(loc, precision_matrix=precision)


def two_levels(narrow: float = 1.0) -> Case:
    """b ~ N(0, 1), a ~ N(b, 1), x_d ~ N(a, 1): the chain's posterior, or one that is too narrow."""
    features = 5

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
            a = pyro.sample("a", dist.Normal(b, 1.0))
            every = a[..., None].expand(*a.shape, features)
            pyro.sample("x", dist.Normal(every, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            total = x.sum(-1)  # the mean of all entries is N(b, 1 + 1 / D)
            share = features / (features + 1)
            loc = total / features * share / (1 + share)
            b = pyro.sample("b", dist.Normal(loc, narrow * (1 + share) ** -0.5))
            loc = (total + b) / (features + 1)
            pyro.sample("a", dist.Normal(loc, (1 + features) ** -0.5))

    with pyro_seed(10):
        b = torch.randn(NUM, 1)
        x = b + torch.randn(NUM, 1) + torch.randn(NUM, features)
    return Case(pv.Program(model, guide, event_shape=features), x)


def rounded_copies() -> Case:
    """Rows of the training data, stored once more with fewer digits."""
    truth = Linear.of()
    train, test = truth.data(600), truth.data(NUM, 2)
    copies = (train[:40] * 1000).round() / 1000
    return Case(truth.program(), torch.cat([test[:-40], copies]), {"train": train})


NAMES_OF_SHAPE = (
    "the likelihood has the wrong shape",
    "heavier tails than in the model",
    "predictions are biased",
    "values too small in the model",
    "values too large in the model",
)

FAULTY: dict[str, tuple[Build, tuple[str, ...]]] = {
    "skewed noise under a Normal": (skewed, NAMES_OF_SHAPE),
    "rows that are outliers": (outliers, ("heavier tails than in the model",)),
    "one noisy column": (
        one_loud_column,
        ("likelihood too narrow", "spread too small in the model"),
    ),
    "under-dispersed counts under Poisson": (
        calm_counts,
        ("counts less dispersed than in the model", "likelihood too wide"),
    ),
    "counts told in fives": (heaped_counts, ("counts heaped on round numbers",)),
    "factors missed": (factors_missed, ("generated data are not like the data",)),
    "smooth pictures, pixels independent given z": (
        lambda: grid(0.5),
        ("generated data are not like the data", "the likelihood has the wrong shape"),
    ),
    "words that depend on the one before": (
        lambda: Case(Topics().program(), Topics().data(sticky=0.6)),
        ("generated data are not like the data",),
    ),
    "topics purer than the prior's": (
        lambda: Case(
            Topics(ordered=False, length=30).program(),
            Topics(ordered=False, length=30).data(flat=0.3),
        ),
        ("the prior does not match the aggregate posterior",),
    ),
    "durations that are not exponential": (
        lambda: Case(Waiting().program(), Waiting().data(power=0.5)),
        ("likelihood too wide", *NAMES_OF_SHAPE, "spread too large in the model"),
    ),
    "q too wide": (
        lambda: Case(Linear.of(widen=1.7).program(), Linear.of().data()),
        ("q is too wide",),
    ),
    "q diagonal where the posterior is not": (
        lambda: diagonal(torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 1.1], [1.1, 1.0]])),
        ("q is too narrow", "the family of q is too small"),
    ),
    "q too narrow at the upper of two levels": (
        lambda: two_levels(0.5),
        ("q is too narrow",),
    ),
    "q too sure of a kind": (
        lambda: Case(Kinds(0.7, sharpen=3.0).program(), Kinds(0.7).data()),
        ("q is too narrow", "q is not the posterior", "q covers too little"),
    ),
    "a density that is none": (no_bound, ("the bound does not hold",)),
    "test data in other units": (other_units, ("test data are not like the training data",)),
    "columns of the test data swapped": (
        swapped,
        ("test data are not like the training data",),
    ),
    "copies of training rows with fewer digits": (
        rounded_copies,
        ("test data leaked into the training data",),
    ),
    "slope of a covariate of the wrong sign": (
        lambda: covariate(1.0, -1.0),
        ("data do not go with their context",),
    ),
    "covariate ignored": (
        lambda: covariate(1.0, 0.0),
        ("the decoder ignores the context",),
    ),
    "large values missing more often": (
        lambda: missing(at_random=False),
        ("values too large in the model", "predictions are biased"),
    ),
    "scale twice too large, sixty data": (
        lambda: Case(Linear.of(noise=1.2).program(), Linear.of().data(60)),
        ("likelihood too wide", "spread too large in the model"),
    ),
    "q shifted, sixty data": (
        lambda: Case(Linear.of(shift=1.0).program(), Linear.of().data(60)),
        ("q is shifted",),
    ),
    "K too small for counts": (
        lambda: Case(
            GammaPoissonWide(RATES).program(),
            GammaPoisson(RATES).data(),
            {"claims": Claims(num_samples=2)},
        ),
        ("K is too small",),
    ),
}


@dataclass(frozen=True)
class GammaPoissonWide(GammaPoisson):
    """The posterior of a third of the counts."""

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            total = x.sum(-1) / 3
            pyro.sample("z", dist.Gamma(self.shape + total, self.shape + self.rates.sum() / 3))


SOUND: dict[str, Build] = {
    "topics, words in order": lambda: Case(Topics().program(), Topics().data()),
    "topics, counts": lambda: Case(
        Topics(ordered=False, length=30).program(), Topics(ordered=False, length=30).data(seed=2)
    ),
    "tails that the model knows of": lambda: Case(Precision().program(), Precision().data()),
    "durations": lambda: Case(Waiting().program(), Waiting().data()),
    "three kinds, a discrete latent": lambda: Case(Kinds().program(), Kinds().data()),
    "three kinds that overlap": lambda: Case(Kinds(0.7).program(), Kinds(0.7).data(seed=3)),
    "pictures": lambda: grid(0.0),
    "a covariate": lambda: covariate(1.0),
    "a covariate that does nothing": lambda: covariate(0.0, 0.0),
    "a mean that all data share": lambda: shared(0.0),
    "entries missing at random": lambda: missing(at_random=True),
    "two levels": two_levels,
    "linear normal, thirty data": lambda: Case(Linear.of().program(), Linear.of().data(30)),
    "labels, sixty data": lambda: Case(
        Linear.of(offsets=OFFSETS).program(),
        Dataset(Linear.of(offsets=OFFSETS).data(60, context=labels(60)), labels(60)),
    ),
    "linear normal, ten latents": lambda: Case(
        Linear.of(10, 20).program(), Linear.of(10, 20).data()
    ),
    "large counts": lambda: Case(
        GammaPoisson(40 * RATES).program(), GammaPoisson(40 * RATES).data()
    ),
}
