"""Several modalities: against a linear Gaussian model of two views, in closed form."""

import copy
import math

import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.distributions import MixtureOfNormals, ObservedEvents
from pyro_vae.testing.density import check_density
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
D, SIZES, NOISE = 2, {"a": 3, "b": 4}, {"a": 0.6, "b": 0.8}


class TwoViews:
    """z ~ N(0, I), x_m ~ N(W_m z + c_m, s_m^2 I), the columns of W orthogonal.

    Then each view's likelihood of z is a normal with independent entries, their product with the
    prior the posterior: a product of experts can be exact.
    """

    def __init__(self):
        torch.manual_seed(3)
        lengths = torch.tensor([1.5, 0.7])
        self.W = {m: torch.linalg.qr(torch.randn(n, D))[0] * lengths for m, n in SIZES.items()}
        self.c = {m: torch.randn(n) for m, n in SIZES.items()}

    def program(self, combine=None, widen=1.0):
        combine = combine or pv.posteriors.ProductOfExperts
        likelihoods, experts = {}, {}
        for m, n in SIZES.items():
            W, c, s = self.W[m], self.c[m], NOISE[m]
            likelihood = pv.likelihoods.Normal(n, MLP(D, []), scale=s)
            expert = pv.posteriors.DiagonalNormal(D, MLP(n, []))
            gain = W.T / W.square().sum(0)[:, None]
            scale = widen * s / W.norm(dim=0)
            with torch.no_grad():
                likelihood.head.layer.weight.copy_(W), likelihood.head.layer.bias.copy_(c)
                layer = expert.head.layer
                layer.weight.zero_(), layer.weight[:D].copy_(gain)
                layer.bias[:D] = -gain @ c
                layer.bias[D:] = (scale - 1e-4).expm1().log()
            likelihoods[m], experts[m] = likelihood, expert
        return pv.MultimodalVAE(pv.priors.StandardNormal(D), likelihoods, combine(D, experts))

    def marginal(self, names):
        W, c = torch.cat([self.W[m] for m in names]), torch.cat([self.c[m] for m in names])
        s = torch.cat([torch.full((SIZES[m],), NOISE[m]) for m in names])
        return dist.MultivariateNormal(c, W @ W.T + torch.diag(s**2))

    def log_p(self, x, *names):
        return self.marginal(names).log_prob(torch.cat([x[m] for m in names], -1))

    def data(self, num):
        x = self.marginal(("a", "b")).sample((num,))
        return {"a": x[:, :3].clone(), "b": x[:, 3:].clone()}


@pytest.fixture
def views(float64):
    return TwoViews()


def test_joint_marginal_and_conditional_scores_are_exact_under_exact_experts(views):
    x, program = views.data(6), views.program()
    both, a, b = views.log_p(x, "a", "b"), views.log_p(x, "a"), views.log_p(x, "b")

    def score(data, **arguments):
        return pv.log_likelihood(program, data, num_samples=3, **arguments).values

    def close(got, want):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)

    close(score(x), both)
    close(score({"a": x["a"]}), a)  # an absent key
    lacking = {"a": x["a"].clone(), "b": x["b"].clone()}
    lacking["a"][::2], lacking["b"][1::2] = math.nan, math.nan  # half of each
    close(
        score(pv.datasets.Dataset(lacking, missing=True)),
        torch.where(torch.arange(6) % 2 == 0, b, a),
    )
    close(score(x, given=["b"]), both - b)
    close(pv.elbo(program, x, num_samples=3).values, both)


@pytest.mark.parametrize(
    "combine", [pv.posteriors.ProductOfExperts, pv.posteriors.MixtureOfExperts]
)
def test_scores_lie_within_their_errors_of_the_closed_forms(views, combine):
    x, program = views.data(8), views.program(combine, widen=1.2)
    both, b = views.log_p(x, "a", "b"), views.log_p(x, "b")
    joint = pv.log_likelihood(program, x, num_samples=4000)
    given = pv.log_likelihood(program, x, num_samples=4000, given=["b"])
    assert ((joint.values - both).abs() < 4 * joint.mc_se).all()
    assert ((given.values - (both - b)).abs() < 4 * given.mc_se).all()
    assert (given.mc_se >= joint.mc_se - 1e-9).all() and (given.mc_se < 0.2).all()
    torch.testing.assert_close(given.values, given.joint - given.marginal)
    low, high = given.interval(0.9999)
    assert (low < both - b).all() and (high > both - b).all()
    rough = pv.log_likelihood(program, x, num_samples=5, given=["b"])  # too few for a Pareto k
    low, high = rough.interval()
    assert (low == -math.inf).all() and (high == math.inf).all()
    assert str(rough).startswith("near ") and "unknown error" in str(rough)


def test_errors_of_the_conditional_cover_both_terms(views):
    """Over many seeds the values scatter as the stated error says."""
    x, program = views.data(1), views.program(widen=1.3)
    repeated = {m: v.expand(300, -1) for m, v in x.items()}
    score = pv.log_likelihood(program, repeated, num_samples=100, given=["a"])
    exact = views.log_p(x, "a", "b") - views.log_p(x, "a")
    z = (score.values - exact) / score.mc_se
    assert 0.8 < z.std() < 1.2 and z.mean().abs() < 0.35


def test_the_mixtures_density_is_the_logarithm_of_a_sum(views):
    x, q = views.data(5), views.program(pv.posteriors.MixtureOfExperts).posterior
    z = torch.randn(7, 5, D)
    each = torch.stack([q.experts[m](x[m]).log_prob(z) for m in x])
    torch.testing.assert_close(q(x).log_prob(z), each.logsumexp(0) - math.log(2))
    check_density(q(x))
    x["b"][2] = math.nan
    torch.testing.assert_close(q(x).log_prob(z)[:, 2], each[0, :, 2])
    torch.testing.assert_close(q({"a": x["a"]}).log_prob(z), each[0])


def test_a_missing_modality_is_left_out_to_the_bit_and_nothing_leaves_the_prior(views):
    x = views.data(4)
    for combine in (pv.posteriors.ProductOfExperts, pv.posteriors.MixtureOfExperts):
        q = views.program(combine).posterior
        nothing = {m: torch.full_like(v, math.nan) for m, v in x.items()}
        alone = q({"a": x["a"], "b": nothing["b"]})
        z = torch.randn(4, D)
        assert torch.equal(alone.log_prob(z), q({"a": x["a"]}).log_prob(z))
        standard = dist.Normal(torch.zeros(D), 1.0).to_event(1).log_prob(z)
        torch.testing.assert_close(q(nothing).log_prob(z), standard)
        assert isinstance(alone, dist.Independent | MixtureOfNormals)


def test_the_product_is_the_product(views):
    x, q = views.data(5), views.program().posterior
    z = torch.randn(50, 5, D)
    terms = [q.experts[m](x[m]).log_prob(z) for m in x]
    terms.append(dist.Normal(torch.zeros(D), 1.0).to_event(1).log_prob(z))
    constant = q(x).log_prob(z) - sum(terms)
    torch.testing.assert_close(constant, constant[:1].expand(50, 5))


LIKELIHOODS = {
    "Normal": 3,
    "Bernoulli": (1, 2, 2),
    "Multinomial": 4,
    "AutoregressiveCategorical": 5,
    "Beta": 2,
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_missing_event_of_any_likelihood_counts_nothing_and_has_no_gradient(float64, name):
    likelihood = getattr(pv.likelihoods, name)(LIKELIHOODS[name], MLP(2, [4]))
    z = torch.randn(6, 2, requires_grad=True)
    density = likelihood(z)
    x = density.sample()
    whole = density.log_prob(x)
    x[::2] = math.nan
    observed = ObservedEvents(likelihood(z))
    got = observed.log_prob(x)
    assert observed.support.check(x).all()
    torch.testing.assert_close(got[1::2], whole[1::2])
    assert (got[::2] == 0).all()
    (gradient,) = torch.autograd.grad(got.sum(), z)
    assert gradient.isfinite().all() and (gradient[::2] == 0).all() and gradient[1::2].any()


def small(combine, **arguments):
    return pv.MultimodalVAE(
        pv.priors.GaussianMixture(2, components=3),
        {
            "picture": pv.likelihoods.Bernoulli((1, 4, 4), MLP(2, [12])),
            "words": pv.likelihoods.AutoregressiveCategorical(5, MLP(2, [8]), 4, width=8),
        },
        combine(
            2,
            {
                "picture": pv.posteriors.DiagonalNormal(2, MLP((1, 4, 4), [12])),
                "words": pv.posteriors.DiagonalNormal(
                    2, pv.networks.Recurrent(5, 8, [8], categories=4)
                ),
            },
        ),
        **arguments,
    )


def incomplete(num=60):
    kind = torch.arange(num) % 2
    picture = torch.bernoulli((0.15 + 0.7 * kind.float()).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4))
    words = torch.stack([1 + kind, 2 + kind, 1 + kind, 0 * kind, 0 * kind], -1).float()
    picture[::4], words[1::4] = math.nan, math.nan
    return pv.datasets.Dataset({"picture": picture, "words": words}, missing=True), kind


@pytest.mark.parametrize(
    "combine, objective",
    [
        (pv.posteriors.ProductOfExperts, pv.objectives.ELBO()),
        (pv.posteriors.MixtureOfExperts, pv.objectives.IWAE(3)),
    ],
)
def test_incomplete_pairs_train_score_generate_and_come_back(combine, objective, tmp_path):
    data, _ = incomplete()
    program = small(combine)
    before = pv.elbo(program, data, num_samples=5)
    pv.fit(
        program,
        data,
        objective=objective,
        epochs=30,
        batch_size=20,
        learning_rate=1e-2,
        compile="off",
        progress=False,
        out=tmp_path / "run",
    )
    after = pv.elbo(program, data, num_samples=5)
    assert after.mean > before.mean + 2
    again = pv.load(tmp_path / "run")
    assert torch.equal(pv.elbo(again, data, num_samples=5).values, after.values)
    assert program.event_shape == {"picture": (1, 4, 4), "words": (5,)}
    made = pv.generate(program, 3)
    assert made["picture"].shape == (3, 1, 4, 4) and made["words"].shape == (3, 5)
    completed = pv.reconstruct(program, data)
    for name, x in data.x.items():
        assert not completed[name].isnan().any()
        assert torch.equal(completed[name][~x.isnan()], x[~x.isnan()])
    idata = pv.to_inference_data(program, data[:6], num_samples=10)
    assert idata.posterior_predictive["words"].shape[:3] == (1, 10, 6)
    assert idata.observed_data["picture"].shape == (6, 1, 4, 4)
    log_p = torch.as_tensor(idata.log_likelihood["x"].values)
    weight = idata.sample_stats["log_weight"].values.mean()
    assert log_p.isfinite().all() and abs(weight - after.values[:6].mean()) < 3
    assert pv.inspection.embed(program, data, draws=False).shape == (60, 2)
    # Across modalities: the words of a picture say of which kind it is, and the other way round.
    words = pv.generate(program, given={"words": data.x["words"][2:4]}, draws=True)["picture"]
    assert words.shape == (2, 1, 4, 4)
    pictures = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert pv.generate(program, given={"picture": pictures})["words"][:, 0].tolist() == [1, 2]
    many = pv.generate(program, 5, given={"picture": pictures[:1]}, draws=True)["words"]
    assert many.shape == (5, 5)


def test_the_captured_steps_are_the_eager_ones_to_the_bit(monkeypatch):
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)  # interpreted
    data, _ = incomplete(16)
    eager = small(pv.posteriors.MixtureOfExperts)
    captured = copy.deepcopy(eager)
    for program, compile in ((eager, "off"), (captured, "on")):
        pv.fit(program, data, epochs=1, batch_size=8, compile=compile, progress=False)
    for name, value in eager.state_dict().items():
        assert torch.equal(captured.state_dict()[name], value), name


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda p, x: pv.elbo(p, {"c": x["a"]}), r"x: got parts \['c'\], expected parts"),
        (lambda p, x: pv.elbo(p, x["a"]), "x: got one tensor"),
        (lambda p, x: pv.elbo(p, {**x, "a": x["a"] * math.nan}), "missing=True"),
        (lambda p, x: pv.log_likelihood(p, x, given=["c"]), r"given: got \['c'\]"),
        (lambda p, x: pv.log_likelihood(p, x, given="a"), "given: got 'a'"),
        (lambda p, x: pv.log_likelihood(p, x, given=["a", "b"]), "given"),
        (lambda p, x: pv.generate(p, given=x), "given: got 'a', 'b'"),
        (lambda p, x: pv.generate(p, 3, given={"a": x["a"][:2]}), "num: got 3 with 2 given"),
    ],
)
def test_what_cannot_be_is_said(views, act, message):
    with pytest.raises(InvalidInput, match=message):
        act(views.program(), views.data(4))


def test_latents_are_decoded_to_all_modalities(views):
    z = torch.randn(5, 3, D)
    made = pv.decode(views.program(), z)
    for m in SIZES:
        torch.testing.assert_close(made[m], z @ views.W[m].T + views.c[m])
    flat = pv.decode(views.program(), z[0])
    assert {m: tuple(x.shape) for m, x in flat.items()} == {"a": (3, 3), "b": (3, 4)}


def test_an_event_with_some_entries_missing_names_the_parts_that_take_it(views):
    x = views.data(4)
    x["a"][1, 0] = x["b"][2] = torch.nan
    data = pv.datasets.Dataset(x, missing=True)
    with pytest.raises(InvalidInput, match=r"1 of 3 entries missing.*Missing.*WithMask"):
        pv.elbo(views.program(), data)
    program = views.program()
    program.likelihoods["a"] = pv.likelihoods.Missing(program.likelihoods["a"])
    network = MLP(pv.networks.WithMask.doubled((3,)), [])
    expert = pv.posteriors.DiagonalNormal(D, pv.networks.WithMask(3, network))
    program.posterior.experts["a"] = expert.double()
    seen = views.marginal(("a", "b"))
    partly = dist.MultivariateNormal(seen.loc[1:], seen.covariance_matrix[1:, 1:])
    exact = partly.log_prob(torch.cat([x["a"][1, 1:], x["b"][1]]))
    score = pv.log_likelihood(program, data, 20_000, compile="off")
    assert abs(score.values[1] - exact) < 5 * score.mc_se[1] + 0.02


def test_parts_that_cannot_be_are_refused():
    likelihood = pv.likelihoods.Bernoulli(3, MLP(2, [4]))
    q = pv.posteriors.ProductOfExperts(2, {"a": pv.posteriors.FullRankNormal(2, MLP(3, [4]))})
    prior = pv.priors.StandardNormal(2)
    with pytest.raises(InvalidInput, match="likelihoods: got Bernoulli"):
        pv.MultimodalVAE(prior, likelihood, q)
    with pytest.raises(InvalidInput, match="a modality named 'z'"):
        pv.MultimodalVAE(prior, {"z": likelihood}, q)
    with pytest.raises(InvalidInput, match="prior: got VampPrior"):
        pv.MultimodalVAE(pv.priors.VampPrior(2), {"a": likelihood}, q)
    with pytest.raises(InvalidInput, match="experts: got FullRankNormal"):
        pv.elbo(pv.MultimodalVAE(prior, {"a": likelihood}, q), {"a": torch.zeros(4, 3)})
