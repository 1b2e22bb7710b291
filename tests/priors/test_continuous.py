"""The flow along a velocity: its density, its divergence, and the error that it states."""

import copy
import json
import math

import numpy as np
import pytest
import scipy.integrate
import torch
from families import MLP
from torch.func import jacrev

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.testing import check_prior


def moved(latent, size=0.7, **options):
    """A prior whose velocity is far from zero, in float64."""
    torch.manual_seed(3)
    prior = pv.priors.ContinuousFlow(latent, **{"width": 8, "steps": 8, **options}).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(size * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return prior


def velocity(prior, z, t, context=None):
    """The velocity by the formula, for one z, one time and one context."""
    features = torch.cos(math.pi * t * torch.arange(1.0, 4.0, dtype=z.dtype))
    offsets = prior.offsets(prior.time(features, context))
    width, size = prior.width, math.prod(prior.latent)
    b1, b2, b3, gain = offsets.flatten().split([width, width, size, size])
    h = torch.tanh(prior.first.weight @ z + b1)
    h = torch.tanh(prior.second.weight @ h + b2)
    return prior.last.weight @ h + b3 + gain * z


def log_prob_by_scipy(prior, z, context=None):
    """Dormand and Prince's adaptive solver, with the trace of the Jacobian by autograd."""

    def rates(t, state):
        at = torch.as_tensor(state[:-1])
        slope = jacrev(lambda z: velocity(prior, z, t, context))(at).trace()
        return np.append(velocity(prior, at, t, context).numpy(), slope.numpy())

    with torch.no_grad():
        start = np.append(z.numpy(), 0.0)
        end = scipy.integrate.solve_ivp(rates, (0, 1), start, rtol=1e-9, atol=1e-9).y[:, -1]
    return -0.5 * (end[:-1] ** 2 + math.log(2 * math.pi)).sum() + end[-1]


def test_the_contract_away_from_the_start():
    check_prior(moved((2, 3), context=3, width=4, steps=4), context=torch.randn(4, 3))


@pytest.mark.parametrize("context", [0, 3])
def test_the_density_is_that_of_an_adaptive_solver_and_autograds_divergence(context):
    prior = moved(5, context=context)
    z, given = torch.randn(2, 5).double(), torch.randn(2, context).double() if context else None
    rows = [None] * 2 if given is None else given.split(1)
    right = torch.tensor([log_prob_by_scipy(prior, *row) for row in zip(z, rows)])
    found = prior(context=given).log_prob(z)
    error = (found - right).abs()
    assert (error > 1e-9).all(), "a few steps leave an error"
    torch.testing.assert_close(prior.solver_error(z, given), error, rtol=0.5, atol=1e-9)
    prior.steps = 128
    torch.testing.assert_close(prior(context=given).log_prob(z), right, rtol=0, atol=1e-7)


def test_the_error_falls_as_the_fourth_power_of_the_steps():
    prior, z = moved(3, size=0.3), torch.randn(50, 3).double()
    errors = []
    for prior.steps in (16, 32, 64):
        errors.append(prior.solver_error(z).mean().log2().item())
    assert -np.diff(errors) == pytest.approx([4, 4], abs=0.5)


def test_a_linear_velocity_has_a_normal_in_closed_form():
    """With v(z) = g z + b, z_1 = z_0 exp(g) + b (exp(g) - 1) / g."""
    prior = pv.priors.ContinuousFlow(2, width=4, steps=20).double()
    gain, shift = torch.tensor([0.5, -0.8]).double(), torch.tensor([1.0, -0.3]).double()
    with torch.no_grad():
        prior.offsets.bias[8:] = torch.cat([shift, gain])
    grow = gain.exp()
    right = torch.distributions.Normal(-shift * (1 - 1 / grow) / gain, 1 / grow)
    z = torch.randn(6, 2).double()
    torch.testing.assert_close(prior().log_prob(z), right.log_prob(z).sum(-1), rtol=0, atol=1e-5)
    draws = prior().sample((4000,))
    torch.testing.assert_close(draws.mean(0), right.mean, rtol=0, atol=0.15)
    torch.testing.assert_close(draws.std(0), right.stddev, rtol=0.05, atol=0)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_density_integrates_to_one_within_the_stated_error(latent):
    prior = moved(latent, size=0.4)
    line = torch.linspace(-9, 9, 121 if latent == 2 else 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * latent).reshape(-1, latent)
    with torch.no_grad():
        density = prior().log_prob(grid).exp()
        stated = (density * prior.solver_error(grid)).sum()
    cell = (line[1] - line[0]) ** latent
    assert 1e-9 < abs(density.sum() * cell - 1) < stated * cell
    prior.steps = 32
    with torch.no_grad():
        density = prior().log_prob(grid).exp()
    assert density.sum() * cell == pytest.approx(1, abs=1e-7)


def test_draws_and_values_are_inverses():
    prior = moved((2, 3), steps=64)
    p, fresh = prior(), prior()
    z = p.rsample((5,))
    torch.testing.assert_close(p.log_prob(z), fresh.log_prob(z), rtol=0, atol=1e-7)
    noise, _ = fresh.base.transform.inv.call_and_ladj(z.reshape(5, 6))
    torch.testing.assert_close(fresh.base.transform.call_and_ladj(noise)[0], z.reshape(5, 6))


def test_a_batch_equals_a_loop():
    prior = moved(3, context=2)
    z, given = torch.randn(4, 5, 3).double(), torch.randn(5, 2).double()
    whole = prior(context=given).log_prob(z)
    for k, n in np.ndindex(4, 5):
        alone = prior(context=given[n : n + 1]).log_prob(z[k, n])
        torch.testing.assert_close(alone, whole[k, n : n + 1])


def test_gradients_are_those_of_finite_differences():
    prior = moved(2, width=4, steps=1)
    z = torch.randn(3, 2).double().requires_grad_()
    parameters = {name: p.detach().requires_grad_() for name, p in prior.named_parameters()}

    def log_prob(z, *values):
        named = dict(zip(parameters, values))
        return torch.func.functional_call(
            _LogProb(prior), {f"of.{k}": v for k, v in named.items()}, (z,)
        )

    assert torch.autograd.gradcheck(log_prob, (z, *parameters.values()))


class _LogProb(torch.nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.of = prior

    def forward(self, z):
        torch.manual_seed(0)
        return torch.stack([self.of().log_prob(z).sum(), self.of().rsample((2,)).square().sum()])


def test_single_precision_keeps_its_digits():
    prior = moved(8, width=32)
    z = torch.randn(20, 8).double()
    single = copy.deepcopy(prior).float()().log_prob(z.float())
    torch.testing.assert_close(single.double(), prior().log_prob(z), rtol=1e-5, atol=1e-5)


def test_under_autocast_the_density_is_that_of_single_precision():
    prior = moved(3, context=2).float()
    z, given = torch.randn(5, 3), torch.randn(5, 2)
    right = prior(context=given).log_prob(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prior(context=given).log_prob(z), right)
        assert prior(context=given.bfloat16()).log_prob(z).dtype == torch.float32
        assert prior(context=given).rsample().dtype == torch.float32


def test_it_learns_a_ring_that_no_normal_prior_can():
    """Below a linear decoder a normal prior makes normal data: at best those of this normal."""
    angle = 2 * math.pi * torch.rand(1200)
    x = 3 * torch.stack([angle.cos(), angle.sin()], -1) + 0.4 * torch.randn(1200, 2)
    train, test = x[:1000], x[1000:]
    normal = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    program = pv.VAE(
        prior=pv.priors.ContinuousFlow(2, width=16, steps=4),
        likelihood=pv.likelihoods.Normal(2, MLP(2, []), scale=0.5),
        posterior=pv.posteriors.FullRankNormal(2, MLP(2, [32])),
    )
    pv.fit(program, train, epochs=25, batch_size=100, learning_rate=1e-2, progress=False)
    assert pv.elbo(program, test).mean > normal.log_prob(test).mean() + 0.4
    error = program.prior.solver_error(pv.encode(program, test)["z"])
    assert 0 < error.mean() < 0.05


def test_a_score_states_the_error_of_the_steps(tmp_path, capsys):
    """That of log p(z) under q, against many steps, and what `evaluate` writes and says."""
    likelihood = pv.likelihoods.Normal(2, MLP(2, [8]))
    program = pv.VAE(moved(2, steps=6), likelihood, pv.posteriors.DiagonalNormal(2, MLP(2, [8])))
    x = torch.randn(30, 2)
    program = program.to(torch.float64)
    error = pv.evaluation.solver_error(program, x, 5, seed=1)
    assert program.prior.steps == 6 and (error.values > 0).all()
    with torch.no_grad():
        z = program.posterior(x.double()).sample((200,))
        coarse = program.prior().log_prob(z)
        program.prior.steps = 64
        off = (coarse - program.prior().log_prob(z)).abs().mean()
        assert error.mean == pytest.approx(off.item(), rel=0.5)
    finer = pv.evaluation.solver_error(program, x, 5, seed=1)
    assert finer.mean < 1e-3 * error.mean
    np.save(tmp_path / "x.npy", 1e-3 * x.numpy())  # all scores alike: a small error over data
    for steps, told in ((1, True), (64, False)):
        program.prior.steps = steps
        pv.save(program, tmp_path / str(steps))
        flags = ["evaluate", str(tmp_path / str(steps)), "--data", str(tmp_path / "x.npy")]
        assert main([*flags, "--num_samples", "100"]) == 0
        out = capsys.readouterr().out
        assert "error of the ODE" in out and ("in too few steps" in out) == told
        written = json.loads((tmp_path / str(steps) / "evaluation.json").read_text())
        assert (written["solver_error"]["mean"] > 0.01) == told


def test_new_data_are_made_though_the_solver_errs(float64):
    program = pv.VAE(
        moved(2, size=2.0, steps=2),
        pv.likelihoods.Normal(3, MLP(2, [8])),
        pv.posteriors.DiagonalNormal(2, MLP(3, [8])),
    )
    assert pv.generate(program, 5).shape == (5, 3)
    assert pv.decode(program, torch.zeros(5, 2)).shape == (5, 3)
