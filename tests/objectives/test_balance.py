"""Levels weighed by their KLs during the warm-up: the weights in closed form, and what they do."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from families import MLP
from ladders import LATENTS, ladder
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.objectives.kl_weight import balance_levels, weigh_latents
from pyro_vae.runtime.traces import paired_traces
from pyro_vae.validation import InvalidInput

SIZES = {"z3": 2, "z2": 3, "z1": 5}  # the top first


class Chain(torch.nn.Module):
    """A linear normal chain of three levels, with a normal guide that does not see x."""

    event_shape = (5,)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.loc, self.log_scale = (
            torch.nn.ParameterDict({name: 0.5 * torch.randn(size) for name, size in SIZES.items()})
            for _ in range(2)
        )
        self.maps = torch.nn.ParameterList([0.4 * torch.randn(3, 2), 0.4 * torch.randn(5, 3)])

    def p(self, values):
        """The prior of each level given the levels above it."""
        locs = [torch.zeros(2), values["z3"] @ self.maps[0].T, values["z2"] @ self.maps[1].T]
        return {name: dist.Normal(loc, 1.0).to_event(1) for name, loc in zip(SIZES, locs)}

    def q(self):
        return {n: dist.Normal(self.loc[n], self.log_scale[n].exp()).to_event(1) for n in SIZES}

    def model(self, x, context=None):
        with pyro.plate("data", len(x)):
            z3 = pyro.sample("z3", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z3 @ self.maps[0].T, 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ self.maps[1].T, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 0.5).to_event(1), obs=x)

    def guide(self, x, context=None):
        with pyro.plate("data", len(x)):
            for name, q in self.q().items():
                pyro.sample(name, q)


def weighed(program, weight):
    return [weigh_latents(fn, weight) for fn in (program.model, program.guide)]


def by_hand(program, x, weight):
    """The loss at the draws of seed 1, with closed forms; the weights of the levels."""
    torch.manual_seed(1)
    values = pyro.poutine.trace(program.guide).get_trace(x)
    values = {name: values.nodes[name]["value"] for name in SIZES}
    p, q = program.p(values), program.q()
    kl = {n: kl_divergence(q[n].base_dist, p[n].base_dist).sum(-1).expand(len(x)) for n in SIZES}
    relative = torch.stack([kl[name].mean().detach() / SIZES[name] for name in SIZES])
    weights = relative / relative.mean() if weight < 1 else torch.ones(3)
    log_x = dist.Normal(values["z1"], 0.5).to_event(1).log_prob(x).sum()
    return weight * sum(g * kl[n].sum() for g, n in zip(weights, SIZES)) - log_x, weights


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_loss_and_every_levels_gradient_are_the_closed_forms(float64, weight, as_tensor):
    program, x = Chain(), torch.randn(7, 5)
    expected, weights = by_hand(program, x, weight)
    assert weights.mean().item() == pytest.approx(1)
    objective = pv.objectives.AnalyticELBO(balance=True)
    torch.manual_seed(1)
    given = torch.tensor(weight) if as_tensor else weight
    loss = objective.differentiable_loss(*weighed(program, given), x)
    torch.testing.assert_close(loss, expected)
    parameters = [*program.parameters()]
    for ours, exact in zip(*(torch.autograd.grad(a, parameters) for a in (loss, expected))):
        assert exact.abs().max() > 1e-3
        torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("name", ["ELBO", "AnalyticELBO"])
def test_without_a_warm_up_and_at_its_end_it_is_the_elbo(float64, name):
    program, x = ladder().double(), torch.rand(4, 1, 8, 8).bernoulli()
    plain, balanced = (getattr(pv.objectives, name)(balance=b) for b in (False, True))

    def loss(objective, *pair):
        torch.manual_seed(2)
        return objective.differentiable_loss(*pair, x)

    bare = loss(plain, program.model, program.guide)
    assert torch.equal(loss(balanced, program.model, program.guide), bare)
    assert torch.equal(loss(balanced, *weighed(program, torch.tensor(1.0))), bare)
    part = weighed(program, torch.tensor(0.5))
    assert (loss(balanced, *part) - loss(plain, *part)).abs() > 1e-3


def test_weights_have_mean_one_whatever_scales_the_kls(float64):
    program, x = Chain(), torch.randn(6, 5)
    _, expected = by_hand(program, x, 0.5)
    for weight, scale in ((1e-6, 1.0), (0.5, 1.0), (0.9, 1e3)):
        model, _ = paired_traces(*weighed(program, weight), x)
        kls = {n: w * SIZES[n] * scale * torch.ones(6) for w, n in zip(expected, SIZES)}
        found = [(term / kls[n]).mean() for n, term in balance_levels(kls, model).items()]
        torch.testing.assert_close(torch.stack(found), expected)


def test_levels_without_a_kl_weigh_alike():
    program, x = Chain(), torch.randn(6, 5)
    model, _ = paired_traces(*weighed(program, 0.5), x)
    terms = {name: torch.zeros(6, requires_grad=True) for name in SIZES}
    sum(term.sum() for term in balance_levels(terms, model).values()).backward()
    assert all(torch.equal(term.grad, torch.ones(6)) for term in terms.values())


def test_a_weight_of_a_level_ignores_its_grid():
    """Levels of one KL per entry weigh alike, as in a ladder whose levels are all posteriors."""
    program, x = ladder(), torch.rand(4, 1, 8, 8).bernoulli()
    model, _ = paired_traces(*weighed(program, 0.5), x)
    terms = {
        f"z{i + 1}": torch.full((4,), 0.1 * torch.Size(s).numel()) for i, s in enumerate(LATENTS)
    }
    for name, term in balance_levels(terms, model).items():
        torch.testing.assert_close(term, terms[name])


def hierarchy():
    torch.manual_seed(0)
    q = pv.posteriors.DiagonalNormal
    return pv.HierarchicalVAE(
        priors=[q(3, MLP(2, [8])), pv.priors.StandardNormal(2)],
        likelihood=pv.likelihoods.Bernoulli(6, MLP(3, [8])),
        posteriors=[q(3, MLP(6, [8])), q(2, MLP(3, [8]))],
    )


def trained(program, x, epochs, **options):
    objective = pv.objectives.AnalyticELBO(balance=True)
    pv.fit(program, x, objective=objective, epochs=epochs, warmup=3, batch_size=10, progress=False,
           **options)  # fmt: skip
    return program.state_dict()


def test_training_is_captured_and_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)  # the graph, interpreted
    x = torch.rand(40, 6).bernoulli()
    straight = trained(hierarchy(), x, 4, compile="off")
    captured = trained(hierarchy(), x, 4, compile="on")
    trained(hierarchy(), x, 2, compile="off", out=tmp_path)
    resumed = trained(hierarchy(), x, 4, compile="off", out=tmp_path, resume=True)
    plain = copy.deepcopy(hierarchy())
    pv.fit(plain, x, objective=pv.objectives.AnalyticELBO(), epochs=4, warmup=3, batch_size=10,
           progress=False)  # fmt: skip
    for name, value in straight.items():
        assert torch.equal(value, captured[name]) and torch.equal(value, resumed[name]), name
    assert any(not torch.equal(value, plain.state_dict()[name]) for name, value in straight.items())


def test_what_has_no_levels_to_balance_is_told():
    q, x = pv.posteriors.DiagonalNormal, torch.rand(8, 6).bernoulli()
    vae = pv.VAE(pv.priors.StandardNormal(2), pv.likelihoods.Bernoulli(6, MLP(2, [])),
                 q(2, MLP(6, [])))  # fmt: skip
    with pytest.raises(InvalidInput, match=r"balance: got one level, .*two levels"):
        trained(vae, x, 1)
    with pytest.raises(InvalidInput, match=r"warmup: got 0 .*--warmup 10"):
        pv.fit(hierarchy(), x, objective=pv.objectives.ELBO(balance=True), progress=False)
