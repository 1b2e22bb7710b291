"""Every posterior in `__all__` keeps its contract; a new class is tested without being listed."""

import families
import pyro
import pyro.distributions as dist
import pytest
import torch
from families import MLP

import pyro_vae as pv
from pyro_vae.testing import check_posterior
from pyro_vae.validation import InvalidInput


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.posteriors.__all__)
def test_posterior(name, latent):
    cls = getattr(pv.posteriors, name)
    if families.refusal_of(lambda: cls(latent, MLP(3, [8]))):
        assert latent == 1, "every posterior has a latent of two entries"
        return
    check_posterior(cls(latent, MLP(3, [8])), torch.randn(2, 3))
    check_posterior(
        cls(latent, MLP(3, [8], context=2)), torch.randn(2, 3), context=torch.randn(2, 2)
    )


@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "spline"])
def test_every_kind_of_flow(kind):
    check_posterior(pv.posteriors.Flow(2, MLP(3, [8]), kind=kind, hidden=[8]), torch.randn(2, 3))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: pv.posteriors.LowRankNormal(2, MLP(3, [4]), rank=0), "rank"),
        (lambda: pv.posteriors.Mixture(2, MLP(3, [4]), components=0), "components"),
        (lambda: pv.posteriors.Flow(1, MLP(3, [4]), kind="coupling"), "2 entries or more"),
        (lambda: pv.posteriors.RelaxedCategorical(2, MLP(3, [4]), temperature=0.2), "above 0.3"),
        (lambda: pv.posteriors.EnumeratedBernoulli(13, MLP(3, [4])), "8192 joint states"),
        (lambda: pv.posteriors.EnumeratedCategorical((7, 4), MLP(3, [4])), "16384 joint states"),
    ],
)
def test_arguments_that_cannot_be(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()


@pytest.mark.parametrize("name", ["LowRankNormal", "FullRankNormal"])
def test_correlated_normals_have_a_positive_definite_covariance_that_is_not_diagonal(name):
    q = getattr(pv.posteriors, name)(4, MLP(3, [8])).double()(
        torch.randn(5, 3, dtype=torch.float64)
    )
    assert (torch.linalg.eigvalsh(q.covariance_matrix) > 0).all()
    assert (q.covariance_matrix - torch.diag_embed(q.variance)).abs().max() > 1e-3


def test_codes_are_summed_over_and_the_bound_is_exact(float64):
    """Against a loop over the eight codes of three bits, value and gradient."""
    program = families.program("Bernoulli", "EnumeratedBernoulli", latent=3).double()
    x = torch.bernoulli(torch.rand(6, 5))
    program.prior.logits.data.normal_()

    loss = pv.objectives.EnumeratedELBO().differentiable_loss(program.model, program.guide, x)
    gradients = torch.autograd.grad(loss, list(program.parameters()))

    q, by_hand = program.posterior(x), 0.0
    for code in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3):
        log_q = q.log_prob(code)
        log_joint = program.prior().log_prob(code) + program.likelihood(code.expand(6, 3)).log_prob(
            x
        )
        by_hand = by_hand - (log_q.exp() * (log_joint - log_q)).sum()
    torch.testing.assert_close(loss, by_hand)
    for ours, theirs in zip(gradients, torch.autograd.grad(by_hand, list(program.parameters()))):
        torch.testing.assert_close(ours, theirs)
    # The sum over codes is what draws estimate.
    score = pv.elbo(program, x, num_samples=4000)
    assert abs(score.values.sum() + loss) < 5 * score.mc_se.square().sum().sqrt()


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_weight_of_the_enumerated_bound_is_on_the_latents(float64, weight):
    program, x = (
        families.program("Categorical", "EnumeratedCategorical").double(),
        torch.bernoulli(torch.rand(6, 5)),
    )
    losses = [
        pv.objectives.EnumeratedELBO(beta=b).loss(program.model, program.guide, x)
        for b in (0.0, 1.0, weight)
    ]
    assert losses[2] == pytest.approx(losses[0] + weight * (losses[1] - losses[0]))


def test_enumeration_with_a_vampprior_several_particles_and_annealing_trains(float64):
    program, x = (
        families.program("VampPrior", "EnumeratedCategorical").double(),
        torch.bernoulli(torch.rand(20, 5)),
    )
    several = pv.objectives.EnumeratedELBO(num_particles=3)
    one = pv.objectives.EnumeratedELBO().loss(program.model, program.guide, x)
    assert several.loss(program.model, program.guide, x) == pytest.approx(one)
    history = pv.fit(
        program, x, objective=several, epochs=40, warmup=5, learning_rate=1e-2, progress=False
    )
    assert history["objective"][-1] > -one / 20


@pytest.mark.parametrize("num_particles", [1, 3])
def test_a_code_with_drawn_latents_beside_it_has_pyros_bound_and_gradient(float64, num_particles):
    """A code that is summed over, a normal that depends on it, and a bit that is drawn."""
    net = torch.nn.Linear(2, 6)

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=torch.zeros(3)))
            b = pyro.sample("b", dist.Bernoulli(0.3))
            z = pyro.sample("z", dist.Normal(c @ torch.arange(3.0) + b, 1.0))
            pyro.sample("x", dist.Normal(torch.stack([z, z * b], -1), 1.0).to_event(1), obs=x)

    def guide(x):
        out = net(x)
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c", dist.OneHotCategorical(logits=out[:, :3]), infer={"enumerate": "parallel"}
            )
            pyro.sample("b", dist.Bernoulli(logits=out[:, 3]))
            pyro.sample("z", dist.Normal((c * out[:, 3:]).sum(-1), 0.5))

    def loss_and_gradient(objective):
        objective.loss(model, guide, x)  # the first call finds the plates
        torch.manual_seed(3)
        loss = objective.differentiable_loss(model, guide, x)
        return loss, torch.autograd.grad(loss, net.weight)[0]

    x = torch.randn(7, 2)
    ours = loss_and_gradient(pv.objectives.EnumeratedELBO(num_particles))
    theirs = loss_and_gradient(
        pyro.infer.TraceEnum_ELBO(
            num_particles=num_particles, vectorize_particles=num_particles > 1
        )
    )
    torch.testing.assert_close(ours, theirs)
