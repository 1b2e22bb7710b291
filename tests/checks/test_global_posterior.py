"""q of global latents is held against their posterior given the data that it was fitted to."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from global_programs import Conjugate
from scipy import stats
from test_checks import EXACT, normal, verdict

import pyro_vae as pv
from pyro_vae.checks.questions import global_posterior

pytestmark = pytest.mark.usefixtures("float64")

NAME = "q of the global latents"


def regression(size=1, num=40, **changes):
    """A conjugate regression, whose q of the weights is exact but for changes; with its data."""
    torch.manual_seed(0)
    c = torch.randn(num, size)
    x = c.sum(-1, keepdim=True) + 0.86 * torch.randn(num, 1)
    return Conjugate(c, x, **changes), (x, c)


def looked(program, data, **options):
    return verdict(NAME, program, data, train=data, **options)


def shifted(program, by):
    """The same program, its q moved by so many posterior standard deviations."""
    with torch.no_grad():
        program.loc += by * program.posterior.stddev
    return program


def test_the_exact_posterior_passes():
    found = looked(*regression(size=3))
    assert found.passed, found.means
    assert found.numbers["its standard deviation over the posterior's"] == pytest.approx(1, abs=0.1)
    assert abs(found.numbers["its shift in posterior standard deviations"]) < 0.15
    found.figure()


@pytest.fixture
def small(monkeypatch):
    """Fewer draws: each test has its second."""
    monkeypatch.setattr(global_posterior, "DRAWS", 300)
    monkeypatch.setattr(global_posterior, "EACH", 100)


@pytest.mark.parametrize(
    ("widen", "shift", "fault"),
    [(1, 3, "is shifted"), (0.1, 0, "is too narrow"), (5, 0, "is too wide")],
)
def test_a_wrong_q_is_named_and_measured(small, widen, shift, fault):
    """All of these passed: each check of q took one draw of the global latents."""
    program, data = regression(widen=widen)
    found = looked(shifted(program, shift), data)
    assert found.faults == (f"q of the global latents {fault}",)
    numbers = found.numbers
    assert numbers["its standard deviation over the posterior's"] == pytest.approx(widen, rel=0.15)
    assert numbers["its shift in posterior standard deviations"] == pytest.approx(
        shift, abs=0.2 * max(1, widen)
    )
    law = stats.norm
    for level in (0.5, 0.9):
        reach = law.ppf((1 + level) / 2) * widen
        held = law.cdf(shift + reach) - law.cdf(shift - reach)
        assert numbers[f"covered by its interval of {level:.0%}"] == pytest.approx(held, abs=0.08)


def test_a_q_that_is_very_far_fails_though_few_draws_count(small):
    program, data = regression()
    found = looked(shifted(program, 60), data)
    assert found.faults == ("q of the global latents is far from their posterior",)
    assert "nats below a point" in found.means


def test_a_mean_field_q_of_correlated_latents_is_too_narrow(small):
    program, (x, c) = regression(size=2)
    c = torch.stack([c[:, 0], 0.95 * c[:, 0] + 0.3 * c[:, 1]], 1)
    program = Conjugate(c, x)
    precision = program.posterior.precision_matrix.diagonal()
    with torch.no_grad():
        program.tril.copy_(torch.diag(precision**-0.5))  # the best mean-field normal
    found = looked(program, (x, c))
    assert found.faults == ("q of the global latents is too narrow",)
    expected = precision**-0.5 / program.posterior.stddev
    ratio = found.numbers["its standard deviation over the posterior's"]
    assert min(abs(expected - ratio)) < 0.1


def positive(scale, widen=1.0):
    """x ~ N(0, 1 / t), t ~ Gamma(2, 2), without local latents: q in the real numbers is known."""
    torch.manual_seed(0)
    x = scale * torch.randn(60, 1)
    shape, rate = 2 + 30.0, 2 + 0.5 * x.square().sum()

    def model(x):
        t = pyro.sample("t", dist.Gamma(x.new_tensor(2.0), 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, t**-0.5).expand([1]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("t", dist.Gamma(x.new_tensor(shape) / widen**2, rate / widen**2))

    return pv.Program(model, guide, event_shape=1), x


def test_a_positive_latent_without_local_ones(small):
    program, x = positive(1.4)
    found = looked(program, x)
    assert found.passed is not False
    assert found.numbers["its standard deviation over the posterior's"] == pytest.approx(1, abs=0.2)
    assert found.numbers["nats that local draws add"] == pytest.approx(0, abs=1e-9)
    wide = looked(*positive(1.4, widen=2.0))
    assert wide.faults == ("q of the global latents is too wide",)


def test_what_cannot_be_told_is_said(small, monkeypatch):
    program, data = regression()
    assert verdict(NAME, program, data).word == "could not tell"  # of which posterior is not known
    monkeypatch.setattr(global_posterior, "DATA", 30)
    assert "40 training data takes too long" in looked(program, data).means
    assert verdict(NAME, EXACT.program(), normal(5)).word == "does not apply"
    monkeypatch.undo()
    many, data = regression(size=21)
    assert "21 dimensions" in looked(many, data).means


def test_a_q_that_is_a_point_has_no_spread():
    def model(x):
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0).expand([1]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("m", dist.Delta(x.new_tensor(0.3)))

    found = looked(pv.Program(model, guide, event_shape=1), torch.randn(20, 1))
    assert found.word == "does not apply" and "latent m at a point" in found.means


def test_noise_of_local_draws_is_no_fault_of_q(small):
    """A local guide that is far too narrow leaves the evidence of a datum unknown."""

    def model(x):
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("m", dist.Normal(x.new_zeros(()), 0.3))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, 0], 0.1))

    torch.manual_seed(0)
    found = looked(pv.Program(model, guide, event_shape=1), 1.4 * torch.randn(40, 1))
    assert found.word == "could not tell" and "local weights have too heavy a tail" in found.means
