"""Ladders: closed forms at depth four, states that are shared, levels of any family."""

import functools

import pytest
import torch
from ladders import LATENTS, NET, LinearLadder, ladder, path_of
from pyro import poutine

import pyro_vae as pv
from pyro_vae.programs.ladder import Guided
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


@pytest.mark.parametrize("widen", [1.0, 1.3])
def test_four_linear_normal_levels_against_closed_forms(widen, float64):
    exact = LinearLadder(widen)
    x = exact.data(6)
    log_p = exact.marginal.log_prob(x.flatten(1))
    weights = weights_of(exact.program, x, 400)
    if widen == 1.0:  # the posterior itself: every weight is p(x)
        torch.testing.assert_close(weights, log_p.expand_as(weights), rtol=1e-10, atol=1e-10)
    error = weights.std(0) / 400**0.5
    assert ((weights.mean(0) - (log_p - exact.kl())).abs() < 4 * error + 1e-9).all()
    score = pv.log_likelihood(exact.program, x, 400)
    assert ((score.values - log_p).abs() < 4 * score.mc_se + 1e-9).all()


def test_annealing_of_four_linear_normal_levels(float64):
    exact = LinearLadder(widen=1.5)
    x = exact.data(3)
    score = pv.evaluation.ais(exact.program, x, 10, num_temperatures=30, num_leapfrog=3)
    log_p = exact.marginal.log_prob(x.flatten(1))
    assert ((score.values - log_p).abs() < 5 * score.mc_se + 0.02).all()


def test_what_four_linear_normal_levels_generate(float64):
    exact = LinearLadder()
    x = pv.generate(exact.program, 5_000, draws=True).flatten(1)
    torch.testing.assert_close(x.mean(0), exact.marginal.mean, atol=0.12, rtol=0)
    torch.testing.assert_close(x.T.cov(), exact.marginal.covariance_matrix, atol=0.2, rtol=0.05)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_ladder_keeps_the_contract_of_a_program(classes):
    check_program(ladder(classes=classes), X, context=torch.arange(5) % 3 if classes else None)


def weights_of(program, x, num):
    with conditioned(program, x, 0) as given:
        return given.log_weights(num)


def test_states_of_the_guide_are_those_that_the_model_finds(float64, monkeypatch):
    """Weights where the model takes them over, and where it is conditioned on the draws alone."""
    program, x = ladder([(2, 4, 4), (2, 2, 2), (3, 1, 1)]).double(), X.double()
    with conditioned(program, x, 0) as given:
        guide, model = given.traces(3)
        values = {name: guide.nodes[name]["value"] for name in ("z1", "z2", "z3")}
        p_z, p_x, q = given.densities(values, given.guide)
    taken = [
        sum(trace.nodes[name]["log_prob"] for name in names)
        for trace, names in ((model, values), (model, ["x"]), (guide, values))
        if not trace.compute_log_prob()
    ]
    for ours, again in zip(taken, (p_z, p_x, q)):
        torch.testing.assert_close(ours, again, rtol=1e-12, atol=1e-12)
    calls, below = [], type(program.path).below
    monkeypatch.setattr(type(program.path), "below", lambda *args: calls.append(1) or below(*args))
    with conditioned(program, x, 0) as given:
        calls.clear()
        given.traces(3)
    assert len(calls) == 3  # two in the guide, and that to x in the model


@pytest.mark.parametrize("name", ["ELBO", "AnalyticELBO", "FreeBits", "IWAE", "DReG",
                                  "StickingTheLanding"])  # fmt: skip
def test_gradients_with_and_without_shared_states(name, float64, monkeypatch):
    program, x = ladder().double(), X.double()

    def gradients():
        objective = getattr(pv.objectives, name)(num_particles=2)
        torch.manual_seed(2)
        loss = objective.differentiable_loss(program.model, program.guide, x)
        return torch.autograd.grad(loss, [*program.parameters()])

    shared = gradients()
    monkeypatch.setattr(Guided, "state_after", lambda self, z: None)
    for ours, again in zip(shared, gradients()):
        torch.testing.assert_close(ours, again, rtol=1e-9, atol=1e-9)


def test_a_model_that_learns_from_draws_without_a_gradient_has_its_own():
    """As in wake-sleep: the guide's states have none, so the model's are computed."""
    program = ladder()
    with torch.no_grad():
        guide = poutine.trace(program.guide).get_trace(X)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(X)
    loss = model.log_prob_sum()
    assert all(g is not None for g in torch.autograd.grad(loss, [*program.path.joins.parameters()]))


def test_a_batch_equals_a_loop(float64):
    program, x = ladder().double(), X.double()
    whole = pv.elbo(program, x, 3).values
    with conditioned(program, x, 0) as given:
        values = given.draw(given.guide, 3)
        all_of_it = given.densities(values, given.guide)
    for i in range(len(x)):
        with conditioned(program, x[i : i + 1], 0) as one:
            part = one.densities({k: v[:, i : i + 1] for k, v in values.items()}, one.guide)
        for ours, alone in zip(all_of_it, part):
            torch.testing.assert_close(ours[:, i : i + 1], alone, rtol=1e-10, atol=1e-10)
    assert whole.shape == (5,)


FAMILIES = ["DiagonalNormal", "LowRankNormal", "FullRankNormal", "Mixture", "Flow"]


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_of_every_family(name, float64):
    family = getattr(pv.posteriors, name)
    program = ladder(prior=family, posterior=family)
    assert pv.elbo(program, X, 2).values.isfinite().all()
    assert pv.generate(program, 2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("name", ["GaussianMixture", "VampPrior", "Flow", "StudentT"])
def test_tops_of_every_family(name):
    options = {"components": 3} if name in ("GaussianMixture", "VampPrior") else {}
    top = getattr(pv.priors, name)(LATENTS[-1], **options)
    program = ladder(top=top, posterior=pv.posteriors.DiagonalNormal)
    before = [p.clone() for p in program.parameters()]
    pv.fit(program, X, epochs=1, batch_size=3, compile="off", progress=False)
    assert all(not torch.equal(p, q) for p, q in zip(program.parameters(), before))
    assert pv.elbo(program, X, 2).values.isfinite().all()


INNER = {"Laplace": {}, "StudentT": {}, "GaussianMixture": {"components": 3}, "Flow": {}}


@pytest.mark.parametrize("kind", ["ladder", "vectors"])
@pytest.mark.parametrize("name", INNER)
def test_levels_whose_prior_takes_no_input(name, kind, float64):
    """p(z_l) below the top: its log-probability is that of the component by itself."""
    made = functools.partial(getattr(pv.priors, name), **INNER[name])
    if kind == "ladder":
        build = ladder(prior=lambda z, network: made(z), posterior=pv.posteriors.DiagonalNormal)
        x = X
    else:
        net, normal = pv.networks.MLP, pv.posteriors.DiagonalNormal
        build = pv.HierarchicalVAE(
            [made(2), pv.priors.StandardNormal(1)],
            pv.likelihoods.Bernoulli((3,), net(2, [4])),
            [normal(2, net((3,), [4])), normal(1, net(2, [4]))],
        )
        x = X.flatten(1)[:, :3]
    with conditioned(build.double(), x.double(), 0) as given:
        _, model = given.traces(4)
        model.compute_log_prob()
        z, site = (model.nodes["z1"][key] for key in ("value", "log_prob"))
        torch.testing.assert_close(site, build.priors[0]().log_prob(z).expand_as(site))
    assert pv.elbo(build, x, 2).values.isfinite().all()
    assert pv.generate(build, 2).shape == (2, *x.shape[1:])


def test_a_prior_that_shares_the_posterior_stands_at_the_top_of_a_ladder():
    program = ladder(posterior=pv.posteriors.DiagonalNormal)
    program.priors[0] = pv.priors.VampPrior(LATENTS[0], components=3)
    with pytest.raises(InvalidInput, match=r"put it at the top, as priors\[1\]"):
        pv.elbo(program, X, 2)


def test_a_posterior_relative_to_its_prior_is_the_prior_where_its_network_is_silent():
    program = ladder()
    for posterior in program.posteriors:
        for parameter in posterior.head.parameters():
            torch.nn.init.zeros_(parameter)
    parts = pv.evaluation.decompose(program, X, 20)
    assert parts["kl/z1"].values.abs().max() < 1e-3 and parts["kl/z2"].values.abs().max() < 1e-3


@pytest.mark.parametrize("posterior", ["RelativeNormal", "DiagonalNormal"])
def test_states_and_draws_of_forty_levels_start_as_large_as_those_of_two(posterior):
    kind = getattr(pv.posteriors, posterior)
    latents = [(4, 4, 4)] * 40
    torch.manual_seed(0)
    program = ladder(latents, width=24, posterior=kind)
    with torch.no_grad(), conditioned(program, X, 0) as given:
        guide, _ = given.traces(20)
        drawn = poutine.trace(program.model).get_trace(torch.zeros(100, *X.shape[1:]))
    for trace in (guide, drawn):
        sizes = [trace.nodes[f"z{level + 1}"]["value"].std() for level in range(40)]
        assert min(sizes) > 0.3 and max(sizes) < 2


def test_a_ladder_of_vectors_and_of_grids_without_a_ratio():
    latents = [(4,), (2, 3, 5)]
    path = pv.networks.Ladder(
        NET((1, 8, 8), (7, 7), width=4),
        [NET((4, 7, 7), (6, 6)), NET((4, 6, 6), (3, 5))],
        [NET((4, 3, 5), (6, 6))],
        latents,
        (4, 3, 5),
    )
    normal = pv.posteriors.DiagonalNormal
    program = pv.LadderVAE(
        [normal((4,), NET(path.states[0])), pv.priors.StandardNormal((2, 3, 5))],
        pv.likelihoods.Bernoulli((1, 8, 8), NET(path.states[0], (8, 8))),
        [normal(z, NET(both)) for z, both in zip(latents, path.merged)],
        path,
    )
    assert pv.encode(program, X)["z1"].shape == (5, 4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: path_of([(2, 4, 4)]), "2 levels or more|two levels or more"),
        (
            lambda: pv.networks.Ladder(
                NET((1, 8, 8)), [NET((1, 8, 8)), NET((1, 8, 8), (4, 4))],
                [NET((3, 4, 4))], LATENTS, (3, 4, 4),
            ),
            r"downs: got a state \(3, 4, 4\) and features \(1, 8, 8\) at level 1",
        ),
        (
            lambda: pv.LadderVAE(
                [pv.priors.StandardNormal(2)], pv.likelihoods.Bernoulli(4, pv.networks.MLP(2, [3])),
                [pv.priors.StandardNormal(2)], path_of(),
            ),
            "path: got 2 levels with 1 priors",
        ),
        (
            lambda: ladder(top=pv.priors.VampPrior(LATENTS[-1], 3)),
            "RelativeNormal, which is given by the prior, with VampPrior",
        ),
        (
            lambda: pv.elbo(ladder(prior=pv.posteriors.Flow), X),
            "whose moments are not known",
        ),
    ],
)  # fmt: skip
def test_levels_that_do_not_fit_are_named(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_ladder_that_was_saved_resumes_to_the_bit(tmp_path):
    def trained(folder, epochs, resume=False):
        program = ladder()
        pv.fit(
            program, X, epochs=epochs, batch_size=2, compile="off", out=folder, resume=resume,
            progress=False,
        )  # fmt: skip
        return program

    whole = trained(tmp_path / "whole", 2)
    trained(tmp_path / "parts", 1)
    parts = trained(tmp_path / "parts", 2, resume=True)
    loaded = pv.load(tmp_path / "parts")
    for p, q, r in zip(*(each.parameters() for each in (whole, parts, loaded)), strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)
    draws = pv.to_inference_data(loaded, X, 3)
    assert draws.posterior["z2"].shape == (1, 3, 5, 3, 2, 2)
