"""States of a discrete latent that the guide hardly draws count in log p(x), and in its error."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.evaluation.importance import evaluate, importance_weights
from pyro_vae.evaluation.proposals import Refitted, Widened

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate"),
]

SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
NUM = 300
GROUPS = 200


class Pair(nn.Module):
    """y in four states, x = mean of y plus noise, q(y | x) too sure of itself by a power."""

    def __init__(self, power=3.0):
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def log_posterior(self, x):
        return SHARES.log() + dist.Normal(MEANS, 1.0).log_prob(x[:, None])

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(SHARES))
            pyro.sample("x", dist.Normal((y * MEANS).sum(-1), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.OneHotCategorical(logits=self.power * self.log_posterior(x)))

    def exact(self, x):
        return self.log_posterior(x).logsumexp(-1)


class WithOther(Pair):
    """The same with a normal z, which adds to x."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(SHARES), infer={"enumerate": "sequential"})
            z = pyro.sample("z", dist.Normal(0.0, 0.5))
            pyro.sample("x", dist.Normal(MEANS[y.long()] + z, math.sqrt(0.75)), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=self.power * self.log_posterior(x)))
            pyro.sample("z", dist.Normal(0.2 * (x - MEANS[y.long()]), 0.5))


class Bits(nn.Module):
    """Three bits in one site: eight states."""

    def __init__(self, num=3):
        super().__init__()
        self.num, self.power = num, nn.Parameter(torch.tensor(3.0))

    def model(self, x):
        with pyro.plate("data", len(x)):
            half = torch.full((self.num,), 0.5)
            y = pyro.sample("y", dist.Bernoulli(half).to_event(1))
            pyro.sample("x", dist.Normal(y, 0.7).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            logits = self.power * (2 * x - 1) / (2 * 0.49)
            pyro.sample("y", dist.Bernoulli(logits=logits).to_event(1))

    def exact(self, x):
        both = [dist.Normal(bit, 0.7).log_prob(x) + math.log(0.5) for bit in (0.0, 1.0)]
        return torch.logaddexp(*both).sum(-1)


def case(name):
    if name == "bits":
        pair = Bits()
        x = (torch.rand(NUM, 3) < 0.5).double() + 0.7 * torch.randn(NUM, 3)
    else:
        pair = {"one site": Pair, "with another latent": WithOther}[name]()
        x = MEANS[torch.multinomial(SHARES, NUM, True)] + torch.randn(NUM)
    return pv.Program(pair.model, pair.guide, pair), pair.exact(x).detach(), x


@pytest.mark.parametrize("num_samples", [100, 1000])
@pytest.mark.parametrize("name", ["one site", "with another latent", "bits"])
def test_intervals_cover(name, num_samples):
    program, exact, x = case(name)
    covered, weights = [], []
    for seed in range(3):
        score = pv.log_likelihood(program, x, num_samples, seed=seed)
        assert score.is_bound.double().mean() < 0.25
        inside = (exact - score.values).abs() <= 1.96 * score.mc_se + 1e-9
        covered.append(inside[~score.is_bound].double().mean())
        weights.append((score.values - exact).exp())
    assert 0.92 < torch.stack(covered).mean() <= 1.0
    ratio = torch.cat(weights)  # of an unbiased estimate to p(x)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.parametrize(
    "proposal",
    [Widened(1.2), Refitted(steps=3), Widened(1.2, of=Refitted(steps=3))],
    ids=["widened", "refitted", "both"],
)
def test_intervals_of_what_is_made_of_the_guide_cover(proposal):
    program, exact, x = case("with another latent")
    score = pv.log_likelihood(program, x, 1000, proposal=proposal)
    assert score.is_bound.double().mean() < 0.25
    inside = (exact - score.values).abs() <= 1.96 * score.mc_se + 1e-9
    assert 0.92 < inside[~score.is_bound].double().mean() <= 1.0


class WithGlobal(Pair):
    """The same pair, whose four means lie about a global mean of the datum's group."""

    def model(self, x, group):
        shifts = pyro.sample("shifts", dist.Normal(0.0, 0.1).expand([GROUPS]).to_event(1))
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(SHARES))
            pyro.sample("x", dist.Normal((y * MEANS).sum(-1) + shifts[group], 1.0), obs=x)

    def guide(self, x, group):
        pyro.sample("shifts", dist.Normal(0.02, 0.1).expand([GROUPS]).to_event(1))
        super().guide(x)

    def exact(self, x):
        scale = math.sqrt(1 + 0.1**2)
        at_each = dist.Normal(MEANS + 0.02, scale).log_prob(x[:, None])
        return (SHARES.log() + at_each).logsumexp(-1)


@pytest.mark.parametrize("num_samples", [500, 1000])
def test_intervals_beside_global_latents_cover(num_samples):
    """Each group has draws of its own that its data share, so that one call is many trials."""
    group = torch.arange(GROUPS).repeat_interleave(4)
    x = MEANS[torch.multinomial(SHARES, len(group), True)] + torch.randn(len(group))
    pair = WithGlobal()
    program = pv.Program(pair.model, pair.guide, pair)
    score = pv.log_likelihood(program, (x, group), num_samples)
    assert score.is_bound.double().mean() < 0.25
    covered = (pair.exact(x) - score.values).abs() <= 1.96 * score.mc_se
    assert 0.9 < covered.double().mean() <= 1.0


def test_states_that_are_all_rare_are_summed_exactly():
    program, exact, x = case("bits")
    pair = program.modules_used[0]
    with torch.no_grad():
        pair.power.fill_(1e-3)  # all eight states alike
    score = pv.log_likelihood(program, x, 100)
    torch.testing.assert_close(score.values, exact)
    assert (score.mc_se < 1e-9).all()


def test_the_bound_is_of_the_draws_alone():
    program, _, x = case("one site")
    pair = program.modules_used[0]
    scores = evaluate(program, x, 500)
    log_q = (pair.power * pair.log_posterior(x)).log_softmax(-1)
    elbo = (log_q.exp() * (pair.log_posterior(x) - log_q)).sum(-1).detach()
    off = (scores["elbo"].values - elbo).abs()
    # Of states that are hardly ever drawn a spread of draws says nothing.
    assert (off < 5 * scores["elbo"].mc_se + 0.05).all()
    torch.testing.assert_close(importance_weights(program, x, 500).mean(0), scores["elbo"].values)


def test_equal_weights_of_too_many_states_are_a_bound():
    pair = Bits(14)
    x = (torch.rand(20, 14) < 0.5).double() + 0.01 * torch.randn(20, 14)
    with torch.no_grad():
        pair.power.fill_(30.0)
    score = pv.log_likelihood(pv.Program(pair.model, pair.guide, pair), x, 200)
    assert score.is_bound.all()
    assert (score.values < pair.exact(x)).all()


@pytest.mark.parametrize("num_samples", [1, 3, 8, 20])
def test_few_draws_are_taken_as_they_are(num_samples):
    program, _, x = case("bits")
    score = pv.log_likelihood(program, x, num_samples)
    assert score.values.isfinite().all()
    pv.fit(program, x, validation=x, epochs=1, progress=False)
