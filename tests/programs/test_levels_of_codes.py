"""Codes at several levels: each prior is that of its level's codebook, given the codes above."""

import copy

import pytest
import torch
from ladders import LATENTS, NET, ladder, ladder_of_codes
from torch.distributions import Chi2

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


def far_from_uniform(program):
    with torch.no_grad():
        for parameter in (*program.priors.parameters(), *program.path.joins.parameters()):
            parameter.mul_(2.5)
    return program.double().eval()


def tiny():
    """Codes out of two on 2x2 places, below one out of three."""
    return far_from_uniform(ladder_of_codes([(3, 2, 2), (2, 1, 1)], codes=(2, 3)))


def lower(program, top):
    """p(z_1 | h_1), and h_1, at top codes (N, ...)."""
    h = program.path.below(1, program.path.first(None), top, None)
    return program.priors[0](h), h


@torch.no_grad()
def test_the_masses_of_all_codes_of_both_levels_sum_to_one(float64):
    program = tiny()
    above = program.priors[1]()
    tops = above.enumerate_support()
    below, _ = lower(program, tops)
    states = below.enumerate_support()  # (16, 3, *latent)
    joint = above.log_prob(tops) + below.log_prob(states)
    assert joint.shape == (16, 3)
    torch.testing.assert_close(joint.exp().sum(), torch.tensor(1.0))
    torch.testing.assert_close(below.log_prob(states).exp().sum(0), torch.ones(3))
    assert below.log_prob(states).std(1).max() > 0.05, "the codes above change those below"


@torch.no_grad()
def test_draws_of_both_levels_follow_their_masses(float64):
    program, num = tiny(), 6000
    torch.manual_seed(2)
    above = program.priors[1]()
    tops = above.enumerate_support()
    top = above.sample((num,))
    below, _ = lower(program, top)
    drawn = program.posteriors[0].indices(below.sample()).flatten(1) @ torch.tensor([8, 4, 2, 1])
    cells = 16 * program.posteriors[1].indices(top).flatten() + drawn
    given, _ = lower(program, tops)
    expected = num * (above.log_prob(tops) + given.log_prob(given.enumerate_support())).exp().T
    statistic = (torch.bincount(cells, minlength=48) - expected.flatten()).square()
    statistic = (statistic / expected.flatten()).sum()
    assert Chi2(47.0).cdf(statistic) < 0.999


@torch.no_grad()
@pytest.mark.parametrize("grid", [(), (3,), (3, 4)])
def test_a_code_sees_those_before_it_and_all_that_the_level_is_given(grid, float64):
    torch.manual_seed(1)
    latent = (2, *grid)
    prior = pv.priors.PixelCNN(latent, MLP(4, [8]), width=8, layers=2, reach=2)
    _program = pv.HierarchicalVAE(  # which the prior is bound to
        [prior, pv.priors.StandardNormal(4)],
        pv.likelihoods.Bernoulli(5, MLP(latent, [4])),
        [
            pv.posteriors.Codebook(latent, MLP(5, [8], context=4), codes=3),
            pv.posteriors.DiagonalNormal(4, MLP(5, [8])),
        ],
        inference="top_down",
    )
    for parameter in prior.parameters():
        parameter.mul_(2.0)  # far from uniform
    rows, columns = prior.rows_and_columns
    codes, h = torch.randint(3, (1, rows, columns)), torch.randn(1, 4)
    features = prior(h).codes.given
    assert features.shape == (1, 8, rows, columns)
    logits = prior.logits(codes, features)
    for place in range(rows * columns):
        other = codes.clone()
        other.view(-1)[place] = (other.view(-1)[place] + 1) % 3
        moved = (prior.logits(other, features) != logits).any(1).flatten()
        assert not moved[: place + 1].any(), "a place depends on itself or on one after it"
        if (place + 1) % columns:
            assert moved[place + 1], "a place does not see the one before it"
    for entry in range(4):
        other = h.clone()
        other[0, entry] += 1
        moved = prior.logits(codes, prior(other).codes.given) != logits
        assert moved.any(1).all(), "a place does not see all of what is given"


@torch.no_grad()
def test_cached_draws_are_draws_place_by_place(float64):
    program = tiny()
    prior = program.priors[0]
    density, _ = lower(program, program.priors[1]().sample((6,)))
    given = density.codes.given
    torch.manual_seed(0)
    cached = prior.draw(6, given)
    torch.manual_seed(0)
    naive = torch.zeros(6, 2, 2, dtype=torch.long)
    for i in range(2):
        for j in range(2):
            logits = prior.logits(naive, given)[:, :, i, j]
            naive[:, i, j] = torch.distributions.Categorical(logits=logits).sample()
    assert torch.equal(cached, naive)


@torch.no_grad()
@pytest.mark.parametrize("learned", [True, False])
def test_the_bound_is_the_log_joint_and_a_batch_equals_a_loop(learned, float64):
    program, x = far_from_uniform(ladder_of_codes(learned=learned)), X.double()
    z = pv.encode(program, x)
    above, (below, h) = program.priors[1](), lower(program, z["z2"])
    p_x = program.likelihood(program.path.below(0, h, z["z1"], None)).log_prob(x)
    by_hand = {"kl/z2": -above.log_prob(z["z2"]), "kl/z1": -below.log_prob(z["z1"])}
    parts = pv.evaluation.decompose(program, x, 2)
    for name, value in {**by_hand, "reconstruction": p_x}.items():
        torch.testing.assert_close(parts[name].values, value)
    if not learned:  # 16 codes out of five, four out of four
        nats = 16 * torch.tensor(5.0).log() + 4 * torch.tensor(4.0).log()
        torch.testing.assert_close(parts["kl"].values, nats.expand(5))
    for score in pv.evaluation.evaluate(program, x, num_samples=3).values():
        torch.testing.assert_close(score.values, p_x - sum(by_hand.values()))
        assert score.mc_se.max() < 1e-10
    alone = torch.cat([pv.elbo(program, x[i : i + 1], 1).values for i in range(5)])
    torch.testing.assert_close(pv.elbo(program, x, 1).values, alone)


def test_the_loss_has_each_levels_commitment_and_gradients_pass_straight_through(float64):
    program, x = ladder_of_codes(learned=False, commitment=0.7).double().train(), X.double()
    path, (q1, q2) = program.path, program.posteriors
    d, h2 = path.up(x, None), path.first(None)
    merge = pv.networks.ladder.side_by_side
    f2 = q2._encode(merge(d[1], h2), None)
    z2 = f2 + (q2.codebook[q2.indices(f2)].movedim(-1, 1) - f2).detach()
    h1 = path.below(1, h2, z2, None)
    f1 = q1._encode(merge(d[0], h1), None)
    z1 = f1 + (q1.codebook[q1.indices(f1)].movedim(-1, 1) - f1).detach()
    p_x = program.likelihood(path.below(0, h1, z1, None)).log_prob(x).sum()
    nats = 5 * (16 * torch.tensor(5.0).log() + 4 * torch.tensor(4.0).log())
    apart = sum((f - z.detach()).square().sum() for f, z in ((f1, z1), (f2, z2)))
    by_hand = nats - p_x + 0.7 * apart
    loss = pv.objectives.ELBO().differentiable_loss(program.model, program.guide, x)
    torch.testing.assert_close(loss, by_hand)
    parameters = [*program.parameters()]
    ours = torch.autograd.grad(loss, parameters)
    for gradient, expected in zip(ours, torch.autograd.grad(by_hand, parameters)):
        torch.testing.assert_close(gradient, expected)


def test_codebooks_start_on_the_path_from_the_top_and_move_in_training_alone(float64):
    program = ladder_of_codes(codes=(8, 6)).double()
    x = torch.rand(200, 1, 8, 8).round()
    program.initialize(x)
    with torch.no_grad():
        d, h = program.path.up(x, None), program.path.first(None)
        for level in (1, 0):
            q = program.posteriors[level]
            assert q.initialized
            seen = pv.networks.ladder.side_by_side(d[level], h)
            vectors = q._vectors(q._encode(seen, None))
            apart = torch.cdist(q.codebook, vectors).min(1).values
            assert apart.max() < 0.3 * vectors.std(), level
            if level:
                h = program.path.below(1, h, q(seen).mean, None)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    program.initialize(x)
    pv.elbo(program, x, 1), pv.generate(program, 2), pv.encode(program, x)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    program.train()
    program.guide(x)
    for level in (0, 1):
        assert not torch.equal(program.posteriors[level].sums, before[f"posteriors.{level}.sums"])
    program.posteriors.requires_grad_(False), program.path.requires_grad_(False)
    frozen = {name: value.clone() for name, value in program.state_dict().items()}
    program.guide(x)
    assert all(torch.equal(value, frozen[name]) for name, value in program.state_dict().items())


def test_levels_of_codes_keep_the_contract_of_a_program():
    check_program(ladder_of_codes(learned=False), X)


def test_the_captured_step_is_the_eager_one_to_the_bit(monkeypatch):
    """Loss, gradients and what the step writes into both codebooks; graphs are interpreted."""
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)
    found = []
    for is_captured in (False, True):
        program = ladder_of_codes().train()
        bound, parameters = pv.objectives.ELBO(), list(program.parameters())
        bound.loss(program.model, program.guide, X)  # finds the plates

        def loss(x, bound=bound, program=program):
            return bound.differentiable_loss(program.model, program.guide, x)

        step = LossAndGradients(loss, parameters, lambda n, yes=is_captured: yes)
        torch.manual_seed(7)
        values = [step(X) for _ in range(3)]
        assert (step.captured(X) is not None) == is_captured
        found.append([*values[-1][1], values[-1][0], *program.state_dict().values()])
    for eager, captured in zip(*found, strict=True):
        assert torch.equal(eager, captured)


def normal(latent, network):
    return pv.posteriors.DiagonalNormal(latent, network)


def mixed(codes_below):
    """Codes at one level and normals at the other."""
    program = ladder(posterior=normal)
    level = 0 if codes_below else 1
    merged = program.path.merged[level]
    code_prior = (
        pv.priors.PixelCNN(LATENTS[0], NET(program.path.states[0], cells=0), width=6, layers=2)
        if codes_below
        else pv.priors.PixelCNN(LATENTS[1], width=6, layers=2)
    )
    program.posteriors[level] = pv.posteriors.Codebook(LATENTS[level], NET(merged), codes=4)
    program.priors[level] = code_prior
    return program


@pytest.mark.parametrize("codes_below", [True, False])
def test_codes_at_one_level_and_normals_at_another(codes_below):
    program, level = mixed(codes_below), 0 if codes_below else 1
    pv.fit(program, X, epochs=1, batch_size=3, compile="off", progress=False)
    assert program.posteriors[level].initialized
    with conditioned(program, X, 0) as given, torch.no_grad():
        weights = given.log_weights(50)
        values = given.draw(given.guide, 1)
        p_z, p_x, q = given.densities(values, given.guide)
    assert weights.isfinite().all() and (weights.std(0) > 0).all()
    z = program.posteriors[level].indices(values[f"z{level + 1}"])
    assert z.shape == (1, 5, *LATENTS[level][1:])
    assert q.shape == p_z.shape == p_x.shape == (1, 5)
    assert pv.generate(program, 2).shape == (2, 1, 8, 8)
    assert pv.inspection.resample_levels(program, X, 2)["z1"].shape == (2, 5, 1, 8, 8)


def test_codes_that_were_saved_resume_to_the_bit(tmp_path):
    def trained(folder, epochs, resume=False):
        program = ladder_of_codes()
        pv.fit(
            program, X, epochs=epochs, batch_size=2, compile="off", out=folder, resume=resume,
            progress=False,
        )  # fmt: skip
        return program

    whole = trained(tmp_path / "whole", 3)
    trained(tmp_path / "parts", 1)
    parts = trained(tmp_path / "parts", 3, resume=True)
    loaded, expected = pv.load(tmp_path / "parts"), whole.state_dict()
    for each in (parts, loaded):
        for name, value in each.state_dict().items():
            assert torch.equal(value, expected[name]), name
    assert torch.equal(pv.elbo(loaded, X, 1).values, pv.elbo(whole, X, 1).values)
    assert torch.equal(pv.generate(loaded, 3), pv.generate(whole, 3))


def test_a_second_stage_learns_the_codes_of_a_frozen_program():
    """Images of one of two halves: one bit, whatever number of codes there are at both levels."""
    halves = torch.zeros(100, 1, 8, 8)
    halves[::2, :, :, 4:], halves[1::2, :, :, :4] = 1.0, 1.0
    first = ladder_of_codes([(3, 2, 2), (2, 1, 1)], codes=(4, 3), learned=False)
    fit = {"batch_size": 25, "learning_rate": 1e-2, "compile": "off", "progress": False}
    pv.fit(first, halves, epochs=8, **fit)
    uniform, codes = pv.evaluation.decompose(first, halves, 1), pv.encode(first, halves)
    frozen = first.requires_grad_(False)
    cnn = {"width": 8, "layers": 2, "reach": 2}
    frozen.priors[0] = pv.priors.PixelCNN((3, 2, 2), NET(first.path.states[0], cells=0), **cnn)
    frozen.priors[1] = pv.priors.PixelCNN((2, 1, 1), **cnn)
    pv.fit(frozen, halves, epochs=15, **fit)
    learned = pv.evaluation.decompose(frozen, halves, 1)
    again = pv.encode(frozen, halves)
    assert all(torch.equal(again[name], codes[name]) for name in codes), "the codes stay"
    torch.testing.assert_close(learned["reconstruction"].values, uniform["reconstruction"].values)
    assert learned["kl"].mean == pytest.approx(torch.tensor(2.0).log().item(), abs=0.1)


def hierarchy(**options):
    """Two levels of codes without a path: vectors of codes, all levels seen."""
    torch.manual_seed(0)
    cnn = {"width": 4, "layers": 1}
    return pv.HierarchicalVAE(
        [
            pv.priors.PixelCNN((2, 3), MLP((2, 2), [8]), **cnn),
            pv.priors.PixelCNN((2, 2), **cnn),
        ],
        pv.likelihoods.Bernoulli((1, 8, 8), MLP((2, 3), [8], context=4)),
        [
            pv.posteriors.Codebook((2, 3), MLP((1, 8, 8), [8], context=4), codes=5),
            pv.posteriors.Codebook((2, 2), MLP((1, 8, 8), [8]), codes=4),
        ],
        inference="top_down",
        skip=True,
        **options,
    )


@pytest.mark.parametrize("build", [hierarchy, ladder_of_codes])
def test_each_prior_has_the_codebook_of_its_level(build):
    program = build()
    copied = copy.deepcopy(program)
    for each in (program, copied):
        pv.fit(each, X, epochs=1, batch_size=3, compile="off", progress=False)
        for prior, posterior in zip(each.priors, each.posteriors):
            assert prior._owner.codebook is posterior.codebook and posterior.initialized
    new = copy.deepcopy(program.posteriors[0])
    program.posteriors[0] = new
    pv.elbo(program, X, 1)
    assert program.priors[0]._owner.codebook is new.codebook
    assert copied.priors[0]._owner.codebook is copied.posteriors[0].codebook


class SharesBelow(torch.nn.Module):
    """Somebody's own prior below the top, which asks for q(z | x)."""

    def bind(self, program):
        self.kept = [program]

    def forward(self, h, *, context=None):
        return self.kept[0].posterior(X)


def shared():
    one = pv.priors.UniformCodes((2, 2))
    like = hierarchy()
    return pv.HierarchicalVAE([one, one], like.likelihood, like.posteriors, inference="top_down")


def replaced(level, prior, posterior=None):
    program = ladder_of_codes()
    program.priors[level] = prior
    if posterior is not None:
        program.posteriors[level] = posterior(LATENTS[level], NET(program.path.merged[level]))
    return pv.elbo(program, X, 1)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: replaced(0, pv.priors.PixelCNN(LATENTS[0])), "PixelCNN without a network, given"),
        (
            lambda: replaced(1, pv.priors.PixelCNN(LATENTS[1], NET((6, 2, 2)))),
            "PixelCNN with a network, given nothing",
        ),
        (lambda: pv.priors.PixelCNN((2, 3), MLP(2), context=3), "context: got 3 features beside"),
        (
            lambda: replaced(0, pv.priors.UniformCodes(LATENTS[0]), pv.posteriors.RelativeNormal),
            r"posteriors\[0\]: got RelativeNormal, which is given by the prior, with UniformCodes",
        ),
        (
            lambda: replaced(0, pv.priors.UniformCodes(LATENTS[0]), normal),
            "UniformCodes with a posterior LevelPosterior.*choose a Codebook",
        ),
        (lambda: replaced(0, SharesBelow()), r"priors\[0\]: got a prior that shares q\(z \| x\)"),
        (shared, "priors: got one UniformCodes for several levels"),
        (lambda: pv.generate(ladder_of_codes(), 2, temperature=0.7), "temperature: got 0.7 with"),
    ],
)  # fmt: skip
def test_levels_of_codes_that_do_not_fit_are_named(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


@torch.no_grad()
def test_without_a_gradient_a_code_is_its_entry_to_the_bit():
    """Else it would be another one in another batch, and have no mass there."""
    for q in ladder_of_codes().eval().posteriors:
        z = q(torch.randn(50, *q.network.in_shape)).mean
        assert torch.equal(z, q.codebook[q.indices(z)].movedim(-1, -len(q.latent)))


@torch.no_grad()
def test_the_information_of_codes_is_the_entropy_of_their_frequencies():
    torch.manual_seed(3)
    x = torch.rand(20, 1, 8, 8).round().repeat(2, 1, 1, 1)
    program = ladder_of_codes([(3, 4, 4), (2, 2, 2)], codes=(4, 4))
    z = torch.cat([part.flatten(1) for part in pv.encode(program.eval(), x).values()], 1)
    _, places, counts = z.unique(dim=0, return_inverse=True, return_counts=True)
    assert 1 < len(counts) <= 20
    entropy = -(counts[places] / len(x)).log().mean().item()
    parts = pv.evaluation.aggregate_posterior(program, x, 1)
    assert parts.mutual_information == pytest.approx(entropy, rel=1e-5)
    assert parts.kl == pytest.approx(parts.mutual_information + parts.marginal_kl, rel=1e-5)
