"""Programs of which it is known whether they are sound, on small data.

A posterior is exact where it can be, so that a sound program is sound to the last digit; a fault is
one change of a sound program, of its data, or of what is said about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

import pyro_vae as pv
from pyro_vae.checks import Claims
from pyro_vae.datasets import Dataset

NUM = 400


@dataclass(frozen=True)
class Case:
    """A program, its data, and what `pyro_vae.check` is told besides."""

    program: object
    data: object
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Linear:
    """z ~ N(m, I), x ~ N(W z + b + B[y], s^2), with its posterior as guide, and faults of both."""

    weight: Tensor
    noise: float = 0.6
    widen: float = 1.0
    shift: float = 0.0
    blind: bool = False
    offsets: Tensor | None = None

    @classmethod
    def of(cls, latent: int = 2, features: int = 5, seed: int = 0, **changes) -> Linear:
        random = torch.Generator().manual_seed(seed)
        return cls(torch.randn(features, latent, generator=random), **changes)

    def mean(self, context):
        return 0.0 if self.offsets is None else self.offsets[context]

    def model(self, x, context=None):
        latent = self.weight.shape[1]
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), 1.0).to_event(1))
            mean = z @ self.weight.T + self.mean(context)
            pyro.sample("x", dist.Normal(mean, self.noise).to_event(1), obs=x)

    def guide(self, x, context=None):
        latent = self.weight.shape[1]
        precision = self.weight.T @ self.weight / self.noise**2 + torch.eye(latent)
        covariance = torch.linalg.inv(precision)
        tril = torch.linalg.cholesky(covariance)
        loc = (x - self.mean(context)) @ self.weight @ covariance / self.noise**2
        if self.blind:
            loc, tril = torch.zeros_like(loc), torch.eye(latent)
        loc = loc + self.shift * tril.diagonal()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.widen * tril))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.weight.shape[0])

    def data(self, num: int = NUM, seed: int = 1, context=None) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        z = torch.randn(num, self.weight.shape[1], generator=random)
        noise = torch.randn(num, self.weight.shape[0], generator=random)
        return z @ self.weight.T + self.mean(context) + self.noise * noise


@dataclass(frozen=True)
class GammaPoisson:
    """z ~ Gamma(a, a), x_d ~ Poisson(w_d z), with its posterior as guide."""

    rates: Tensor
    shape: float = 3.0

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Gamma(self.shape, self.shape))
            pyro.sample("x", dist.Poisson(z[..., None] * self.rates).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Gamma(self.shape + x.sum(-1), self.shape + self.rates.sum()))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=len(self.rates))

    def data(self, num: int = NUM, seed: int = 1, dispersion: float = 0.0, zeros: float = 0.0):
        with pyro_seed(seed):
            z = dist.Gamma(self.shape, self.shape).sample((num, 1))
            rate = z * self.rates
            if dispersion:
                rate = rate * dist.Gamma(1 / dispersion, 1 / dispersion).sample(rate.shape)
            x = torch.poisson(rate)
            return torch.where(torch.rand(x.shape) < zeros, 0.0, x)


@dataclass(frozen=True)
class BetaBernoulli:
    """z ~ Beta(a, b), x_d ~ Bernoulli(z), with its posterior as guide."""

    features: int = 12
    a: float = 2.0
    b: float = 3.0

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Beta(self.a, self.b))
            p = z[..., None].expand(*z.shape, self.features)
            pyro.sample("x", dist.Bernoulli(p).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            ones = x.sum(-1)
            pyro.sample("z", dist.Beta(self.a + ones, self.b + self.features - ones))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.features)

    def grey(self, num: int = NUM, seed: int = 1) -> Tensor:
        with pyro_seed(seed):
            return dist.Beta(self.a, self.b).sample((num, 1)).expand(num, self.features).clone()


@dataclass(frozen=True)
class TwoModes:
    """z ~ (N(-3, 1/4) + N(3, 1/4)) / 2, x_d ~ N(|z|, s^2): z has two modes for every x."""

    features: int = 4
    noise: float = 0.7
    both: bool = True

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.modes(torch.tensor([3.0]), torch.tensor([0.5]), True))
            mean = z.abs().expand(*z.shape[:-1], self.features)
            pyro.sample("x", dist.Normal(mean, self.noise).to_event(1), obs=x)

    def guide(self, x):
        precision = 4 + self.features / self.noise**2
        loc = (12 + x.sum(-1, keepdim=True) / self.noise**2) / precision
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.modes(loc, torch.full_like(loc, precision**-0.5), self.both))

    @staticmethod
    def modes(loc: Tensor, scale: Tensor, both: bool):
        if not both:
            return dist.Normal(loc, scale).to_event(1)
        parts = torch.stack([-loc, loc], -2)
        even = torch.zeros(parts.shape[:-1])
        return dist.MixtureOfDiagNormals(parts, torch.stack([scale, scale], -2), even)

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=self.features)

    def data(self, num: int = NUM, seed: int = 1) -> Tensor:
        with pyro_seed(seed):
            z = 3 + 0.5 * torch.randn(num, 1)
            return z.abs() + self.noise * torch.randn(num, self.features)


def pyro_seed(seed: int):
    """The random numbers inside are those of a seed; the caller's are left as they were."""

    class Seeded:
        def __enter__(self):
            self.state = torch.get_rng_state()
            torch.manual_seed(seed)

        def __exit__(self, *_):
            torch.set_rng_state(self.state)

    return Seeded()


def small_vae(hidden: Sequence[int], size: int = 5, latent: int = 2):
    """A VAE with networks of such hidden layers; the posterior is of full rank."""
    with pyro_seed(0):
        return pv.VAE(
            pv.priors.StandardNormal(latent),
            pv.likelihoods.Normal(size, pv.networks.MLP(latent, hidden), learn_scale="shared"),
            pv.posteriors.FullRankNormal(latent, pv.networks.MLP(size, hidden)),
        )


def trained(epochs: int, schedule, hidden: Sequence[int] = (), num: int = 3000) -> Case:
    """A VAE trained on data of a linear model; tested on others of the same."""
    truth = Linear.of()
    train, test = truth.data(num), truth.data(NUM, 2)
    vae = small_vae(hidden)
    history = pv.fit(
        vae,
        train,
        epochs=epochs,
        batch_size=100,
        learning_rate=1e-3 if hidden else 1e-2,
        schedule=schedule,
        seed=0,
        progress=False,
    )
    return Case(vae, test, {"train": train, "history": history})


def labels(num: int = NUM) -> Tensor:
    return torch.arange(num) % 3


OFFSETS = torch.tensor([[0.0] * 5, [1.5] * 5, [-1.5, 1.5, 0.0, 2.0, -2.0]])
RATES = torch.tensor([1.0, 2.0, 4.0, 6.0])
EIGHT = RATES.repeat(2)


def two_bumps() -> Case:
    """x given z has two modes, and the model one, of the same variance."""
    truth, jump = Linear.of(noise=0.3), 1.5
    x = truth.data()
    with pyro_seed(5):
        x = x + jump * (2 * torch.rand(x.shape).round() - 1)
    return Case(Linear(truth.weight, noise=math.hypot(0.3, jump)).program(), x)


def heavy() -> Case:
    """Noise of Student's t, whose middle is that of the model's normal."""
    truth = Linear.of()
    with pyro_seed(5):
        noise = 0.5 * dist.StudentT(2.5).sample((NUM, 5))
    return Case(truth.program(), Linear(truth.weight, noise=0.0).data() + noise)


def other_prior() -> Case:
    """Data of latents in two clusters, under a standard normal prior."""
    truth = Linear.of(noise=0.4)
    with pyro_seed(5):
        z = 0.35 * torch.randn(NUM, 2) + 1.2 * (2 * torch.rand(NUM, 1).round() - 1)
        return Case(truth.program(), z @ truth.weight.T + 0.4 * torch.randn(NUM, 5))


def collapsed() -> Case:
    """Neither the decoder uses z nor the encoder x."""
    nothing = Linear(torch.zeros(5, 2), noise=1.0)
    return Case(nothing.program(), torch.randn(NUM, 5, generator=torch.Generator().manual_seed(3)))


def overfitted() -> Case:
    """A wide VAE of forty data."""
    truth = Linear.of()
    train, test = truth.data(40), truth.data(NUM, 2)
    vae = small_vae([200])
    history = pv.fit(
        vae, train, epochs=1500, batch_size=40, learning_rate=3e-3, seed=0, progress=False
    )
    return Case(vae, test, {"train": train, "history": history})


def binarised(policy: str, claimed: str) -> Case:
    """Grey values that are drawn, or cut at one half, and what the run says of them."""
    truth = BetaBernoulli()
    grey = truth.grey()
    train = Dataset(truth.grey(seed=3), binarize="dynamic")
    cut = Dataset((grey > 0.5).float())
    data = Dataset(grey, binarize="dynamic") if policy == "dynamic" else cut
    return Case(truth.program(), data, {"train": train, "claims": Claims(binarize=claimed)})


def leaked() -> Case:
    truth = Linear.of()
    train, test = truth.data(600), truth.data(NUM, 2)
    return Case(truth.program(), torch.cat([test[:-20], train[:20]]), {"train": train})


def conditional(offsets: Tensor, context: Tensor | None = None, seed: int = 1) -> Case:
    """Data of three labels, under a model with those offsets and the context that it is told."""
    truth = Linear.of(offsets=OFFSETS)
    x = truth.data(context=labels(), seed=seed)
    told = labels() if context is None else context
    return Case(Linear(truth.weight, offsets=offsets).program(), Dataset(x, told))


def sound_linear(seed: int, latent: int = 2, features: int = 5, num: int = NUM) -> Case:
    truth = Linear.of(latent, features, seed)
    return Case(truth.program(), truth.data(num, seed + 10), {"train": truth.data(600, seed + 20)})


Build = Callable[[], Case]

# A fault by its name: how it is planted, and the words that name it, of which any will do.
FAULTY: dict[str, tuple[Build, tuple[str, ...]]] = {
    "q too narrow": (
        lambda: Case(Linear.of(widen=0.6).program(), Linear.of().data()),
        ("q is too narrow",),
    ),
    "q shifted": (
        lambda: Case(Linear.of(shift=0.7).program(), Linear.of().data()),
        ("q is shifted",),
    ),
    "a mode missed by q": (
        lambda: Case(TwoModes(both=False).program(), TwoModes().data()),
        ("q misses part of the posterior",),
    ),
    "likelihood's scale twice too large": (
        lambda: Case(Linear.of(noise=1.2).program(), Linear.of().data()),
        ("likelihood too wide",),
    ),
    "over-dispersed counts under Poisson": (
        lambda: Case(GammaPoisson(RATES).program(), GammaPoisson(RATES).data(dispersion=0.7)),
        ("counts more dispersed than in the model",),
    ),
    "zero inflation missed": (
        lambda: Case(GammaPoisson(RATES).program(), GammaPoisson(RATES).data(zeros=0.2)),
        ("more zeros than in the model",),
    ),
    "heavy tails under a Normal": (heavy, ("heavier tails than in the model",)),
    "collapsed latent": (collapsed, ("the latent has collapsed",)),
    "under-trained": (lambda: trained(12, pv.training.Constant(), [32], NUM), ("under-trained",)),
    "over-trained": (overfitted, ("over-trained",)),
    "leaked test data": (leaked, ("test data leaked into the training data",)),
    "wrong binarisation": (lambda: binarised("cut", "dynamic"), ("wrong binarisation",)),
    "K too small": (
        lambda: Case(
            Linear.of(widen=1.6).program(), Linear.of().data(), {"claims": Claims(num_samples=3)}
        ),
        ("K is too small",),
    ),
    "prior unlike the aggregate posterior": (
        other_prior,
        ("the prior does not match the aggregate posterior",),
    ),
    "q that ignores x": (
        lambda: Case(Linear.of(blind=True).program(), Linear.of().data()),
        ("q ignores x",),
    ),
    "decoder that ignores the context": (
        lambda: conditional(torch.zeros_like(OFFSETS)),
        ("the decoder ignores the context",),
    ),
    "labels switched": (
        lambda: conditional(OFFSETS, (labels() + 1) % 3),
        ("data do not go with their context",),
    ),
    "two modes of x given z under a Normal": (two_bumps, ("the likelihood has the wrong shape",)),
    "censored data taken as observed": (
        lambda: Case(Linear.of().program(), Linear.of().data().clamp(max=1.5)),
        ("values heaped at a limit, as censored ones",),
    ),
    "rounded data taken as exact": (
        lambda: Case(Linear.of().program(), (2 * Linear.of().data()).round() / 2),
        ("values rounded or repeated",),
    ),
}

SOUND: dict[str, Build] = {
    **{f"linear normal, seed {s}": (lambda s=s: sound_linear(s)) for s in range(5)},
    "linear normal, one latent": lambda: sound_linear(5, 1, 3),
    "linear normal, five latents": lambda: sound_linear(6, 5, 12),
    "linear normal, 100 data": lambda: sound_linear(7, num=100),
    "gamma-Poisson": lambda: Case(GammaPoisson(RATES).program(), GammaPoisson(RATES).data()),
    "gamma-Poisson, small rates": lambda: Case(
        GammaPoisson(RATES / 4).program(), GammaPoisson(RATES / 4).data(seed=2)
    ),
    "gamma-Poisson, eight counts": lambda: Case(
        GammaPoisson(EIGHT, 1.5).program(), GammaPoisson(EIGHT, 1.5).data(seed=3)
    ),
    "beta-Bernoulli": lambda: Case(
        BetaBernoulli().program(), Dataset(BetaBernoulli().grey(seed=4), binarize="fixed")
    ),
    "beta-Bernoulli, few entries": lambda: Case(
        BetaBernoulli(5).program(), Dataset(BetaBernoulli(5).grey(seed=5), binarize="fixed")
    ),
    "beta-Bernoulli, drawn as claimed": lambda: binarised("dynamic", "dynamic"),
    "two modes, both in q": lambda: Case(TwoModes().program(), TwoModes().data()),
    "two modes, both in q, more noise": lambda: Case(
        TwoModes(6, 1.0).program(), TwoModes(6, 1.0).data(seed=2)
    ),
    "labels": lambda: conditional(OFFSETS),
    "labels, other data": lambda: conditional(OFFSETS, seed=4),
    "labels that do nothing": lambda: Case(
        Linear.of(offsets=torch.zeros(3, 5)).program(), Dataset(Linear.of().data(seed=6), labels())
    ),
    "a VAE trained to the end": lambda: trained(100, pv.training.Cosine()),
}
