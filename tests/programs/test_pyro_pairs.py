"""What pairs of Pyro's users do: names, plates, parameters, masks, enumeration; what is refused."""

import contextlib
import copy
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import as_program
from pyro_vae.validation import InvalidInput

X = torch.linspace(-2, 2, 12).reshape(12, 1) + torch.linspace(0, 1, 3)


def fitted(program, data, **options):
    torch.manual_seed(0)
    options = {"epochs": 2, "batch_size": 5, "progress": False, **options}
    return pv.fit(program, data, **options)


def refusal(program, data=X):
    with pytest.raises(InvalidInput) as error:
        fitted(program, data)
    assert not list(pyro.get_param_store().keys())
    return str(error.value)


class Normal(nn.Module):
    """z ~ N(0, 1), x_j ~ N(z, s^2) for j = 1..3, with an exact guide and s in Pyro's store."""

    plate_of_model = plate_of_guide = "cells"

    def model(self, data):
        s = pyro.param("s", torch.tensor(0.7, dtype=data.dtype), constraint=constraints.positive)
        with pyro.plate(self.plate_of_model, len(data)):
            z = pyro.sample("z", dist.Normal(data.new_zeros(()), 1.0))
            mean = z.unsqueeze(-1).expand(*z.shape, 3)
            pyro.sample("obs", dist.Normal(mean, s).to_event(1), obs=data)

    def guide(self, data):
        s = pyro.param("s", torch.tensor(0.7, dtype=data.dtype), constraint=constraints.positive)
        precision = 1 + 3 / s**2
        with pyro.plate(self.plate_of_guide, len(data)):
            pyro.sample("z", dist.Normal(data.sum(1) / s**2 / precision, precision**-0.5))

    def log_prob(self, x, s=0.7):
        covariance = s**2 * torch.eye(3, dtype=x.dtype) + 1
        return dist.MultivariateNormal(x.new_zeros(3), covariance).log_prob(x)


class Unsized(Normal):
    def model(self, data):
        with poutine.block():
            s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(data.new_zeros(len(data)), 1.0))
            mean = z.unsqueeze(-1).expand(*z.shape, 3)
            pyro.sample("data", dist.Normal(mean, s).to_event(1), obs=data)

    def guide(self, data):
        s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        precision = 1 + 3 / s**2
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(data.sum(1) / s**2 / precision, precision**-0.5))


class TwoNames(Normal):
    plate_of_model, plate_of_guide = "particles", "data"


class LeftPlate(Normal):
    """The entries in a plate left of the data's, and x turned to fit."""

    def model(self, data):
        s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        with pyro.plate("cells", len(data), dim=-1):
            z = pyro.sample("z", dist.Normal(data.new_zeros(()), 1.0))
            with pyro.plate("data", 3, dim=-2):
                pyro.sample("obs", dist.Normal(z, s), obs=data.t())


class Pieces(Normal):
    """Each entry at a site of its own, in a chain."""

    def model(self, data):
        s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        with pyro.plate("cells", len(data)):
            z = pyro.sample("z", dist.Normal(data.new_zeros(()), 1.0))
            for t in pyro.markov(range(3)):
                pyro.sample(f"obs_{t}", dist.Normal(z, s), obs=data[:, t])


class LatentX(Normal):
    """A latent called x, as in the literature on state spaces."""

    def renamed(self, fn, data):
        def rename(msg):
            if msg["name"] == "z":
                msg["name"] = "x"

        messenger = poutine.messenger.Messenger()
        messenger._pyro_sample = rename
        with messenger:
            fn(data)

    def model(self, data):
        self.renamed(super().model, data)

    def guide(self, data):
        self.renamed(super().guide, data)


class Masked(Normal):
    """The third entry is never observed."""

    def model(self, data):
        s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        mask = torch.tensor([True, True, False]).expand(len(data), 3)
        with pyro.plate("cells", len(data), dim=-2):
            z = pyro.sample("z", dist.Normal(data.new_zeros(()), 1.0))
            with pyro.plate("entries", 3, dim=-1):
                pyro.sample("obs", dist.Normal(z, s), obs=data, obs_mask=mask)

    def guide(self, data):
        s = pyro.param("s", torch.tensor(0.7).to(data), constraint=constraints.positive)
        precision = 1 + 2 / s**2
        with pyro.plate("cells", len(data), dim=-2):
            loc = data[:, :2].sum(1, keepdim=True) / s**2 / precision
            pyro.sample("z", dist.Normal(loc, precision**-0.5))

    def log_prob(self, x, s=0.7):
        return dist.MultivariateNormal(
            x.new_zeros(2), s**2 * torch.eye(2, dtype=x.dtype) + 1
        ).log_prob(x[:, :2])


FORMS = [Normal, Unsized, TwoNames, LeftPlate, Pieces, LatentX, Masked]


@pytest.mark.parametrize("form", FORMS)
def test_names_and_plates_of_any_kind_are_scored_exactly(float64, form):
    x, program = X.double(), form()
    exact = program.log_prob(x)
    torch.testing.assert_close(pv.elbo(program, x, 3).values, exact)
    torch.testing.assert_close(pv.log_likelihood(program, x, 3).values, exact)
    torch.testing.assert_close(pv.elbo(program, x[:1], 3).values, exact[:1])
    pair = as_program(program)
    loss = pv.objectives.IWAE(4).loss(pair.model, pair.guide, x)
    assert loss == pytest.approx(-exact.sum().item())
    assert pv.reconstruct(program, x).shape == pv.generate(program, 12).shape == x.shape
    draws = pv.to_inference_data(program, x, 7).posterior_predictive["x"]
    assert draws.shape == (1, 7, 12, 3)
    if form is not Masked:
        assert pv.generate(program, 20_000, draws=True).var(0).mean() == pytest.approx(1.49, 0.05)


@pytest.mark.parametrize(
    "batch",
    [
        lambda data: {"subsample": torch.arange(len(data))},
        lambda data: {"subsample": data},
        lambda data: {"subsample_size": len(data)},
    ],
)
def test_a_full_size_changes_no_loss_and_no_score_per_datum(batch):
    """Nor where more data are scored than the plate's size says there are."""

    class Full(Normal):
        def model(self, data):
            with pyro.plate("cells", 600, **batch(data)):
                self.body(data)

        def body(self, data):
            s = pyro.param("s", torch.tensor(0.7), constraint=constraints.positive)
            z = pyro.sample("z", dist.Normal(data.new_zeros(()), 1.0))
            mean = z.unsqueeze(-1).expand(*z.shape, 3)
            pyro.sample("obs", dist.Normal(mean, s).to_event(1), obs=data)

    assert fitted(Full(), X)["objective"] == pytest.approx(fitted(Normal(), X)["objective"])
    many = X.repeat(60, 1)
    assert len(many) > 600
    scores = [pv.log_likelihood(form(), many, 3).values for form in (Full, Normal)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_parameters_are_kept_by_the_module_and_by_nothing_else(tmp_path):
    one, other = Normal(), Normal()
    fitted(one, X, learning_rate=0.1)
    pv.elbo(other, X)
    moved, start = one.state_dict()["pyro_store.s"], other.state_dict()["pyro_store.s"]
    assert start == torch.tensor(0.7).log() and moved != start
    copied = copy.deepcopy(one)
    fitted(copied, X, learning_rate=0.1)
    assert one.state_dict()["pyro_store.s"] == moved != copied.state_dict()["pyro_store.s"]
    pv.save(one, tmp_path)
    loaded = pv.load(tmp_path)
    assert type(loaded) is Normal
    assert torch.equal(pv.elbo(loaded, X).values, pv.elbo(one, X).values)
    assert pv.generate(pv.load(tmp_path), 4).shape == (4, 3)  # before any data
    assert pv.elbo(one.double(), X.double()).values.dtype == torch.float64
    assert not list(pyro.get_param_store().keys())


def test_the_initial_value_and_the_constraint_are_the_authors(float64):
    class Bounded(Normal):
        def model(self, data):
            pyro.param("s", torch.tensor(0.7), constraint=constraints.interval(0.6, 0.8))
            super().model(data)

        def guide(self, data):
            pyro.param("s", torch.tensor(0.7), constraint=constraints.interval(0.6, 0.8))
            super().guide(data)

    program = Bounded()
    x = X.double()
    torch.testing.assert_close(pv.elbo(program, x).values, program.log_prob(x))
    fitted(program, x, epochs=40, learning_rate=0.5, batch_size=12)
    value = program.pyro_store.value("s", constraints.real)
    assert 0.6 < value < 0.8 and (value - 0.7).abs() > 0.05


class Regression(PyroModule):
    """Bayesian regression, as the tutorial has it: y is observed, x the context."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, y, x):
        mean, noise = self.linear(x).squeeze(-1), self.noise
        with pyro.plate("observations", len(x)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)


@pytest.mark.parametrize(
    "guide",
    [
        AutoNormal,
        AutoMultivariateNormal,
        AutoLowRankMultivariateNormal,
        AutoDelta,
        AutoStructured,  # which keeps the names of its latents alone
    ],
)
def test_autoguides_of_global_latents_train_and_load(guide, tmp_path):
    def build():
        model = Regression()
        return pv.Program(model, guide(model))

    data = X @ torch.tensor([1.0, -1.0, 0.5]), X
    program = build()
    history = fitted(program, data, epochs=40, batch_size=12, learning_rate=0.03)
    assert sum(history["objective"][-10:]) > sum(history["objective"][:10])
    pv.save(program, tmp_path)
    loaded = pv.load(tmp_path, program=build())
    for name, value in program.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert torch.equal(pv.elbo(loaded, data, 3).values, pv.elbo(program, data, 3).values)
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("guide", [AutoNormal, AutoStructured])
def test_an_autoguide_of_a_datums_latent_is_refused(guide):
    model = Normal().model
    said = refusal(pv.Program(model, guide(model)))
    assert f"a latent of the data plate in an {guide.__name__}" in said and "hide=['z']" in said


# discrete latents

PROBS, MEANS = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([-2.0, 0.0, 3.0])


class Mixture(nn.Module):
    """k ~ Categorical, z ~ N(m_k, 1), x ~ N(z, 0.5^2); the model sums over k."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(1, 1)

    @config_enumerate
    def model(self, x):
        with pyro.plate("points", len(x)):
            k = pyro.sample("k", dist.Categorical(PROBS.to(x)))
            z = pyro.sample("z", dist.Normal(MEANS.to(x)[k], 1.0))
            pyro.sample("obs", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("points", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x.unsqueeze(-1)).squeeze(-1), 0.6))


def test_a_model_that_sums_over_its_discrete_latents_is_exact(float64):
    program, x = Mixture().double(), torch.linspace(-4, 5, 10)
    nn.init.constant_(program.encoder.weight, 0.8), nn.init.zeros_(program.encoder.bias)
    exact = (
        PROBS.double().log() + dist.Normal(MEANS.double(), 1.25**0.5).log_prob(x[:, None])
    ).logsumexp(1)
    score = pv.log_likelihood(program, x, 2000)
    assert ((score.values - exact).abs() < 4.5 * score.mc_se + 1e-3).all()
    assert (pv.elbo(program, x, 500).values < exact).all()
    pair = as_program(program)
    objective = pv.objectives.EnumeratedELBO()
    objective.max_plate_nesting = 1
    torch.manual_seed(1)
    loss = objective.loss(pair.model, pair.guide, x)
    torch.manual_seed(1)
    theirs = TraceEnum_ELBO(max_plate_nesting=1).loss(program.model, program.guide, x)
    assert loss == pytest.approx(theirs, rel=1e-12)
    drawn = pv.generate(program, 20_000, draws=True)
    assert drawn.mean() == pytest.approx((PROBS * MEANS).sum().item(), abs=0.08)
    assert (pv.reconstruct(program, x) - x).abs().mean() < 1.5
    with pytest.raises(InvalidInput, match="EnumeratedELBO"):
        pv.objectives.ELBO().loss(pair.model, pair.guide, x)
    assert fitted(program, x)["objective"]  # by EnumeratedELBO


def test_a_mixture_with_global_components(float64):
    @config_enumerate
    def model(x):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("points", len(x)):
            k = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[k], 1.0), obs=x)

    start = poutine.block(model, expose=["weights", "locs"])
    x = torch.cat([torch.linspace(-4, -2, 15), torch.linspace(2, 4, 15)])
    torch.manual_seed(0)
    program = pv.Program(model, AutoDelta(start))
    fitted(program, x, epochs=60, batch_size=30, learning_rate=0.1)
    locs = program.modules_used[0].locs.detach()
    torch.testing.assert_close(locs.sort().values, torch.tensor([-3.0, 3.0]), atol=0.4, rtol=0)


# what cannot be taken


def in_loop(x):
    for i in pyro.plate("points", len(x)):
        pyro.sample(
            f"x_{i}", dist.Normal(pyro.param("m", torch.zeros(3)), 1.0).to_event(1), obs=x[i]
        )


def picking(x):
    with pyro.plate("points", len(x), subsample_size=5) as few:
        mean = pyro.param("m", torch.zeros(3))
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x[few])


def without_plate(x):
    pyro.sample(
        "x", dist.Normal(pyro.param("m", torch.zeros(3)), 1.0).expand(x.shape).to_event(2), obs=x
    )


def for_each_datum(x):
    loc = pyro.param("loc", torch.zeros(len(x), 3))
    with pyro.plate("points", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def at_times(x):
    scale = 1.0 if len(x) < 5 else pyro.param("scale", torch.ones(()))
    mean = pyro.param("m", torch.zeros(3))
    with pyro.plate("points", len(x)):
        pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)


def two_dimensions(x):
    mean = pyro.param("m", torch.zeros(3))
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", len(x), dim=-1):
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x.unsqueeze(1))


@pytest.mark.parametrize(
    "model, words",
    [
        (
            in_loop,
            r"plate 'points': got a loop over the data.*with pyro.plate\('points', len\(x\)\)",
        ),
        (picking, r"picked by the plate itself.*pyro.plate\('data', len\(x\)\)"),
        (without_plate, r"no plate of the size of the data.*with pyro.plate\('data', len\(x\)\)"),
        (for_each_datum, r"pyro.param\('loc'\) with an entry for each datum"),
        (at_times, r"pyro.param\('scale'\), which only some runs reach"),
        (two_dimensions, r"'rows' in dimension -2, 'columns' in dimension -1"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_line_to_change(model, words):
    said = refusal(pv.Program(model, lambda x: None))
    assert re.search(words, said), said


def vectors(latents=True, plate=True, x_is_event=True, z_is_event=True):
    """A model, or a guide, of vectors: with or without its plate, and their dimensions."""

    def run(x):
        with pyro.plate("rows", len(x)) if plate else contextlib.nullcontext():
            prior = dist.Normal(torch.zeros(len(x), 2) if latents else x[:, :2], 1.0)
            z = pyro.sample("z", prior.to_event(1) if z_is_event else prior)
            if latents:
                density = dist.Normal(torch.cat([z, z], -1)[..., :3], 1.0)
                pyro.sample("x", density.to_event(1) if x_is_event else density, obs=x)

    return run


@pytest.mark.parametrize(
    "model, guide, words",
    [
        (
            {"plate": False},
            {},
            "^model: got 'z' outside of plate 'rows', in which the guide has it",
        ),
        (
            {},
            {"plate": False},
            "^guide: got 'z' outside of plate 'rows', in which the model has it",
        ),
        (
            {"x_is_event": False},
            {},
            r"^x: got a density of 3 along dimension -1, where plate 'rows'",
        ),
        (
            {"z_is_event": False},
            {},
            r"^z: got a density of 2 along dimension -1, .*\.to_event\(1\)",
        ),
        (
            {},
            {"z_is_event": False},
            r"^z: got a density of 2 along dimension -1, .*\.to_event\(1\)",
        ),
    ],
)
def test_a_forgotten_plate_or_event_dimension_is_named(model, guide, words):
    x = torch.randn(60, 3)
    program = pv.Program(vectors(**model), vectors(latents=False, **guide))
    with pytest.raises(InvalidInput, match=words):
        pv.fit(program, x, epochs=1, progress=False)


def test_more_arguments_are_refused_with_the_adapter():
    with pytest.raises(InvalidInput, match=r"arguments=lambda x, context: \(x, context\['y'\]"):
        pv.Program(lambda x, y, mask: None, lambda x, y, mask: None)


def test_a_module_that_the_program_does_not_hold_is_named():
    hidden = {"net": nn.Linear(3, 3)}

    def model(x):
        net = hidden_net()
        pyro.module("net", net)
        with pyro.plate("points", len(x)):
            pyro.sample("x", dist.Normal(net(x), 1.0).to_event(1), obs=x)

    class Finder:
        __slots__ = ("get",)

    finder = Finder()
    finder.get = hidden.get

    def hidden_net():
        return finder.get("net")

    said = refusal(pv.Program(model, lambda x: None))
    assert "pyro.module('net', ...) of a module that the program does not hold" in said
    assert "modules=[...]" in said


def masked_distribution(z, x, seen):
    return pyro.sample("x", dist.Normal(z, 1.0).mask(seen), obs=x)


def masked_handler(z, x, seen):
    with poutine.mask(mask=seen):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def masked_observation(z, x, seen):
    pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)


@pytest.mark.parametrize("observe", [masked_distribution, masked_handler, masked_observation])
@pytest.mark.parametrize("filled", [True, False])
def test_a_model_may_mask_missing_entries_itself(observe, filled, float64):
    x = X.double()
    x[::2, 0] = x[3] = torch.nan
    seen = ~x.isnan()

    class Masks(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.0))

        def model(self, x):
            with pyro.plate("data", len(x), dim=-2):
                z = pyro.sample("z", dist.Normal(self.shift.expand(1), 1.0))
                with pyro.plate("entries", 3, dim=-1):
                    observe(z, torch.nan_to_num(x) if filled else x, ~x.isnan())

        def guide(self, x):  # the posterior
            precision = 1 + (~x.isnan()).sum(1, keepdim=True)
            with pyro.plate("data", len(x), dim=-2):
                mean = (x.nansum(1, keepdim=True) + self.shift) / precision
                pyro.sample("z", dist.Normal(mean, precision**-0.5))

    masks, data = Masks(), pv.datasets.Dataset(x, missing=True)
    program = pv.Program(masks.model, masks.guide, masks)
    if not filled:
        assert "x: got missing entries" in refusal(program, data)
        return
    scores = pv.log_likelihood(program, data, 3).values
    for row, there, score in zip(x, seen, scores):
        few, exact = row[there], torch.zeros(())
        if len(few):
            covariance = torch.eye(len(few)) + 1
            exact = dist.MultivariateNormal(torch.zeros(len(few)), covariance).log_prob(few)
        torch.testing.assert_close(score, exact)
    assert fitted(program, data, learning_rate=0.1)["objective"]
    assert masks.shift.abs() > 0.01
