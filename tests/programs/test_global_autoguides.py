"""AutoGuides of global latents: Pyro's own losses step by step; saved, loaded, resumed, scored."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import pyro_vae as pv

GUIDES = [AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoDelta]


class Regression(PyroModule):
    """Bayesian regression: y is observed, x is the context."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        self.noise = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, y, x):
        mean, noise = self.linear(x).squeeze(-1), self.noise
        with pyro.plate("observations", len(x)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)


def regression(guide=AutoNormal):
    model = Regression()
    return pv.Program(model, guide(model))


@config_enumerate
def components(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
    with pyro.plate("points", len(x)):
        k = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[k], scale), obs=x)


def mixture(guide=AutoNormal):
    return pv.Program(components, guide(poutine.block(components, hide=["assignment"])))


def data_of(make):
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    if make is regression:
        return c @ torch.tensor([1.0, -1.0], dtype=torch.float64) + 0.3 * c[:, 0].square(), c
    return torch.cat([c[:, 0] - 2, c[:, 1] + 2]), None


def tensors(data):
    x, context = data
    return x if context is None else (x, context)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("make", [regression, mixture])
def test_steps_of_training_are_those_of_pyros_svi(float64, make, guide):
    """The same losses and parameters, from the same start and random numbers."""
    x, context = data_of(make)
    program = make(guide)
    program.prepare(x, context)
    other = copy.deepcopy(program)
    ours = pv.objectives.ELBO() if make is regression else pv.objectives.EnumeratedELBO()
    theirs = Trace_ELBO() if make is regression else TraceEnum_ELBO(max_plate_nesting=1)
    ours.max_plate_nesting = 1
    optimizer = torch.optim.Adam(program.parameters(), lr=0.05)
    mine = []
    for step in range(4):
        torch.manual_seed(step)
        loss = ours.differentiable_loss(program.model, program.guide, x, context)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mine.append(loss.item())
    args = (x,) if context is None else (x, context)
    with pyro.get_param_store().scope():
        optim = pyro.optim.Adam({"lr": 0.05})
        svi = SVI(other.model_fn, other.guide_fn, optim, theirs)
        losses = []
        for step in range(4):
            torch.manual_seed(step)
            losses.append(svi.step(*args))
    assert mine == pytest.approx(losses, rel=1e-9)
    moved = dict(other.named_parameters())
    for name, parameter in program.named_parameters():
        torch.testing.assert_close(parameter, moved[name], msg=name)
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("make", [regression, mixture])
def test_a_run_is_resumed_and_loads_to_the_same_scores(float64, make, tmp_path):
    data = tensors(data_of(make))
    whole, part, loaded = make(), make(), make()
    options = dict(batch_size=8, learning_rate=0.05, compile="off", progress=False)
    torch.manual_seed(0)
    pv.fit(whole, data, epochs=4, **options)
    torch.manual_seed(0)
    pv.fit(part, data, epochs=2, out=tmp_path, **options)
    pv.fit(part, data, epochs=4, out=tmp_path, resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(part.state_dict()[name], value), name
    pv.load(tmp_path, program=loaded)
    for score in (pv.elbo, pv.log_likelihood):
        assert torch.equal(score(loaded, data, 20).values, score(part, data, 20).values)


def test_arviz_data_of_a_mixture_have_the_density_of_each_draw(float64):
    """log p(x | theta), which sums over the assignments, and log p(x, theta)."""
    x, _ = data_of(mixture)
    program = mixture()
    torch.manual_seed(0)
    pv.fit(program, x, epochs=1, compile="off", progress=False)
    idata = pv.to_inference_data(program, x, 6)
    draws = {n: torch.as_tensor(v.values[0]) for n, v in idata.posterior.data_vars.items()}
    assert draws.keys() == {"weights", "scale", "locs"}
    normal = dist.Normal(draws["locs"], draws["scale"][:, None])
    exact = (draws["weights"].log()[:, None] + normal.log_prob(x[:, None, None]).movedim(0, 1)
             ).logsumexp(-1)  # fmt: skip
    found = torch.as_tensor(idata.log_likelihood["x"].values[0])
    torch.testing.assert_close(found, exact)
    prior = (
        dist.Dirichlet(torch.ones(2)).log_prob(draws["weights"])
        + dist.LogNormal(0.0, 0.5).log_prob(draws["scale"])
        + dist.Normal(0.0, 3.0).log_prob(draws["locs"]).sum(-1)
    )
    joint = torch.as_tensor(idata.sample_stats["lp"].values[0])
    torch.testing.assert_close(joint, exact.sum(-1) + prior)
    assert idata.prior["assignment"].shape == (1, 6, len(x))


NOISE, SPREAD = 0.7, 0.5
VARIANCE = NOISE**2 + SPREAD**2


def factors():
    """x_n = z_n + noise, z_n = w . c_n + spread: w global under an autoguide, z exact given w."""

    def model(x, c):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal((c * w).sum(-1), SPREAD))
            pyro.sample("obs", dist.Normal(z, NOISE), obs=x)

    auto = AutoMultivariateNormal(poutine.block(model, hide=["z"]))

    def guide(x, c):
        w = auto(x, c)["w"]
        precision = SPREAD**-2 + NOISE**-2
        mean = ((c * w).sum(-1) / SPREAD**2 + x / NOISE**2) / precision
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(mean, precision**-0.5))

    return pv.Program(model, guide), auto


def exact_factors(x, c):
    """The posterior of w (mean, covariance) and the log-evidence of all data."""
    covariance = torch.linalg.inv(torch.eye(2) + c.T @ c / VARIANCE)
    marginal = c @ c.T + VARIANCE * torch.eye(len(x))
    evidence = torch.distributions.MultivariateNormal(torch.zeros(len(x)), marginal).log_prob(x)
    return covariance @ c.T @ x / VARIANCE, covariance, evidence.item()


def factor_data():
    c = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    x = c @ torch.tensor([1.0, -0.5]) + 0.8 * torch.linspace(-1, 1, 30)
    return (x[:24], c[:24]), (x[24:], c[24:])


def test_a_multivariate_normal_at_the_exact_posterior_gives_the_closed_forms(float64):
    train, test = factor_data()
    mean, covariance, evidence = exact_factors(*train)
    program, auto = factors()
    pv.elbo(program, train, 2)  # makes the parameters
    tril = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        scale = tril.diagonal()
        auto.loc.copy_(mean)
        auto.scale = scale
        auto.scale_tril = tril / scale.unsqueeze(-1)
    elbo = pv.elbo(program, train, 20)
    assert 24 * elbo.mean == pytest.approx(evidence, rel=1e-10)
    assert elbo.mean == pytest.approx(elbo.local_mean - elbo.global_kl / 24, rel=1e-12)
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(mean, covariance), prior
    ).item()
    assert abs(elbo.global_kl - kl) < 4.5 * elbo.global_kl_se
    score = pv.log_likelihood(program, test, 400)
    variance = VARIANCE + torch.einsum("nd,de,ne->n", test[1], covariance, test[1])
    expected = dist.Normal(test[1] @ mean, variance.sqrt()).log_prob(test[0])
    assert ((score.values - expected).abs() < 4.5 * score.mc_se).all()
    draws = torch.as_tensor(pv.to_inference_data(program, train, 300).posterior["w"].values[0])
    error = (covariance.diagonal() / 300).sqrt()
    assert ((draws.mean(0) - mean).abs() < 4.5 * error).all()
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.35, atol=0.003)


def test_a_multivariate_normal_is_trained_to_the_exact_posterior(float64):
    """From batches of 8, below the exact evidence and near to it."""
    train, _ = factor_data()
    mean, covariance, evidence = exact_factors(*train)
    torch.manual_seed(0)
    program, auto = factors()
    schedule = pv.training.schedules.Cosine()
    settings = dict(batch_size=8, learning_rate=0.03, schedule=schedule, progress=False)
    pv.fit(program, train, epochs=100, **settings)
    found = pv.elbo(program, train, 400)
    assert evidence - 0.1 < 24 * found.mean < evidence + 4.5 * 24 * found.mean_mc_se
    assert ((auto.loc - mean).abs() < 0.5 * covariance.diagonal().sqrt()).all()
