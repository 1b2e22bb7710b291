"""Densities at log-odds and log-scales of +-1e4, value and gradient, against mpmath.

A likelihood's network is the identity here, so its latent is what a network would compute.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae import distributions as own
from pyro_vae.networks import Head

WIDE = (-1e4, -100.0, -20.0, -1.0, 0.0, 1e-3, 1.0, 20.0, 100.0, 1e4)
FEW = (-1e4, -3.0, 0.0, 3.0, 1e4)
ENDS = (-1e4, 0.0, 1e4)


@dataclass(frozen=True)
class Case:
    """A density of parameters at data, with its exact logarithm.

    Args:
        density: from parameters (P,) to a distribution.
        exact: the log-density of the parameters, then of the entries of x, as mpmath's numbers.
        parameters: the points.
        data: the data, each a number or a vector.
        size: of the numbers whose difference a gradient is, beside the entries of x.
        rounding: how many times the usual rounding a value may have, where x less the location is
            divided by a small scale.
    """

    density: Callable[[Tensor], torch.distributions.Distribution]
    exact: Callable[..., mp.mpf]
    parameters: Sequence[tuple[float, ...]]
    data: Sequence[float | tuple[float, ...]]
    size: float = 1.0
    rounding: float = 1.0


class Identity(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.out_shape = (width,)

    def forward(self, x, context=None):
        return x


def likelihood(name, parameters=1, event=1, known=MappingProxyType({}), **arguments):
    """From parameters (P,) to the likelihood of which they are all that the network computes.

    Heads of several parts take one parameter each, in the order of the parts.
    """

    def density(theta):
        module = getattr(pv.likelihoods, name)((event,), Identity(parameters), **arguments)
        heads = [part for part in module.modules() if isinstance(part, Head)]
        for place, head in enumerate(heads):  # several share the parameters out
            nn.init.zeros_(head.layer.weight)
            rows = len(head.layer.weight)
            first = place if len(heads) > 1 else 0
            head.layer.weight.data[:, first : first + rows] = torch.eye(rows)
            nn.init.zeros_(head.layer.bias)
        values = {key: torch.tensor([value], dtype=theta.dtype) for key, value in known.items()}
        return module.to(theta.dtype)(theta, **values)

    return density


def fixed(name, **arguments):
    return {"class_path": name, "init_args": arguments}


def columns(*values):
    return [tuple(point) for point in itertools.product(*values)]


def as_float(number):
    """A constant as the program has it, in the dtype of the test."""
    return mp.mpf(torch.tensor(number).item())


def log_s(x):
    """The logarithm of the logistic function."""
    return -mp.log1p(mp.exp(-x)) if x > 0 else x - mp.log1p(mp.exp(x))


def log_sum(terms):
    most = max(terms)
    return most + mp.log(sum(mp.exp(term - most) for term in terms))


def bounded(x, limit):
    return limit * mp.tanh(x / limit)


def bernoulli(logit, x):
    return x * logit + log_s(-logit)


def continuous_bernoulli(logit, x):
    return logit * x - (mp.log(mp.expm1(logit) / logit) if logit else 0)


def beta(raw_a, raw_b, x):
    a, b = mp.exp(bounded(raw_a, 7)), mp.exp(bounded(raw_b, 7))
    normaliser = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return (a - 1) * mp.log(x) + (b - 1) * mp.log1p(-x) - normaliser


def normal(scale):
    def exact(loc, x):
        s = as_float(scale)
        return -(((x - loc) / s) ** 2) / 2 - mp.log(s) - mp.log(2 * mp.pi) / 2

    return exact


def laplace(scale):
    return lambda loc, x: -abs(x - loc) / as_float(scale) - mp.log(2 * as_float(scale))


def student(df, scale):
    def exact(loc, x):
        nu, s = as_float(df), as_float(scale)
        normaliser = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(mp.pi * nu) / 2
        return normaliser - mp.log(s) - (nu + 1) / 2 * mp.log1p(((x - loc) / s) ** 2 / nu)

    return exact


def poisson(log_rate, x):
    return x * log_rate - mp.exp(log_rate) - mp.loggamma(x + 1)


def negative_binomial(r, logit, x):
    ways = mp.loggamma(x + r) - mp.loggamma(x + 1) - mp.loggamma(r)
    return ways + r * log_s(-logit) + x * log_s(logit)


def zero_inflated(r, logit, gate, x):
    counted = log_s(-gate) + negative_binomial(r, logit, x)
    return counted if x else log_sum([log_s(gate), counted])


def of_mean(family, r):
    """A negative binomial by the logarithm of its mean, within its bounds."""

    def exact(raw, *rest):
        return family(as_float(r), bounded(raw, 12) - mp.log(as_float(r)), *rest)

    return exact


def binomial(n):
    def exact(logit, x):
        ways = mp.loggamma(n + 1) - mp.loggamma(x + 1) - mp.loggamma(n - x + 1)
        return ways + x * log_s(logit) + (n - x) * log_s(-logit)

    return exact


def softmaxed(*values):
    *logits, x = values
    return logits[int(x)] - log_sum(logits)


def multinomial(*values):
    logits, x = values[: len(values) // 2], values[len(values) // 2 :]
    ways = mp.loggamma(sum(x) + 1) - sum(mp.loggamma(n + 1) for n in x)
    return ways + sum(n * (logit - log_sum(logits)) for n, logit in zip(x, logits))


def discretized(levels, loc, scale, x):
    half = mp.mpf(1) / (2 * (levels - 1))
    level = mp.nint(x * (levels - 1)) / (levels - 1)
    below, above = log_s((level + half - loc) / scale), log_s((loc - level + half) / scale)
    if level == 0:
        return below
    return above if level == 1 else below + above + mp.log(-mp.expm1(-2 * half / scale))


def discretized_mixture(*values):
    weights, shifts, widths, x = values[:2], values[2:4], values[4:6], values[6]
    scales = [as_float(0.1) * mp.exp(bounded(width, 5)) for width in widths]
    parts = [discretized(256, (c + mp.mpf(1) / 2) / 2 + shifts[c], scales[c], x) for c in range(2)]
    return log_sum([w - log_sum(weights) + part for w, part in zip(weights, parts)])


def exponential(raw, x):
    log_mean = bounded(raw, 20)
    return -log_mean - x * mp.exp(-log_mean)


def gamma(a):
    def exact(raw, x):
        b = as_float(a) * mp.exp(-bounded(raw, 20))
        return as_float(a) * mp.log(b) + (as_float(a) - 1) * mp.log(x) - b * x - mp.loggamma(a)

    return exact


def log_normal(scale):
    def exact(raw, x):
        return normal(scale)(bounded(raw, 20), mp.log(x)) - mp.log(x)

    return exact


def weibull(k):
    def exact(raw, x):
        ratio = mp.log(x) - bounded(raw, 20)
        return mp.log(as_float(k)) + as_float(k) * ratio - mp.log(x) - mp.exp(as_float(k) * ratio)

    return exact


def log_weibull_above(k):
    return lambda raw, x: -mp.exp(as_float(k) * (mp.log(x) - bounded(raw, 20)))


def log_normal_above(scale, sign=1):
    def exact(raw, x):
        z = (mp.log(x) - bounded(raw, 20)) / as_float(scale)
        return mp.log(mp.erfc(sign * z / mp.sqrt(2)) / 2)

    return exact


def ordinal(categories):
    def exact(loc, x):
        cuts = [1 - mp.mpf(categories) / 2 + k - loc for k in range(categories - 1)]
        if x == 0:
            return log_s(cuts[0])
        if x == categories - 1:
            return log_s(-cuts[-1])
        low, high = cuts[int(x) - 1], cuts[int(x)]
        return log_s(high) + log_s(-low) + mp.log(-mp.expm1(low - high))

    return exact


def zero_inflated_poisson(raw, gate, x):
    counted = log_s(-gate) + poisson(bounded(raw, 12), x)
    return counted if x else log_sum([log_s(gate), counted])


def truncated_normal(loc, x):
    z = -loc / mp.sqrt(2)
    return normal(1.0)(loc, x) - mp.log(mp.erfc(z) / 2)


def relaxed_bernoulli(temperature):
    def exact(logit, x):
        reach = mp.mpf(own.RelaxedBernoulli(temperature, torch.zeros(())).reach)
        y = mp.log(x) - mp.log1p(-x)
        if abs(y) > reach - mp.mpf("0.05"):  # at an end
            return log_s(mp.sign(y) * logit - temperature * reach)
        shifted = temperature * y - logit
        density = mp.log(temperature) + log_s(shifted) + log_s(-shifted)
        return density - mp.log(x) - mp.log1p(-x)

    return exact


def ends_of_a_relaxed_bit():
    return [end.item() for end in own.RelaxedBernoulli(0.5, torch.zeros(()))._ends(torch.zeros(()))]


def relaxed_code(temperature):
    def exact(*values):
        logits, z = values[:3], values[3:]
        smallest = mp.mpf(torch.finfo(torch.get_default_dtype()).tiny)
        inside = [c for c in range(3) if z[c] > smallest]
        z = [mp.log(max(value, smallest)) for value in z]
        total = log_sum([logit - temperature * y for logit, y in zip(logits, z)])
        terms = [logits[c] - (temperature + 1) * z[c] - total for c in inside]
        count = len(inside)
        return sum(terms) + mp.loggamma(count) + (count - 1) * mp.log(temperature)

    return exact


def mixture_of_normals(*values):
    logits, loc, log_scale, x = values[:2], values[2:4], values[4:6], values[6]
    parts = [
        logit - log_sum(logits) - ((x - m) / mp.exp(s)) ** 2 / 2 - s - mp.log(2 * mp.pi) / 2
        for logit, m, s in zip(logits, loc, log_scale)
    ]
    return log_sum(parts)


def logistic_normal(loc, log_scale, x, y):
    ratio = (mp.log(x) - mp.log(y)) / mp.sqrt(2)
    density = -(((ratio - loc) / mp.exp(log_scale)) ** 2) / 2 - log_scale - mp.log(2 * mp.pi) / 2
    return density - mp.log(x) - mp.log(y) - mp.log(2) / 2


def normal_of_two(covariance, x, y):
    """The log-density of a normal of mean 0 by its covariance's entries."""
    a, b, c = covariance
    determinant = a * c - b * b
    squares = (c * x * x - 2 * b * x * y + a * y * y) / determinant
    return -squares / 2 - mp.log(determinant) / 2 - mp.log(2 * mp.pi)


def low_rank(w1, w2, log_v1, log_v2, x, y):
    v1, v2 = mp.exp(log_v1), mp.exp(log_v2)
    return normal_of_two((v1 + w1 * w1, w1 * w2, v2 + w2 * w2), x, y)


def full_rank(l11, l21, l22, x, y):
    return normal_of_two((l11 * l11, l11 * l21, l21 * l21 + l22 * l22), x, y)


def relaxed_categorical(*values):
    logits, x = [bounded(raw, 10) for raw in values[:3]], values[3:]
    scores = [logit - mp.log(z) / 2 for logit, z in zip(logits, x)]
    density = mp.log(2) - 2 * mp.log(2) + sum(s - mp.log(z) for s, z in zip(scores, x))
    return density - 3 * log_sum(scores)


def relaxed_categorical_posterior(theta):
    q = pv.posteriors.RelaxedCategorical(3, Identity(3), temperature=0.5)
    nn.init.eye_(q.head.layer.weight)
    nn.init.zeros_(q.head.layer.bias)
    return q(theta)


def stacked(density, size=2):
    """A density of parameters that are groups of ``size`` in a row."""
    return lambda theta: density(*theta.unflatten(-1, (-1, size)).unbind(-2))


POINTS = columns(WIDE)
COUNTS = columns((*WIDE, 3.0, 8.0, 12.0, 30.0))

LIKELIHOODS = {
    "Bernoulli": [Case(likelihood("Bernoulli"), bernoulli, POINTS, (0, 1))],
    "ContinuousBernoulli": [
        Case(
            likelihood("ContinuousBernoulli"),
            continuous_bernoulli,
            columns((*WIDE, 0.499, -0.501, 16.0, 30.0)),
            (0.0, 0.3, 1.0),
        )
    ],
    "Beta": [Case(likelihood("Beta", 2), beta, columns(FEW, FEW), (1e-30, 1e-3, 0.5, 0.999))],
    "Normal": [
        Case(likelihood("Normal", scale=s), normal(s), POINTS, (0.0, 1e4)) for s in (1.001e-3, 999)
    ],
    "Laplace": [
        Case(likelihood("Laplace", scale=s), laplace(s), POINTS, (0.5, -1e4))
        for s in (1.001e-3, 999)
    ],
    "StudentT": [
        Case(likelihood("StudentT", df=df, scale=s), student(df, s), POINTS, (0.5, -1e4))
        for df in (1.01, 4.0, 1e4)
        for s in (1.001e-3, 999)
    ],
    "DiscretizedLogistic": [
        Case(
            likelihood("DiscretizedLogistic", scale=s, learn_scale=None),
            lambda loc, x, s=s: discretized(256, loc, as_float(s), x),
            columns((*WIDE, 0.5)),
            (0.0, 128 / 255, 1.0),
            size=1 / s,
            rounding=1e-3 / s + 1,
        )
        for s in (1.001e-3, 0.1, 99.9)
    ],
    "DiscretizedLogisticMixture": [
        Case(
            likelihood("DiscretizedLogisticMixture", 6, components=2),
            discretized_mixture,
            columns(ENDS, (0.0, 1e4), (-1e4, 0.0), (0.0,), ENDS, (0.0,)),
            (0.0, 128 / 255, 1.0),
        )
    ],
    "CoupledLogisticMixture": [
        Case(
            likelihood("CoupledLogisticMixture", 6, components=2),
            discretized_mixture,
            columns(ENDS, (0.0, 1e4), (-1e4, 0.0), (0.0,), ENDS, (0.0,)),
            (0.0, 128 / 255, 1.0),
        )
    ],
    "Categorical": [
        Case(likelihood("Categorical", 3, categories=3), softmaxed, columns(*[ENDS] * 3), (0, 2))
    ],
    "Binomial": [
        Case(likelihood("Binomial", total_count=n), binomial(n), POINTS, (0, 1, n))
        for n in (1, 100_000)
    ],
    "Poisson": [
        Case(
            likelihood("Poisson"),
            lambda raw, x: poisson(bounded(raw, 12), x),
            COUNTS,
            (0, 1, 20, 3000, 162755),
            size=2e5,
        )
    ],
    "NegativeBinomial": [
        Case(
            likelihood("NegativeBinomial", concentration=r, learn_concentration=None),
            of_mean(negative_binomial, r),
            COUNTS,
            (0, 1, 20, 3000, 100_000),
            size=r,
        )
        for r in (1.001e-2, 10.0, 9990.0)
    ],
    "ZeroInflatedNegativeBinomial": [
        Case(
            likelihood(
                "ZeroInflatedNegativeBinomial", 2, concentration=r, learn_concentration=None
            ),
            of_mean(zero_inflated, r),
            columns(FEW, FEW),
            (0, 1, 3000),
        )
        for r in (1.001e-2, 9990.0)
    ],
    "LatentSize": [  # of one column: z is the logarithm of its rate
        Case(
            likelihood("LatentSize", of="Poisson"),
            poisson,
            [(-15.0,), (-1.0,), (0.0,), (3.0,), (11.0,)],
            (0, 1, 20, 3000),
            size=2e5,
        )
    ],
    "Multinomial": [
        Case(
            likelihood("Multinomial", 3, event=3),
            multinomial,
            columns(*[ENDS] * 3),
            ((0, 0, 0), (3, 0, 1), (0, 0, 50_000)),
        )
    ],
    "Mixed": [
        Case(
            likelihood(
                "Mixed",
                groups=[{"columns": [0], "class_path": family, "init_args": arguments}],
            ),
            exact,
            POINTS,
            data,
        )
        for family, arguments, exact, data in (
            ("Laplace", {"scale": 2.0}, laplace(2.0), (0.5, -1e4)),
            ("ContinuousBernoulli", {}, continuous_bernoulli, (0.0, 0.3, 1.0)),
        )
    ],
    "NormalWithNoise": [
        Case(likelihood("NormalWithNoise", known={"scale": s}), normal(s), POINTS, (0.0, 1e4))
        for s in (1e-3, 999.0)
    ],
    "Exponential": [
        Case(likelihood("Exponential"), exponential, POINTS, (1e-30, 0.5, 1e4), size=1e13)
    ],
    "Gamma": [
        Case(
            likelihood("Gamma", concentration=a, learn_concentration=None),
            gamma(a),
            POINTS,
            (1e-30, 0.5, 1e4),
            size=1e13,
        )
        for a in (0.06, 1.0, 9e3)
    ],
    "LogNormal": [
        Case(
            likelihood("LogNormal", scale=s, learn_scale=None),
            log_normal(s),
            POINTS,
            (1e-30, 0.5, 1e4),
            rounding=4,
        )
        for s in (0.011, 4.9)
    ],
    "Weibull": [
        Case(
            likelihood("Weibull", concentration=k, learn_concentration=None),
            weibull(k),
            POINTS,
            (1e-30, 0.5, 1e3),
            rounding=64,  # an exponent of 80 is rounded before the exponential
        )
        for k in (0.21, 1.0, 3.0)
    ],
    "Ordinal": [
        Case(likelihood("Ordinal", categories=n), ordinal(n), POINTS, (0, 1, n - 1)) for n in (2, 5)
    ],
    "Censored": [
        Case(
            likelihood("Censored", of=of, known={"censored": code}),
            exact,
            POINTS,
            (1e-30, 0.5, 1e3),
            rounding=64,
        )
        for of in (fixed("Weibull", concentration=3.0, learn_concentration=None),)
        for code, exact in ((0.0, weibull(3.0)), (1.0, log_weibull_above(3.0)))
    ]
    + [
        Case(
            likelihood(
                "Censored",
                of=fixed("LogNormal", scale=0.5, learn_scale=None),
                known={"censored": code},
            ),
            log_normal_above(0.5, code),
            POINTS,
            (1e-30, 0.5, 1e4),
            rounding=64,
        )
        for code in (-1.0, 1.0)
    ],
    "Truncated": [
        Case(
            likelihood("Truncated", of="Normal"),
            truncated_normal,
            POINTS,
            (1e-4, 0.5, 1e4),
            rounding=16,
            size=1e4,
        )
    ],
    "ZeroInflated": [
        Case(likelihood("ZeroInflated", 2), zero_inflated_poisson, columns(FEW, FEW), (0, 1, 3000))
    ],
    "AutoregressiveBernoulli": [],  # its log-odds are a Bernoulli's, see the test below
    "AutoregressiveCategorical": [],  # its log-odds are a Categorical's
}

DENSITIES = {
    "NegativeBinomial": Case(
        lambda theta: own.NegativeBinomial(torch.tensor(3.0), logits=theta.squeeze(-1)),
        lambda logit, x: negative_binomial(3, logit, x),
        POINTS,
        (0, 1, 3000),
    ),
    "ZeroInflatedNegativeBinomial": Case(
        lambda theta: own.ZeroInflatedNegativeBinomial(
            torch.tensor(3.0), logits=theta[..., 0], gate_logits=theta[..., 1]
        ),
        lambda *rest: zero_inflated(3, *rest),
        columns(WIDE, WIDE),
        (0, 1, 3000),
    ),
    "RelaxedBernoulli": Case(
        lambda theta: own.RelaxedBernoulli(0.5, theta.squeeze(-1)),
        relaxed_bernoulli(0.5),
        POINTS,
        (1e-4, 0.3, 0.999),
    ),
    "RelaxedCategorical": Case(
        relaxed_categorical_posterior,
        relaxed_categorical,
        columns(*[ENDS] * 3),
        ((0.2, 0.3, 0.5), (1e-15, 1e-10, 1.0)),
    ),
    "MixtureOfNormals": Case(
        lambda theta: own.MixtureOfNormals(
            theta[..., :2], theta[..., 2:4, None], theta[..., 4:, None].exp()
        ),
        mixture_of_normals,
        columns(ENDS, ENDS, (-1e4, 0.5), (0.0, 1e4), (-6.0, 6.0), (0.0,)),
        ((0.0,), (1e4,)),
    ),
    "RelaxedCategorical of any logits": Case(
        lambda theta: own.RelaxedCategorical(0.5, theta),
        relaxed_code(mp.mpf("0.5")),
        columns(ENDS, ENDS, (-1e4, 3.0)),
        ((0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.75, 0.25, 0.0), (0.0, 1.0, 1e-30)),
    ),
    "LowRankNormal": Case(
        lambda theta: own.LowRankNormal(
            torch.zeros(2), theta[..., :2, None], theta[..., 2:].double().exp()
        ),
        low_rank,
        columns((-1e3, 0.0, 1e3), (1e3, 0.1), (-9.0, 3.0), (-9.0, 3.0)),
        ((0.5, -1.0), (1e3, 1e3)),
    ),
    "FullRankNormal": Case(
        lambda theta: own.FullRankNormal(
            torch.zeros(2),
            scale_tril=torch.stack(
                [
                    torch.stack([theta[..., 0], torch.zeros(1)], -1),
                    torch.stack([theta[..., 1], theta[..., 2]], -1),
                ],
                -2,
            ),
        ),
        full_rank,
        columns((1e-3, 1e3), (-1e4, 0.0, 1e4), (1e-3, 1.0)),
        ((0.5, -1.0), (1e3, 1e3)),
    ),
    "LogisticNormal": Case(
        lambda theta: own.LogisticNormal(theta[..., :1], theta[..., 1:].exp()),
        logistic_normal,
        columns(WIDE, (-6.0, 0.0, 6.0)),
        ((0.25, 0.75), (1e-30, 1.0)),
    ),
}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def check(case: Case, data=None) -> None:
    eps = torch.finfo(torch.get_default_dtype()).eps
    with mp.workdps(50):
        for point, x in itertools.product(case.parameters, case.data if data is None else data):
            theta = torch.tensor([point], requires_grad=True)
            density = case.density(theta)
            value = torch.tensor(x, dtype=theta.dtype).reshape(1, *density.event_shape)
            log_prob = density.log_prob(value).sum()
            (slope,) = torch.autograd.grad(log_prob, theta)
            at = [mp.mpf(number) for number in theta[0].tolist()]
            datum = [mp.mpf(number) for number in value.flatten().tolist()]

            exact = case.exact(*at, *datum)
            orders = np.eye(len(at), len(at) + len(datum), dtype=int).tolist()
            slopes = [float(mp.diff(case.exact, (*at, *datum), order)) for order in orders]
            # Double precision leaves 1e-9 of the log-gammas of large counts. A rate is rounded
            # before it meets the count, so the count's own rounding is in a gradient.
            error, room = abs(log_prob.item() - exact), 64 * eps * (1 + abs(exact)) + 1e-9
            room *= case.rounding
            assert error <= room, f"{point}, {x}: {log_prob.item()} for {float(exact)}"
            largest = max(map(abs, slopes))
            room = 100 * eps * largest + 4 * eps * (case.size + max(map(abs, datum)))
            room *= case.rounding
            for mine, right in zip(slope[0].tolist(), slopes):
                assert abs(mine - right) <= room, f"{point}, {x}: {slope[0].tolist()} for {slopes}"


@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_likelihoods(name, dtype):
    for case in LIKELIHOODS[name]:
        check(case)


@pytest.mark.parametrize("name", DENSITIES)
def test_densities(name, dtype):
    check(DENSITIES[name])


def test_the_faces_of_a_relaxed_code_have_the_mass_of_what_floats_cannot_hold(float64):
    """With a smallest entry of 1e-8, one draw in two hundred lies on a face."""
    p = own.RelaxedCategorical(0.4, torch.tensor([0.0, 0.7, -1.0]))
    p.smallest = 1e-8
    inside = p.sample((400_000,)) > p.smallest
    y = torch.linspace(-18.5, 18.5, 20_001)
    for corner in range(3):
        at = torch.full((3,), p.smallest).index_fill(0, torch.tensor(corner), 1.0)
        alone = inside == torch.eye(3, dtype=torch.bool)[corner]
        assert alone.all(1).double().mean() == pytest.approx(p.log_prob(at).exp().item(), abs=1e-4)
        edge = torch.full((len(y), 3), p.smallest)
        a, b = (c for c in range(3) if c != corner)
        edge[:, a], edge[:, b] = torch.sigmoid(y), torch.sigmoid(-y)
        density = p.log_prob(edge).exp() * edge[:, a] * edge[:, b]
        mass = torch.trapezoid(density.masked_fill((edge > p.smallest).sum(1) < 2, 0), y)
        two = (inside != torch.eye(3, dtype=torch.bool)[corner]).all(1)
        assert two.double().mean() == pytest.approx(mass.item(), abs=3e-4)


def test_the_ends_of_a_relaxed_bit(dtype):
    check(DENSITIES["RelaxedBernoulli"], ends_of_a_relaxed_bit())


OUTPUTS = ((-1e4,), (1e4,), (-1e4, 1e4), (-1e4, 0.0, 1e4), (-1e4, 3.0), (0.0,))
NETWORKED = ["DiagonalNormal", "LowRankNormal", "FullRankNormal", "Mixture", "VonMisesFisher"]


@pytest.mark.parametrize("outputs", OUTPUTS, ids=str)
@pytest.mark.parametrize("name", [*NETWORKED, "LogisticNormal"])
def test_posteriors_whatever_their_network_returns(name, outputs):
    """Draws of float32, and their densities: those of the same parameters in double precision."""
    torch.manual_seed(0)
    q = getattr(pv.posteriors, name)(3, Identity(1))
    for head in [part for part in q.modules() if isinstance(part, Head)]:
        nn.init.zeros_(head.layer.weight)
        places = torch.randint(len(outputs), head.layer.bias.shape)
        head.layer.bias.data = torch.tensor(outputs)[places]
    density = q(torch.ones(2, 1))
    draws = density.rsample((20,))
    assert torch.isfinite(draws).all()
    log_prob = density.log_prob(draws.detach())
    for made in (draws, log_prob):
        slopes = torch.autograd.grad(
            made.sum(), [*q.parameters()], allow_unused=True, retain_graph=True
        )
        assert all(torch.isfinite(slope).all() for slope in slopes if slope is not None)
    exact = q.double()(torch.ones(2, 1, dtype=torch.float64)).log_prob(draws.detach().double())
    is_ill_conditioned = name == "FullRankNormal" and len(set(outputs)) > 1
    if not is_ill_conditioned:  # by 1e8, so that its scales' own rounding is felt
        torch.testing.assert_close(log_prob.double(), exact, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_a_direction_of_any_length_is_one_of_length_one(size):
    q = pv.posteriors.VonMisesFisher(3, Identity(1))
    for head in (q.head, q.spread):
        nn.init.zeros_(head.layer.weight)
        nn.init.ones_(head.layer.bias)
    q.head.layer.bias.data = size * torch.tensor([1.0, 0.0, 0.0])
    along = own.VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), q(torch.ones(1, 1)).concentration)
    draws = along.sample((50,))
    torch.testing.assert_close(q(torch.ones(1, 1)).log_prob(draws), along.log_prob(draws))


def test_a_low_rank_normal_that_double_precision_cannot_hold_says_so():
    p = own.LowRankNormal(torch.zeros(2), torch.full((2, 1), 1e9), torch.full((2,), 1e-4))
    assert p.log_prob(p.sample()).isnan()


def test_a_low_rank_normal_is_the_normal_of_its_covariance(float64):
    p = own.LowRankNormal(torch.randn(5, 4), torch.randn(5, 4, 2), torch.rand(5, 4) + 0.1)
    whole = torch.distributions.MultivariateNormal(p.loc, p.covariance_matrix)
    x = torch.randn(7, 5, 4)
    torch.testing.assert_close(p.log_prob(x), whole.log_prob(x))
    torch.testing.assert_close(p.entropy(), whole.entropy())
    torch.testing.assert_close(p.variance, whole.variance)
    torch.testing.assert_close(p.expand((3, 5)).log_prob(x[:3]), whole.log_prob(x[:3]))
    draws = p.sample((40_000,))
    spread = torch.stack([torch.cov(draws[:, i].T) for i in range(5)])
    torch.testing.assert_close(spread, p.covariance_matrix, rtol=0.05, atol=0.06)


@pytest.mark.parametrize("logit", WIDE)
def test_pixels_and_words_that_depend_on_one_another(dtype, logit):
    """Whatever comes before says nothing here, so the log-odds are known."""
    pixels = pv.likelihoods.AutoregressiveBernoulli((1,), Identity(1), radius=1)
    for parameter in pixels.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(pixels.head.layer.weight)
    z = torch.tensor([[logit]], requires_grad=True)
    one = pixels(z).log_prob(torch.ones(1, 1))
    torch.testing.assert_close(one, torch.nn.functional.logsigmoid(z)[0])
    torch.testing.assert_close(torch.autograd.grad(one, z)[0], torch.sigmoid(-z))
    words = pv.likelihoods.AutoregressiveCategorical((2,), Identity(1), categories=2)
    for parameter in words.parameters():
        nn.init.zeros_(parameter)
    bias = words.out[1].bias
    bias.data[1] = logit
    both = words(z.detach()).log_prob(torch.ones(1, 2))
    torch.testing.assert_close(both, 2 * torch.nn.functional.logsigmoid(z)[0])
    (slope,) = torch.autograd.grad(both, bias)
    torch.testing.assert_close(slope[1:], 2 * torch.sigmoid(-z)[0])


def test_saturated_grey_levels_have_their_values_and_gradients():
    """In float32, where a density by probabilities is constant from log-odds of 16 on."""
    logits = torch.tensor([16.0, 20.0, 30.0], requires_grad=True)
    log_prob = own.ContinuousBernoulli(logits).log_prob(torch.zeros(3))
    (slope,) = torch.autograd.grad(log_prob.sum(), logits)
    torch.testing.assert_close(log_prob, torch.tensor([-13.2274, -17.0043, -26.5988]))
    torch.testing.assert_close(slope, 1 / logits.detach() - 1, rtol=1e-5, atol=1e-6)


def test_the_continuous_bernoulli_agrees_with_itself(dtype):
    """Its quantiles invert its distribution function, and its moments are those of its draws."""
    p = own.ContinuousBernoulli(torch.tensor([-1e4, -30.0, -0.6, -0.01, 0.0, 0.3, 5.0, 1e4]))
    u = torch.linspace(0, 1, 11)[1:-1, None].expand(-1, 8)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(p.cdf(p.icdf(u)), u, rtol=1e-6, atol=1e4 * eps)
    torch.testing.assert_close(p.icdf(torch.ones(8)), torch.ones(8))
    draws = p.sample((40_000,))
    sd = p.variance.sqrt()
    assert ((draws.mean(0) - p.mean).abs() < 5 * sd / 200 + eps).all()
    assert (draws.std(0) / sd - 1).abs().max() < 0.05
    torch.testing.assert_close(-p.log_prob(draws).mean(0), p.entropy(), rtol=0, atol=0.03)


def test_draws_of_the_continuous_bernoulli_move_with_its_log_odds(dtype):
    """The gradient of a mean of draws is that of the mean."""
    logits = torch.tensor([-8.0, -0.01, 0.0, 0.015, 2.0], requires_grad=True)
    p = own.ContinuousBernoulli(logits)
    (slope,) = torch.autograd.grad(p.rsample((100_000,)).mean(0).sum(), logits)
    torch.testing.assert_close(slope, p.variance.detach(), rtol=0.02, atol=1e-3)
