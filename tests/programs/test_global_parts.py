"""Ready parts with global latents: a Bayesian decoder, hyperpriors, scales of relevance."""

import math

import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.runtime.traces import find_plates
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

MLP, Normal = pv.networks.MLP, pv.likelihoods.Normal
Bayesian, ARD = pv.networks.Bayesian, pv.networks.ARD


class Plain(nn.Module):
    """A network of the user's, which takes one batch dimension."""

    def __init__(self):
        super().__init__()
        self.layer, self.out_shape = nn.Linear(2, 6), (6,)

    def forward(self, z):
        return torch.tanh(self.layer(z))


PARTS = {
    "network": lambda: {"likelihood": Normal(4, Bayesian(MLP(2, [8])))},
    "likelihood": lambda: {"likelihood": Bayesian(Normal(4, MLP(2, [])), scale=0.5)},
    "plain network": lambda: {"likelihood": Normal(4, Bayesian(Plain()))},
    "relevance": lambda: {"likelihood": Normal(4, ARD(2, MLP(2, [8])))},
    "both": lambda: {"likelihood": Bayesian(Normal(4, ARD(2, MLP(2, [8]))))},
    "mixture": lambda: {"prior": pv.priors.BayesianMixture(2, components=3)},
    "encoder": lambda: {"posterior": pv.posteriors.DiagonalNormal(2, Bayesian(MLP(4, [8])))},
}


def vae_with(name):
    return pv.VAE(
        **{
            "prior": pv.priors.StandardNormal(2),
            "likelihood": Normal(4, MLP(2, [8])),
            "posterior": pv.posteriors.DiagonalNormal(2, MLP(4, [8])),
            **PARTS[name](),
        }
    )


@pytest.mark.parametrize("name", PARTS)
def test_a_program_with_the_part_keeps_the_contract(name):
    check_program(vae_with(name), torch.randn(5, 4))


@pytest.mark.parametrize("name", PARTS)
def test_its_loss_is_that_of_pyro(float64, name):
    program, x = vae_with(name).double(), torch.randn(5, 4)
    losses = []
    for objective in (pv.objectives.ELBO(), pyro.infer.Trace_ELBO()):
        torch.manual_seed(0)
        loss = objective.differentiable_loss(program.model, program.guide, x)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_the_sites_are_named_after_the_module():
    names = find_plates(vae_with("network"), torch.randn(3, 4)).globals
    assert names == {
        "likelihood.network.layers.0.input.weight",
        "likelihood.network.layers.0.input.bias",
    }


def test_the_prior_and_the_guide_of_weights(float64):
    program = vae_with("likelihood").double()
    score = pv.elbo(program, torch.randn(6, 4), 100)
    part = program.likelihood
    q = [
        torch.distributions.Normal(mean, nn.functional.softplus(raw))
        for mean, raw in zip(part.means.values(), part.raw_scales)
    ]
    p = torch.distributions.Normal(0.0, 0.5)
    exact = sum(torch.distributions.kl_divergence(each, p).sum() for each in q).item()
    assert abs(score.global_kl - exact) < 4 * score.global_kl_se
    assert nn.functional.softplus(part.raw_scales[0]).flatten()[0].item() == pytest.approx(0.02)


def test_outside_a_program_weights_are_at_their_means():
    network = MLP(2, [8])
    z = torch.randn(3, 5, 2)
    torch.testing.assert_close(Bayesian(network)(z), network(z))


def test_a_module_without_weights_is_refused():
    with pytest.raises(InvalidInput, match="wrap the likelihood"):
        Bayesian(MLP(2, []))


def test_a_bayesian_decoder_is_trained_scored_saved_and_loaded(tmp_path):
    x = torch.randn(40, 2) @ torch.randn(2, 4)
    program = vae_with("likelihood")
    before = pv.elbo(program, x, 20).mean
    history = pv.fit(
        program,
        x,
        objective=pv.objectives.ELBO(num_particles=2),
        epochs=30,
        batch_size=16,
        learning_rate=0.02,
        compile="off",
        out=tmp_path,
        progress=False,
    )
    score = pv.elbo(program, x, 20)
    assert score.mean > before + 1 and history["objective"][-1] > history["objective"][0]
    loaded = pv.load(tmp_path)
    again = pv.elbo(loaded, x, 20)
    assert torch.equal(again.values, score.values) and again.global_kl == score.global_kl


def test_a_dimension_that_no_datum_needs_loses_its_scale():
    x = torch.randn(200, 1) @ torch.tensor([[1.0, -2.0, 1.5, 0.5]]) + 0.3 * torch.randn(200, 4)
    program = pv.VAE(
        pv.priors.StandardNormal(2),
        Bayesian(Normal(4, ARD(2, MLP(2, []), scale=0.1), scale=0.3)),
        pv.posteriors.DiagonalNormal(2, MLP(4, [])),
    )
    pv.fit(program, x, epochs=200, learning_rate=0.1, compile="off", progress=False)
    low, high = program.likelihood.network.network.relevance.sort().values
    assert high > 4 * low


def test_components_that_no_datum_needs_lose_their_weight():
    torch.manual_seed(1)
    x = torch.cat([torch.randn(100, 2) * 0.3 - 3, torch.randn(100, 2) * 0.3 + 3])
    program = pv.VAE(
        pv.priors.BayesianMixture(2, components=4, concentration=0.4),
        Normal(2, MLP(2, []), scale=0.2),
        pv.posteriors.DiagonalNormal(2, MLP(2, [])),
    )
    pv.fit(program, x, epochs=150, learning_rate=0.03, compile="off", progress=False)
    counts = program.prior.log_counts.detach().exp()
    weights = (counts / counts.sum()).sort().values
    assert weights[:2].sum() < 0.35


def test_refinement_leaves_global_latents_alone():
    program, x = vae_with("network"), torch.randn(5, 4)
    refined = pv.Refined(program, steps=2)
    found, expected = pv.elbo(refined, x, 60), pv.elbo(program, x, 60)
    error = math.hypot(found.global_kl_se, expected.global_kl_se)
    assert abs(found.global_kl - expected.global_kl) < 4 * error


class OfOne(nn.Module):
    """A posterior of the only modality."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def forward(self, x, *, context=None):
        return self.posterior(x["a"])


@pytest.mark.parametrize("name", PARTS)
def test_a_program_of_one_modality_is_the_vae(float64, name):
    vae, x = vae_with(name).double(), torch.randn(20, 4)
    several = pv.MultimodalVAE(vae.prior, {"a": vae.likelihood}, OfOne(vae.posterior))
    losses, scores = [], []
    for each, data in ((several, {"a": x}), (vae, x)):
        torch.manual_seed(0)
        objective = pv.objectives.ELBO(num_particles=20)
        losses.append(objective.differentiable_loss(each.model, each.guide, data).item())
        scores.append(pv.elbo(each, data, 300))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    ours, single = scores
    assert ours.global_kl == pytest.approx(single.global_kl, rel=1e-12)
    assert ours.mean == pytest.approx(
        single.mean, abs=5 * math.hypot(ours.mean_mc_se, single.mean_mc_se)
    )


def test_training_moves_the_guide_of_the_weights_of_each_modality():
    likelihoods = {name: Bayesian(Normal(4, MLP(2, []))) for name in "ab"}
    experts = {name: pv.posteriors.DiagonalNormal(2, MLP(4, [])) for name in "ab"}
    program = pv.MultimodalVAE(
        pv.priors.StandardNormal(2), likelihoods, pv.posteriors.ProductOfExperts(2, experts)
    )
    before = [scale.detach().clone() for part in likelihoods.values() for scale in part.raw_scales]
    x = {name: torch.randn(50, 4) for name in "ab"}
    pv.fit(program, x, epochs=1, progress=False)
    after = [scale for part in likelihoods.values() for scale in part.raw_scales]
    assert all((a != b).all() for a, b in zip(after, before))


class Forgetful(nn.Module):
    """A program whose network has a prior on its weights, which it does not draw."""

    event_shape = (4,)

    def __init__(self):
        super().__init__()
        self.decoder = Bayesian(nn.Linear(2, 4))

    def model(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))


@pytest.mark.parametrize("use", [pv.elbo, pv.log_likelihood, pv.fit, pv.encode])
def test_a_program_that_does_not_draw_them_is_told_so(use):
    with pytest.raises(InvalidInput, match="does not draw its global latents"):
        use(Forgetful(), torch.randn(5, 4))
