"""Parts of a bound, and decoding, where a model sums over a state that prior and x share."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

SHARES, MEANS = [0.2, 0.3, 0.5], [-1.0, 0.5, 2.0]
X = torch.linspace(-2.0, 2.0, 5, dtype=torch.float64)


def model(x):
    means = torch.tensor(MEANS)
    with pyro.plate("data", len(x)):
        state = pyro.sample(
            "state", dist.Categorical(torch.tensor(SHARES)), infer={"enumerate": "parallel"}
        )
        z = pyro.sample("z", dist.Normal(means[state], 0.5))
        pyro.sample("w", dist.Normal(0.3 * z + 0.2 * means[state], 0.8))
        pyro.sample("x", dist.Normal(means[state] + z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.3 * x, 0.6))
        pyro.sample("w", dist.Normal(0.1 * z, 0.7))


def expectations():
    """E_q of log p(z), log p(w | z) and log p(x | z, w), by Gauss-Hermite quadrature in z and w."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite.hermgauss(60))
    weights = weights / math.sqrt(math.pi)
    z = 0.3 * X[:, None, None, None] + 0.6 * math.sqrt(2) * nodes[:, None, None]
    w = 0.1 * z + 0.7 * math.sqrt(2) * nodes[:, None]
    means, shares = torch.tensor(MEANS), torch.tensor(SHARES).log()
    to_z = shares + dist.Normal(means, 0.5).log_prob(z)
    to_w = to_z + dist.Normal(0.3 * z + 0.2 * means, 0.8).log_prob(w)
    to_x = to_w + dist.Normal(means + z, 1.0).log_prob(X[:, None, None, None])
    sums = [each.logsumexp(-1).expand(5, 60, 60) for each in (to_z, to_w, to_x)]
    z_, w_, x_ = (torch.einsum("nij,i,j->n", each, weights, weights) for each in sums)
    return z_, w_ - z_, x_ - w_


def test_each_part_is_its_integral():
    program = pv.Program(model, guide)
    parts = pv.evaluation.decompose(program, X, 4000)
    p_z, p_w, p_x = expectations()
    entropies = [0.5 + math.log(scale * math.sqrt(2 * math.pi)) for scale in (0.6, 0.7)]
    truth = {
        "reconstruction": p_x,
        "kl/z": -entropies[0] - p_z,
        "kl/w": -entropies[1] - p_w,
        "elbo": p_x + p_z + p_w + sum(entropies),
    }
    assert parts.keys() == truth.keys() | {"kl"}
    for name, values in truth.items():
        errors = (parts[name].values - values).abs()
        assert (errors < 4 * parts[name].mc_se).all(), name
        assert (parts[name].mc_se < 0.05).all(), name
    torch.testing.assert_close(
        parts["elbo"].values, parts["reconstruction"].values - parts["kl"].values
    )


class Sharp(torch.nn.Module):
    """x tells the state: x = z + 3 * state, nearly without noise."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1e-3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            shares = torch.tensor(SHARES)
            state = pyro.sample("state", dist.Categorical(shares), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(0.5 * state, 0.5))
            pyro.sample("x", dist.Normal(3.0 * state + z, self.scale), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.1 * x, 0.6))


def test_latents_without_the_summed_ones_are_decoded_at_draws_of_these():
    pair = Sharp()
    program = pv.Program(pair.model, pair.guide, pair)
    encoded = pv.encode(program, X)
    assert encoded.keys() == {"z"}
    assert pv.decode(program, encoded).shape == X.shape

    num, z = 20_000, torch.tensor(0.4)
    states = ((pv.decode(program, z.expand(num)) - z) / 3).round()
    posterior = torch.tensor(SHARES).log() + dist.Normal(0.5 * torch.arange(3), 0.5).log_prob(z)
    for state, share in enumerate(posterior.softmax(0)):
        error = (share * (1 - share) / num).sqrt()
        assert abs((states == state).double().mean() - share) < 4 * error

    few, given = torch.zeros(3), torch.arange(3)
    decoded = pv.decode(program, {"z": few, "state": given})
    torch.testing.assert_close(decoded, 3.0 * given)
    assert pv.decode(program, {"z": few.expand(2, 3)}).shape == (2, 3)
    with pytest.raises(InvalidInput, match="z: got latents of state, expected a dictionary of z;"):
        pv.decode(program, {"state": given})


def test_the_aggregate_posterior_sums_too():
    pair = Sharp()
    parts = pv.evaluation.aggregate_posterior(pv.Program(pair.model, pair.guide, pair), X, 4000)
    assert parts.dimension_kl is None  # p(z) has a density for each state
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite.hermgauss(100))
    z = 0.1 * X[:, None] + 0.6 * math.sqrt(2) * nodes
    weights = weights / math.sqrt(math.pi) / len(X)
    own = dist.Normal(0.1 * X[:, None], 0.6).log_prob(z)
    mixture = dist.Normal(0.1 * X, 0.6).log_prob(z[..., None]).logsumexp(-1) - math.log(len(X))
    prior = dist.Normal(0.5 * torch.arange(3), 0.5).log_prob(z[..., None])
    prior = (prior + torch.tensor(SHARES).log()).logsumexp(-1)
    truth = {
        "kl": own - prior,
        "mutual_information": own - mixture,
        "marginal_kl": mixture - prior,
        "total_correlation": torch.zeros_like(own),
    }
    for name, integrand in truth.items():
        error = abs(getattr(parts, name) - float((weights * integrand).sum()))
        assert error <= 4 * parts.errors[name] + 1e-9, name
