"""The loss of programs with global latents: of any batch, of any number of draws."""

import copy
import math

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from global_programs import Factors
from torch import nn

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.datasets import Dataset
from pyro_vae.datasets.binarize import batch_keys
from pyro_vae.programs import AtGlobals
from pyro_vae.training.schedules import Constant
from pyro_vae.training.steps import GradientSteps
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

SUMS = ["ELBO", "AnalyticELBO", "FreeBits", "BetaTCVAE"]


def loss_and_gradients(objective, program, x, seed=0):
    torch.manual_seed(seed)
    program.zero_grad()
    loss = objective.differentiable_loss(program.model, program.guide, x)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in program.parameters()])


def looked(objective, program, x):
    """An objective after its look at a program, which draws random numbers of its own."""
    objective.loss(program.model, program.guide, x)
    return objective


def test_several_draws_of_a_matrix_are_those_of_pyro_one_after_another():
    program, x = Factors(), torch.randn(5, 3)
    ours = looked(pv.objectives.ELBO(num_particles=3), program, x)
    assert ours.way == "vmap"
    loss, gradients = loss_and_gradients(ours, program, x)
    torch.manual_seed(0)
    program.zero_grad()
    theirs = pyro.infer.Trace_ELBO(num_particles=3)
    expected = theirs.differentiable_loss(program.model, program.guide, x)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(
        gradients, torch.cat([p.grad.flatten() for p in program.parameters()])
    )


@pytest.mark.parametrize("name", SUMS)
def test_draws_scored_at_once_are_those_scored_one_by_one(name):
    program, x = Factors(), torch.randn(5, 3)
    ours = looked(getattr(pv.objectives, name)(num_particles=3), program, x)
    found = loss_and_gradients(ours, program, x)
    ours.way = "scan"
    expected = loss_and_gradients(ours, program, x)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1], expected[1])


class OneDraw(nn.Module):
    """A local latent whose decoder takes no draws in front: it normalises dimension 1."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(2, 3)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = torch.softmax(self.decoder(z), dim=1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


class MadeBefore(OneDraw):
    """A prior made beside the model, which checks values wherever it is used."""

    prior = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0, validate_args=True).to_event(1)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


@pytest.mark.filterwarnings("ignore:.*one draw at a time, eagerly")
@pytest.mark.parametrize("make, num_particles, way", [
    (Factors, 1, "plate"), (Factors, 3, "vmap"), (OneDraw, 1, "plate"), (OneDraw, 3, "plate"),
    (MadeBefore, 1, "plate"),
])  # fmt: skip
def test_captured_steps_of_draws_that_take_no_plate_are_the_eager_ones(
    monkeypatch, caplog, make, num_particles, way
):
    """Draws scored by vmap, or run one after another, become one graph as all others do."""
    graphs = []
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: graphs.append(self))
    eager, x = make(), torch.randn(8, 3)
    captured = copy.deepcopy(eager)
    for program, compile in ((eager, "off"), (captured, "on")):
        objective = pv.objectives.ELBO(num_particles=num_particles)
        settings = dict(objective=objective, epochs=2, batch_size=4, progress=False)
        pv.fit(program, x, compile=compile, **settings)
    assert graphs and ("scored at once by vmap" in caplog.text) == (way == "vmap")
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], value, rtol=1e-12, atol=0)


def test_a_model_that_broadcasts_runs_in_the_plate(caplog):
    program, x = Factors(broadcasts=True), torch.randn(5, 3)
    objective = looked(pv.objectives.ELBO(num_particles=3), program, x)
    assert objective.way == "plate" and caplog.records[-1].levelname != "WARNING"
    losses = [loss_and_gradients(objective, program, x, seed)[0] for seed in range(300)]
    single = pv.objectives.ELBO()
    singly = [loss_and_gradients(single, program, x, seed)[0] for seed in range(300)]
    spread = torch.tensor(singly).std().item() / math.sqrt(300)
    assert abs(sum(losses) - sum(singly)) / 300 < 4 * spread


def test_the_user_is_told_how_draws_are_made(caplog):
    looked(pv.objectives.ELBO(num_particles=3), Factors(), torch.randn(5, 3))
    assert "3 draws of global latents (w) run one after another" in caplog.text
    assert "scored at once by vmap" in caplog.text


class Branches(Factors):
    """A model that looks at a latent's value, which vmap cannot."""

    def model(self, x, context=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(2, 3), 1.0).to_event(2))
        w = w if w.sum() > 0 else 2 * w
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)


def test_what_neither_plate_nor_vmap_serves_is_run_draw_by_draw():
    program, x = Branches(), torch.randn(5, 3)
    ours = looked(pv.objectives.ELBO(num_particles=3), program, x)
    assert ours.way == "scan"
    torch.manual_seed(0)
    expected = pyro.infer.Trace_ELBO(num_particles=3).loss(program.model, program.guide, x)
    assert loss_and_gradients(ours, program, x)[0] == pytest.approx(expected, rel=1e-12)


def test_a_product_of_draws_with_draws_that_was_not_looked_at_is_refused():
    program, x = Factors(), torch.randn(5, 3)
    objective = pv.objectives.ELBO(num_particles=3)
    objective.max_plate_nesting = 2
    with pytest.raises(InvalidInput, match=r"x: got log-probabilities of shape \(3, 3, 5\)"):
        objective.loss(program.model, program.guide, x)


@pytest.mark.parametrize("name", ["IWAE", "DReG", "StickingTheLanding"])
def test_a_bound_of_log_weights_has_one_draw_of_the_globals(name):
    r"""It is the bound at that draw, with log p - log q of it: a bound on the log-evidence."""
    program, x = Factors(), torch.randn(5, 3)
    make = getattr(pv.objectives, name)
    loss, _ = loss_and_gradients(looked(make(num_particles=4), program, x), program, x)
    torch.manual_seed(0)
    q = dist.Normal(program.loc, program.log_scale.exp()).to_event(2)
    w = q.sample()
    fixed = AtGlobals(program, {"w": w})
    rng = torch.get_rng_state()
    objective = looked(make(num_particles=4), fixed, x)
    torch.set_rng_state(rng)
    local = objective.loss(fixed.model, fixed.guide, x)
    ratio = dist.Normal(torch.zeros(2, 3), 1.0).to_event(2).log_prob(w) - q.log_prob(w)
    assert loss == pytest.approx(local - ratio.item(), rel=1e-12)


def test_doubly_reparametrised_gradients_with_globals_agree_with_plain_ones():
    program, x = Factors(), torch.randn(3, 3)
    means = {}
    for name in ("IWAE", "DReG"):
        objective = looked(getattr(pv.objectives, name)(num_particles=3), program, x)
        each = torch.stack([loss_and_gradients(objective, program, x, s)[1] for s in range(400)])
        means[name] = each.mean(0), each.std(0) / math.sqrt(400)
    (a, a_se), (b, b_se) = means.values()
    assert ((a - b).abs() < 4.5 * torch.hypot(a_se, b_se)).all()


def test_an_objective_is_of_one_program():
    program, x = Factors(), torch.randn(5, 3)
    objective = looked(pv.objectives.IWAE(num_particles=2), program, x)
    fixed = AtGlobals(program, {"w": torch.zeros(2, 3)})
    with pytest.raises(InvalidInput, match="one program for each objective"):
        objective.loss(fixed.model, fixed.guide, x)


class Points(Factors):
    """Local latents at points, so that a loss is a function of the draw of W alone."""

    def guide(self, x, context=None):
        pyro.sample("w", dist.Normal(self.loc, self.log_scale.exp()).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.encoder(x), event_dim=1))


class PointsOfParts(Points):
    """The same with two observed sites."""

    event_shape = {"x": (3,), "y": (3,)}

    def model(self, x, context=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        with pyro.plate("data", len(x["x"])):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            for name in ("x", "y"):
                pyro.sample(name, dist.Normal(z @ w, 1.0).to_event(1), obs=x[name])

    def guide(self, x, context=None):
        super().guide(x["x"])


@pytest.mark.parametrize("name", ["ELBO", "AnalyticELBO", "FreeBits", "EnumeratedELBO"])
@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("make", [Points, PointsOfParts])
def test_batches_of_any_sizes_add_up_to_the_full_datas_loss(make, name, num_particles):
    """Batches of 3 + 3 + 1, weighted by their sizes, at one draw of the globals."""
    program, x = make(), torch.randn(7, 3)
    if make is PointsOfParts:
        x = {"x": x, "y": torch.randn(7, 3)}
    objective = getattr(pv.objectives, name)(num_particles=num_particles)
    steps = GradientSteps(
        program, Dataset(x), objective, 1, 3, 1e-3, torch.optim.SGD, Constant(), 0, None, 0, False
    )
    steps.find_plates()

    def run(places):
        torch.manual_seed(3)
        loss, gradients = steps.loss_and_gradients(
            torch.tensor(places), batch_keys(1, torch.device("cpu"))[0], None
        )
        return loss * len(places) / 7, torch.cat([g.flatten() for g in gradients]) * len(places) / 7

    parts = [run(places) for places in ([4, 1, 6], [0, 2, 3], [5])]
    whole = run(list(range(7)))
    if name != "FreeBits":  # whose maximum is taken of a batch
        torch.testing.assert_close(sum(p[0] for p in parts), whole[0], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(sum(p[1] for p in parts), whole[1], rtol=1e-12, atol=1e-12)
    assert whole[0].isfinite()


def test_the_loss_per_datum_is_that_of_the_evidence_bound_over_all_data():
    program, x = Points(), torch.randn(7, 3)
    history = pv.fit(
        program, x, epochs=1, batch_size=7, learning_rate=1e-12, progress=False, compile="off"
    )
    score = pv.objectives.ELBO()
    losses = [loss_and_gradients(score, program, x, s)[0] / 7 for s in range(400)]
    spread = torch.tensor(losses).std().item()
    assert abs(history["objective"][0] + sum(losses) / 400) < 5 * spread


class Choice(nn.Module):
    """A global latent without a path: which of two means all data have."""

    event_shape = ()

    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.3))

    def model(self, x, context=None):
        c = pyro.sample("c", dist.Bernoulli(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(2 * c, 1.0), obs=x)

    def guide(self, x, context=None):
        pyro.sample("c", dist.Bernoulli(logits=self.logit))


@pytest.mark.parametrize("name", ["ELBO", "IWAE"])
def test_a_discrete_global_has_the_score_functions_gradient(name):
    program, x = Choice(), torch.tensor([1.5, 0.8])
    objective = getattr(pv.objectives, name)(num_particles=1)
    each = torch.stack([loss_and_gradients(objective, program, x, s)[1] for s in range(1500)])
    q = torch.sigmoid(program.logit)
    p_x = torch.stack([dist.Normal(m, 1.0).log_prob(x).sum() for m in (0.0, 2.0)])
    weights = torch.stack([1 - q, q])
    exact = -(weights * (p_x + math.log(0.5) - weights.log())).sum()
    (expected,) = torch.autograd.grad(exact, program.logit)
    error = each.std() / math.sqrt(1500)
    assert abs(each.mean() - expected) < 4 * error
