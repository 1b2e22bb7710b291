"""Pairs of many forms: Pyro's own loss; copied, saved, loaded and generated from."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import as_program
from pyro_vae.programs.arguments import takes_context
from pyro_vae.validation import InvalidInput

X = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(12, 1) + torch.tensor([0.0, 0.4, 1.0])
FORMS = {}


def form(make):
    FORMS[make.__name__] = make
    return make


def q_of(encoder, x, name="w"):
    loc, log_scale = encoder(x).chunk(2, -1)
    return pyro.sample(name, dist.Normal(loc, log_scale.exp()).to_event(1))


@form
def subsampled():
    encoder, decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(data):
        with pyro.plate("cells", 100, subsample=data) as batch:
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(decoder(w), 1.0).to_event(1), obs=batch)

    def guide(data):
        with pyro.plate("cells", 100, subsample=data) as batch:
            q_of(encoder, batch)

    return model, guide


@form
def masked_and_scaled():
    encoder, decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(x, beta=0.5):
        with pyro.plate("cells", len(x)):
            with poutine.scale(scale=beta):
                w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.factor("soft", -0.1 * w.square().sum(-1))
            loc = pyro.deterministic("loc", decoder(w), event_dim=1)
            with poutine.mask(mask=x[:, 0] > -0.5):
                pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, beta=0.5):
        with pyro.plate("cells", len(x)), poutine.scale(scale=beta):
            q_of(encoder, x)

    return model, guide


@form
def nested_plates():
    encoder = nn.Linear(3, 2)

    def model(x):
        tau = pyro.param("tau", torch.ones(3), constraint=constraints.positive, event_dim=1)
        with pyro.plate("rows", len(x), dim=-2):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            with pyro.plate("columns", 3, dim=-1):
                effect = pyro.sample("effect", dist.Normal(level, 1.0))
                pyro.sample("y", dist.Normal(effect, tau), obs=x)

    def guide(x):
        loc, log_scale = encoder(x).chunk(2, -1)
        with pyro.plate("rows", len(x), dim=-2):
            level = pyro.sample("level", dist.Normal(loc, log_scale.exp()))
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("effect", dist.Normal(0.5 * level + 0.2 * x, 0.5))

    return model, guide


@form
def with_an_auxiliary_site():
    encoder, decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(x):
        with pyro.plate("cells", len(x)):
            w = pyro.sample("w", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(decoder(w), 1.0).to_event(1), obs=x)

    def guide(x):
        loc, log_scale = encoder(x).chunk(2, -1)
        normal = dist.Normal(loc, log_scale.exp()).to_event(1)
        with pyro.plate("cells", len(x)):
            u = pyro.sample("u", normal, infer={"is_auxiliary": True})
            pyro.sample("w", dist.Delta(u.exp(), log_density=-u.sum(-1), event_dim=1))

    return model, guide


@form
def without_reparametrisation():
    def model(x):
        shape = pyro.param("shape", torch.tensor(2.0), constraint=constraints.greater_than(0.1))
        with pyro.plate("rows", len(x)):
            rate = pyro.sample("rate", dist.Gamma(shape, 1.0))
            k = pyro.sample("k", dist.Poisson(rate))
            with pyro.plate("columns", 3, dim=-2):
                pyro.sample("y", dist.Normal(k, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("rate", dist.Gamma(2.0 + x.square().sum(-1), 3.0))
            pyro.sample("k", dist.Poisson(x.exp().sum(-1)))

    return model, guide


@form
def enumerated_in_the_guide():
    encoder, decoder = nn.Linear(3, 3), nn.Linear(3, 3)

    def model(x):
        with pyro.plate("cells", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("y", dist.Normal(decoder(torch.eye(3)[k]), 1.0).to_event(1), obs=x)

    @config_enumerate(default="parallel")
    def guide(x):
        with pyro.plate("cells", len(x)):
            pyro.sample("k", dist.Categorical(logits=encoder(x)))

    return model, guide


@form
def under_a_handler():
    model, guide = subsampled()
    return poutine.block(model, hide=["nothing"]), guide


def program_of(name):
    torch.manual_seed(1)
    return pv.Program(*FORMS[name]())


@pytest.mark.parametrize("name", FORMS)
def test_the_loss_is_pyros_own(float64, name):
    program = program_of(name)
    program.prepare(X)
    summed = name == "enumerated_in_the_guide"
    ours = pv.objectives.EnumeratedELBO() if summed else pv.objectives.ELBO()
    ours.max_plate_nesting = 2
    torch.manual_seed(3)
    loss = ours.loss(program.model, program.guide, X)
    with pyro.get_param_store().scope():
        torch.manual_seed(3)
        theirs = (TraceEnum_ELBO if summed else Trace_ELBO)(max_plate_nesting=2)
        expected = theirs.loss(program.model_fn, program.guide_fn, X)
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_copied_saved_and_loaded(float64, name, tmp_path):
    program = program_of(name)
    scores = pv.elbo(program, X, 3).values
    copied = copy.deepcopy(program)
    assert torch.equal(pv.elbo(copied, X, 3).values, scores)
    for parameter in copied.parameters():
        parameter.data += 0.05
    assert torch.equal(pv.elbo(program, X, 3).values, scores)
    assert not torch.equal(pv.elbo(copied, X, 3).values, scores)
    pv.save(copied, tmp_path)
    loaded = pv.load(tmp_path, program=program_of(name))
    assert pv.generate(loaded, 2).shape == (2, 3)  # before any data
    assert torch.equal(pv.elbo(loaded, X, 3).values, pv.elbo(copied, X, 3).values)
    assert not list(pyro.get_param_store().keys())


def test_copies_of_functions_share_nothing_and_keep_what_is_no_parameter():
    net, table, seen = nn.Linear(2, 2), {"scale": 2.0}, []

    def helper(x):
        return net(x) * table["scale"]

    def model(x):
        seen.append(len(x))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(helper(x), 1.0).to_event(1), obs=x)

    program = pv.Program(model, lambda x: None)
    copied = copy.deepcopy(program)
    (own,) = copied.modules_used
    assert own is not net and torch.equal(own.weight, net.weight)
    own.weight.data.zero_()
    copied.model_fn(torch.ones(3, 2))
    assert seen == [3] and net.weight.abs().sum() > 0
    x = torch.ones(2, 2)
    mean = poutine.trace(copied.model_fn).get_trace(x).nodes["y"]["fn"].mean
    torch.testing.assert_close(mean, (own.bias * 2.0).expand(2, 2))


class WithShape(nn.Module):
    """A pair that has an ``event_shape`` for its own use, and names of its own."""

    def __init__(self):
        super().__init__()
        self.event_shape = (3,)
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(self, x, y=None):
        pyro.module("pair", self)
        with pyro.plate("cells", len(x)):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(self.decoder(w), 1.0).to_event(1), obs=x)

    def guide(self, x, y=None):
        with pyro.plate("cells", len(x)):
            q_of(self.encoder, x)


def test_a_pair_with_an_event_shape_is_no_finished_program(float64):
    pair = WithShape()
    assert isinstance(as_program(pair), pv.Program)
    pv.fit(pair, X, epochs=1, compile="off", progress=False)
    assert pv.generate(pair, 2).shape == (2, 3) and not list(pyro.get_param_store().keys())


def test_a_context_by_keyword(float64):
    def model(x, *, context=None):
        with pyro.plate("cells", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            mean = (w + context).unsqueeze(-1).expand(*w.shape, 3)
            pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x, *, context=None):
        with pyro.plate("cells", len(x)):  # exact
            pyro.sample("w", dist.Normal((x - context[:, None]).sum(-1) / 4, 0.5))

    program, c = pv.Program(model, guide), torch.arange(12.0)
    covariance = torch.eye(3) + 1
    exact = dist.MultivariateNormal(c[:, None].expand(12, 3), covariance).log_prob(X)
    torch.testing.assert_close(pv.elbo(program, (X, c), 2).values, exact)
    assert pv.generate(program, 2, context=c[:2]).shape == (2, 3)


def test_other_arguments_by_keyword_are_refused_with_the_line():
    with pytest.raises(InvalidInput, match=r"lambda x, context: model\(x, size=context\['size'\]"):
        takes_context("model", lambda x, *, size: None)
