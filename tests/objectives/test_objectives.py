"""Every objective in `__all__` keeps its contract; a new class is tested without an edit."""

import copy
import inspect
import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import LinearGaussian, TwoLevelGaussian
from common import small_vae
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.evaluation import log_weights
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.noise import block_seed
from pyro_vae.validation import InvalidInput

OBJECTIVES = pv.objectives.__all__
NEUTRAL = {
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 1.0,
    "minimum": 0.0,
}  # arguments at which an objective bounds log p(x)


def make(name, *, neutral=False, num_particles=None):
    """An objective with its defaults, or as the bound that its source calls by that name."""
    cls = getattr(pv.objectives, name)
    arguments = {
        key: value
        for key, value in NEUTRAL.items()
        if neutral and key in inspect.signature(cls).parameters
    }
    return (
        cls(**arguments) if num_particles is None else cls(num_particles=num_particles, **arguments)
    )


def loss_and_gradients(objective, program, *data):
    objective.loss(
        program.model, program.guide, *data
    )  # the first call finds the plates, with random numbers of its own
    program.zero_grad()
    torch.manual_seed(3)
    loss = objective.differentiable_loss(program.model, program.guide, *data)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in program.named_parameters()}


@pytest.mark.parametrize("num_particles", [1, 5])
def test_elbo_equals_pyros_on_the_same_random_numbers(float64, num_particles):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    ours = loss_and_gradients(pv.objectives.ELBO(num_particles), program, x)
    theirs = loss_and_gradients(
        Trace_ELBO(num_particles, vectorize_particles=num_particles > 1), program, x
    )
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
    theirs = loss_and_gradients(
        Trace_ELBO(num_particles, vectorize_particles=num_particles > 1), program, x
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    for name, gradient in theirs[1].items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(ours[1][name], gradient)


def test_the_gradient_of_the_elbo_is_right(float64):
    """In closed form: of q = N(m, s^2), p(z) = N(0, 1), p(x | z) = N(z, 1) it is x - 2 m."""

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
    losses = {
        b: loss_and_gradients(pv.objectives.ELBO(beta=b), program, x)[0] for b in (0.0, 1.0, weight)
    }
    assert losses[weight] == pytest.approx(losses[0.0] + weight * (losses[1.0] - losses[0.0]))
    annealed = Trace_ELBO()  # a handler, so it serves any Pyro objective
    torch.manual_seed(3)
    assert annealed.loss(
        weigh_latents(program.model, weight), weigh_latents(program.guide, weight), x
    ) == pytest.approx(losses[weight])


# laws for all


class TwoLatents(torch.nn.Module):
    """Two latents, the second given the first, with a mask, and a factor of each side."""

    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.encoder, self.second, self.decoder = (
            torch.nn.Linear(3, 4),
            torch.nn.Linear(2, 4),
            torch.nn.Linear(4, 3),
        )
        self.prior = torch.nn.Linear(2, 2)

    def model(self, x, context=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            with poutine.mask(mask=x[:, 0] > 0):
                y = pyro.sample("y", dist.Normal(self.prior(z), 1.0).to_event(1))
            pyro.factor("bonus", -0.1 * y.square().sum(-1))
            pyro.sample(
                "x", dist.Normal(self.decoder(torch.cat([z, y], -1)), 0.8).to_event(1), obs=x
            )

    def guide(self, x, context=None):
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            z = pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
            loc, scale = self.second(z).chunk(2, -1)
            with poutine.mask(mask=x[:, 0] > 0):
                y = pyro.sample("y", dist.Normal(loc, scale.exp()).to_event(1))
            pyro.factor("penalty", 0.3 * (loc + y).square().sum(-1), has_rsample=True)


PROGRAMS = {
    "vae": lambda: (small_vae().double(), torch.bernoulli(torch.rand(6, 1, 8, 8))),
    "two_latents": lambda: (TwoLatents(), torch.randn(6, 3)),
    "refined": lambda: (
        pv.Refined(small_vae().double(), steps=1),
        torch.bernoulli(torch.rand(6, 1, 8, 8)),
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_finite_gradient_reaches_every_parameter(float64, name, num_particles, program):
    program, x = PROGRAMS[program]()
    objective = make(name, neutral=True, num_particles=num_particles)
    loss, gradients = loss_and_gradients(objective, program, x)
    for parameter, gradient in gradients.items():
        assert gradient.isfinite().all() and gradient.abs().sum() > 0, parameter
    # The three methods of a Pyro ELBO agree, and the module's call is the first of them.
    torch.manual_seed(3)
    assert objective.loss(program.model, program.guide, x) == pytest.approx(loss, rel=1e-12)
    program.zero_grad()
    torch.manual_seed(3)
    assert objective.loss_and_grads(program.model, program.guide, x) == pytest.approx(
        loss, rel=1e-12
    )
    for parameter, value in program.named_parameters():
        torch.testing.assert_close(value.grad, gradients[parameter])
    torch.manual_seed(3)
    assert objective(program.model, program.guide)(x).item() == pytest.approx(loss, rel=1e-12)


class AsksTheDevice(TorchDispatchMode):
    """Fails on what makes the host wait for the device, or a shape depend on data."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "is_nonzero",
            "equal",
        ), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_waits_for_the_device_and_the_step_is_one_graph(float64, name, program):
    """Captured on one batch and run on another, the graph gives that batch's loss and gradients."""
    program, x = PROGRAMS[program]()
    other = x.flip(-1)
    objective = make(name, num_particles=3)
    names, parameters = zip(*program.named_parameters())

    def step(x, weight, *parameters):
        with _reparametrize_module(program, dict(zip(names, parameters))):
            loss = objective.differentiable_loss(
                weigh_latents(program.model, weight), weigh_latents(program.guide, weight), x
            )
            return loss, *torch.autograd.grad(loss, parameters)

    with pyro.validation_enabled(False):
        step(x, torch.tensor(0.5), *parameters)  # finds the plates
        with AsksTheDevice():
            step(x, torch.tensor(0.5), *parameters)
        graph = Captured(step, [x, torch.tensor(0.5), *parameters])
        results = []
        for run in (step, graph):
            torch.manual_seed(4)
            results.append(run(other, torch.tensor(0.7), *parameters))
    for eager, captured in zip(*results):
        torch.testing.assert_close(captured, eager)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pyro_svi_takes_the_objective(name):
    program, x = small_vae(), torch.zeros(4, 1, 8, 8)
    pyro.clear_param_store()

    def guide(x):
        pyro.module("vae", program)
        return program.guide(x)

    svi = pyro.infer.SVI(program.model, guide, pyro.optim.Adam({"lr": 0.02}), make(name))
    losses = [svi.step(x) for _ in range(30)]
    pyro.clear_param_store()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_fit_takes_the_objective_with_warm_up(name):
    history = pv.fit(
        small_vae(),
        pv.datasets.load("digits")[0][:256],
        objective=make(name),
        epochs=4,
        warmup=2,
        progress=False,
    )
    assert len(history) == 4 and all(math.isfinite(value) for value in history["objective"])


def repeated(exact, num):
    """A datum of known log p(x), many times over: a batch of independent estimates."""
    x = exact.marginal.sample()
    return x.expand(num, -1), exact.marginal.log_prob(x).item()


class DiagonalExact(torch.nn.Module):
    """The exact posterior of a linear-Gaussian program, which is a product over dimensions."""

    def __init__(self, exact, widen=1.0):
        super().__init__()
        self.exact, self.scale = (
            exact,
            torch.nn.Parameter(widen * exact.covariance.diagonal().sqrt()),
        )
        self.shift = torch.nn.Parameter(torch.zeros(exact.latent))

    def forward(self, x, *, context=None):
        loc = (x - self.exact.mean) @ self.exact.gain.T + self.shift
        return dist.Normal(loc, self.scale.expand_as(loc)).to_event(1)


def exact_program(widen=1.0):
    exact = LinearGaussian(2, 4, diagonal=True)
    program = exact.program()
    program.posterior = DiagonalExact(exact, widen)
    return exact, program


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_the_exact_posterior_every_bound_is_log_p(float64, name, num_particles):
    exact, program = exact_program()
    x, truth = repeated(exact, 400)
    torch.manual_seed(0)
    bounds = torch.tensor(
        [
            -make(name, neutral=True, num_particles=num_particles).loss(
                program.model, program.guide, x
            )
            / 400
            for _ in range(10)
        ]
    )
    assert (bounds.mean() - truth).abs() < max(1e-5, 5 * (bounds.std() / 10**0.5).item())


@pytest.mark.parametrize("inference", ["bottom_up", "top_down"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_the_exact_posterior_of_a_hierarchy_too(float64, name, inference):
    """Bottom up, Pyro's mean-field ELBO is wrong: the model's z1 depends on z2, drawn after it."""
    exact = TwoLevelGaussian((1, 1, 3))  # conditionals of one dimension are products
    program = exact.program(inference)
    for i, posterior in enumerate(program.posteriors):
        program.posteriors[i] = OneDimensional(posterior)
    x, truth = repeated(exact, 400)
    bounds = torch.tensor(
        [
            -make(name, neutral=True, num_particles=2).loss(program.model, program.guide, x) / 400
            for _ in range(10)
        ]
    )
    assert (bounds.mean() - truth).abs() < max(1e-5, 5 * (bounds.std() / 10**0.5).item())


class OneDimensional(torch.nn.Module):
    """A multivariate normal of one dimension as a univariate one."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def forward(self, given, *, context=None):
        full = self.posterior(given, context=context)
        return dist.Normal(full.loc, full.scale_tril[..., 0].expand_as(full.loc)).to_event(1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_a_wide_posterior_and_an_annealed_kl_a_single_draw_gives_the_weighted_elbo(
    float64, name
):
    exact, program = exact_program(widen=1.4)
    x, truth = repeated(exact, 400)
    q, weight = program.posterior(x[:1]), 0.3
    kl = torch.distributions.kl_divergence(q, program.prior()).item()
    gap = 2 * (0.5 * (1.4**2 - 1) - math.log(1.4))
    expected = truth - gap + (1 - weight) * kl
    objective = make(name, neutral=True, num_particles=1)
    model, guide = weigh_latents(program.model, weight), weigh_latents(program.guide, weight)
    bounds = torch.tensor([-objective.loss(model, guide, x) / 400 for _ in range(20)])
    assert (bounds.mean() - expected).abs() < 5 * bounds.std() / 20**0.5


@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_scale_of_all_scales_the_loss_and_its_gradient(float64, name, num_particles):
    """Also where a logarithm is taken of a mean: the scale stays outside of it."""
    program, x = TwoLatents(), torch.randn(6, 3)
    objective = make(name, num_particles=num_particles)
    plain = loss_and_gradients(objective, program, x)
    scaled = copy.deepcopy(program)
    scaled.model, scaled.guide = poutine.scale(scaled.model, 3.0), poutine.scale(scaled.guide, 3.0)
    threefold = loss_and_gradients(objective, scaled, x)
    assert threefold[0] == pytest.approx(3 * plain[0], rel=1e-10)
    for parameter, gradient in plain[1].items():
        torch.testing.assert_close(threefold[1][parameter], 3 * gradient)


class Subsampled(torch.nn.Module):
    """A program that is given some of its data, and says how many there are."""

    def __init__(self, total=None):
        super().__init__()
        self.total, self.net = total, torch.nn.Linear(3, 2)

    def plate(self, x):
        return pyro.plate("data", self.total or len(x), subsample=torch.arange(len(x)))

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample(
                "x",
                dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0).to_event(1),
                obs=x,
            )

    def guide(self, x):
        with self.plate(x):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_subsampled_plate_scales_each_datums_bound_as_a_whole(float64, name):
    whole, part, x = Subsampled(), Subsampled(total=15), torch.randn(6, 3)
    part.load_state_dict(whole.state_dict())
    objective = make(name, neutral=True, num_particles=4)
    plain, scaled = (loss_and_gradients(objective, program, x) for program in (whole, part))
    assert scaled[0] == pytest.approx(2.5 * plain[0], rel=1e-10)
    torch.testing.assert_close(scaled[1]["net.weight"], 2.5 * plain[1]["net.weight"])


# counterparts, closed forms


def test_the_analytic_elbo_equals_pyros_mean_field_elbo(float64):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    ours = loss_and_gradients(pv.objectives.AnalyticELBO(5), program, x)
    theirs = loss_and_gradients(TraceMeanField_ELBO(5, vectorize_particles=True), program, x)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient)


@pytest.mark.parametrize("num_data", [1, 5])
def test_iwae_equals_renyi_elbo_where_nothing_is_scaled(float64, num_data):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(num_data, 1, 8, 8))
    ours = loss_and_gradients(pv.objectives.IWAE(7), program, x)
    pyro.clear_param_store()

    def guide(x):
        pyro.module("vae", program)
        return program.guide(x)

    renyi = RenyiELBO(alpha=0, num_particles=7, vectorize_particles=True)
    renyi.loss(program.model, guide, x)
    program.zero_grad()
    torch.manual_seed(3)
    theirs = renyi.loss_and_grads(program.model, guide, x)
    pyro.clear_param_store()
    assert ours[0] == pytest.approx(theirs, rel=1e-12)
    for name, parameter in program.named_parameters():
        torch.testing.assert_close(ours[1][name], parameter.grad)


def test_log_weights_are_those_of_renyi_elbo_unscaled(float64, monkeypatch):
    """RenyiELBO(alpha=0) is IWAE on a single datum."""
    program, x = small_vae().double(), torch.bernoulli(torch.rand(1, 1, 8, 8))
    one_datum = log_weights.Blocks(1, (7,))  # with all of its draws at once
    monkeypatch.setattr(log_weights.Blocks, "of", lambda *_: one_datum)
    score = pv.log_likelihood(program, x, num_samples=7, seed=5)
    with evaluating(program, seed=block_seed(5, 0)):
        theirs = -RenyiELBO(
            alpha=0, num_particles=7, vectorize_particles=True, max_plate_nesting=1
        ).loss(program.model, program.guide, x)
    assert score.mean == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("name", ["IWAE", "DReG"])
def test_the_importance_weighted_bounds_tighten_with_the_number_of_draws(float64, name):
    exact, program = exact_program(widen=1.8)
    x, truth = repeated(exact, 20_000)
    bounds = [
        -make(name, num_particles=k).loss(program.model, program.guide, x) / 20_000
        for k in (1, 3, 10, 30)
    ]
    assert bounds == sorted(bounds) and truth - 0.02 < bounds[-1] < truth + 0.005
    elbo = truth - 2 * (0.5 * (1.8**2 - 1) - math.log(1.8))
    assert bounds[0] == pytest.approx(elbo, abs=0.05) and bounds[1] > elbo + 0.1


@pytest.mark.parametrize("side", ["model", "guide"])
@pytest.mark.parametrize(
    "handler",
    [
        lambda fn: poutine.scale(fn, 0.4),
        lambda fn: weigh_latents(fn, torch.tensor(0.4)),
        lambda fn: poutine.mask(fn, mask=torch.tensor(False)),
    ],
    ids=["scale", "weight", "mask"],
)
def test_the_analytic_elbo_counts_what_is_on_either_side(float64, handler, side):
    """Pyro's mean-field ELBO ignores a scale or a mask of the model's latent alone."""
    _, program = exact_program(widen=1.4)
    x = torch.randn(1, 4).expand(4000, 4)
    functions = {"model": program.model, "guide": program.guide}
    functions[side] = handler(functions[side])
    means = []
    for objective in (pv.objectives.ELBO(), pv.objectives.AnalyticELBO()):
        losses = torch.tensor([objective.loss(*functions.values(), x) / 4000 for _ in range(20)])
        means.append((losses.mean(), losses.std() / 20**0.5))
    (a, a_error), (b, b_error) = means
    assert (a - b).abs() < 5 * (a_error**2 + b_error**2).sqrt()


def test_the_analytic_kl_has_less_noise_and_covers_torchs_own_distributions(float64):
    class Plain(torch.nn.Module):
        """The standard normal as a plain torch distribution."""

        def forward(self, *, context=None):
            return Independent(Normal(torch.zeros(2), 1.0), 1)

    vae = pv.VAE(
        Plain(),
        pv.likelihoods.Bernoulli(3, pv.networks.MLP(2, [])),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    with torch.no_grad():
        # x says nothing about z: only the KL is left to vary
        vae.likelihood.head.layer.weight.zero_()
    x = torch.ones(3, 3)
    losses = {pv.objectives.AnalyticELBO().loss(vae.model, vae.guide, x) for _ in range(5)}
    assert max(losses) - min(losses) < 1e-12
    assert len({pv.objectives.ELBO().loss(vae.model, vae.guide, x) for _ in range(5)}) == 5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_latent_that_is_the_image_of_an_auxiliary_one_counts_with_its_jacobian(float64, name):
    """z = exp(u), u ~ N(m, s^2), against the same guide written as a log-normal."""

    class Image(torch.nn.Module):
        def __init__(self, direct):
            super().__init__()
            self.direct, self.m = direct, torch.nn.Parameter(torch.tensor(0.2))

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Gamma(torch.full_like(x, 2.0), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                if self.direct:
                    pyro.sample("z", dist.LogNormal(self.m.expand(len(x)), 0.5))
                    return
                u = pyro.sample(
                    "u", dist.Normal(self.m.expand(len(x)), 0.5), infer={"is_auxiliary": True}
                )
                pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    x = torch.rand(6) + 1
    direct, image = (
        loss_and_gradients(make(name, neutral=True, num_particles=3), Image(d), x)
        for d in (True, False)
    )
    assert image[0] == pytest.approx(direct[0], rel=1e-12)
    torch.testing.assert_close(image[1]["m"], direct[1]["m"])


# path derivatives


class SharingPrior(torch.nn.Module):
    """A prior that is a mixture of the posteriors at pseudo-inputs, as VampPrior is."""

    def __init__(self, posterior, features):
        super().__init__()
        self.shared = [posterior]
        self.pseudo_inputs = torch.nn.Parameter(torch.randn(4, features))

    def forward(self, *, context=None):
        posteriors = self.shared[0](self.pseudo_inputs)
        return pv.distributions.Mixture(Categorical(torch.ones(4)), posteriors)


def sharing_vae():
    torch.manual_seed(1)
    posterior = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4], activation=torch.nn.Tanh))
    likelihood = pv.likelihoods.Normal(
        3, pv.networks.MLP(2, [4], activation=torch.nn.Tanh), scale=0.7
    )
    return pv.VAE(SharingPrior(posterior, 3), likelihood, posterior), torch.randn(5, 3)


@pytest.mark.parametrize(
    "name, num_particles",
    [("StickingTheLanding", 1), ("StickingTheLanding", 4), ("DReG", 1), ("DReG", 4)],
)
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_path_derivatives_are_those_written_by_hand(float64, name, num_particles, weight):
    """Each part of the gradient is that of a function of its own, of copies of what is shared."""
    vae, x = sharing_vae()
    objective = make(name, num_particles=num_particles)
    objective.loss(vae.model, vae.guide, x)
    torch.manual_seed(3)
    objective.differentiable_loss(
        weigh_latents(vae.model, weight), weigh_latents(vae.guide, weight), x
    ).backward()
    torch.manual_seed(3)
    q = vae.posterior(x)
    z = q.rsample((num_particles,))
    fixed = copy.deepcopy(q.base_dist.loc.detach()), copy.deepcopy(q.base_dist.scale.detach())

    def log_w(z):
        return (
            vae.likelihood(z).log_prob(x)
            + weight * vae.prior().log_prob(z)
            - weight * Normal(*fixed).log_prob(z).sum(-1)
        )

    leaf = z.detach().requires_grad_()
    (by_z,) = torch.autograd.grad(log_w(leaf).sum(), leaf)
    w = (
        torch.softmax(log_w(leaf), 0).detach()
        if name == "DReG"
        else torch.full((num_particles, 5), 1 / num_particles)
    )
    squared = w * (1 - weight + weight * w) if name == "DReG" else w
    model_part = (w * log_w(z.detach())).sum()
    guide_part = ((squared.unsqueeze(-1) * by_z) * z).sum()
    names, parameters = zip(*vae.named_parameters())
    parts = [
        torch.autograd.grad(part, parameters, retain_graph=True, materialize_grads=True)
        for part in (model_part, guide_part)
    ]
    for key, parameter, from_model, from_guide in zip(names, parameters, *parts):
        torch.testing.assert_close(parameter.grad, -(from_model + from_guide))
        shared = key.startswith("posterior")
        assert (
            from_guide.abs().sum() > 0
        ) == shared and from_model.abs().sum() > 0  # the posterior's, through the prior too


def test_what_only_the_model_has_gets_the_gradient_of_iwae_to_the_bit(float64):
    vae, x = sharing_vae()
    iwae, dreg = (
        loss_and_gradients(objective, vae, x)
        for objective in (pv.objectives.IWAE(6), pv.objectives.DReG(6))
    )
    assert iwae[0] == pytest.approx(dreg[0], rel=1e-12)
    for name, gradient in iwae[1].items():
        if not name.startswith("posterior"):
            torch.testing.assert_close(dreg[1][name], gradient)
        else:
            assert not torch.allclose(dreg[1][name], gradient)


def gradients_over_seeds(objective, program, x, num, weight=1.0):
    """Independent estimates of the gradient per datum, as rows."""
    model, guide = weigh_latents(program.model, weight), weigh_latents(program.guide, weight)
    rows = []
    for _ in range(num):
        program.zero_grad()
        (objective.differentiable_loss(model, guide, x) / len(x)).backward()
        rows.append(torch.cat([p.grad.flatten() for p in program.parameters()]))
    return torch.stack(rows)


def chain():
    """Two latents, each a chain of the last, of a model and a guide that differ."""
    exact = TwoLevelGaussian((1, 2, 2))
    program = exact.program(widen=1.5)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.2)
    return program, exact.marginal.sample()


@pytest.mark.parametrize("build", [sharing_vae, chain], ids=["shared_encoder", "chain"])
@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize("path, plain", [("DReG", "IWAE"), ("StickingTheLanding", "ELBO")])
def test_path_derivatives_are_unbiased_and_less_noisy(float64, path, plain, weight, build):
    program, x = build()
    x = x.reshape(-1, x.shape[-1])[:1].expand(200, -1)
    torch.manual_seed(2)
    a, b = (
        gradients_over_seeds(make(name, num_particles=8), program, x, 40, weight)
        for name in (path, plain)
    )
    error = ((a.var(0) + b.var(0)) / 40).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 1e-9).all()
    guides = [
        name.startswith("posterior")
        for name, p in program.named_parameters()
        for _ in range(p.numel())
    ]
    of_guide = torch.tensor(guides)
    if weight == 1.0 and build is chain:
        assert a.var(0)[of_guide].sum() < 0.7 * b.var(0)[of_guide].sum()


def test_at_the_exact_posterior_the_guides_path_derivative_is_zero(float64):
    exact, program = exact_program()
    x = exact.data(5)
    for name in ("StickingTheLanding", "DReG"):
        _, gradients = loss_and_gradients(make(name, num_particles=3), program, x)
        assert (
            gradients["posterior.scale"].abs().max() < 1e-5
            and gradients["posterior.shift"].abs().max() < 1e-5
        )
    _, gradients = loss_and_gradients(pv.objectives.ELBO(3), program, x)
    assert gradients["posterior.scale"].abs().min() > 1e-2


@pytest.mark.parametrize("name", ["StickingTheLanding", "DReG"])
def test_a_latent_without_a_path_is_refused(name):
    program = Discrete()
    with pytest.raises(InvalidInput, match="reparametrised"):
        make(name).loss(program.model, program.guide, torch.randn(3, 3))


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_iwae_of_a_discrete_latent_has_the_gradient_of_the_enumerated_bound(
    float64, num_particles, weight
):
    class Coin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.p, self.loc = (
                torch.nn.Parameter(torch.tensor(v)) for v in (0.4, -0.5, 1.2)
            )

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Bernoulli(logits=self.p.expand(len(x))))
                pyro.sample("x", dist.Normal(self.loc * z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Bernoulli(logits=self.q.expand(len(x))))

    program, x = Coin(), torch.full((20_000,), 0.8)
    model, guide = weigh_latents(program.model, weight), weigh_latents(program.guide, weight)
    expected = 0.0
    for draws in itertools.product([0.0, 1.0], repeat=num_particles):
        z = torch.tensor(draws)
        p, q = (
            dist.Bernoulli(logits=program.p).log_prob(z),
            dist.Bernoulli(logits=program.q).log_prob(z),
        )
        w = dist.Normal(program.loc * z, 1.0).log_prob(x[0]) + weight * (p - q)
        expected = expected + q.sum().exp() * (w.logsumexp(0) - math.log(num_particles))
    expected.backward()
    truth = {name: parameter.grad.clone() for name, parameter in program.named_parameters()}
    objective = pv.objectives.IWAE(num_particles)
    estimates = []
    for _ in range(20):
        program.zero_grad()
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        loss.backward()
        estimates.append([-p.grad for p in program.parameters()] + [-loss.detach()])
    estimates = torch.tensor(estimates)
    error = estimates.std(0) / 20**0.5
    for mean, e, value in zip(estimates.mean(0), error, [*truth.values(), expected.detach()]):
        assert (mean - value).abs() < 5 * e


# free bits, total correlation


def test_free_bits(float64):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    analytic = loss_and_gradients(pv.objectives.AnalyticELBO(), program, x)
    without = loss_and_gradients(pv.objectives.AnalyticELBO(beta=0.0), program, x)
    kl = (analytic[0] - without[0]) / 7
    below, above = (
        loss_and_gradients(pv.objectives.FreeBits(minimum), program, x)
        for minimum in (0.9 * kl, 1.1 * kl)
    )
    assert below[0] == pytest.approx(analytic[0]) and above[0] == pytest.approx(
        without[0] + 7 * 1.1 * kl
    )
    for name in analytic[1]:
        torch.testing.assert_close(below[1][name], analytic[1][name])
        torch.testing.assert_close(above[1][name], without[1][name])


def test_free_bits_are_for_each_site(float64):
    program, x = TwoLatents(), torch.randn(6, 3).abs()
    terms = [
        -loss_and_gradients(objective, program, x)[0]
        for objective in (pv.objectives.AnalyticELBO(beta=0.0), pv.objectives.FreeBits(1e3))
    ]
    assert terms[0] - terms[1] == pytest.approx(2 * 6 * 1e3)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_beta_tcvae_with_unit_weights_is_the_elbo(float64, num_particles):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    elbo = loss_and_gradients(pv.objectives.ELBO(num_particles), program, x)
    ours = loss_and_gradients(
        pv.objectives.BetaTCVAE(1.0, 1.0, 1.0, num_particles, num_data=1000), program, x
    )
    assert ours[0] == pytest.approx(elbo[0], rel=1e-12)
    for name, gradient in elbo[1].items():
        torch.testing.assert_close(ours[1][name], gradient)


@pytest.mark.parametrize("num_data", [None, 5, 100])
@pytest.mark.parametrize("num_particles", [1, 2])
def test_the_parts_of_beta_tcvae_are_those_of_a_plain_loop(float64, num_data, num_particles):
    program, x = small_vae().double(), torch.bernoulli(torch.rand(5, 1, 8, 8))
    torch.manual_seed(3)
    q = program.posterior(x)
    z = q.sample((num_particles,))
    total = num_data or 5
    parts = torch.zeros(3)
    for k, n in itertools.product(range(num_particles), range(5)):
        weights = torch.tensor(
            [1 / total if m == n else (total - 1) / (4 * total) for m in range(5)]
        )
        if num_data is None:  # the mean over the batch: a mixture of torch's own
            torch.testing.assert_close(weights, torch.full((5,), 0.2))
        each = Normal(q.base_dist.loc, q.base_dist.scale).log_prob(z[k, n])  # (m, dimension)
        joint = MixtureSameFamily(Categorical(weights), q).log_prob(z[k, n])
        product = (weights.unsqueeze(-1) * each.exp()).sum(0).log().sum()
        own, prior = q.log_prob(z[k, n])[n], program.prior().log_prob(z[k, n])
        parts = parts + torch.stack([own - joint, joint - product, product - prior]) / num_particles
    for weights in ((0.0, 0.0, 0.0), (2.0, 1.0, 1.0), (1.0, 5.0, 1.0), (0.5, 3.0, 0.1)):
        objective = pv.objectives.BetaTCVAE(*weights, num_particles, num_data)
        plain = pv.objectives.ELBO(num_particles, beta=0.0)
        with torch.no_grad():
            losses = [loss_at_seed(o, program, x, 3) for o in (objective, plain)]
        assert losses[0] - losses[1] == pytest.approx(
            (torch.tensor(weights) * parts).sum().item(), rel=1e-9
        )


def loss_at_seed(objective, program, x, seed):
    objective.loss(program.model, program.guide, x)
    torch.manual_seed(seed)
    return objective.loss(program.model, program.guide, x)


def test_beta_tcvae_refuses_a_posterior_that_is_no_product():
    exact = LinearGaussian(2, 4)
    program = exact.program()
    with pytest.raises(InvalidInput, match="product over dimensions"):
        pv.objectives.BetaTCVAE().loss(program.model, program.guide, exact.data(3))


class Normalised(torch.nn.Module):
    """A network with running statistics, and a direction that spectral norm iterates on."""

    out_shape = (5,)

    def __init__(self):
        super().__init__()
        linear = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 5))
        self.layers = torch.nn.Sequential(linear, torch.nn.BatchNorm1d(5))

    def forward(self, x):
        return self.layers(x)


def with_codes():
    return pv.VAE(
        pv.priors.UniformCodes((2,)),
        pv.likelihoods.Normal(4, pv.networks.MLP(2, [6])),
        pv.posteriors.Codebook((2,), Normalised(), codes=3, decay=0.5, restart=0),
    )


def with_normals():
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(4, pv.networks.MLP(2, [6])),
        pv.posteriors.DiagonalNormal(2, Normalised()),
    )


@pytest.mark.parametrize("make", [with_codes, with_normals])
@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("name", pv.objectives.__all__)
def test_the_first_loss_moves_buffers_as_far_as_the_next(name, num_particles, make):
    torch.manual_seed(0)
    program, x = make().train(), torch.randn(12, 4)
    if make is with_codes and name == "BetaTCVAE":
        pytest.skip("of a density that codes do not have")
    objective = getattr(pv.objectives, name)(num_particles=num_particles)
    start, moved = copy.deepcopy(dict(program.named_buffers())), []
    for _ in range(2):
        for name, value in program.named_buffers():
            value.copy_(start[name])
        torch.manual_seed(1)
        objective.differentiable_loss(program.model, program.guide, x)
        moved.append({name: value.clone() for name, value in program.named_buffers()})
    assert not all(torch.equal(value, start[name]) for name, value in moved[0].items())
    for name, value in moved[0].items():
        assert torch.equal(value, moved[1][name]), name
