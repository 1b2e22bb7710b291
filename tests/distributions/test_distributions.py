"""Distributions of our own, against SciPy, torch, closed forms and quadrature."""

import math

import pytest
import scipy.special
import scipy.stats
import torch
from pyro.distributions import Bernoulli, OneHotCategorical
from torch.distributions import Independent, Normal, kl_divergence

import pyro_vae as pv
from pyro_vae.distributions import (
    JointlyEnumerated,
    LogisticNormal,
    Mixture,
    MixtureOfNormals,
    MultinomialGivenTotal,
    PushForward,
    RelaxedBernoulli,
    Reshaped,
    SphericalUniform,
    VonMisesFisher,
)
from pyro_vae.distributions.flows import zuko_transform
from pyro_vae.distributions.sphere import log_area
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.testing.density import check_density


def axis(dim, dtype=torch.float64):
    return torch.nn.functional.normalize(torch.linspace(-1, 2, dim, dtype=dtype), dim=-1)


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 40, 300])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_von_mises_fisher_normaliser_and_its_gradient_are_scipys(dim, dtype, tolerance):
    kappa = torch.tensor([0.01, 0.5, 3.0, 40.0, 1e3, 1e5], dtype=dtype, requires_grad=True)
    q = VonMisesFisher(axis(dim, dtype), kappa)
    at_mean = q.log_prob(q.loc)
    (gradient,) = torch.autograd.grad(at_mean.sum(), kappa)
    k, order = kappa.detach().double().numpy(), dim / 2 - 1
    scaled = scipy.special.ive(order, k)
    known = scaled > 1e-290  # SciPy underflows where we do not
    expected = (
        order * scipy.special.xlogy(1, k)
        - dim / 2 * math.log(2 * math.pi)
        - scipy.special.xlogy(1, scaled.clip(1e-300))
    )
    shortfall = 1 - scipy.special.ive(order + 1, k) / scaled.clip(1e-300)
    assert at_mean.detach().double().numpy()[known] == pytest.approx(
        expected[known], rel=tolerance, abs=10 * tolerance
    )
    assert gradient.double().numpy()[known] == pytest.approx(shortfall[known], abs=20 * tolerance)
    torch.testing.assert_close(
        q.mean.norm(dim=-1).double(), 1 - gradient.double(), rtol=0, atol=20 * tolerance
    )


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_von_mises_fisher_density_and_entropy_are_scipys(dim):
    z = torch.nn.functional.normalize(torch.randn(5, dim, dtype=torch.float64), dim=-1)
    q = VonMisesFisher(axis(dim), torch.tensor(6.0, dtype=torch.float64))
    theirs = scipy.stats.vonmises_fisher(axis(dim).numpy(), 6.0)
    assert q.log_prob(z).numpy() == pytest.approx(theirs.logpdf(z.numpy()))
    assert q.entropy().item() == pytest.approx(theirs.entropy())
    assert SphericalUniform(axis(dim)).entropy().item() == pytest.approx(log_area(dim))


@pytest.mark.parametrize("kappa", [0.0, 0.3, 5.0, 500.0])
@pytest.mark.parametrize("dim", [2, 3, 20])
def test_gradients_of_von_mises_fisher_draws(dim, kappa):
    """d E[z] / d kappa = A'(kappa) mu, and E[z] turns with mu."""
    k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    direction = axis(dim).requires_grad_()
    q = VonMisesFisher(torch.nn.functional.normalize(direction, dim=-1), k).expand((20_000,))
    along = (q.rsample() * axis(dim)).sum(-1)
    (slope,) = torch.autograd.grad(along.sum(), k, retain_graph=True)
    one = VonMisesFisher(axis(dim), k)
    (exact,) = torch.autograd.grad((one.mean * axis(dim)).sum(), k)
    assert along.detach().mean().item() == pytest.approx(
        one.mean.detach().norm().item(), abs=5 * along.detach().std().item() / 140
    )
    assert slope.item() / 20_000 == pytest.approx(exact.item(), rel=0.05, abs=1e-8)
    across = torch.zeros(dim, dtype=torch.float64)  # a direction orthogonal to mu
    across[:2] = torch.stack([-axis(dim)[1], axis(dim)[0]]) / axis(dim)[:2].norm()
    weights = (q.rsample() * across).sum(-1)
    (turned,) = torch.autograd.grad(weights.sum(), direction)
    assert (turned @ across).item() / 20_000 == pytest.approx(
        one.mean.detach().norm().item(), abs=0.03
    )


def test_von_mises_fisher_draws_have_their_density():
    check_density(
        VonMisesFisher(axis(3).expand(2, 3), torch.tensor([0.5, 4.0], dtype=torch.float64))
    )
    flat = VonMisesFisher(axis(5, torch.float32), torch.tensor(1e6)).rsample((2000,))
    assert ((flat * axis(5, torch.float32)).sum(-1) > 1 - 1e-4).all() and flat.isfinite().all()


def mixture(dim=2, components=3):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return draw(components), draw(components, dim), draw(components, dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradients_of_a_mixtures_draws(dim):
    """Against the closed-form moments, for weights, means and scales."""
    parameters = mixture(dim)
    logits, loc, raw = parameters
    q = MixtureOfNormals(logits, loc, (0.3 * raw).exp())
    z = q.rsample((200_000,))
    weights, scale = logits.softmax(0), (0.3 * raw).exp()
    square = (weights[:, None] * (loc.square() + scale.square())).sum(0).sum()
    cross = (
        weights * loc[:, 0] * loc[:, -1]
    ).sum()  # of entries of one draw, where the rows of the system couple
    for estimate, exact in (
        (z.square().sum(-1).mean(), square),
        ((z[:, 0] * z[:, -1]).mean(), cross),
    ):
        if dim == 1 and exact is cross:
            continue
        ours = torch.autograd.grad(estimate, parameters, retain_graph=True)
        theirs = torch.autograd.grad(exact, parameters, retain_graph=True, allow_unused=True)
        for name, mine, right in zip(("logits", "loc", "scale"), ours, theirs):
            right = torch.zeros_like(mine) if right is None else right
            torch.testing.assert_close(
                mine, right, rtol=0.03, atol=0.03, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_a_mixtures_density_is_torchs_and_its_gradient_survives_float32():
    logits, loc, raw = (p.detach() for p in mixture(3))
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), Independent(Normal(loc, raw.exp()), 1)
    )
    ours, z = MixtureOfNormals(logits, loc, raw.exp()), torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    far = torch.tensor([[-40.0], [40.0]], requires_grad=True)
    MixtureOfNormals(torch.zeros(2), far, torch.full((2, 1), 0.1)).rsample((5000,)).sum().backward()
    torch.testing.assert_close(far.grad.sum(), torch.tensor(5000.0), rtol=1e-3, atol=0.0)


def test_the_logistic_normal_has_no_special_entry():
    q = LogisticNormal(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    z = q.rsample((4,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.flip(-1)))
    check_density(
        LogisticNormal(
            torch.tensor([[0.5, -1.0]], dtype=torch.float64),
            torch.tensor([[0.4, 1.2]], dtype=torch.float64),
        )
    )


def test_two_proportions_are_torchs_logistic_normal():
    """With two entries the log-ratio is y sqrt 2."""
    z = torch.tensor([[0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    ours = LogisticNormal(
        torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.8], dtype=torch.float64)
    )
    logit = Normal(torch.tensor(0.4 * 2**0.5, dtype=torch.float64), 0.8 * 2**0.5)
    expected = logit.log_prob(z[:, 0].logit()) - (z[:, 0] * z[:, 1]).log()
    torch.testing.assert_close(ours.log_prob(z), expected)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-4), (torch.float32, 5e-3)])
@pytest.mark.parametrize("logit", [-9.0, 0.0, 3.0, 30.0])
def test_a_relaxed_bit_has_mass_one_with_its_ends(dtype, tolerance, logit):
    q = RelaxedBernoulli(0.5, torch.tensor(logit, dtype=dtype))
    y = torch.linspace(-q.reach, q.reach, 20_001, dtype=dtype)[1:-1]
    z = torch.sigmoid(y)
    inside = torch.trapezoid((q.log_prob(z) + z.log() + torch.log1p(-z)).exp().double(), y.double())
    low, high = q._ends(torch.zeros((), dtype=dtype))
    ends = q.log_prob(torch.stack([low, high])).exp().double().sum()
    assert (inside + ends).item() == pytest.approx(1.0, abs=tolerance)
    z = q.rsample((20_000,))
    assert ((z >= low) & (z <= high)).all()
    assert (z == high).double().mean().item() == pytest.approx(
        torch.exp(q.log_prob(high)).item(), abs=0.02
    )


def test_a_relaxed_bit_is_torchs_away_from_the_ends():
    z = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    theirs = torch.distributions.RelaxedBernoulli(
        torch.tensor(0.7, dtype=torch.float64), logits=torch.tensor(1.3, dtype=torch.float64)
    )
    torch.testing.assert_close(
        RelaxedBernoulli(0.7, torch.tensor(1.3, dtype=torch.float64)).log_prob(z),
        theirs.log_prob(z),
    )


def test_no_nats_can_be_gained_at_the_ends_of_a_float():
    """Scoring clipped draws as unclipped gives a negative KL, and so a bound above log p(x)."""
    logits = torch.tensor(60.0)

    def divergence(family):
        q, p = family(logits), family(torch.tensor(0.0))
        z = q.rsample((1000,))
        return (q.log_prob(z) - p.log_prob(z)).mean()

    assert divergence(lambda ell: RelaxedBernoulli(0.5, ell)) > 0
    assert (
        divergence(lambda ell: torch.distributions.RelaxedBernoulli(torch.tensor(0.5), logits=ell))
        < -10
    )


@pytest.mark.parametrize("dims", [(), (3,), (2, 2)])
def test_joint_states_are_all_there_and_their_masses_sum_to_one(dims):
    q = JointlyEnumerated(OneHotCategorical(logits=torch.randn(4, *dims, 3)), len(dims))
    states = q.enumerate_support()
    assert states.shape == (3 ** math.prod(dims), 4, *dims, 3)
    assert len({tuple(s.flatten().tolist()) for s in states[:, 0]}) == len(states)
    torch.testing.assert_close(q.log_prob(states).logsumexp(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert q.expand((2, 4)).enumerate_support(expand=False).shape == (
        3 ** math.prod(dims),
        1,
        1,
        *dims,
        3,
    )
    assert JointlyEnumerated(Bernoulli(torch.rand(4, 2)), 1).expand((3, 4)).has_enumerate_support


@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "spline"])
def test_a_flow_scores_its_own_draws_as_it_scores_any_point(float64, kind):
    transform = zuko_transform(kind, 3, 2, 2, (8,)).double()
    base = Independent(Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    q = PushForward(base, transform(torch.randn(4, 2)))
    z = q.rsample((5,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=1e-6, atol=1e-6)
    rows = torch.stack(
        [
            torch.linalg.slogdet(
                torch.autograd.functional.jacobian(lambda e: _row(q, e, 0), e)
            ).logabsdet
            for e in q.transform.inv(z)[:, 0].detach()
        ]
    )
    torch.testing.assert_close(
        q.log_prob(z)[:, 0],
        Independent(Normal(torch.zeros(3), 1.0), 1).log_prob(q.transform.inv(z)[:, 0]) - rows,
        rtol=1e-5,
        atol=1e-5,
    )


def _row(q, noise, row):
    return q.transform(noise.expand(4, 3))[row]


def test_a_reshaped_distribution_is_the_same_one():
    flat = Independent(Normal(torch.randn(4, 6), 1.0), 1)
    q, z = Reshaped(flat, (2, 3)), torch.randn(5, 4, 2, 3)
    assert torch.equal(q.log_prob(z), flat.log_prob(z.reshape(5, 4, 6)))
    assert torch.equal(q.mean, flat.mean.reshape(4, 2, 3)) and q.variance.shape == (4, 2, 3)
    assert q.support.check(z).shape == (5, 4) and torch.equal(q.entropy(), flat.entropy())
    assert kl_divergence(flat, flat).shape == q.expand((7, 4)).batch_shape[1:]


def test_counts_given_a_datum_have_its_total(float64):
    p = MultinomialGivenTotal(100, logits=torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]))
    x = torch.tensor([[3.0, 0.0, 2000.0], [0.0, 0.0, 0.0]])
    q = p.at_datum(x)
    assert torch.equal(q.log_prob(x), p.log_prob(x)) and q.batch_shape == (2,)
    torch.testing.assert_close(q.mean, p.probs * torch.tensor([[2003.0], [0.0]]))
    drawn = q.expand((4, 2)).sample((500,))
    assert torch.equal(drawn.sum(-1), q.total_count.expand(500, 4, 2))
    error = (drawn.mean((0, 1)) - q.mean) / (q.variance / 2000).sqrt().clamp_min(1e-9)
    assert error.abs().max() < 4
    assert p.expand((5, 2)).at_datum(x).batch_shape == (5, 2)


def test_what_is_said_of_a_datum_of_counts_is_of_its_own_total():
    """The reconstruction, its error and the posterior predictive; the model alone has its total."""
    torch.manual_seed(0)
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Multinomial(5, pv.networks.MLP(2, [8]), total_count=100),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(5, [8])),
    )
    x = torch.distributions.Multinomial(20, torch.ones(5)).sample((6,))
    x[0], x[1] = 0.0, torch.tensor([0.0, 0.0, 900.0, 100.0, 0.0])
    mean, draws = pv.reconstruct(vae, x), pv.reconstruct(vae, x, draws=True)
    torch.testing.assert_close(mean.sum(1), x.sum(1))
    assert (
        torch.equal(draws.sum(1), x.sum(1)) and (pv.generate(vae, 3).sum(1) - 100).abs().max() < 1
    )
    error = pv.evaluation.squared_error(vae, x).values
    torch.testing.assert_close(error, (mean - x).square().mean(1))
    predicted = pv.to_inference_data(vae, x, num_samples=7).posterior_predictive["x"].values
    assert (predicted.sum(-1) == x.sum(1).numpy()).all()
    assert (Decoder(vae)(torch.zeros(2, 2)).sum(1) - 100).abs().max() < 1e-3  # of no datum


@pytest.mark.parametrize("event_dim", [0, 1, 2])
@pytest.mark.parametrize("prefix", [(), (5, 1), (5, 3), (2, 5, 3)])
def test_a_mixture_is_that_of_torch(event_dim, prefix):
    """Its components are not copied for each value, and those that are normal share their terms."""
    torch.manual_seed(0)
    shape = (3, 4, *(2, 6)[:event_dim])  # batch and components
    weights = torch.distributions.Categorical(logits=torch.randn(3, 4, dtype=torch.float64))
    normals = torch.distributions.Normal(
        torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64) + 0.1
    )
    components = torch.distributions.Independent(normals, event_dim) if event_dim else normals
    ours, theirs = (
        kind(weights, components).expand(torch.broadcast_shapes(prefix, (3,)))
        for kind in (Mixture, torch.distributions.MixtureSameFamily)
    )
    torch.manual_seed(1)
    z = ours.sample((7,))
    torch.manual_seed(1)
    assert z.equal(theirs.sample((7,)))
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    assert ours.batch_shape == theirs.batch_shape and ours.mean.equal(theirs.mean)
    assert ours.variance.equal(theirs.variance)
    with pytest.raises(ValueError, match=r"support|constraint"):
        Mixture(weights, components, validate_args=True).log_prob(z * torch.nan)
