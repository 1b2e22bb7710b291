import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import LinearGaussian
from conftest import small_vae

import pyro_vae as pv
from pyro_vae.arviz_compat import arviz, psis_tail_shape
from pyro_vae.evaluation import UnreliableEstimate, evaluate, pareto_k, pareto_k_threshold
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


# --------------------------------------------------------------------------------------------------- closed forms

@pytest.mark.parametrize("diagonal", [True, False])
def test_the_exact_posterior_gives_the_exact_log_likelihood(diagonal):
    exact = LinearGaussian(latent=4, features=7, diagonal=diagonal)
    x = exact.data(20)
    truth = exact.marginal.log_prob(x)
    program = exact.program()
    for score in (pv.log_likelihood(program, x, 50), pv.elbo(program, x, 50)):
        torch.testing.assert_close(score.values, truth, rtol=0, atol=1e-5)
        assert score.mc_se.max() < 1e-10
    score = pv.log_likelihood(program, x, 50)
    torch.testing.assert_close(score.ess, torch.full((20,), 50.0))
    assert (score.pareto_k == -math.inf).all() and score.above_threshold == 0


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_an_over_dispersed_guide_gives_it_within_its_error(latent):
    exact = LinearGaussian(latent, features=8)
    x = exact.data(50)
    truth, program = exact.marginal.log_prob(x), exact.program(widen=1.3)
    score = pv.log_likelihood(program, x, 5000)
    assert ((score.values - truth).abs() < 4 * score.mc_se).all()
    assert abs(score.mean - truth.mean()) < 4 * score.mean_mc_se
    assert score.above_threshold == 0
    bound = pv.elbo(program, x, 5000)
    assert (bound.values < truth).all()
    assert ((bound.values - exact.elbo(x, 1.3)).abs() < 4.5 * bound.mc_se).all()
    assert abs(bound.mean - exact.elbo(x, 1.3).mean()) < 4 * bound.mean_mc_se


def test_the_error_over_data_is_the_standard_error_of_the_mean():
    exact = LinearGaussian(2, features=3)
    x = exact.data(40)
    score = pv.log_likelihood(exact.program(), x, 2)
    truth = exact.marginal.log_prob(x)
    assert score.mean == pytest.approx(truth.mean().item())
    assert score.se == pytest.approx(truth.std().item() / math.sqrt(40))


def test_a_two_dimensional_latent_agrees_with_quadrature():
    program = small_vae(latent=2).double()
    x = torch.bernoulli(torch.rand(3, 1, 8, 8))
    grid = torch.linspace(-7, 7, 301)
    z = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        prior = program.prior().log_prob(z)
        terms = torch.stack([prior + program.likelihood(z).log_prob(datum) for datum in x])
    truth = terms.logsumexp(1) + 2 * math.log(14 / 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        score = pv.log_likelihood(program, x, 50_000)
    assert ((score.values - truth).abs() < 4 * score.mc_se).all()


def test_a_conditional_program_scores_given_its_labels():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Bernoulli(4, pv.networks.MLP(1, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(1, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    x, labels = torch.bernoulli(torch.rand(3, 4)), torch.arange(3)
    z = torch.linspace(-9, 9, 4001)[:, None]
    with torch.no_grad():
        truth = torch.stack([
            torch.logsumexp(vae.prior().log_prob(z) + vae.likelihood(z, context=torch.eye(3)[y].expand(len(z), 3)).log_prob(datum), 0)
            + math.log(18 / 4000) for datum, y in zip(x, labels)])
    score = pv.log_likelihood(vae, (x, labels), 20_000)
    assert ((score.values - truth).abs() < 4 * score.mc_se).all()


# ------------------------------------------------------------------------------------------------ plain loops

@pytest.mark.parametrize("num_data, num_samples", [(1, 1), (1, 7), (5, 1), (5, 7), (5, 300)])
def test_scores_are_those_of_a_plain_loop_over_recorded_draws(num_data, num_samples):
    """The draws are recorded inside the guide; a loop over data and draws then scores them by hand."""
    program, x = small_vae().double(), torch.bernoulli(torch.rand(num_data, 1, 8, 8))
    recorded, forward = [], program.likelihood.forward

    def record(z, *, context=None):
        recorded.append(z)
        return forward(z, context=context)

    program.likelihood.forward = record
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        scores = evaluate(program, x, num_samples)
    program.likelihood.forward = forward
    z = recorded[-1]
    assert z.shape == (num_samples, num_data, 2)
    with torch.no_grad():
        weights = torch.tensor([[
            (program.prior().log_prob(z[k, n]) + program.likelihood(z[k, n]).log_prob(x[n])
             - program.posterior(x[n : n + 1]).log_prob(z[k, n]).squeeze()).item()
            for n in range(num_data)] for k in range(num_samples)])
    torch.testing.assert_close(scores["elbo"].values, weights.mean(0), rtol=0, atol=1e-6)
    by_hand = torch.tensor([math.log(sum(math.exp(w - max(column)) for w in column) / num_samples) + max(column)
                            for column in weights.T.tolist()])
    torch.testing.assert_close(scores["log_likelihood"].values, by_hand, rtol=0, atol=1e-6)
    w = (weights - weights.max(0).values).exp()
    torch.testing.assert_close(scores["log_likelihood"].ess, w.sum(0) ** 2 / (w**2).sum(0))
    if num_samples == 1:
        assert scores["elbo"].mc_se.isnan().all() and scores["log_likelihood"].pareto_k.isnan().all()
    else:
        torch.testing.assert_close(scores["log_likelihood"].mc_se, w.std(0) / w.mean(0) / math.sqrt(num_samples))


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 20, 21, 1000])
def test_chunks_change_nothing_and_nothing_is_dropped(monkeypatch, rows):
    """K = 7 in chunks of 3 and 5 data in chunks of 2: a guide that draws from a list gives every chunk its own draws."""
    exact = LinearGaussian(2, features=3)
    x = exact.data(5)
    program = exact.program()
    monkeypatch.setattr("pyro_vae.evaluation._bytes_per_draw", lambda *args: 1)
    program.posterior.encoded = 0
    score = pv.log_likelihood(program, x, 7, memory_budget=rows)
    torch.testing.assert_close(score.values, exact.marginal.log_prob(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(score.ess, torch.full((5,), 7.0))
    if rows >= 7:
        # one datum to check the data's support, two to find the program's plates, then each datum once
        assert program.posterior.encoded == 1 + 2 + 5


def test_memory_is_bounded_whatever_k(monkeypatch):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    largest, forward = [0], program.likelihood.forward

    def measure(z, *, context=None):
        largest[0] = max(largest[0], z[..., 0].numel())
        return forward(z, context=context)

    program.likelihood.forward = measure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        for num_samples in (100, 10_000):
            largest[0] = 0
            score = pv.log_likelihood(program, x, num_samples, memory_budget=2**22)
            assert score.num_samples == num_samples
            assert 50 < largest[0] * 64 * 8 * 3 < 2**22


def test_the_same_seed_gives_the_same_score_and_leaves_the_caller_alone():
    program, x = small_vae().double().train(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    state = torch.random.get_rng_state()
    a, b, c = (pv.elbo(program, x, 10, seed=seed).values for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(state, torch.random.get_rng_state())
    assert program.training and torch.is_grad_enabled()


# ---------------------------------------------------------------------------------------------------- Pareto k

@pytest.mark.parametrize("num_samples", [30, 100, 1000])
def test_pareto_k_is_arvizs_and_its_sign_is_right(num_samples):
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(3, num_samples)) * np.array([[0.3], [1.0], [3.0]])
    az = arviz()
    theirs = np.asarray(az.psislw(weights if hasattr(az, "InferenceData") else -weights)[1])
    np.testing.assert_allclose(psis_tail_shape(weights), theirs)
    shapes = pareto_k(torch.from_numpy(weights.T))
    if num_samples >= 1000:  # heavier tails have larger k, which a wrong sign would turn round
        assert shapes[0] < shapes[1] < shapes[2]


def test_pareto_k_of_a_pareto_tail():
    """Weights u^-k have a generalised Pareto tail of shape k."""
    u = torch.rand(20_000, 1)
    for k in (0.2, 0.5, 0.9):
        assert pareto_k(-k * u.log()).item() == pytest.approx(k, abs=0.15)


def test_short_and_constant_tails_are_no_warning():
    assert pareto_k(torch.randn(10, 2)).isnan().all()
    assert (pareto_k(torch.full((100, 2), -80.3)) == -math.inf).all()
    assert pareto_k(torch.randn(1, 2)).isnan().all()
    assert pareto_k_threshold(1) == -math.inf and pareto_k_threshold(10) == 0


@pytest.mark.parametrize("widen, shift", [(0.2, 0.0), (1.0, 4.0)])
def test_a_bad_guide_is_flagged_and_a_good_one_is_not(widen, shift):
    exact = LinearGaussian(5, features=8)
    x = exact.data(30)
    with pytest.warns(UnreliableEstimate, match="for 30 of 30 data"):
        pv.log_likelihood(exact.program(widen, shift), x, 5000)
    assert pv.log_likelihood(exact.program(widen=1.2), x, 5000).above_threshold == 0


# ---------------------------------------------------------------------------------------------------- bad input

def program_of(model, guide, x):
    program = pv.Program(model, guide, modules=torch.nn.Linear(1, 1), event_shape=x.shape[1:])
    return lambda: pv.log_likelihood(program, x, 10)


X = torch.zeros(4, 2)


def normal(name, n, **kw):
    return pyro.sample(name, dist.Normal(torch.zeros(n, 2), 1.0).to_event(1), **kw)


def test_programs_without_a_likelihood_are_refused_with_the_reason():
    def model(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))
            normal("x", len(x), obs=x)

    def guide(x, **kw):
        with pyro.plate("data", len(x)):
            normal("z", len(x))

    def no_plate(x):
        with pyro.plate("batch", len(x)):
            normal("z", len(x))
            normal("x", len(x), obs=x)

    def no_plate_guide(x):
        with pyro.plate("batch", len(x)):
            normal("z", len(x))

    def outside(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        model(x)

    def outside_guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        guide(x)

    def stranger(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))
            normal("u", len(x))

    def silent(x):
        with pyro.plate("data", len(x)):
            pass

    def point(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(len(x), 2)).to_event(1))

    def nan(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), (torch.arange(len(x)) - 2.0)[:, None] ** 2 / 0.0).to_event(1))

    def unnamed(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))
            normal("y", len(x), obs=x)

    for m, g, message in [
        (no_plate, no_plate_guide, "no plate named 'data'"),
        (outside, outside_guide, "w: got a site outside"),
        (model, stranger, "u: got a site of the guide"),
        (model, silent, "z: got a latent site of the model"),
        (model, point, "z: got a Delta guide on a continuous latent"),
        (unnamed, guide, "no observed site named 'x'"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            program_of(m, g, X)()
        with pytest.raises(InvalidInput, match=message):
            pv.elbo(pv.Program(m, g, modules=torch.nn.Linear(1, 1), event_shape=2), X)


def test_a_nan_weight_names_its_datum_and_site():
    class Cracked(torch.nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(()))

        def model(self, x, context=None):
            with pyro.plate("data", len(x)):
                normal("z", len(x))
                bad = torch.where(x[:, :1] > 5, torch.nan, 0.0) * self.w
                with pyro.util.ignore_jit_warnings():
                    pyro.sample("x", dist.Normal(bad.expand(len(x), 2), 1.0, validate_args=False).to_event(1), obs=x)

        def guide(self, x, context=None):
            with pyro.plate("data", len(x)):
                normal("z", len(x))

    x = torch.zeros(6, 2)
    x[4] = 9.0
    for budget in (1, 2**28):
        with pytest.raises(InvalidInput, match=r"datum 4, first at site 'x'"):
            pv.log_likelihood(Cracked(), x, 10, memory_budget=budget)


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "7"])
def test_k_must_be_a_positive_integer(bad):
    for use in (pv.elbo, pv.log_likelihood):
        with pytest.raises(InvalidInput, match="num_samples"):
            use(small_vae(), torch.zeros(1, 1, 8, 8), bad)


def test_scaled_and_masked_sites_and_auxiliary_sites():
    """Scales are training's and do not count; masks and auxiliary sites do."""
    mask = torch.tensor([True, False])

    def model(x):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=7.0):
            normal("z", len(x))
            with pyro.poutine.mask(mask=mask[0]):
                pyro.sample("x", dist.Normal(x.new_zeros(len(x), 2), 1.0).mask(mask).to_event(1), obs=x)
            pyro.factor("bonus", torch.full((len(x),), 0.25))

    def guide(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))
            pyro.factor("commitment", torch.full((len(x),), -100.0), has_rsample=False)

    x = torch.randn(4, 2)
    program = pv.Program(model, guide, modules=torch.nn.Linear(1, 1))
    expected = dist.Normal(0.0, 1.0).log_prob(x[:, 0]) + 0.25
    torch.testing.assert_close(pv.elbo(program, x, 5).values, expected)


def test_inner_plates_are_summed_for_each_datum():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("words", 3, dim=-1):
                pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0))
            pyro.sample("x", dist.Normal(torch.zeros(len(x), 1, 2), 1.0).to_event(1), obs=x[:, None])

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("words", 3, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0))

    x = torch.randn(4, 2)
    program = pv.Program(model, guide, modules=torch.nn.Linear(1, 1))
    torch.testing.assert_close(pv.elbo(program, x, 5).values, dist.Normal(0.0, 1.0).log_prob(x).sum(-1))


def test_a_data_plate_of_another_size_is_refused():
    def model(x):
        with pyro.plate("data", len(x), subsample_size=1):
            normal("z", 1)
            normal("x", 1, obs=x[:1])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=1):
            normal("z", 1)

    with pytest.raises(InvalidInput, match="data plate: got size 1 for 2 data"):
        program_of(model, guide, X)()


def test_an_auxiliary_site_counts_through_its_image_only():
    """z = exp(u): the Delta at z carries the Jacobian, so log q(z) is the log-normal's."""
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            normal("x", len(x), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u.sum(-1), event_dim=1))

    score = pv.log_likelihood(pv.Program(model, guide, modules=torch.nn.Linear(1, 1)), X, 20)
    torch.testing.assert_close(score.values, dist.Normal(0.0, 1.0).log_prob(X.double()).sum(-1))

    def loose(x):
        with pyro.plate("data", len(x)):
            normal("u", len(x), infer={"is_auxiliary": True})
            pyro.sample("z", dist.LogNormal(x.new_zeros(len(x), 2), 1.0).to_event(1))

    with pytest.raises(InvalidInput, match="u: got a site of the guide"):
        program_of(model, loose, X)()


def test_pareto_k_does_not_depend_on_the_level():
    weights = torch.randn(1000, 3)
    torch.testing.assert_close(pareto_k(weights - 1e6), pareto_k(weights), rtol=1e-3, atol=1e-3)
