"""The checks that run a program more often: a right value each, and a planted fault."""

import math

import pytest
import torch
from closed_forms import two_modes
from global_programs import conjugate
from test_checks import EXACT, named, normal, verdict
from torch import nn

import pyro_vae as pv
from pyro_vae.checks import Subject
from pyro_vae.checks.questions import bracket, gap, reference
from pyro_vae.datasets import Dataset

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer data and steps: each test has its second."""
    for module, sizes in (
        (bracket, {"DATA": 16, "CHAINS": 4, "TEMPERATURES": 30}),
        (gap, {"DATA": 10, "DRAWS": 100, "STEPS": 60}),
        (reference, {"DATA": 1, "DRAWS": 240, "WARMUP": 60}),
    ):
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


def test_importance_sampling_lies_between_the_bounds_of_annealing():
    found = verdict("importance sampling within bounds", EXACT.program(), normal(40))
    assert found.passed
    numbers = found.numbers
    assert numbers["lower bound"] - 0.1 < numbers["importance sampling"]
    assert numbers["importance sampling"] < numbers["upper bound"] + 0.1


class Wrong(nn.Module):
    """A posterior whose log-density is one nat too low."""

    def __init__(self, exact):
        super().__init__()
        self.exact, self.latent = exact, 2

    def forward(self, x, *, context=None):
        return Quiet(self.exact(x, context=context))


class Quiet(torch.distributions.Distribution):
    """Draws of a distribution, with a log-density that is one nat too low."""

    has_rsample, arg_constraints, support = True, {}, torch.distributions.constraints.real_vector

    def __init__(self, base):
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def rsample(self, sample_shape=()):
        return self.base.rsample(sample_shape)

    def log_prob(self, value):
        return self.base.log_prob(value) - 1

    def expand(self, batch_shape, _instance=None):
        return Quiet(self.base.expand(batch_shape))


def test_a_density_that_does_not_integrate_to_one_breaks_the_bound():
    program = EXACT.program()
    program.posterior = Wrong(program.posterior)
    found = verdict("importance sampling within bounds", program, normal(40))
    assert found.faults == ("the bound does not hold",)
    assert 0.5 < found.numbers["above the upper bound by"] < 1.1


def test_the_inference_gap_is_that_of_the_normal():
    name = "inference gap"
    assert verdict(name, EXACT.program(), normal(40)).passed
    found = verdict(name, EXACT.program(widen=2.5), normal(40))
    assert "the encoder is off" in found.faults
    expected = (EXACT.marginal.log_prob(normal(1)) - EXACT.elbo(normal(1), 2.5)).item()
    assert abs(found.numbers["inference gap"] - expected) < 0.5


@pytest.mark.filterwarnings("ignore:Pareto k")
def test_the_inference_gap_in_fewer_steps_blames_no_part_for_the_other(monkeypatch):
    def with_steps(program, size):
        one = named("inference gap")
        one.size = size
        return one.look(Subject(program, Dataset(normal(40))))

    assert with_steps(EXACT.program(), 0.2).passed
    monkeypatch.setattr(gap, "TOLERATED", 0.05)
    off = with_steps(EXACT.program(widen=1.4), 0.02)  # few steps: what the encoder loses, they hide
    assert off.passed is None and off.numbers["inference gap"] > off.numbers["tolerated"]
    either = with_steps(EXACT.program(widen=1.6), 0.02)
    assert either.faults == ["the family of q is too small, or its encoder is off"]
    assert with_steps(EXACT.program(widen=1.6), 0.2).faults == ["the encoder is off"]


def test_nuts_is_told_from_a_narrow_guide_and_not_from_the_posterior():
    assert verdict("q against NUTS", EXACT.program(), normal(1)).passed
    assert verdict("q against NUTS", EXACT.program(widen=0.3), normal(1)).passed is False


def test_intervals_of_entries_given_the_others():
    name = "intervals of entries given the others"
    found = verdict(name, EXACT.program(), normal(300))
    assert found.passed and abs(found.numbers["covered by 90% intervals"] - 0.9) < 0.03
    quiet = EXACT.mean + (normal(300) - EXACT.mean) * 0.6
    assert verdict(name, EXACT.program(), quiet).faults == ("likelihood too wide",)
    loud = normal(300) + 0.9 * torch.randn(300, 4)
    assert verdict(name, EXACT.program(), loud).faults == ("likelihood too narrow",)


def test_missing_entries_are_left_out():
    x = normal(300)
    x[torch.rand(x.shape) < 0.2] = torch.nan
    model = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Missing(pv.likelihoods.Normal(4, pv.networks.MLP(2, []), scale=3.0)),
        pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(4, pv.networks.MLP(8, []))),
    )
    data = Dataset(x, missing=True)
    found = verdict("statistics of the data", model, data)
    assert found.passed is False and "comparisons" in found.numbers


class Constant(nn.Module):
    """The same probabilities for every z."""

    def __init__(self, probability):
        super().__init__()
        self.event_shape = (4,)
        self.probability = nn.Parameter(torch.full((4,), probability))

    def forward(self, z, *, context=None):
        p = self.probability.expand(*z.shape[:-1], 4)
        return torch.distributions.Independent(torch.distributions.Bernoulli(p), 1)


def test_probabilities_are_those_of_the_data():
    name, data = "calibration of probabilities", (torch.rand(300, 4) < 0.3).double()

    def program(probability):
        return pv.VAE(
            pv.priors.StandardNormal(1),
            Constant(probability),
            pv.posteriors.DiagonalNormal(1, pv.networks.MLP(4, [])),
        )

    assert verdict(name, program(0.3), data).passed
    found = verdict(name, program(0.5), data)
    assert found.faults == ("probabilities are not calibrated",)
    assert abs(found.numbers["said"] - 0.5) < 1e-6 and abs(found.numbers["seen"] - 0.3) < 0.05
    assert verdict(name, EXACT.program(), normal(50)).passed is None


def test_generated_data():
    name = "data against generated data"
    assert verdict(name, EXACT.program(), normal(400)).passed
    apart = normal(400)[:, torch.tensor([1, 0, 2, 3])] - EXACT.mean[[1, 0, 2, 3]] + EXACT.mean
    assert verdict(name, EXACT.program(), apart).passed is False


def test_shift():
    name = "test data like the training data"
    assert verdict(name, EXACT.program(), normal(200), train=normal(200, 1)).passed
    assert not verdict(name, EXACT.program(), normal(200) + 0.8, train=normal(200, 1)).passed


class Labelled(nn.Module):
    """A mean of its own for each label, or one for all."""

    def __init__(self, step):
        super().__init__()
        self.event_shape, self.step = (2,), nn.Parameter(torch.tensor(step))

    def forward(self, z, *, context=None):
        mean = self.step * context.argmax(-1, keepdim=True) + z.expand(*z.shape[:-1], 2)
        return torch.distributions.Independent(torch.distributions.Normal(mean, 0.5), 1)


def test_the_context():
    name, labels = "data given the context", torch.arange(200) % 2
    x = torch.randn(200, 1) + 2.0 * labels[:, None] + 0.5 * torch.randn(200, 2)

    def program(step):
        return pv.VAE(
            pv.priors.StandardNormal(1),
            Labelled(step),
            pv.posteriors.DiagonalNormal(1, pv.networks.MLP(2, [], context=2)),
            context=pv.networks.OneHot(2),
        )

    assert verdict(name, program(2.0), Dataset(x, labels)).passed
    ignoring = verdict(name, program(0.0), Dataset(x, labels))
    assert ignoring.faults == ("the decoder ignores the context",)
    switched = verdict(name, program(2.0), Dataset(x, 1 - labels))
    assert switched.faults == ("data do not go with their context",)
    assert verdict(name, EXACT.program(), normal(50)).passed is None


def test_a_mode_that_q_misses_is_named():
    exact = two_modes()
    x = exact.observed(2 * torch.randn(60)).sample().abs() + 0.5
    found = verdict("importance sampling within bounds", exact.program(), x)
    assert found.passed is not True


def test_globals_have_leave_one_out_and_others_say_that_they_have_none():
    name = "leave-one-out with global latents"
    program, train, _ = conjugate(num=40)
    found = verdict(name, program, Dataset(*train))
    x, c = train
    low, high = program.local_part(c, x).sum() - 8, program.predictive(c, x).sum()
    assert found.passed and low < found.numbers["elpd_loo"] < high
    none = verdict(name, EXACT.program(), normal(20))
    assert none.passed is None and "without global latents" in none.means


def test_information_is_that_of_the_channel():
    name = "mutual information"
    found = verdict(name, EXACT.program(), normal(200))
    whole = 0.5 * (torch.logdet(EXACT.marginal.covariance_matrix) - 8 * math.log(EXACT.noise))
    assert found.passed and abs(found.numbers["mutual information"] - whole.item()) < 0.4
    blind = EXACT.program(widen=30.0)
    assert verdict(name, blind, normal(200)).faults == ("the latent carries no information",)
