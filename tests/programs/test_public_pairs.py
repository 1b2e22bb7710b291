"""Pairs as public repositories have them: flows, chains, parts, first runs; each against a number.

Most are of one linear normal model with its exact posterior as the guide, so that each log-weight
is log p(x) itself.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import transforms
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import as_program
from pyro_vae.runtime.noise import has_own_noise
from pyro_vae.validation import InvalidInput

W = torch.tensor([[1.0, 0.4], [-0.6, 0.8], [0.3, -1.1]], dtype=torch.float64)
B, S = torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64), 0.7
COVARIANCE = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + W.T @ W / S**2)
X = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, -0.6]) + 0.2
EXACT = dist.MultivariateNormal(B, W @ W.T + S**2 * torch.eye(3, dtype=torch.float64)).log_prob(X)
UNSURE = "ignore:.*Pareto k.*|.*too few draws.*"


def decoder():
    net = nn.Linear(2, 3).double()
    net.weight.data, net.bias.data = W.clone(), B.clone()
    return net


def encoder():
    net, gain = nn.Linear(3, 2).double(), COVARIANCE @ W.T / S**2
    net.weight.data, net.bias.data = gain, -gain @ B
    return net


class Linear(nn.Module):
    """z ~ N(0, 1), x ~ N(W z + b, S^2), and q(z | x) = p(z | x)."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = decoder(), encoder()

    def model(self, x):
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("obs", self.likelihood(z), obs=x)

    def guide(self, x):
        with pyro.plate("cells", len(x)):
            pyro.sample("z", self.posterior(x))

    def prior(self, x):
        return dist.Normal(x.new_zeros(2), 1.0).to_event(1)

    def likelihood(self, z):
        return dist.Normal(self.decoder(z), S).to_event(1)

    def posterior(self, x):
        return dist.MultivariateNormal(self.encoder(x), COVARIANCE)


def check_exact(program, x=X, exact=EXACT):
    torch.testing.assert_close(pv.elbo(program, x, 3).values, exact)
    torch.testing.assert_close(pv.log_likelihood(program, x, 3).values, exact)


def fitted(program, data=X, **options):
    torch.manual_seed(0)
    return pv.fit(program, data, epochs=2, batch_size=4, compile="off", progress=False, **options)


def refusal(act, *args, **options):
    with pytest.raises(InvalidInput) as error:
        act(*args, **options)
    assert "\n" not in str(error.value) and not list(pyro.get_param_store().keys())
    return str(error.value)


def check_loss(program, x, ours=pv.objectives.ELBO, theirs=Trace_ELBO, rel=1e-12):
    pair, objective = as_program(program), ours()
    pair.prepare(x)
    objective.max_plate_nesting = 1
    torch.manual_seed(1)
    loss = objective.loss(pair.model, pair.guide, x)
    with pyro.get_param_store().scope():
        torch.manual_seed(1)
        expected = theirs(max_plate_nesting=1).loss(pair.model_fn, pair.guide_fn, x)
    assert loss == pytest.approx(expected, rel=rel)


# distributions


class Planar(Linear):
    """Two flows without an inverse, the maps themselves near the identity."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.flows = nn.ModuleList([transforms.planar(2), transforms.planar(2)])
        for flow in self.flows:  # which is the identity where w'u = log(e - 1), or 0.54
            flow.u.data = 0.7 * flow.w.data / flow.w.data.square().sum()

    def posterior(self, x):
        base = dist.MultivariateNormal(self.encoder(x), 1.3 * COVARIANCE)
        return dist.TransformedDistribution(base, list(self.flows))


class PlanarByDraw(Planar):
    def likelihood(self, z):
        return dist.Normal(torch.addmm(self.decoder.bias, z, self.decoder.weight.T), S).to_event(1)


@pytest.mark.filterwarnings("ignore:.*one draw at a time:UserWarning", UNSURE)
@pytest.mark.parametrize("form, num_samples", [(Planar, 3000), (PlanarByDraw, 100)])
def test_a_flow_without_an_inverse_is_scored_at_its_own_draws(float64, form, num_samples):
    program = form()
    check_loss(program, X)
    score = pv.log_likelihood(program, X, num_samples)
    assert (score.mc_se < 0.2).all()
    assert ((score.values - EXACT).abs() < 5 * score.mc_se + 1e-3).all()
    assert fitted(form())["objective"]
    score = pv.log_likelihood(program, X, num_samples, proposal=pv.evaluation.Widened(1.2))
    assert ((score.values - EXACT).abs() < 5 * score.mc_se + 1e-3).all()
    draws = pv.to_inference_data(program, X, num_samples=8)
    assert draws.posterior["z"].shape == (1, 8, 8, 2) and "log_q" not in draws.sample_stats
    said = refusal(pv.log_likelihood, program, X, 5, proposal=pv.evaluation.Defensive())
    assert "z: got a flow without an inverse" in said


class ZukoFlows(nn.Module):
    """A flow of Zuko's as the prior and one as the guide, as Pyro's tutorial has them."""

    def __init__(self, wrap=ZukoToPyro):
        super().__init__()
        self.wrap, self.decoder = wrap, decoder()
        torch.manual_seed(0)
        self.prior = zuko.flows.MAF(features=2, transforms=1, hidden_features=(4,)).double()
        self.flow = zuko.flows.MAF(features=2, context=3, transforms=1).double()

    def model(self, x):
        pyro.module("prior", self.prior)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", self.wrap(self.prior()))
            pyro.sample("x", dist.Normal(self.decoder(z), 2.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            pyro.sample("z", self.wrap(self.flow(x)))


@pytest.mark.filterwarnings(UNSURE)
def test_zukos_flows_in_pyros_adapter(float64):
    program, ours = ZukoFlows(), ZukoFlows(pv.distributions.as_pyro)
    check_loss(program, X, rel=1e-9)
    for score in (pv.elbo, pv.log_likelihood):
        torch.testing.assert_close(score(program, X, 5).values, score(ours, X, 5).values)
    assert fitted(program)["objective"]
    assert pv.generate(program, 3).shape == (3, 3)


class Bare(dist.TorchDistribution):
    """A class with draws and a density, and with nothing else."""

    arg_constraints = {}
    has_rsample = True

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * torch.randn(*sample_shape, *self.loc.shape)

    def log_prob(self, value):
        return dist.Normal(self.loc, self.scale).log_prob(value).sum(-1)


class Bares(Linear):
    def prior(self, x):
        return Bare(x.new_zeros(len(x), 2), 1.0)

    def likelihood(self, z):
        return Bare(self.decoder(z), S)


@pytest.mark.filterwarnings("ignore:.*one draw at a time:UserWarning")
def test_a_distribution_that_states_no_support(float64):
    program = Bares()
    check_exact(program)
    assert fitted(program)["objective"]
    assert pv.generate(program, 3, draws=True).shape == (3, 3)
    said = refusal(pv.to_inference_data, program, X, num_samples=16, sampler=pv.diagnostics.NUTS())
    assert "support is unstated (its class has no attribute support)" in said


class OtherEvent(Linear):
    """A density that scores what it does not draw, as one of sequences of unknown length."""

    def likelihood(self, z):
        mean = self.decoder(z)

        class OfPieces(Bare):
            def log_prob(self, value):
                return dist.Normal(mean, S).log_prob(value).sum(-1)

        return OfPieces(mean[..., :1], S)


@pytest.mark.filterwarnings("ignore:.*one draw at a time:UserWarning")
def test_a_density_that_draws_another_shape_is_scored_and_not_drawn_from(float64):
    program = OtherEvent()
    check_exact(program)
    assert "got a density over (1,) at the site that observes x" in refusal(
        pv.reconstruct, program, X
    )


# chains


class Chain(nn.Module):
    """A hidden Markov chain under w ~ N(0, 1), with a deterministic site in each of its steps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.moves = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))
        self.means = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64))
        self.net = nn.Linear(3, 1).double()

    def model(self, x):
        with pyro.plate("sequences", len(x)):
            w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
            k = torch.zeros((), dtype=torch.long)
            for t in pyro.markov(range(3)):
                density = dist.Categorical(logits=self.moves[k])
                k = pyro.sample(f"k_{t}", density, infer={"enumerate": "parallel"})
                mean = pyro.deterministic(f"mean_{t}", self.means[k] + w)
                pyro.sample(f"y_{t}", dist.Normal(mean, 1.0), obs=x[:, t])

    def guide(self, x):
        with pyro.plate("sequences", len(x)):
            pyro.sample("w", dist.Normal(self.net(x).squeeze(-1), 0.8))


def test_a_deterministic_site_in_a_chain(float64):
    program = Chain()
    check_loss(program, X, pv.objectives.EnumeratedELBO, TraceEnum_ELBO)
    assert fitted(Chain())["objective"]
    grid = torch.linspace(-8, 8, 2001)
    moves, means = program.moves.detach().log_softmax(-1), program.means.detach()
    total = moves[0]
    for t in range(3):
        seen = dist.Normal(means + grid[:, None], 1.0).log_prob(X[:, t, None, None])
        total = seen + (total if t == 0 else (total[..., :, None] + moves).logsumexp(-2))
    exact = (total.logsumexp(-1) + dist.Normal(0.0, 1.0).log_prob(grid)).logsumexp(-1)
    exact = exact + (grid[1] - grid[0]).log()
    score = pv.log_likelihood(program, X, 2000)
    assert ((score.values - exact).abs() < 5 * score.mc_se + 1e-3).all()


def test_what_a_chain_makes_of_its_other_latents(float64):
    """States are drawn from p(k | w), and the steps of x are no latents."""
    program = Chain()
    pv.elbo(program, X, 1)
    made = pv.decode(program, {"w": torch.full((20_000,), 0.5)})
    state = program.moves.detach().softmax(-1)[0]
    for t in range(3):
        if t:
            state = state @ program.moves.detach().softmax(-1)
        mean = 0.5 + (state * program.means.detach()).sum()
        assert made[:, t].mean().item() == pytest.approx(mean.item(), abs=0.04)


def of_seasons(x):
    """A global latent for each step, drawn between the local ones, as of capture and recapture."""
    plate = pyro.plate("animals", len(x))
    k = torch.ones(())
    for t in pyro.markov(range(3)):
        rate = pyro.sample(f"rate_{t}", dist.Beta(2.0, 2.0))
        with plate:
            density = dist.Bernoulli(0.2 + 0.7 * rate * k)
            k = pyro.sample(f"k_{t}", density, infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Bernoulli(0.1 + 0.8 * k), obs=x[:, t])


@pytest.mark.filterwarnings(UNSURE)
def test_global_latents_between_the_steps_of_a_chain(float64):
    x = (X > 0).double()
    rates = poutine.block(of_seasons, expose_fn=lambda site: site["name"].startswith("rate"))
    program = pv.Program(of_seasons, AutoNormal(rates))
    assert pv.elbo(program, x, 5).values.isfinite().all()
    assert pv.reconstruct(program, x).shape == x.shape
    assert pv.to_inference_data(program, x, num_samples=8).posterior["rate_1"].shape == (1, 8)


# parts of x


class Parts(Linear):
    """x in two parts, one of them called x, and what else is in the batch."""

    def model(self, batch):
        with pyro.plate("cells", len(batch["x"])):
            z = pyro.sample("z", self.prior(batch["x"]))
            mean, mask = self.decoder(z), batch["seen"].bool()
            pyro.sample("obs_x", dist.Normal(mean[..., :2], S).to_event(1), obs=batch["x"])
            pyro.sample("obs_y", dist.Normal(mean[..., 2], S).mask(mask), obs=batch["y"])

    def guide(self, batch):
        super().guide(torch.cat([batch["x"], batch["y"][:, None]], 1))


def test_a_part_called_x_and_one_that_no_site_observes(float64):
    parts, seen = {"x": X[:, :2], "y": X[:, 2]}, torch.ones(len(X))
    program, data = Parts(), {**parts, "seen": seen}
    check_exact(program, data)
    draws = pv.to_inference_data(program, data, num_samples=8)
    assert draws.posterior_predictive["x"].shape == (1, 8, 8, 2)
    assert set(draws.posterior_predictive.data_vars) == {"x", "y"}
    said = refusal(pv.reconstruct, program, data)
    assert "x['seen']: got a part of x that no site of the model observes" in said
    arguments = lambda x, context: ({**x, **context},)  # noqa: E731  (as the refusal has it)
    program = pv.Program(program.model, program.guide, arguments=arguments)
    check_exact(program, (parts, {"seen": seen}))
    assert pv.reconstruct(program, (parts, {"seen": seen}))["y"].shape == (8,)


class ByFactor(Linear):
    def model(self, x):
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.factor("likelihood", self.likelihood(z).log_prob(x))


def test_a_posterior_needs_no_site_that_observes_x(float64):
    program = ByFactor()
    check_exact(program)
    draws = pv.to_inference_data(program, X, num_samples=400)
    assert "posterior_predictive" not in list(getattr(draws, "children", draws.groups()))
    mean = draws.posterior["z"].mean(("chain", "draw")).values
    torch.testing.assert_close(torch.tensor(mean), program.encoder(X).detach(), atol=0.15, rtol=0)
    torch.testing.assert_close(
        torch.tensor(draws.sample_stats["log_weight"].values[0, 0]), EXACT, rtol=1e-9, atol=1e-9
    )
    assert "no site that observes x as it is" in refusal(pv.reconstruct, program, X)


# first runs


class FirstValues(Linear):
    """Parameters whose first values are drawn anew in each call, and used in the first alone."""

    def likelihood(self, z):
        return dist.Normal(torch.addmm(self.decoder.bias, z, self.decoder.weight.T), S).to_event(1)

    def guide(self, x):
        offset = pyro.param("offset", torch.randn(2, dtype=x.dtype))
        with pyro.plate("cells", len(x)):
            pyro.sample("z", dist.MultivariateNormal(self.encoder(x) + 0 * offset, COVARIANCE))


@pytest.mark.filterwarnings("ignore:.*one draw at a time:UserWarning")
def test_first_values_drawn_in_each_call_are_no_noise_of_the_guide(float64):
    program = FirstValues()
    check_exact(program)  # which takes one draw at a time
    pair = as_program(program)
    assert not has_own_noise(pair.guide, X.device, X)
    noisy = pv.Program(program.model, lambda x: program.guide(x + 0.1 * torch.randn(len(x), 3)))
    noisy.prepare(X)
    assert has_own_noise(noisy.guide, X.device, X)


def lazily():
    """Two functions whose networks are made by their first run."""
    dec = enc = None

    def model(x):
        nonlocal dec
        dec = dec or decoder()
        pyro.module("decoder", dec)
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(dec(z), S).to_event(1), obs=x)

    def guide(x):
        nonlocal enc
        enc = enc or encoder()
        pyro.module("encoder", enc)
        with pyro.plate("cells", len(x)):
            pyro.sample("z", dist.MultivariateNormal(enc(x), COVARIANCE))

    return pv.Program(model, guide)


def test_networks_that_the_first_run_makes_are_trained_and_loaded(float64, tmp_path):
    program = lazily()
    check_exact(program)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    fitted(program, out=tmp_path)
    assert len(before) == 4
    assert not any(torch.equal(before[n], value) for n, value in program.state_dict().items())
    loaded = pv.load(tmp_path, program=lazily())
    assert torch.equal(pv.elbo(loaded, X, 3).values, pv.elbo(program, X, 3).values)


class Lazy(Linear):
    """A network that the first run gives its shape."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LazyLinear(2, dtype=torch.float64)


def test_a_network_without_a_shape_is_loaded_once_it_has_one(float64, tmp_path):
    program = Lazy()
    fitted(program, out=tmp_path)
    assert "pv.elbo(program, data)" in refusal(pv.load, tmp_path, program=Lazy())
    other = Lazy()
    pv.elbo(other, X[:3])
    loaded = pv.load(tmp_path, program=other)
    assert torch.equal(pv.elbo(loaded, X, 3).values, pv.elbo(program, X, 3).values)


def of_lengths():
    def model(x, lengths):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        longest = x[:, : int(lengths.max())]
        largest = longest.max(1).values.detach()  # of no entries there is none
        with pyro.plate("sequences", len(x)):
            pyro.sample("largest", dist.Normal(mean, 1.0), obs=largest)

    return pv.Program(model, AutoNormal(model))


def test_functions_that_do_not_run_at_zeros_are_loaded_after_a_run(float64, tmp_path):
    program, data = of_lengths(), (X, torch.full((8,), 3))
    fitted(program, data, out=tmp_path)
    said = refusal(pv.load, tmp_path, program=of_lengths())
    assert "program: got functions that do not run at zeros" in said
    other = of_lengths()
    pv.elbo(other, data)
    loaded = pv.load(tmp_path, program=other)
    assert torch.equal(pv.elbo(loaded, data, 3).values, pv.elbo(program, data, 3).values)


class Named(Linear):
    """Parameters called as attributes that torch and this library set."""

    def likelihood(self, z):
        scale = 1.0
        for name in ("training", "names", "blank", "constraints", "event_shape", "one_draw"):
            constraint = dist.constraints.positive
            scale = scale * pyro.param(name, torch.tensor(S ** (1 / 6)), constraint=constraint)
        return dist.Normal(self.decoder(z), scale).to_event(1)


def test_a_parameter_may_have_any_name(float64, tmp_path):
    program = Named()
    check_exact(program)
    fitted(program, out=tmp_path)
    loaded = pv.load(tmp_path, program=Named())
    assert loaded.pyro_store.value("training", dist.constraints.positive).item() != 1.0
    assert torch.equal(pv.elbo(loaded, X, 3).values, pv.elbo(program, X, 3).values)


# what is refused, with a fix that works


class FixedPlate(Linear):
    def __init__(self):
        super().__init__()
        self.plate = pyro.plate("cells", 8)

    def guide(self, x):
        with self.plate:
            pyro.sample("z", self.posterior(x))


class FixedTensor(Linear):
    def prior(self, x):
        return dist.Normal(torch.zeros(8, 2).to(x), 1.0).to_event(1)


class FixedScale(Linear):
    def likelihood(self, z):
        return dist.Normal(self.decoder(z), torch.full((8, 1), S)).to_event(1)


def test_a_number_of_data_that_is_written_down(float64):
    said = refusal(pv.elbo, FixedPlate(), X)
    assert "plate 'cells': got a size of 8 for any number of data" in said
    assert "write pyro.plate('cells', len(x))" in said
    said = refusal(pv.elbo, FixedTensor(), X)
    assert "z: got a density of 8 along dimension -1" in said and "write len(x) for 8" in said
    said = refusal(pv.elbo, FixedScale(), X)
    assert "got a fixed size that meets the number of data" in said and "len(x)" in said


def test_a_class_that_is_no_module(float64):
    class Plain:
        model, guide = Linear.model, Linear.guide
        prior, likelihood, posterior = Linear.prior, Linear.likelihood, Linear.posterior

        def __init__(self):
            self.decoder, self.encoder = decoder(), encoder()

    it = Plain()
    said = refusal(pv.elbo, it, X)
    assert "Plain, a class with model and guide that is no nn.Module" in said
    assert "pv.Program(it.model, it.guide)" in said
    check_exact(pv.Program(it.model, it.guide))


def test_all_latents_that_an_autoguide_must_leave_out(float64):
    def model(x):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", dist.Normal(top, 1.0))
            y = pyro.sample("y", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(y[..., None] + torch.zeros(3), 1.0).to_event(1), obs=x)

    said = refusal(pv.elbo, pv.Program(model, AutoNormal(model)), X)
    assert "q(z, y | x)" in said and "AutoNormal(poutine.block(model, hide=['z', 'y']))" in said


class Words(nn.Module):
    """Words by their numbers: looked up by the guide."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 2).double()

    def model(self, x):
        with pyro.plate("words", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Categorical(logits=z), obs=x)

    def guide(self, x):
        with pyro.plate("words", len(x)):
            loc = self.table(x).repeat(1, 2)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


@pytest.mark.filterwarnings(UNSURE)
def test_whole_numbers_as_an_index(float64):
    words, x = Words(), torch.arange(8) % 4
    said = refusal(pv.elbo, words, x)
    assert "arguments=lambda x, context: (x.long(),)" in said
    arguments = lambda x, context: (x.long(),)  # noqa: E731  (as the refusal has it)
    program = pv.Program(words.model, words.guide, arguments=arguments)
    score = pv.log_likelihood(program, x, 3000)
    assert ((score.values - torch.tensor(0.25).log()).abs() < 5 * score.mc_se + 1e-2).all()


def test_an_observation_that_is_not_passed(float64):
    pair = Linear()

    def model(x, obs=None):
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", pair.prior(x))
            pyro.sample("obs", pair.likelihood(z), obs=obs)

    def guide(x, obs=None):
        pair.guide(x)

    said = refusal(pv.elbo, pv.Program(model, guide), X)
    assert "arguments=lambda x, context: (x, x)" in said
    check_exact(pv.Program(model, guide, arguments=lambda x, context: (x, x)))
