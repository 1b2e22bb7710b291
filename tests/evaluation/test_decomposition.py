import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import Hierarchy, LinearGaussian
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation.decomposition import (
    active_units,
    aggregate_posterior,
    decompose,
    inference_gap,
)
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.evaluation.proposals import Refitted
from pyro_vae.evaluation.scores import Score
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


def test_reconstruction_and_kl_in_closed_form():
    exact = LinearGaussian(4, features=6)
    x = exact.data(30)
    parts = decompose(exact.program(widen=1.2), x, 2000)
    loc, covariance = (x - exact.mean) @ exact.gain.T, 1.2**2 * exact.covariance
    kl = 0.5 * (covariance.trace() + loc.square().sum(1) - 4 - torch.logdet(covariance))
    residual = (x - exact.mean - loc @ exact.weight.T).square().sum(1) + (
        exact.weight @ covariance @ exact.weight.T
    ).trace()
    reconstruction = -0.5 * residual / exact.noise**2 - 6 * math.log(
        exact.noise * math.sqrt(2 * math.pi)
    )
    for name, truth in (
        ("kl", kl),
        ("reconstruction", reconstruction),
        ("elbo", exact.elbo(x, 1.2)),
    ):
        assert ((parts[name].values - truth).abs() < 4 * parts[name].mc_se).all()
    torch.testing.assert_close(
        parts["elbo"].values, parts["reconstruction"].values - parts["kl"].values
    )
    torch.testing.assert_close(
        parts["elbo"].values, pv.elbo(exact.program(widen=1.2), x, 2000).values, rtol=0, atol=0.2
    )


def test_a_hierarchy_has_a_kl_for_each_level():
    exact = Hierarchy()
    x, _ = exact.data(20)
    parts = decompose(exact.program(), x, 500)
    assert {"kl/z1", "kl/z2"} < parts.keys()
    torch.testing.assert_close(parts["kl"].values, parts["kl/z1"].values + parts["kl/z2"].values)
    torch.testing.assert_close(parts["elbo"].values, exact.log_p(x), rtol=0, atol=1e-9)
    gain = torch.linalg.solve(exact.covariance, exact.b @ exact.a).T
    covariance, loc = torch.eye(2) - gain @ exact.b @ exact.a, (x - exact.shift(None)) @ gain.T
    truth = 0.5 * (covariance.trace() + loc.square().sum(1) - 2 - torch.logdet(covariance))
    assert ((parts["kl/z2"].values - truth).abs() < 4 * parts["kl/z2"].mc_se).all()
    split = aggregate_posterior(exact.program(), x, 5)
    assert split.total_correlation is None and split.dimension_kl is None
    assert split.kl == pytest.approx(split.mutual_information + split.marginal_kl)


class Clusters:
    """A guide with a known aggregate: q(z | x) = N(x, s^2), x well separated or one point."""

    def __init__(self, scale):
        self.scale = scale

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, self.scale).to_event(1))

    def program(self):
        return pv.Program(self.model, self.guide, event_shape=2)


def test_mutual_information_and_its_bound_where_posteriors_do_not_overlap():
    """I = log N for separate posteriors, which tell the datum, and I = 0 for equal ones."""
    corners = 10.0 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    parts = aggregate_posterior(Clusters(0.5).program(), corners, 200)
    assert parts.mutual_information == pytest.approx(math.log(4), abs=1e-9)
    kl = 2 * 0.5 * (0.25 + 100 - 1 - math.log(0.25))
    assert abs(parts.kl - kl) < 4 * parts.errors["kl"]
    assert abs(parts.marginal_kl - (kl - math.log(4))) < 4 * parts.errors["marginal_kl"]
    # a cross of independent coordinates: q(z) factorises, each dimension an equal mixture of two
    # points apart
    assert parts.total_correlation == pytest.approx(0.0, abs=1e-9)
    each = kl / 2 - math.log(2)
    assert ((parts.dimension_kl - each).abs() < 4 * parts.errors["dimension_kl"]).all()
    same = aggregate_posterior(Clusters(0.5).program(), torch.ones(5, 2), 50)
    assert same.mutual_information == pytest.approx(0.0, abs=1e-9)
    diagonal = 10.0 * torch.tensor([[1.0, 1], [-1, -1]])
    parts = aggregate_posterior(Clusters(0.5).program(), diagonal, 50)
    assert parts.total_correlation == pytest.approx(
        math.log(2), abs=1e-9
    )  # two dimensions that say the same bit
    assert parts.total_correlation + parts.dimension_kl.sum().item() == pytest.approx(
        parts.marginal_kl, abs=1e-9
    )


def test_the_split_against_the_closed_form_of_probabilistic_pca():
    """Over many data the aggregate of exact posteriors is the prior, so the KL is all information.

    It is 0.5 log det(W'W / s^2 + I), up to the error of N data.
    """
    exact = LinearGaussian(1, features=3, noise=2.0)
    x = exact.data(1500)
    parts = aggregate_posterior(exact.program(), x, 2)
    information = (
        0.5 * torch.logdet(exact.weight.T @ exact.weight / exact.noise**2 + torch.eye(1)).item()
    )
    assert parts.mutual_information == pytest.approx(information, abs=0.05)
    assert parts.marginal_kl == pytest.approx(0.0, abs=0.02)
    # the exact aggregate of these very data, by quadrature
    z = torch.linspace(-9, 9, 4001)[:, None]
    q = dist.Normal(((x - exact.mean) @ exact.gain.T).T, exact.covariance.sqrt())
    log_q = q.log_prob(z).logsumexp(1) - math.log(len(x))
    marginal_kl = (
        ((log_q - dist.Normal(0.0, 1.0).log_prob(z[:, 0])) * log_q.exp()).sum().item() * 18 / 4000
    )
    assert abs(parts.marginal_kl - marginal_kl) < 4 * parts.errors["marginal_kl"]
    assert abs(parts.dimension_kl.item() - marginal_kl) < 4 * parts.errors["dimension_kl"].item()
    assert parts.total_correlation == pytest.approx(0.0, abs=1e-9)


def test_chunks_of_points_change_nothing():
    program, x = small_vae().double(), torch.bernoulli(torch.rand(7, 1, 8, 8))
    whole, parts = (
        aggregate_posterior(program, x, 3, memory_budget=budget) for budget in (2**28, 1)
    )
    assert whole.mutual_information == pytest.approx(parts.mutual_information, abs=1e-12)
    torch.testing.assert_close(whole.dimension_kl, parts.dimension_kl)
    assert whole.marginal_kl == pytest.approx(
        whole.total_correlation + whole.dimension_kl.sum().item(), abs=1e-9
    )


def test_active_units_are_those_whose_posterior_mean_moves():
    exact = LinearGaussian(3, features=5, diagonal=True)
    exact.weight[:, 0] = 0  # a dimension that the decoder ignores
    precision = exact.weight.T @ exact.weight + exact.noise**2 * torch.eye(3)
    exact.gain, exact.covariance = (
        torch.linalg.solve(precision, exact.weight.T),
        exact.noise**2 * torch.linalg.inv(precision),
    )
    x = exact.data(500)
    units = active_units(exact.program(), x, 200)
    truth = ((x - exact.mean) @ exact.gain.T).var(0)
    torch.testing.assert_close(units.variance["z"], truth, rtol=0.1, atol=0.005)
    assert (units.active, units.total) == (2, 3)
    with pytest.raises(InvalidInput, match="num_samples"):
        active_units(exact.program(), x, 1)
    with pytest.raises(InvalidInput, match="data"):
        active_units(exact.program(), x[:1])


def test_noise_of_the_draws_makes_no_unit_active_in_any_unit_of_z():
    x = torch.zeros(100, 1)
    for scale in (1.0, 100.0):

        def draw(scale=scale):
            return pyro.sample("z", dist.Normal(torch.zeros(2), scale).to_event(1))

        def guide(x, draw=draw):
            with pyro.plate("data", len(x)):
                draw()

        def model(x, draw=draw):
            with pyro.plate("data", len(x)):
                z = draw()
                pyro.sample("x", dist.Normal(0 * z[..., :1], 1.0).to_event(1), obs=x)

        found = [active_units(pv.Program(model, guide), x, 50, seed=seed) for seed in range(20)]
        assert sum(units.active for units in found) <= 1
        variance = torch.stack([units.variance["z"] for units in found])
        error = torch.stack([units.mc_se["z"] for units in found])
        assert variance.square().mean().sqrt() == pytest.approx(error.mean().item(), rel=0.4)
        spread = torch.stack([units.spread["z"] for units in found])
        torch.testing.assert_close(spread.mean(0), scale**2 * torch.ones(2), rtol=0.05, atol=0)


def counted(draw_p, draw_q, x):
    """Active units of a program whose x has no part in what is counted."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", draw_q(x))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", draw_p())
            loc = (0 * z[..., :1]).expand(*z.shape[:-1], x.shape[-1])
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return active_units(pv.Program(model, guide), x, 50)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_same_model_in_other_units_of_z_has_the_same_active_units(unit):
    x = torch.randn(200, 4)
    slopes = torch.tensor([0.9, 0.3, 0.03, 0.0])

    def q(x, unit=1.0):
        return dist.Normal(unit * slopes * x, unit * (1 - slopes**2).sqrt()).to_event(1)

    def p(unit=1.0):
        return dist.Normal(torch.zeros(4), unit).to_event(1)

    plain = counted(p, q, x)
    units = counted(lambda: p(unit), lambda x: q(x, unit), x)
    assert plain.moves["z"].tolist() == units.moves["z"].tolist() == [True, True, False, False]
    torch.testing.assert_close(units.share["z"], plain.share["z"], rtol=0.2, atol=5e-3)
    torch.testing.assert_close(plain.share["z"][:2], slopes[:2] ** 2, rtol=0.3, atol=0)
    # Under a standard normal prior it is the variance of the means, as in Burda et al.
    torch.testing.assert_close(plain.share["z"], plain.variance["z"], rtol=0.3, atol=1e-3)


def test_latents_on_a_sphere_or_a_simplex_that_carry_the_data_are_active():
    x = torch.nn.functional.normalize(torch.randn(300, 150), dim=1)
    on_sphere = pv.distributions.SphericalUniform(torch.zeros(150))
    sharp = torch.tensor(2000.0)
    units = counted(lambda: on_sphere, lambda x: pv.distributions.VonMisesFisher(x, sharp), x)
    assert units.variance["z"].max() < 0.01  # in units of z it can never be more
    assert units.active == units.total == 150
    # Var E z_d = |E z|^2 / D, of a variance 1 / D
    mean = pv.distributions.VonMisesFisher(x[0], sharp).mean.norm()
    assert units.share["z"].mean() == pytest.approx(mean.item() ** 2, rel=0.01)
    assert counted(lambda: on_sphere, lambda x: on_sphere.expand([len(x)]), x).active == 0

    flat = dist.Dirichlet(torch.ones(40))
    x = flat.sample((300,))
    units = counted(lambda: flat, lambda x: dist.Dirichlet(1e3 * x + 1e-2), x)
    assert units.variance["z"].max() < 0.01 and units.active == units.total == 40
    assert counted(lambda: flat, lambda x: flat.expand([len(x)]), x).active == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_point_that_is_one_for_all_data_does_not_move(dtype):
    x = torch.randn(70, 3, dtype=dtype)

    def q(x):  # equal but for rounding
        near = 1 + torch.finfo(dtype).eps * (x > 0)
        return dist.Delta(0.1 * near.to(dtype), event_dim=1)

    units = counted(lambda: dist.Normal(torch.zeros(3, dtype=dtype), 1.0).to_event(1), q, x)
    assert units.active == 0 and units.share["z"].isfinite().all()
    units = counted(
        lambda: dist.Normal(torch.zeros(3, dtype=dtype), 1.0).to_event(1),
        lambda x: dist.Delta(1e-3 * x, event_dim=1),
        x,
    )
    assert units.active == 3


def test_the_error_of_a_moving_units_variance_covers_it():
    exact = LinearGaussian(2, features=5)
    x, few = exact.data(60), 5
    truth = ((x - exact.mean) @ exact.gain.T).var(0)
    found = [active_units(exact.program(), x, few, seed=seed) for seed in range(100)]
    off = torch.stack([(units.variance["z"] - truth) / units.mc_se["z"] for units in found])
    assert 0.8 < off.std() < 1.2 and off.mean().abs() < 0.3


def test_a_gap_to_a_bound_is_a_bound():
    """A diagonal q of a narrow ridge: weights are heavy, and log p(x) is larger than estimated."""
    exact = LinearGaussian(12, features=12, noise=0.1)
    x, program = exact.data(10), exact.program(mean_field=True)
    with pytest.warns(UnreliableEstimate, match="Pareto k"):
        gap = inference_gap(program, x, 200, refinement=Refitted(steps=20))
    heavy = gap.inference.is_bound
    assert heavy.any() and (gap.inference.sign, gap.approximation.sign) == (">=", ">=")
    assert torch.equal(gap.approximation.is_bound, heavy)
    assert not gap.amortization.is_bound.any()
    assert (gap.approximation.interval()[1][heavy] == math.inf).all()
    assert "Monte Carlo" not in str(gap.approximation)
    known = Score(exact.marginal.log_prob(x), torch.zeros(10), 1)
    gap = inference_gap(program, x, 200, refinement=Refitted(steps=20), log_p=known)
    assert not gap.inference.is_bound.any()
    upper = pv.evaluation.bdmc(program, 3, 4, 10, num_leapfrog=2).upper
    with pytest.raises(InvalidInput, match="log_p: got an upper bound"):
        inference_gap(program, x[:3], 20, log_p=upper)


def test_the_inference_gap_splits_as_the_closed_forms_say():
    exact = LinearGaussian(3, features=6)
    x = exact.data(20)
    best = exact.program(mean_field=True)
    poor = exact.program(widen=0.6, shift=0.8, mean_field=True)
    precision = torch.linalg.inv(exact.covariance)
    scale = precision.diagonal() ** -0.5
    lost = (
        3 * (0.5 * (0.6**2 - 1) - math.log(0.6)) + 0.5 * 0.8**2 * (scale @ precision @ scale).item()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableEstimate)
        for program, amortization in ((best, 0.0), (poor, lost)):
            gap = inference_gap(program, x, 1000, refinement=Refitted(steps=200))
            assert gap.approximation.mean == pytest.approx(exact.mean_field_kl, abs=0.08)
            assert gap.amortization.mean == pytest.approx(amortization, abs=0.08)
            torch.testing.assert_close(
                gap.inference.values, gap.approximation.values + gap.amortization.values
            )


def test_dimensions_of_a_correlated_prior_have_no_kl_of_their_own():
    prior = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + torch.eye(2))

    def program(of_prior):
        def model(data):
            with pyro.plate("data", len(data)):
                z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), of_prior))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=data)

        def guide(data):
            with pyro.plate("data", len(data)):
                pyro.sample("z", dist.MultivariateNormal(data @ covariance.T, covariance))

        return pv.Program(model, guide)

    x = torch.randn(50, 2)
    found = aggregate_posterior(program(prior), x, 5)
    assert found.dimension_kl is None and found.total_correlation is not None
    found = aggregate_posterior(program(torch.eye(2)), x, 5)
    assert found.total_correlation + found.dimension_kl.sum().item() == pytest.approx(
        found.marginal_kl, abs=1e-9
    )
