"""Scores of programs with global latents against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from global_programs import Factors, conjugate

import pyro_vae as pv
from pyro_vae.evaluation import GlobalELBO, PredictiveScore
from pyro_vae.validation import InvalidInput

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate"),
]


def test_the_elbo_at_the_exact_posterior_is_the_log_evidence():
    program, train, _ = conjugate()
    score = pv.elbo(program, train, num_samples=20)
    assert isinstance(score, GlobalELBO)
    assert score.mean * 20 == pytest.approx(program.log_evidence, abs=1e-9)
    assert score.mean_mc_se < 1e-9  # the parts vary with the draw, their sum does not
    assert score.global_kl_se > 0.05


@pytest.mark.parametrize("widen", [1.0, 1.5])
def test_the_parts_of_the_elbo_are_those_of_closed_forms(widen):
    program, train, _ = conjugate(widen)
    score = pv.elbo(program, train, num_samples=400)
    local = program.local_part(train[1], train[0])
    assert (score.values - local).abs().le(4.5 * score.mc_se + 1e-9).all()
    assert abs(score.global_kl - program.kl) < 4 * score.global_kl_se
    exact = (local.sum() - program.kl).item() / 20
    assert abs(score.mean - exact) < 4 * score.mean_mc_se + 1e-9
    assert score.mean == pytest.approx(score.local_mean - score.global_kl / 20, rel=1e-12)
    if widen > 1:
        assert score.mean * 20 < program.log_evidence


def test_held_out_data_have_the_predictive_density():
    program, _, test = conjugate()
    score = pv.log_likelihood(program, test, num_samples=2000)
    assert isinstance(score, PredictiveScore) and (score.num_samples, score.local_draws) == (
        200,
        10,
    )
    exact = program.predictive(test[1], test[0])
    assert (score.values - exact).abs().le(4.5 * score.mc_se).all()
    assert abs(score.mean - exact.mean().item()) < 4 * score.mean_mc_se
    assert score.above_threshold == 0


def test_errors_cover_though_all_data_share_the_draws():
    """Over seeds, the mean lies within 1.96 of its stated error about as often as it should."""
    program, _, test = conjugate()
    exact = program.predictive(test[1], test[0]).mean().item()
    inside = [
        abs(score.mean - exact) < 1.96 * score.mean_mc_se
        for seed in range(20)
        for score in [pv.log_likelihood(program, test, num_samples=30, seed=seed)]
    ]
    assert sum(inside) >= 16


def test_a_datums_score_does_not_depend_on_how_many_others_there_are():
    program, _, (x, c) = conjugate()
    whole = pv.log_likelihood(program, (x, c), 50)
    few = pv.log_likelihood(program, (x[:7], c[:7]), 50)
    assert torch.equal(whole.values[:7], few.values)


def test_at_one_draw_a_program_is_one_of_local_latents():
    """p(x | theta), by importance sampling, is what is known in closed form there."""
    program, _, (x, c) = conjugate()
    fixed = pv.at_globals(program, (x, c), seed=3)
    score = pv.log_likelihood(fixed, (x, c), num_samples=50)
    scale = math.hypot(program.s, program.t)
    exact = dist.Normal(c @ fixed.values["w"], scale).log_prob(x[:, 0])
    torch.testing.assert_close(score.values, exact)  # the local guide is exact
    bounds = pv.evaluation.ais(fixed, (x[:3], c[:3]), num_chains=8, num_temperatures=20)
    assert (bounds.values - exact[:3]).abs().lt(1.0).all()


@pytest.mark.parametrize(
    "run",
    [
        lambda *given: pv.evaluation.ais(*given, num_chains=2, num_temperatures=3),
        lambda *given: pv.evaluation.active_units(*given),
        lambda *given: pv.evaluation.importance_weights(*given, num_samples=3),
    ],
)
def test_what_is_of_local_latents_alone_names_the_remedy(run):
    program, train, _ = conjugate()
    with pytest.raises(InvalidInput, match=r"latents outside the data plate \(w\).*at_globals"):
        run(program, train)


class Amortised(Factors):
    """A guide of the global latent that reads the batch."""

    def guide(self, x, context=None):
        loc = self.loc + x.mean()
        pyro.sample("w", dist.Normal(loc, self.log_scale.exp()).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


def test_a_global_guide_that_reads_the_batch_is_refused():
    x = torch.randn(6, 3)
    for run in (pv.elbo, lambda *given: pv.fit(*given, epochs=1, progress=False)):
        with pytest.raises(InvalidInput, match="global latents that depends on"):
            run(Amortised(), x)


class AtPoints(Factors):
    """Global latents at a point, as AutoDelta puts them."""

    def guide(self, x, context=None):
        pyro.sample("w", dist.Delta(self.loc, event_dim=2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


def test_globals_at_points_train_and_their_part_is_not_scored():
    program, x = AtPoints(), torch.randn(6, 3)
    pv.fit(program, x, epochs=2, progress=False)
    score = pv.elbo(program, x, 200)
    assert math.isnan(score.global_kl) and score.points == "w"
    assert "at points (w), whose prior is not scored" in str(score)
    fixed = pv.elbo(pv.at_globals(program, x), x, 200)
    assert abs(score.mean - fixed.mean) < 4 * math.hypot(score.mean_mc_se, fixed.mean_mc_se)


def test_validation_measures_the_local_part():
    program, train, test = conjugate()
    history = pv.fit(program, train, validation=test, epochs=1, learning_rate=1e-9, progress=False)
    expected = program.local_part(test[1], test[0]).mean().item()
    assert history["validation_elbo"][0] == pytest.approx(expected, abs=1.5)


def test_scores_of_globals_are_saved_whole(tmp_path):
    program, _, test = conjugate()
    scores = pv.evaluation.evaluate(program, test, 50)
    pv.evaluation.save_scores(tmp_path / "scores.npz", scores)
    loaded = pv.evaluation.load_scores(tmp_path / "scores.npz")
    assert loaded["elbo"].mean == scores["elbo"].mean
    assert str(loaded["log_likelihood"]) == str(scores["log_likelihood"])
    assert pv.evaluation.to_dict(scores["elbo"])["global_kl"] == scores["elbo"].global_kl


def test_generated_data_are_of_the_posterior_and_not_of_the_prior():
    program, x = Factors(scale=1e-3), torch.randn(6, 3)
    with torch.no_grad():
        program.loc.copy_(torch.full((2, 3), 5.0))
    new = pv.generate(program, 400, draws=True)
    assert new.std() > 5  # under the prior of W it would be some 1.7
    assert torch.equal(pv.generate(program, 3), pv.generate(program, 3))
    assert pv.reconstruct(program, x).shape == x.shape
    assert pv.encode(program, x)["z"].shape == (6, 2)
