import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import Hierarchy, LinearGaussian, positive
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation.importance import evaluate, importance_weights
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.evaluation.proposals import Defensive, Guide, Refitted, Widened, in_one_step
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

PROPOSALS = [
    Guide(),
    Widened(1.2),
    Refitted(steps=20),
    Widened(1.2, of=Refitted(steps=20)),
    Defensive(0.2),
    Defensive(0.1, of=Widened(1.2)),
]


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
def test_a_proposal_of_one_step_has_the_same_blocks(proposal):
    exact = LinearGaussian(2, features=3)
    with conditioned(exact.program(mean_field=True), exact.data(5), 0) as given:
        blocks = [Blocks.of(given, each, 10**5) for each in (proposal, in_one_step(proposal))]
    assert blocks[0] == blocks[1] and len(blocks[0].draws) > 1


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
def test_every_proposal_gives_the_exact_value_within_its_error(proposal):
    """The estimate does not depend on the proposal, for any kind of program.

    A plain VAE, a hierarchy with labels, a constrained latent, discrete codes.
    """
    linear, hierarchy, gamma = (
        LinearGaussian(2, features=4),
        Hierarchy(widen=1.2, labels=2),
        positive(1.3),
    )
    x, y = hierarchy.data(20)
    for program, data, truth in [
        (linear.program(widen=1.2), linear.data(20), linear.marginal.log_prob(linear.data(20))),
        (hierarchy.program(), (x, y), hierarchy.log_p(x, y)),
        (gamma.program(), torch.linspace(0.5, 5, 20), gamma.log_p(torch.linspace(0.5, 5, 20))),
        discrete_codes(),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableEstimate)
            score = pv.log_likelihood(program, data, 3000, proposal=proposal, seed=2)
        assert ((score.values - truth).abs() < 4.5 * score.mc_se + 1e-9).all()
        assert abs(score.mean - truth.mean()) < 4 * score.mean_mc_se + 1e-9


def discrete_codes():
    """Eight binary entries from one of three codes: p(x) by enumeration."""
    probabilities = torch.sigmoid(torch.randn(3, 8, generator=torch.Generator().manual_seed(2)))
    shares = torch.tensor([0.2, 0.5, 0.3])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(shares))
            pyro.sample("x", dist.Bernoulli(probabilities[z]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z",
                dist.Categorical(
                    logits=dist.Bernoulli(probabilities).log_prob(x[:, None]).sum(-1) / 2
                ),
            )

    x = torch.bernoulli(torch.full((20, 8), 0.5))
    terms = dist.Bernoulli(probabilities).log_prob(x[:, None]).sum(-1) + shares.log()
    return pv.Program(model, guide, event_shape=8), x, terms.logsumexp(1)


def test_widening_and_refining_repair_k_where_the_guide_is_too_narrow():
    exact = LinearGaussian(3, features=6)
    x = exact.data(20)
    truth = exact.marginal.log_prob(x)
    narrow = exact.program(widen=0.4)
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        for proposal in (Guide(), Widened(2.8), Refitted(steps=150)):
            scores[type(proposal).__name__] = pv.log_likelihood(narrow, x, 2000, proposal=proposal)
    assert scores["Guide"].pareto_k.median() > 0.8 and scores["Guide"].above_threshold >= 15
    for name in ("Widened", "Refitted"):
        assert scores[name].above_threshold == 0 and scores[name].pareto_k.max() < 0.4
        assert ((scores[name].values - truth).abs() < 4.5 * scores[name].mc_se).all()
        assert (scores[name].ess > 3 * scores["Guide"].ess).all()


def test_a_defensive_mixture_bounds_the_weights_and_finds_what_a_narrow_guide_misses():
    exact = LinearGaussian(1, features=3)
    x = exact.data(20)
    with pytest.warns(UnreliableEstimate):
        pv.log_likelihood(exact.program(widen=0.2), x, 2000)
    with warnings.catch_warnings():  # one datum is near the threshold
        warnings.simplefilter("ignore", UnreliableEstimate)
        score = pv.log_likelihood(exact.program(widen=0.2), x, 4000, proposal=Defensive(0.3))
    assert score.above_threshold <= 1
    assert (score.pareto_k < pv.evaluation.pareto_k_threshold(4000)).all()
    assert ((score.values - exact.marginal.log_prob(x)).abs() < 4 * score.mc_se).all()
    weights = pv.evaluation.importance_weights(
        exact.program(widen=0.2), x, 2000, proposal=Defensive(0.2)
    )
    highest = 3 * math.log(1 / (exact.noise * math.sqrt(2 * math.pi)))  # of p(x | z)
    assert (weights <= highest - math.log(0.2) + 1e-9).all()


def test_refinement_finds_the_best_member_of_the_mean_field_family():
    exact = LinearGaussian(5, features=8)
    x = exact.data(20)
    best = exact.marginal.log_prob(x) - exact.mean_field_kl
    poor = exact.program(widen=0.5, shift=1.0, mean_field=True)
    before = evaluate(poor, x, 1000)["elbo"]
    after = evaluate(poor, x, 1000, proposal=Refitted(steps=200))["elbo"]
    assert (before.values < best - 1).all()
    assert (after.values < best + 4 * after.mc_se).all() and (best - after.values).mean() < 0.1


def test_proposals_leave_the_program_alone():
    program, x = small_vae().double(), torch.bernoulli(torch.rand(3, 1, 8, 8))
    before = {name: value.clone() for name, value in program.state_dict().items()}
    for proposal in PROPOSALS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableEstimate)
            a, b = (pv.log_likelihood(program, x, 20, proposal=proposal).values for _ in range(2))
        assert torch.equal(a, b)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in program.parameters())


def test_what_a_proposal_cannot_do_is_refused():
    for make in (
        lambda: Widened(0.0),
        lambda: Widened(math.inf),
        lambda: Defensive(0.0),
        lambda: Defensive(1.0),
        lambda: Refitted(steps=0),
        lambda: Refitted(num_particles=0),
    ):
        with pytest.raises(InvalidInput):
            make()

    class Uniform(dist.TorchDistribution):
        arg_constraints: dict = {}
        support = dist.constraints.sphere

        def sample(self, shape=torch.Size()):
            z = torch.randn(*shape, *self.batch_shape, 3)
            return z / z.norm(dim=-1, keepdim=True)

        def log_prob(self, value):
            return torch.full(value.shape[:-1], -math.log(4 * math.pi)).expand(
                torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
            )

        def expand(self, shape, _instance=None):
            return Uniform(torch.Size(shape), (3,), validate_args=False)

    def on_a_sphere(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Uniform((), (3,), validate_args=False))
            pyro.sample("x", dist.Normal(torch.zeros(len(x)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Uniform((), (3,), validate_args=False))

    program = pv.Program(on_a_sphere, guide, event_shape=())
    for proposal in (Widened(), Refitted()):
        with pytest.raises(InvalidInput, match="z: got"):
            pv.log_likelihood(program, torch.zeros(2), 100, proposal=proposal)
    pv.log_likelihood(program, torch.zeros(2), 100, proposal=Defensive())
    with pytest.raises(InvalidInput, match="z: got"):
        pv.evaluation.ais(program, torch.zeros(2), 2, 2)


def test_a_guide_with_an_auxiliary_source_is_moved_there_and_never_mixed():
    """z = exp(u): widening the source widens its image; a mixture has no density of z at hand."""
    exact = positive()

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample(
                "u", dist.Normal(x.clamp(min=0.2).log(), 0.3), infer={"is_auxiliary": True}
            )
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    program, x = pv.Program(exact.model, guide, event_shape=()), torch.linspace(2, 5, 20)
    score = pv.log_likelihood(program, x, 3000, proposal=Widened(1.5))
    assert ((score.values - exact.log_p(x)).abs() < 4.5 * score.mc_se).all()
    bounds = [
        evaluate(program, x, 3000, proposal=proposal)["elbo"]
        for proposal in (Guide(), Refitted(steps=50))
    ]
    assert (bounds[1].values > bounds[0].values).all() and (bounds[1].values < exact.log_p(x)).all()
    weights = [
        importance_weights(program, x, 3000, proposal=proposal).std(0)
        for proposal in (Guide(), Widened(1.01))
    ]
    assert not torch.allclose(*weights)
    with pytest.raises(InvalidInput, match="u: got an auxiliary site"):
        pv.log_likelihood(program, x, 100, proposal=Defensive())
    with pytest.raises(InvalidInput, match="u: got an auxiliary site"):
        pv.evaluation.ais(program, x, 2, 2, start="guide")
    assert pv.evaluation.ais(program, x, 2, 2).values.isfinite().all()


@pytest.mark.parametrize("constrained", [False, True])
def test_a_refitted_guide_narrower_than_rounding_stays_below(constrained):
    """Its density is taken at the draw itself, not at what is left of it by rounding."""
    torch.set_default_dtype(torch.float32)  # the fixture puts it back

    def model(data):
        with pyro.plate("data", len(data)):
            if constrained:
                z = pyro.sample("z", dist.LogNormal(torch.full((1,), 6.0), 1.0).to_event(1))
            else:
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 100.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=data)

    net = torch.nn.Linear(1, 1)  # which the guide does not need, so that there is a parameter

    def guide(data):
        with pyro.plate("data", len(data)):
            if constrained:
                pyro.sample("z", dist.LogNormal(data.log(), 1e-9).to_event(1))
            else:
                pyro.sample("z", dist.Normal(data * 0.999, 1e-9).to_event(1))

    program = pv.Program(model, guide, modules=[net])
    torch.manual_seed(0)
    x = 400 + 10 * torch.randn(8, 1)
    score = evaluate(program, x, 200, proposal=Refitted(steps=20), seed=1)
    assert (score["log_likelihood"].values < 0).all()
    assert (score["elbo"].values < 0).all()
