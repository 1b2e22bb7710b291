"""The value and gradient of every objective, against autograd of the exact bound.

The bound is computed by quadrature, or by enumeration where latents are discrete, from the
program's distributions alone. Two latents have weights of their own in the model and in the guide;
there is a context, an entry of x is missing, and with it the second latent is masked.
"""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_vae as pv
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.validation import InvalidInput

SCALES = {"x": 1.5, "p_z": 0.3, "q_z": 0.5, "p_y": 2.0, "q_y": 1.2}
K = 2  # draws of the bounds that are a function of several
NEED_A_PATH = ("DReG", "StickingTheLanding")


class Pair(torch.nn.Module):
    """p(z | c) p(y | z) p(x | z, y, c) and q(z | x, c) q(y | z, x, c).

    The context c is a number, x are two, NaN where missing.
    """

    event_shape = (2,)

    def __init__(self, discrete=False, chained=True):
        super().__init__()
        self.discrete = discrete
        self.encoder, self.decoder = torch.nn.Linear(3, 4), torch.nn.Linear(3, 2)
        self.prior, self.second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.follow = torch.nn.Parameter(torch.tensor(0.8 if chained else 0.0), chained)

    def distribution(self, loc, log_scale=None):
        if self.discrete:
            return dist.Bernoulli(logits=loc)
        return dist.Normal(loc, torch.ones_like(loc) if log_scale is None else log_scale.exp())

    def p_z(self, c):
        return self.distribution(self.prior(c.unsqueeze(-1)).to(c)[..., 0])

    def p_y(self, z):
        return self.distribution(self.second(z.unsqueeze(-1)).to(z)[..., 0])

    def p_x(self, x, z, y, c):
        features = torch.stack(torch.broadcast_tensors(z, y, c), -1)
        return dist.Normal(self.decoder(features).to(z), 0.9).mask(~x.isnan()).to_event(1)

    def q(self, x, c):
        return self.encoder(torch.cat([x.nan_to_num(), c.unsqueeze(-1)], -1)).to(c).unbind(-1)

    def q_z(self, x, c):
        loc, _, scale, _ = self.q(x, c)
        return self.distribution(loc, scale - 0.5)

    def q_y(self, z, x, c):
        _, loc, _, scale = self.q(x, c)
        return self.distribution(loc + self.follow * z, scale)

    def model(self, x, c):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=SCALES["p_z"]):
                z = pyro.sample("z", self.p_z(c))
            with poutine.scale(scale=SCALES["p_y"]), poutine.mask(mask=~x[:, 1].isnan()):
                y = pyro.sample("y", self.p_y(z))
            with poutine.scale(scale=SCALES["x"]):
                pyro.sample("x", self.p_x(x, z, y, c), obs=x.nan_to_num())

    def guide(self, x, c):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=SCALES["q_z"]):
                z = pyro.sample("z", self.q_z(x, c))
            with poutine.scale(scale=SCALES["q_y"]), poutine.mask(mask=~x[:, 1].isnan()):
                pyro.sample("y", self.q_y(z, x, c))

    def states(self, x, c, num, size=14):
        """All draws (M, num, N) of z and y that count, and the weight (M, N) of each."""
        if self.discrete:
            bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2 * num)))
            z, y = bits.reshape(-1, num, 2, 1).expand(-1, num, 2, len(x)).unbind(2)
            density = self.q_z(x, c).log_prob(z) + self.q_y(z, x, c).log_prob(y)
            return z, y, density.sum(1).exp()
        points, weights = map(torch.tensor, np.polynomial.hermite_e.hermegauss(size))
        grid = torch.cartesian_prod(*[points] * (2 * num)).reshape(-1, num, 2, 1)
        weight = torch.cartesian_prod(*[weights] * (2 * num)).prod(-1) / weights.sum() ** (2 * num)
        q = self.q_z(x, c)
        z = q.loc + q.scale * grid[:, :, 0]
        q = self.q_y(z, x, c)
        return z, q.loc + q.scale * grid[:, :, 1], weight.unsqueeze(-1).expand(-1, len(x))


def terms(program, x, c, z, y):
    """The masked, unweighted log-probabilities of each site, and of the aggregate posteriors."""
    seen = ~x[:, 1].isnan()

    def aggregate(of_datum, value):
        each = [of_datum(x[i : i + 1], c[i : i + 1]).log_prob(value) for i in range(len(x))]
        return torch.stack(each).logsumexp(0) - math.log(len(x))

    return {
        "x": program.p_x(x, z, y, c).log_prob(x.nan_to_num()),
        "p_z": program.p_z(c).log_prob(z),
        "q_z": program.q_z(x, c).log_prob(z),
        "p_y": program.p_y(z).log_prob(y) * seen,
        "q_y": program.q_y(z, x, c).log_prob(y) * seen,
        "all_z": aggregate(program.q_z, z),
        "all_y": aggregate(lambda x, c: program.q_y(torch.zeros(()), x, c), y) * seen,
    }


def exact(name, program, x, c, weight, minimum):
    """The bound of that name, summed over data: minus the loss that it must have."""
    several = name in ("IWAE", "DReG")
    z, y, probability = program.states(x, c, K if several else 1)
    a = {site: s if site == "x" else s * weight for site, s in SCALES.items()}
    logs = terms(program, x, c, z, y)

    def mean(value):
        return (probability * value).sum(0)

    kls = {i: a[f"q_{i}"] * logs[f"q_{i}"] - a[f"p_{i}"] * logs[f"p_{i}"] for i in "zy"}
    if several:
        log_w = logs["x"] - sum(kls.values()) / a["x"]
        return a["x"] * mean(log_w.logsumexp(1) - math.log(K)).sum()
    observed = a["x"] * mean(logs["x"][:, 0]).sum()
    if name == "FreeBits":
        seen = {"z": len(x), "y": (~x[:, 1].isnan()).sum()}
        free = {i: minimum * a[f"q_{i}"] * seen[i] for i in "zy"}
        kl = {i: mean(kls[i][:, 0]).sum() for i in "zy"}
        return observed - sum(kl[i] if kl[i] > free[i] else free[i] for i in "zy")
    if name == "BetaTCVAE":
        alpha, gamma = 1.5, 0.6  # latents of one dimension have no total correlation
        for i in "zy":
            joint = a[f"q_{i}"] * logs[f"all_{i}"]
            kls[i] = alpha * (a[f"q_{i}"] * logs[f"q_{i}"] - joint)
            kls[i] = kls[i] + gamma * (joint - a[f"p_{i}"] * logs[f"p_{i}"])
    return observed - mean(sum(kls.values())[:, 0]).sum()


def objective_of(name, minimum):
    arguments = {
        "BetaTCVAE": {"alpha": 1.5, "beta": 3.0, "gamma": 0.6},
        "IWAE": {"num_particles": K},
        "DReG": {"num_particles": K},
        "StickingTheLanding": {"num_particles": K},
    }
    objective = getattr(pv.objectives, name)(**arguments.get(name, {}))
    if name == "FreeBits":  # which may be negative here, for no single draw's KL to be free
        objective.minimum = minimum
    return objective


def data():
    x = torch.tensor([[0.4, -1.1], [1.3, torch.nan], [-0.7, 0.9]])
    return x, torch.tensor([0.5, -0.3, 1.0])


def assert_is_exact(name, program, weight=1.0, minimum=0.15, autocast=False):
    x, c = data()
    parameters = {n: p for n, p in program.named_parameters() if p.requires_grad}
    bound = exact(name, program, x, c, weight, minimum)
    options = {"allow_unused": True, "materialize_grads": True}  # free bits leave a prior out
    expected = torch.autograd.grad(bound, parameters.values(), **options)
    repeats, runs = (40, 300) if name == "BetaTCVAE" else (2000, 25)
    if autocast:
        program, x, c = program.float(), x.float(), c.float()
    # The same tensors: `float` moves the parameters in place.
    many, context = x.repeat(repeats, 1), c.repeat(repeats)
    model, guide = (weigh_latents(fn, weight) for fn in (program.model, program.guide))
    objective, estimates = objective_of(name, minimum), []
    for _ in range(runs):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = objective.differentiable_loss(model, guide, many, context)
        gradients = torch.autograd.grad(loss, parameters.values(), **options)
        values = torch.cat([loss.reshape(1), *(g.flatten() for g in gradients)])
        estimates.append(-values.detach().double() / repeats)
    found = torch.stack(estimates)
    wanted = torch.cat([bound.reshape(1), *(g.flatten() for g in expected)]).detach().double()
    slack = 0.03 * wanted.abs().max() if autocast else 1e-4 * wanted.abs().max()
    off = (found.mean(0) - wanted).abs() - slack
    assert (off < 5 * found.std(0) / runs**0.5).all(), (found.mean(0), wanted)


def pair(name, discrete=False):
    torch.manual_seed(1)
    # An aggregate posterior of y given z would depend on the other data's draws of z.
    return Pair(discrete, chained=name != "BetaTCVAE")


@pytest.mark.parametrize("weight", [1.0, 0.4], ids=["full", "warm-up"])
@pytest.mark.parametrize("name", pv.objectives.__all__)
def test_the_gradient_is_that_of_the_exact_bound(float64, name, weight):
    assert_is_exact(name, pair(name), weight)


@pytest.mark.parametrize("name", pv.objectives.__all__)
def test_the_gradient_under_autocast_is_that_of_the_exact_bound(float64, name):
    assert_is_exact(name, pair(name), autocast=True)


@pytest.mark.parametrize("name", pv.objectives.__all__)
def test_the_gradient_for_discrete_latents_is_that_of_the_exact_bound(float64, name):
    program = pair(name, discrete=True)
    if name in NEED_A_PATH:
        with pytest.raises(InvalidInput, match="reparametrised"):
            objective_of(name, 0.0).loss(program.model, program.guide, *data())
        return
    assert_is_exact(name, program, 0.6)


class Image(torch.nn.Module):
    """A log-normal guide, directly or as the image exp(m + s u) of an auxiliary u ~ N(r, 1)."""

    event_shape = ()

    def __init__(self, direct):
        super().__init__()
        self.direct = direct
        self.m, self.s, self.r = (torch.nn.Parameter(torch.tensor(v)) for v in (0.1, 0.5, 0.3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.full_like(x, 2.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            if self.direct:
                loc = (self.m + self.s * self.r).expand(len(x))
                pyro.sample("z", dist.LogNormal(loc, self.s))
                return
            base = dist.Normal(self.r.expand(len(x)), 1.0)
            u = pyro.sample("u", base, infer={"is_auxiliary": True})
            z = (self.m + self.s * u).exp()
            pyro.sample("z", dist.Delta(z, log_density=-self.s.log() - z.log()))


def estimates(objective, program, x, runs=40):
    """Independent estimates of the loss and its gradient per datum, as rows."""
    rows = []
    for _ in range(runs):
        loss = objective.differentiable_loss(program.model, program.guide, x) / len(x)
        gradients = torch.autograd.grad(loss, list(program.parameters()), allow_unused=True)
        rows.append(torch.stack([loss, *(g for g in gradients if g is not None)]).detach())
    return torch.stack(rows)


@pytest.mark.parametrize("name", pv.objectives.__all__)
def test_the_jacobian_of_an_image_with_parameters_is_no_score(float64, name):
    x = torch.full((2000,), 1.4)
    objective = objective_of(name, minimum=0.0)
    if name == "BetaTCVAE":
        x, objective = x[:100], pv.objectives.BetaTCVAE(1.0, 1.0, 1.0)
    plain = {"DReG": pv.objectives.IWAE(K), "StickingTheLanding": pv.objectives.ELBO(K)}
    a = estimates(plain.get(name, objective), Image(direct=True), x)
    b = estimates(objective, Image(direct=False), x)
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 1e-9).all(), (a.mean(0), b.mean(0))


@pytest.mark.parametrize("name", [n for n in pv.objectives.__all__ if n != "FreeBits"])
def test_a_scale_of_each_datum_multiplies_its_bound(float64, name):
    """So loss and gradient are additive in the scales, on the same random numbers."""
    program, objective = pair(name), objective_of(name, 0.0)
    objective.loss(program.model, program.guide, *data())  # finds the plates

    def of(*scales):
        torch.manual_seed(3)
        with poutine.scale(scale=torch.tensor(scales)):
            loss = objective.differentiable_loss(program.model, program.guide, *data())
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, parameters)] + [loss[None]]
        )

    parameters = [p for p in program.parameters() if p.requires_grad]
    torch.testing.assert_close(of(2.0, 1.0, 0.5) + of(1.0, 2.0, 2.5), 3 * of(1.0, 1.0, 1.0))


def test_a_scale_within_a_datum_is_refused(float64):
    def model(x, c):
        plates = pyro.plate("data", len(x), dim=-2), pyro.plate("entries", 2, dim=-1)
        with plates[0], plates[1], poutine.scale(scale=torch.tensor([1.0, 2.0])):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x), 2]), obs=x)

    x = torch.ones(3, 2)
    with pytest.raises(InvalidInput, match="one scale for each datum"):
        pv.objectives.IWAE(2).loss(model, lambda x, c: None, x, None)


OF_LOG_WEIGHTS = ["IWAE", "StickingTheLanding", "DReG"]


@pytest.mark.parametrize("name", sorted({*pv.objectives.__all__} - {*OF_LOG_WEIGHTS}))
def test_a_subsampled_plate_within_a_datum_is_counted_whole(float64, name):
    """Where all entries are equal, some of them tell as much as all do."""
    scale, x = torch.tensor(0.8, requires_grad=True), torch.randn(5, 1).expand(5, 10)
    objective, found = objective_of(name, 0.0), []
    for subsample in (10, 4):
        objective.loss(*subsampled(subsample, scale), x, None)
        torch.manual_seed(0)
        loss = objective.differentiable_loss(*subsampled(subsample, scale), x, None)
        found.append(torch.stack([loss, *torch.autograd.grad(loss, scale)]))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("name", OF_LOG_WEIGHTS)
def test_a_bound_made_of_log_weights_refuses_a_subsampled_plate(float64, name):
    """All draws of a datum would share one subset, which no average over draws repairs."""
    with pytest.raises(InvalidInput, match="got 4 of 10 entries"):
        objective_of(name, 0.0).loss(*subsampled(4, torch.tensor(0.8)), torch.randn(5, 10), None)


def subsampled(subsample, scale):
    """A model of ten entries of which it reads some, and its guide."""

    def model(x, c):
        entries = pyro.plate("entries", 10, subsample=torch.arange(subsample), dim=-1)
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0))
            with entries:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, :subsample])

    def guide(x, c):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x[:, :1] * scale, 0.5))

    return model, guide


class Factors(torch.nn.Module):
    """x = z W + noise, with the matrix W a latent outside of the data plate."""

    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.ones(2, 3))

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.loc, 1e-3).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1e-3).to_event(1))


def test_compiled_svi_draws_one_after_another_where_pyros_loss_does(float64):
    program, x = Factors(), torch.randn(5, 3)
    svi = pv.CompiledSVI(
        program.model,
        program.guide,
        torch.optim.SGD(program.parameters(), lr=0.0),
        pyro.infer.Trace_ELBO(num_particles=3),
    )
    torch.manual_seed(0)
    found = svi.evaluate_loss(x)
    torch.manual_seed(0)
    assert found == pytest.approx(
        pyro.infer.Trace_ELBO(num_particles=3).loss(program.model, program.guide, x), rel=1e-12
    )


@pytest.mark.parametrize("name", [n for n in pv.objectives.__all__ if n not in NEED_A_PATH])
def test_a_penalty_on_discrete_draws_has_the_score_functions_gradient(float64, name):
    """A factor of the guide that has no gradient of its own, only the chance that it comes."""
    logit, x = torch.tensor(0.4, requires_grad=True), torch.full((4000,), 0.8)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full_like(x, 0.3)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=logit.expand(len(x))))
            pyro.factor("penalty", 0.7 * z, has_rsample=False)

    objective = objective_of(name, minimum=-100.0)  # nats below which nothing is free
    if name == "BetaTCVAE":
        x, objective = x[:100], pv.objectives.BetaTCVAE(1.0, 1.0, 1.0)
    num, bound = objective.num_particles, 0.0
    for bits in itertools.product([0.0, 1.0], repeat=num):
        z = torch.tensor(bits)
        q = dist.Bernoulli(logits=logit).log_prob(z)
        log_w = dist.Normal(z, 1.0).log_prob(x[0]) + dist.Bernoulli(0.3).log_prob(z) - q
        value = log_w.logsumexp(0) - math.log(num) - 0.7 * z.mean()
        bound = bound + q.sum().exp() * value
    wanted = torch.autograd.grad(bound, logit)[0]
    found = []
    for _ in range(40):
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        found.append(-torch.autograd.grad(loss, logit)[0])
    found = torch.stack(found)
    assert (found.mean() - wanted).abs() < 5 * found.std() / 40**0.5 + 1e-9, (found.mean(), wanted)
