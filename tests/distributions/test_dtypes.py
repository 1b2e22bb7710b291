"""Draws, densities and moments have the dtype of the parameters, whatever the default is."""

import pytest
import torch
from torch.distributions import Independent, Normal

from pyro_vae import distributions as own
from pyro_vae.distributions.supports import representative_of

SINGLE = {  # of one parameter of any shape
    "Beta": lambda t: own.Beta(t.exp(), t.exp()),
    "Binomial": lambda t: own.Binomial(5, logits=t),
    "ContinuousBernoulli": own.ContinuousBernoulli,
    "DiscretizedLogistic": lambda t: own.DiscretizedLogistic(t, t.exp(), 8),
    "NegativeBinomial": lambda t: own.NegativeBinomial(t.exp(), logits=t),
    "BinomialOfTrials": lambda t: own.BinomialOfTrials(5 + 0 * t, logits=t),
    "CensoredEntries": lambda t: own.CensoredEntries(Normal(t, t.exp()), torch.ones_like(t)),
    "Gamma": lambda t: own.Gamma(t.exp(), t.exp()),
    "NormalWithNoise": lambda t: own.NormalWithNoise(t, t.exp()),
    "ObservedEntries": lambda t: own.ObservedEntries(Normal(t, t.exp())),
    "Poisson": lambda t: own.Poisson(t),
    "RelaxedBernoulli": lambda t: own.RelaxedBernoulli(0.5, t),
    "StudentT": lambda t: own.StudentT(3 + t.exp(), t, t.exp()),
    "TorchToPyro": lambda t: own.TorchToPyro(torch.distributions.Normal(t, t.exp())),
    "TruncatedEntries": lambda t: own.TruncatedEntries(Normal(t, t.exp()), 1.0, 2.0),
    "Weibull": lambda t: own.Weibull(t, t.exp()),
    "ZeroInflatedEntries": lambda t: own.ZeroInflatedEntries(own.Gamma(t.exp(), t.exp()), t),
    "ZeroInflatedNegativeBinomial": lambda t: own.ZeroInflatedNegativeBinomial(
        t.exp(), logits=t, gate_logits=t
    ),
}
VECTORS = {  # of a vector of three
    "CategoricalCode": lambda t: own.CategoricalCode(logits=t),
    "CodeGrid": lambda t: own.CodeGrid(
        torch.distributions.Categorical(logits=t), t.new_ones(3, 2).cumsum(0)
    ),
    "Columns": lambda t: own.Columns([Normal(t, t.exp())], [torch.arange(3)]),
    "JointlyEnumerated": lambda t: own.JointlyEnumerated(
        torch.distributions.Bernoulli(logits=t), 1
    ),
    "LogisticNormal": lambda t: own.LogisticNormal(t, t.exp()),
    "Mixture": lambda t: own.Mixture(torch.distributions.Categorical(logits=t), Normal(t, t.exp())),
    "MixtureOfNormals": lambda t: own.MixtureOfNormals(t, t[:, None], t[:, None].exp()),
    "MultinomialGivenTotal": lambda t: own.MultinomialGivenTotal(7, t),
    "OrderedCategory": lambda t: own.OrderedCategory(t[0], t[1], t.exp()),
    "Reshaped": lambda t: own.Reshaped(Independent(Normal(t, t.exp()), 1), (1, 3)),
    "SphericalUniform": own.SphericalUniform,
    "VonMisesFisher": lambda t: own.VonMisesFisher(
        torch.nn.functional.normalize(t, dim=-1), t[0].exp()
    ),
}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    """Each dtype, where the other one is the default."""
    before = torch.get_default_dtype()
    others = {torch.float32: torch.float64, torch.float64: torch.float32}
    torch.set_default_dtype(others[request.param])
    yield request.param
    torch.set_default_dtype(before)


def check(p, dtype):
    drawn = [p.sample(), p.sample((4,))]
    if p.has_rsample:
        drawn += [p.rsample(), p.rsample((4,))]
    shown = [representative_of(p)]
    if p.has_enumerate_support:
        shown.append(p.enumerate_support())
    for value in drawn:
        assert value.dtype == dtype
        assert p.log_prob(value).dtype == dtype
    assert all(value.dtype == dtype for value in shown)
    assert p.expand((2, *p.batch_shape)).sample().dtype == dtype


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
@pytest.mark.parametrize("name", SINGLE)
def test_of_a_number(name, shape, dtype):
    check(SINGLE[name](torch.full(shape, 0.3, dtype=dtype)), dtype)


@pytest.mark.parametrize("name", VECTORS)
def test_of_a_vector(name, dtype):
    check(VECTORS[name](torch.tensor([0.3, -0.2, 0.5], dtype=dtype)), dtype)
