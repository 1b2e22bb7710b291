import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import small_vae
from pyro.infer import RenyiELBO, Trace_ELBO

import pyro_vae as pv
from pyro_vae.objectives import weigh_latents


def loss_and_gradients(objective, program, *data):
    program.zero_grad()
    torch.manual_seed(3)
    loss = objective.differentiable_loss(program.model, program.guide, *data)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in program.named_parameters()}


@pytest.mark.parametrize("num_particles", [1, 5])
def test_elbo_equals_pyros_on_the_same_random_numbers(float64, num_particles):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    ours = loss_and_gradients(pv.objectives.ELBO(num_particles), program, x)
    theirs = loss_and_gradients(Trace_ELBO(num_particles, vectorize_particles=num_particles > 1), program, x)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient)


class Discrete(torch.nn.Module):
    """A program with a latent that cannot be reparametrised."""

    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)

    def model(self, x, context=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((len(x), 2), 0.3)).to_event(1))
            y = pyro.sample("y", dist.Normal(z.sum(-1), 1.0))
            pyro.sample("x", dist.Normal(self.decoder(z) + y.unsqueeze(-1), 1.0).to_event(1), obs=x)

    def guide(self, x, context=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1))
            pyro.sample("y", dist.Normal(z.sum(-1) + self.encoder(x).sum(-1), 0.7))


@pytest.mark.parametrize("num_particles", [1, 4])
def test_score_function_gradients_equal_pyros(float64, num_particles):
    program, x = Discrete(), torch.randn(6, 3)
    ours = loss_and_gradients(pv.objectives.ELBO(num_particles), program, x)
    theirs = loss_and_gradients(Trace_ELBO(num_particles, vectorize_particles=num_particles > 1), program, x)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    for name, gradient in theirs[1].items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(ours[1][name], gradient)


def test_the_gradient_of_the_elbo_is_right(float64):
    """Against a closed form: q = N(m, s^2), p = N(0, 1) p(x | z) = N(z, 1), so dELBO/dm = x - 2 m."""
    class Line(torch.nn.Module):
        event_shape = (1,)

        def __init__(self):
            super().__init__()
            self.m = torch.nn.Parameter(torch.tensor(0.3))

        def model(self, x, context=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def guide(self, x, context=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.m.expand(len(x), 1), 0.6).to_event(1))

    program, x = Line(), torch.tensor([[1.5]])
    _, gradient = loss_and_gradients(pv.objectives.ELBO(20_000), program, x)
    assert gradient["m"].item() == pytest.approx(-(1.5 - 2 * 0.3), abs=5 * 1.2 / 20_000**0.5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 4.0])
def test_the_weight_is_on_the_latents_of_both_sides(float64, weight):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    losses = {b: loss_and_gradients(pv.objectives.ELBO(beta=b), program, x)[0] for b in (0.0, 1.0, weight)}
    assert losses[weight] == pytest.approx(losses[0.0] + weight * (losses[1.0] - losses[0.0]))
    annealed = Trace_ELBO()  # a handler, so it serves any Pyro objective
    torch.manual_seed(3)
    assert annealed.loss(weigh_latents(program.model, weight), weigh_latents(program.guide, weight), x) == pytest.approx(losses[weight])


def test_pyro_svi_takes_the_objective():
    program, x = small_vae(), torch.zeros(4, 1, 8, 8)
    pyro.clear_param_store()

    def guide(x):
        pyro.module("vae", program)
        return program.guide(x)

    svi = pyro.infer.SVI(program.model, guide, pyro.optim.Adam({"lr": 0.01}), pv.objectives.ELBO())
    losses = [svi.step(x) for _ in range(30)]
    pyro.clear_param_store()
    assert losses[-1] < losses[0]


def test_log_weights_are_those_of_renyi_elbo_unscaled(float64):
    """RenyiELBO(alpha=0) is IWAE on a single datum."""
    program, x = small_vae().double(), torch.bernoulli(torch.rand(1, 1, 8, 8))
    score = pv.log_likelihood(program, x, num_samples=7, seed=5)
    with pv.execution.evaluating(program, seed=5):
        theirs = -RenyiELBO(alpha=0, num_particles=7, vectorize_particles=True, max_plate_nesting=1).loss(program.model, program.guide, x)
    assert score.mean == pytest.approx(theirs, rel=1e-10)
