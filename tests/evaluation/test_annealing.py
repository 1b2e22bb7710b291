import math

import pyro
import pytest
import torch
from closed_forms import Hierarchy, LinearGaussian, positive, two_modes
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import annealed_densities
from pyro_vae.evaluation.annealing import Geometric, Linear, Sigmoid, ais, bdmc, rate_distortion
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.runtime.memory import Cost
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


def error_of_mean(d):
    return d.std().item() / math.sqrt(len(d))


def assert_sandwich(bounds, truth, gap):
    """Assert that the mean bounds enclose the exact value up to 2 errors; return the gap."""
    below, above = bounds.lower.values - truth, bounds.upper.values - truth
    assert below.mean() <= 2 * error_of_mean(below)
    assert above.mean() >= -2 * error_of_mean(above)
    assert abs(bounds.gap) < gap and bounds.gap_se < gap
    assert bounds.gap == pytest.approx((above - below).mean().item())


def test_bounds_hold_and_meet_on_probabilistic_pca_from_the_prior():
    exact = LinearGaussian(5, features=8)
    bounds = bdmc(exact.program(widen=1.3), 60, num_chains=32, num_temperatures=300, num_leapfrog=3)
    assert_sandwich(bounds, exact.marginal.log_prob(bounds.x), gap=0.05)
    assert bounds.lower.acceptance.min() > 0.4 and bounds.upper.acceptance.max() < 0.95
    x = exact.data(30)
    score = ais(exact.program(), x, num_chains=32, num_temperatures=200, num_leapfrog=3)
    d = score.values - exact.marginal.log_prob(x)
    assert d.mean() <= 2 * error_of_mean(d)
    assert d.abs().mean() < 0.2 and (d.abs() < 5 * score.mc_se).all()


def test_a_short_schedule_leaves_the_bounds_apart_on_their_own_sides():
    """With few temperatures the gap is wide: a swapped sign would fail by several nats."""
    exact = LinearGaussian(5, features=8)
    bounds = bdmc(exact.program(), 100, num_chains=2, num_temperatures=5, num_leapfrog=2)
    truth = exact.marginal.log_prob(bounds.x)
    assert (bounds.lower.values - truth).mean() < -1 and (bounds.upper.values - truth).mean() > 1


def test_twenty_dimensions_with_the_best_mean_field_guide():
    """What k says of it, and what annealing from it repairs."""
    exact = LinearGaussian(20, features=30)
    program = exact.program(mean_field=True)
    x = exact.data(20)
    truth = exact.marginal.log_prob(x)
    with pytest.warns(pv.evaluation.UnreliableEstimate, match="of 20 data"):
        poor = pv.log_likelihood(program, x, 1000, seed=1)
    assert poor.above_threshold >= 18 and poor.mean < truth.mean() - 1
    score = ais(program, x, num_chains=16, num_temperatures=100, num_leapfrog=5, start="guide")
    d = score.values - truth
    assert abs(d.mean()) < 0.2 and d.mean() <= 2 * error_of_mean(d)
    bounds = bdmc(program, 20, num_chains=16, num_temperatures=100, num_leapfrog=5, start="guide")
    assert_sandwich(bounds, exact.marginal.log_prob(bounds.x), gap=0.25)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_a_hierarchy_with_labels(start):
    exact = Hierarchy(widen=1.2, labels=3)
    y = torch.arange(600) % 3
    bounds = bdmc(
        exact.program(),
        context=y,
        num_chains=16,
        num_temperatures=50,
        num_leapfrog=3,
        start=start,
        seed=1,
    )
    assert bounds.context.tolist() == y.tolist()
    truth = exact.log_p(bounds.x, y)
    assert_sandwich(bounds, truth, gap=0.25)
    # the weights themselves are unbiased, for p(x) and for its inverse
    for ratio in ((bounds.lower.values - truth).exp(), (truth - bounds.upper.values).exp()):
        assert abs(ratio.mean() - 1) < 3 * error_of_mean(ratio)


def test_a_constrained_latent_is_annealed_without_its_constraint():
    exact = positive()
    bounds = bdmc(exact.program(), 200, num_chains=16, num_temperatures=150, num_leapfrog=3)
    assert_sandwich(bounds, exact.log_p(bounds.x), gap=0.05)


def test_a_mode_that_the_guide_misses_is_invisible_to_k_and_ess_and_found_by_annealing():
    """The price of a q on one of two modes is log 2, and neither diagnostic can know."""
    exact = two_modes()
    x = torch.linspace(4.0, 9.0, 20)
    truth = exact.log_p(x)
    score = pv.log_likelihood(exact.program(), x, 2000)  # and no warning: warnings are errors here
    assert score.above_threshold == 0 and (score.ess > 0.7 * 2000).all()
    torch.testing.assert_close(score.values, truth - math.log(2), rtol=0, atol=0.05)
    assert ((score.values - truth).abs() > 10 * score.mc_se).all()
    annealed = ais(exact.program(), x, num_chains=64, num_temperatures=100, num_leapfrog=3)
    assert abs((annealed.values - truth).mean()) < 4 * annealed.mean_mc_se < 0.2


@pytest.mark.parametrize("rows", [3, 8, 10_000])
def test_blocks_of_data_and_chains_are_put_together(monkeypatch, rows):
    exact = LinearGaussian(2, features=3)
    x = exact.data(5)
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", rows)
    score = ais(exact.program(), x, 4, 15, num_leapfrog=1, start="guide")
    # the exact posterior as a start: every weight is p(x), whatever the chains do
    torch.testing.assert_close(score.values, exact.marginal.log_prob(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(score.ess, torch.full((5,), 4.0))
    assert ((score.acceptance > 0.3) & (score.acceptance <= 1)).all()
    bounds = bdmc(exact.program(), 5, 4, 15, num_leapfrog=1, start="guide")
    truth = exact.marginal.log_prob(bounds.x)
    for side in (bounds.lower, bounds.upper):
        torch.testing.assert_close(side.values, truth, rtol=0, atol=1e-9)
    curve = rate_distortion(exact.program(), x, 4, 15, points=3, num_leapfrog=1)
    assert curve.rate.shape == (3,)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_annealing_a_datum_depends_on_the_seed_and_its_place_alone(monkeypatch, start):
    """To the bit: not on how many data are annealed with it. Blocks are of three data here."""
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 6)
    program = pv.Refined(small_vae().double()) if start == "guide" else small_vae().double()
    x = torch.bernoulli(torch.rand(5, 1, 8, 8))
    whole = ais(program, x, 2, 3, num_leapfrog=1, start=start)
    for count in (1, 4):
        part = ais(program, x[:count], 2, 3, num_leapfrog=1, start=start)
        for name, number in part.per_datum.items():
            assert torch.equal(number, whole.per_datum[name][:count])


def test_the_same_seed_gives_the_same_chains_and_everything_is_left_as_it_was():
    program, x = small_vae().double().train(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    state = torch.random.get_rng_state()
    a, b, c = (ais(program, x, 2, 10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.values, b.values) and not torch.equal(a.values, c.values)
    assert torch.equal(state, torch.random.get_rng_state())
    assert program.training and all(
        p.requires_grad and p.grad is None for p in program.parameters()
    )
    assert a.seed == 1 and a.sha256 == pv.datasets.as_dataset(x).sha256 and a.num_temperatures == 10


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_one_temperature_is_importance_sampling_from_the_prior():
    program, x = small_vae().double(), torch.bernoulli(torch.rand(4, 1, 8, 8))
    score = ais(program, x, num_chains=4000, num_temperatures=1)
    wide = pv.log_likelihood(program, x, 4000)
    assert (
        (score.values - wide.values).abs() < 5 * (score.mc_se.square() + wide.mc_se.square()).sqrt()
    ).all()


@pytest.mark.parametrize(
    "schedule", [Linear(), Sigmoid(), Sigmoid(8.0), Geometric(), Geometric(10.0)]
)
def test_schedules_rise_from_zero_to_one(schedule):
    betas = schedule(torch.linspace(0, 1, 101))
    assert (betas.diff() > 0).all() and betas[0].abs() < 1e-12 and (betas[-1] - 1).abs() < 1e-12


def test_the_rate_distortion_curve_of_probabilistic_pca():
    exact = LinearGaussian(3, features=5)
    x = exact.data(40)
    curve = rate_distortion(
        exact.program(), x, num_chains=128, num_temperatures=100, points=6, num_leapfrog=3
    )
    for i, beta in enumerate(curve.temperatures.tolist()):
        precision = torch.eye(3) + beta / exact.noise**2 * exact.weight.T @ exact.weight
        covariance = torch.linalg.inv(precision)
        mean = beta / exact.noise**2 * (x - exact.mean) @ exact.weight @ covariance
        rate = 0.5 * (covariance.trace() + mean.square().sum(1) - 3 + torch.logdet(precision))
        residual = (x - exact.mean - mean @ exact.weight.T).square().sum(1) + (
            exact.weight @ covariance @ exact.weight.T
        ).trace()
        distortion = 0.5 * residual / exact.noise**2 + 5 * math.log(
            exact.noise * math.sqrt(2 * math.pi)
        )
        assert curve.rate[i] == pytest.approx(rate.mean().item(), abs=0.15, rel=0.03)
        assert curve.distortion[i] == pytest.approx(distortion.mean().item(), abs=0.15, rel=0.03)
    assert (curve.rate.diff() > 0).all() and (curve.distortion.diff() < 0).all()


def test_the_error_over_one_datum_is_unknown():
    exact = LinearGaussian(2, features=3)
    curve = rate_distortion(exact.program(), exact.data(1), 4, 10, points=3, num_leapfrog=2)
    assert curve.rate_se.isnan().all() and curve.distortion_se.isnan().all()
    assert curve.rate.isfinite().all()


def test_what_cannot_be_annealed_is_refused():
    import pyro
    import pyro.distributions as dist

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(z.double(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.ones(len(x), 3)))

    with pytest.raises(InvalidInput, match="z: got a latent whose support is"):
        ais(pv.Program(model, guide, event_shape=()), torch.zeros(3))
    program, x = small_vae().double(), torch.zeros(2, 1, 8, 8)
    for options, message in (
        ({"num_chains": 0}, "num_chains"),
        ({"num_temperatures": 0}, "num_temperatures"),
        ({"num_leapfrog": 0}, "num_leapfrog"),
        ({"start": "nowhere"}, "start"),
        ({"schedule": lambda t: 1 - t}, "schedule"),
        ({"schedule": lambda t: t / 2}, "schedule"),
    ):
        with pytest.raises(InvalidInput, match=message):
            ais(program, x, **options)
        if "num_chains" not in options:
            with pytest.raises(InvalidInput, match=message):
                bdmc(program, 2, **options)
    with pytest.raises(InvalidInput, match="num_data"):
        bdmc(program, 0)


def annealed(vae, x, compile, num_temperatures=25):
    return ais(vae, x, num_chains=6, num_temperatures=num_temperatures, compile=compile)


def test_captured_densities_give_the_bits_of_the_program_itself():
    """A hundred captured steps of every chain, of the pilots too."""
    vae = small_vae()
    x = (torch.rand(3, *vae.event_shape) < 0.5).double()
    captured, eager = (annealed(vae, x, compile) for compile in ("auto", "off"))
    assert torch.equal(captured.values, eager.values)
    assert torch.equal(captured.acceptance, eager.acceptance)


def test_compiled_densities_are_equal_within_rounding():
    vae = small_vae()
    x = (torch.rand(3, *vae.event_shape) < 0.5).double()
    compiled, eager = (annealed(vae, x, compile, 4) for compile in ("on", "off"))
    torch.testing.assert_close(compiled.values, eager.values, rtol=1e-9, atol=0)


def test_whether_to_compile_follows_from_program_and_chains_alone(monkeypatch):
    """Compiled numbers differ by rounding: a score would follow from how many others there are."""
    runs = []
    monkeypatch.setattr(
        annealed_densities, "is_worth_compiling", lambda *found: runs.append(found) or False
    )
    vae = small_vae()
    for num_data in (1, 40):
        annealed(vae, torch.zeros(num_data, *vae.event_shape, dtype=torch.float64), "auto")
    assert len(runs) == 4 and runs[:2] == runs[2:]


class Words:
    """z ~ N(0, 1), three words given z, without a parameter: simulated words are integers."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(()), 1.0))
            logits = torch.stack([z, -z, 0 * z], -1).unsqueeze(-2).expand(*z.shape, 3, 3)
            pyro.sample("x", pyro.distributions.Categorical(logits=logits).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(x)), 1.0))


def test_simulated_integers_are_annealed_too():
    words = Words()
    program = pv.Program(words.model, words.guide, event_shape=3)
    bounds = bdmc(program, 20, num_chains=16, num_temperatures=20, num_leapfrog=2)
    z = torch.linspace(-8, 8, 2001)
    logits = torch.stack([z, -z, 0 * z], -1).log_softmax(-1)
    joint = (
        logits[:, bounds.x.long()].sum(-1) + torch.distributions.Normal(0, 1).log_prob(z)[:, None]
    )
    assert_sandwich(bounds, joint.logsumexp(0) + math.log(16 / 2000), gap=0.1)
