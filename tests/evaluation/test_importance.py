import json
import math
import warnings
from importlib.metadata import PackageNotFoundError

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import Hierarchy, LinearGaussian
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import log_weights, scores
from pyro_vae.evaluation.arviz_compat import arviz, is_0x, psis_tail_shape
from pyro_vae.evaluation.importance import evaluate, importance_weights, log_joint
from pyro_vae.evaluation.importance_score import (
    UnreliableEstimate,
    convergence,
    share_of_bounds,
    summarize,
)
from pyro_vae.evaluation.pareto import pareto_k, pareto_k_threshold
from pyro_vae.evaluation.proposals import Defensive, Guide, Refitted, Widened
from pyro_vae.evaluation.scores import bits_per_dim
from pyro_vae.evaluation.widening import widening
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.memory import Cost
from pyro_vae.runtime.noise import block_seed
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


# closed forms


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
        truth = torch.stack(
            [
                torch.logsumexp(
                    vae.prior().log_prob(z)
                    + vae.likelihood(z, context=torch.eye(3)[y].expand(len(z), 3)).log_prob(datum),
                    0,
                )
                + math.log(18 / 4000)
                for datum, y in zip(x, labels)
            ]
        )
    score = pv.log_likelihood(vae, (x, labels), 20_000)
    assert ((score.values - truth).abs() < 4 * score.mc_se).all()


@pytest.mark.parametrize("labels", [0, 3])
def test_a_hierarchy_is_scored_with_and_without_labels(labels):
    exact = Hierarchy(widen=1.2, labels=labels)
    x, y = exact.data(50)
    score = pv.log_likelihood(exact.program(), (x, y) if labels else x, 4000)
    truth = exact.log_p(x, y)
    assert ((score.values - truth).abs() < 4 * score.mc_se).all()
    assert abs(score.mean - truth.mean()) < 4 * score.mean_mc_se
    exactly = pv.log_likelihood(Hierarchy(labels=labels).program(), (x, y) if labels else x, 10)
    torch.testing.assert_close(exactly.values, truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("codes", [1, 4])
def test_a_finite_mixture_agrees_with_enumeration(codes):
    """x from one of several codes, drawn from a guide that is not the posterior."""
    probabilities = torch.sigmoid(torch.randn(codes, 6))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(codes)))
            pyro.sample("x", dist.Bernoulli(probabilities[z]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.linspace(1, 2, codes).expand(len(x), codes)))

    x = torch.bernoulli(torch.full((30, 6), 0.5))
    truth = dist.Bernoulli(probabilities).log_prob(x[:, None]).sum(-1).logsumexp(1) - math.log(
        codes
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UnreliableEstimate
        )  # two or three distinct weights have no tail to fit
        score = pv.log_likelihood(pv.Program(model, guide, event_shape=6), x, 4000)
    assert ((score.values - truth).abs() < 4 * score.mc_se + 1e-9).all()
    assert abs(score.mean - truth.mean()) < 4 * score.mean_mc_se + 1e-9


@pytest.mark.parametrize("widen", [1.3, 0.85])
def test_stated_intervals_cover_as_often_as_they_say(widen):
    """200 repetitions, each a row with its own draws; a narrow guide counts if k is below 0.4."""
    exact = LinearGaussian(2, features=5)
    x = exact.data(1).expand(200, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        score = pv.log_likelihood(exact.program(widen), x, 1000, seed=3)
    fit = (score.pareto_k < 0.4) if widen < 1 else torch.ones(200, dtype=torch.bool)
    assert fit.sum() > 150
    covered = (score.values - exact.marginal.log_prob(x)).abs() < 1.96 * score.mc_se
    assert 0.90 <= covered[fit].double().mean() <= 0.99


# plain loops


def test_weights_are_those_of_an_unscaled_renyi_elbo(monkeypatch):
    one_datum = log_weights.Blocks(1, (50,))  # with all of its draws at once
    monkeypatch.setattr(log_weights.Blocks, "of", lambda *_: one_datum)
    exact = LinearGaussian(2, features=4)
    program, x = exact.program(widen=1.3), exact.data(3)
    for n in range(3):
        renyi = pyro.infer.RenyiELBO(
            alpha=0, num_particles=50, vectorize_particles=True, max_plate_nesting=1
        )
        pyro.set_rng_seed(block_seed(4, 0))
        theirs = -renyi.loss(program.model, program.guide, x[n : n + 1])
        assert pv.log_likelihood(program, x[n : n + 1], 50, seed=4).values.item() == pytest.approx(
            theirs, abs=1e-9
        )


def test_the_raw_weights_are_those_that_the_score_is_made_of():
    exact = LinearGaussian(2, features=4)
    program, x = exact.program(widen=1.3), exact.data(3)
    weights, score = (
        importance_weights(program, x, 200, seed=3),
        pv.log_likelihood(program, x, 200, seed=3),
    )
    for name, value in summarize(weights).per_datum.items():
        torch.testing.assert_close(value, score.per_datum[name])
    curve = convergence(weights, points=5)
    assert curve[0].num_samples == 1 and curve[-1].num_samples == 200
    torch.testing.assert_close(curve[-1].values, score.values)
    torch.testing.assert_close(curve[0].values, weights[0])


def test_scores_say_what_they_were_made_from():
    program, x = small_vae().double(), torch.bernoulli(torch.rand(4, 1, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        score = pv.log_likelihood(program, x, 100, seed=7)
    assert (score.seed, score.num_samples, score.sha256) == (
        7,
        100,
        pv.datasets.as_dataset(x).sha256,
    )
    record = json.loads(json.dumps(score.to_dict()))
    assert (
        record["values"] == score.values.tolist()
        and record["mean"] == score.mean
        and record["num_data"] == 4
    )
    assert {"pyro-vae", "pyro-ppl", "torch", "arviz"} == record["versions"].keys()
    data = score.to_inference_data()["scores"]
    np.testing.assert_allclose(data["values"].values, score.values)
    assert (
        data["pareto_k"].dims == ("obs",)
        and data.attrs["sha256"] == score.sha256
        and data.attrs["torch"]
    )


def test_bits_per_dim_counts_the_jacobian_of_dequantised_levels():
    """Uniform bytes have 8 bits each, as a mass or as a density of dequantised values."""
    mass = summarize(torch.full((10, 3), -12 * math.log(256)))
    assert bits_per_dim(mass, (3, 4)) == pytest.approx(8.0)
    density = summarize(torch.zeros(10, 3))
    assert bits_per_dim(density, (3, 4), levels=256) == pytest.approx(8.0)


@pytest.mark.parametrize("num_data, num_samples", [(1, 1), (1, 7), (5, 1), (5, 7), (5, 300)])
def test_scores_are_those_of_a_plain_loop_over_recorded_draws(num_data, num_samples):
    """Record the draws inside the guide, then score them by hand in a loop over data and draws."""
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
    assert z.shape[0] == num_samples and z.shape[1] >= num_data  # the block is padded
    with torch.no_grad():
        weights = torch.tensor(
            [
                [
                    (
                        program.prior().log_prob(z[k, n])
                        + program.likelihood(z[k, n]).log_prob(x[n])
                        - program.posterior(x[n : n + 1]).log_prob(z[k, n]).squeeze()
                    ).item()
                    for n in range(num_data)
                ]
                for k in range(num_samples)
            ]
        )
    torch.testing.assert_close(scores["elbo"].values, weights.mean(0), rtol=0, atol=1e-6)
    by_hand = torch.tensor(
        [
            math.log(sum(math.exp(w - max(column)) for w in column) / num_samples) + max(column)
            for column in weights.T.tolist()
        ]
    )
    torch.testing.assert_close(scores["log_likelihood"].values, by_hand, rtol=0, atol=1e-6)
    w = (weights - weights.max(0).values).exp()
    torch.testing.assert_close(scores["log_likelihood"].ess, w.sum(0) ** 2 / (w**2).sum(0))
    if num_samples == 1:
        assert (
            scores["elbo"].mc_se.isnan().all() and scores["log_likelihood"].pareto_k.isnan().all()
        )
    else:
        spread = w.std(0) / w.mean(0) / math.sqrt(num_samples)
        wider = torch.full((num_data,), widening(num_samples))
        if num_samples > 20:
            moments = [(w - w.mean(0)).pow(power).mean(0) for power in (2, 3)]
            wider *= 1 + 12 * moments[1].square() / moments[0].pow(3) / num_samples
        bias = spread.square() / 2
        torch.testing.assert_close(
            scores["log_likelihood"].mc_se, torch.hypot(wider * spread, bias)
        )


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 20, 21, 1000])
def test_blocks_change_nothing_and_nothing_is_dropped(monkeypatch, rows):
    """K = 7 in parts of 3, 5 data in blocks of 2: a posterior that is exact scores all of them."""
    exact = LinearGaussian(2, features=3)
    x = exact.data(5)
    program = exact.program()
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", rows)
    program.posterior.encoded = 0
    with conditioned(program, x, seed=0):
        checks = program.posterior.encoded
    program.posterior.encoded = 0
    score = pv.log_likelihood(program, x, 7)
    torch.testing.assert_close(score.values, exact.marginal.log_prob(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(score.ess, torch.full((5,), 7.0))
    if rows >= 7:
        size = rows // 7
        assert program.posterior.encoded == checks + -(-5 // size) * size


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
            score = pv.log_likelihood(program, x, num_samples)
            assert score.num_samples == num_samples
            assert 50 < largest[0] * 64 * 8 * 3 < BLOCK_BYTES["cpu"]


def test_the_same_seed_gives_the_same_score_and_leaves_the_caller_alone():
    program, x = small_vae().double().train(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    state = torch.random.get_rng_state()
    a, b, c = (pv.elbo(program, x, 10, seed=seed).values for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(state, torch.random.get_rng_state())
    assert program.training and torch.is_grad_enabled()


def test_an_error_on_the_way_leaves_the_caller_alone_too():
    """Its traceback keeps everything alive that was open when it happened."""
    program, x = small_vae().double().train(), torch.bernoulli(torch.rand(3, 1, 8, 8))

    def fails(weights):
        raise ArithmeticError("of a summary")

    with pytest.raises(ArithmeticError) as kept:
        evaluate(program, x, 10, summaries={"own": fails})
    assert program.training and torch.is_grad_enabled() and kept.tb is not None


# Pareto k


@pytest.mark.parametrize("num_samples", [30, 100, 1000])
def test_pareto_k_is_arvizs_and_its_sign_is_right(num_samples):
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(3, num_samples)) * np.array([[0.3], [1.0], [3.0]])
    if is_0x(arviz()):
        _, theirs = arviz().psislw(weights)
    else:
        array_stats = pytest.importorskip("arviz_stats.base").array_stats
        _, theirs = array_stats.psislw(-weights, axis=-1)
    np.testing.assert_allclose(psis_tail_shape(weights), np.asarray(theirs))
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
        pv.log_likelihood(exact.program(widen, shift), x, 20_000, seed=2)
    assert pv.log_likelihood(exact.program(widen=1.2), x, 5000).above_threshold == 0


# bad input


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
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0).to_event(2), obs=x)

    def no_plate_guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

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
            pyro.sample(
                "z",
                dist.Normal(
                    torch.zeros(len(x), 2), (torch.arange(len(x)) - 2.0)[:, None] ** 2 / 0.0
                ).to_event(1),
            )

    for m, g, message in [
        (no_plate, no_plate_guide, "no plate of the size of the data"),
        (model, stranger, "u: got a site of the guide"),
        (model, silent, "z: got a latent site of the model"),
        (model, point, "z: got a Delta guide on a continuous latent"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            program_of(m, g, X)()
        with pytest.raises(InvalidInput, match=message):
            pv.elbo(pv.Program(m, g, modules=torch.nn.Linear(1, 1), event_shape=2), X)


def test_a_nan_weight_names_its_datum_and_site(monkeypatch):
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
                    pyro.sample(
                        "x",
                        dist.Normal(bad.expand(len(x), 2), 1.0, validate_args=False).to_event(1),
                        obs=x,
                    )

        def guide(self, x, context=None):
            with pyro.plate("data", len(x)):
                normal("z", len(x))

    x = torch.zeros(6, 2)
    x[4] = 9.0
    for size in (1, 2**28):
        monkeypatch.setitem(BLOCK_BYTES, "cpu", size)
        with pytest.raises(InvalidInput, match=r"datum 4, first at site 'x'"):
            pv.log_likelihood(Cracked(), x, 10)


def test_weights_that_are_all_zero_name_their_datum_and_site(monkeypatch):
    def model(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))
            pyro.factor("never", torch.where(x[:, 0] > 5, -torch.inf, 0.0))
            normal("x", len(x), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            normal("z", len(x))

    x = torch.zeros(6, 2)
    x[3] = 50.0
    for size in (1, 2**28):
        monkeypatch.setitem(BLOCK_BYTES, "cpu", size)
        with pytest.raises(
            InvalidInput, match="-inf for all 30 draws of datum 3, first at site 'never'"
        ):
            pv.log_likelihood(pv.Program(model, guide, event_shape=2), x, 30)


def test_a_point_guide_on_discrete_codes_has_a_bound():
    """On codes a Delta is a density like another: the ELBO is log p(x, z) at the code."""
    probabilities = torch.tensor([[0.9, 0.2], [0.3, 0.6]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Bernoulli(probabilities[z]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x[:, 0].long()))

    x = torch.bernoulli(torch.full((6, 2), 0.5))
    joint = dist.Bernoulli(probabilities[x[:, 0].long()]).log_prob(x).sum(-1) - math.log(2)
    program = pv.Program(model, guide, event_shape=2)
    torch.testing.assert_close(pv.elbo(program, x, 5).values, joint)
    score = pv.log_likelihood(program, x, 50)
    torch.testing.assert_close(score.values, joint)
    assert score.is_bound.all() and share_of_bounds(score) == 1


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
                pyro.sample(
                    "x", dist.Normal(x.new_zeros(len(x), 2), 1.0).mask(mask).to_event(1), obs=x
                )
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
            pyro.sample(
                "x", dist.Normal(torch.zeros(len(x), 1, 2), 1.0).to_event(1), obs=x[:, None]
            )

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("words", 3, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0))

    x = torch.randn(4, 2)
    program = pv.Program(model, guide, modules=torch.nn.Linear(1, 1))
    torch.testing.assert_close(
        pv.elbo(program, x, 5).values, dist.Normal(0.0, 1.0).log_prob(x).sum(-1)
    )


def test_a_data_plate_of_another_size_is_refused():
    def model(x):
        with pyro.plate("data", len(x), subsample_size=1):
            normal("z", 1)
            normal("x", 1, obs=x[:1])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=1):
            normal("z", 1)

    with pytest.raises(
        InvalidInput, match=r"plate 'data': got 1 of \d data, picked by the plate itself"
    ):
        program_of(model, guide, X)()


def test_an_auxiliary_site_counts_through_its_image_only():
    """z = exp(u): the Delta at z carries the Jacobian, so log q(z) is the log-normal's."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            normal("x", len(x), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample(
                "u",
                dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1),
                infer={"is_auxiliary": True},
            )
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


def test_scores_are_written_where_the_package_runs_from_its_sources(monkeypatch):
    def not_installed(name):
        raise PackageNotFoundError(name)

    assert set(scores.versions()) == {"pyro-vae", "pyro-ppl", "torch", "arviz"}
    monkeypatch.setattr(scores, "version", not_installed)
    found = scores.versions()
    assert found["torch"] == "sources" and found["pyro-vae"] == pv.__version__


@pytest.mark.parametrize(
    "proposal", [Guide(), Refitted(steps=3), Defensive(of=Widened(1.2))], ids=str
)
def test_a_score_depends_on_the_seed_and_the_datums_place_alone(proposal):
    """To the bit: not on how many data are scored with it."""
    program, x = small_vae(), torch.bernoulli(torch.rand(200, 1, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        whole = pv.log_likelihood(program, x, 30, proposal=proposal)
        for count in (1, 7, 100):
            part = pv.log_likelihood(program, x[:count], 30, proposal=proposal)
            assert torch.equal(part.values, whole.values[:count])
    assert not torch.equal(whole.values, pv.elbo(program, x, 30, seed=1).values)


@pytest.mark.parametrize("score", [pv.elbo, log_joint, importance_weights])
def test_a_memory_budget_is_answered_by_a_warning_and_changes_nothing(score):
    program, x = small_vae(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    with pytest.warns(DeprecationWarning, match=f"{score.__name__} has no use for memory_budget"):
        given = score(program, x, memory_budget=2**20)
    plain = score(program, x)
    weights = score is importance_weights
    assert torch.equal(*(each if weights else each.values for each in (given, plain)))
