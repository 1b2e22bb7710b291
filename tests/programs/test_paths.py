"""Paths of latents: against the Kalman filter, exact Gaussian processes and dense normals."""

import math

import pyro.distributions as dist
import pytest
import sklearn.gaussian_process.kernels as kernels
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.distributions import GaussianMarkovPath
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

T, D, F = 6, 2, 3


def inverse_softplus(value):
    return value.expm1().log()


class StateSpace:
    """z_1 ~ N(m, P P'), z_t = A z_{t-1} + b + Q e, x_t = C z_t + c + s e."""

    def __init__(self, length=T):
        torch.manual_seed(4)
        self.length = length
        self.m, self.b, self.c, self.s = torch.randn(D), 0.3 * torch.randn(D), torch.randn(F), 0.6
        self.P, self.Q = (
            torch.randn(D, D).tril(-1) + torch.diag(torch.rand(D) + 0.5) for _ in "12"
        )
        self.A, self.C = 0.5 * torch.randn(D, D), torch.randn(F, D)

    def prior(self):
        prior = pv.priors.GaussianMarkov((self.length, D)).double()
        with torch.no_grad():
            prior.first_loc.copy_(self.m), prior.gain.copy_(self.A), prior.offset.copy_(self.b)
            for raw, tril in ((prior.first_raw_tril, self.P), (prior.raw_tril, self.Q)):
                raw.copy_(tril.tril(-1) + torch.diag(inverse_softplus(tril.diagonal() - 1e-3)))
        return prior

    def likelihood(self):
        network = pv.networks.StepwiseMLP((self.length, D), (F, self.length), [])
        likelihood = pv.likelihoods.Normal((F, self.length), network, scale=self.s).double()
        with torch.no_grad():
            likelihood.head.layer.weight.copy_(self.C[..., None])
            likelihood.head.layer.bias.copy_(self.c)
        return likelihood

    def program(self, widen=1.0):
        likelihood = pv.likelihoods.Missing(self.likelihood())
        return pv.VAE(self.prior(), likelihood, Smoother(self, widen))

    def data(self, num):
        x = torch.empty(num, F, self.length)
        z = self.m + torch.randn(num, D) @ self.P.T
        for t in range(self.length):
            x[..., t] = z @ self.C.T + self.c + self.s * torch.randn(num, F)
            z = z @ self.A.T + self.b + torch.randn(num, D) @ self.Q.T
        return x

    def kalman(self, x):
        """log p(x) of the observed entries by the filter, one datum after the other."""
        total = torch.zeros(len(x))
        for n, series in enumerate(x):
            mean, covariance = self.m, self.P @ self.P.T
            for t in range(series.shape[-1]):
                seen = ~series[:, t].isnan()
                C, y = self.C[seen], series[seen, t] - self.c[seen]
                S = C @ covariance @ C.T + self.s**2 * torch.eye(len(C))
                if seen.any():
                    total[n] += dist.MultivariateNormal(C @ mean, S).log_prob(y)
                    gain = covariance @ C.T @ torch.linalg.inv(S)
                    mean = mean + gain @ (y - C @ mean)
                    covariance = covariance - gain @ C @ covariance
                mean = self.A @ mean + self.b
                covariance = self.A @ covariance @ self.A.T + self.Q @ self.Q.T
        return total


class Smoother(nn.Module):
    """The exact posterior as a chain, from the dense posterior of each datum; widened."""

    def __init__(self, space, widen=1.0):
        super().__init__()
        self.space, self.widen = space, widen

    def chain(self, series):
        space = self.space
        loc, covariance = dense(space.prior()())
        C = torch.kron(torch.eye(space.length), space.C)  # of x time first
        y = (series - space.c[:, None]).T.flatten()
        seen = ~y.isnan()
        C, y = C[seen], y[seen]
        S = C @ covariance @ C.T + space.s**2 * torch.eye(len(C))
        gain = torch.linalg.solve(S, C @ covariance).T
        mean = (loc + gain @ (y - C @ loc)).reshape(-1, D)
        post = (covariance - gain @ C @ covariance).reshape(space.length, D, space.length, D)
        A, b, L = torch.zeros(space.length, D, D), mean.clone(), torch.empty(space.length, D, D)
        L[0] = torch.linalg.cholesky(post[0, :, 0])
        for t in range(1, space.length):
            A[t] = torch.linalg.solve(post[t - 1, :, t - 1], post[t - 1, :, t]).T
            b[t] = mean[t] - A[t] @ mean[t - 1]
            L[t] = torch.linalg.cholesky(post[t, :, t] - A[t] @ post[t - 1, :, t])
        return A, b, self.widen * L

    def forward(self, x, *, context=None):
        series = x.reshape(-1, *x.shape[-2:])
        parts = [torch.stack(part) for part in zip(*map(self.chain, series))]
        return GaussianMarkovPath(*(p.reshape(*x.shape[:-2], *p.shape[1:]) for p in parts))


def dense(path):
    """The mean and covariance of a whole Gaussian chain, by linear algebra of its own."""
    length, size = path.offset.shape[-2:]
    system = torch.eye(length * size)
    for t in range(1, length):
        rows, before = slice(t * size, (t + 1) * size), slice((t - 1) * size, t * size)
        system[rows, before] = -path.gain[t]
    inverse = torch.linalg.inv(system)
    noise = torch.block_diag(*path.scale_tril)
    factor = inverse @ noise
    return inverse @ path.offset.flatten(), factor @ factor.T


def with_gaps(x):
    """Single entries, whole steps and the ends of some series go missing."""
    x = x.clone()
    x[0, 1, 2], x[1, :, 3], x[2, :, 4:], x[3, :, 1:] = (math.nan,) * 4
    return x


def test_a_gaussian_chain_is_the_dense_normal():
    path = StateSpace().prior()()
    loc, covariance = dense(path)
    z = torch.randn(5, 7, T, D)
    expected = dist.MultivariateNormal(loc, covariance).log_prob(z.flatten(-2))
    torch.testing.assert_close(path.log_prob(z), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.mean.flatten(), loc)
    torch.testing.assert_close(path.variance.flatten(), covariance.diagonal())
    torch.testing.assert_close(path.entropy(), dist.MultivariateNormal(loc, covariance).entropy())
    draws = path.rsample((20_000,)).flatten(1)
    off = (draws.T.cov() - covariance).abs() / (2 * covariance.diagonal().max() / 20_000**0.5)
    assert off.max() < 5


@pytest.mark.parametrize("gaps", [False, True])
def test_a_state_space_has_the_kalman_filters_log_likelihood(gaps):
    space = StateSpace()
    x = space.data(5)
    x = with_gaps(x) if gaps else x
    data, exact = pv.datasets.Dataset(x, missing=gaps), space.kalman(x)
    score = pv.log_likelihood(space.program(), data, num_samples=3)
    torch.testing.assert_close(score.values, exact, rtol=0, atol=1e-10)
    score = pv.log_likelihood(space.program(widen=1.1), data, num_samples=2000)
    assert ((score.values - exact).abs() < 4 * score.mc_se).all() and (score.mc_se < 0.1).all()


def test_a_series_with_a_missing_end_scores_as_the_shorter_one():
    long, short = StateSpace(), StateSpace(4)
    x = short.data(3)
    padded = torch.cat([x, x.new_full((3, F, 2), math.nan)], -1)
    data = pv.datasets.Dataset(padded, missing=True)
    scores = [
        pv.log_likelihood(space.program(), d, num_samples=2).values
        for space, d in ((long, data), (short, x))
    ]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-10)


def test_the_posterior_can_be_the_exact_smoother():
    space = StateSpace()
    x, smoother = space.data(8), Smoother(StateSpace())
    posterior = pv.posteriors.GaussianMarkov((T, D), pv.networks.MLP((F, T), [])).double()
    A, offset, L = smoother.chain(torch.zeros(F, T))
    basis = torch.eye(F * T).reshape(-1, F, T)
    slope = torch.stack([smoother.chain(e)[1] - offset for e in basis], -1)  # (T, D, F T)
    raw_scale = inverse_softplus(L.diagonal(dim1=-2, dim2=-1) - 1e-4)
    bias = torch.cat([offset, raw_scale, L[:, 1, :1], 10 * A.flatten(1)], -1)
    with torch.no_grad():
        posterior.head.layer.bias.copy_(bias.T.flatten())
        weight = torch.zeros(T, bias.shape[-1], F * T)
        weight[:, :D] = slope
        posterior.head.layer.weight.copy_(weight.transpose(0, 1).flatten(0, 1))
    score = pv.elbo(pv.VAE(space.prior(), space.likelihood(), posterior), x, num_samples=2)
    torch.testing.assert_close(score.values, space.kalman(x), rtol=0, atol=1e-9)


KERNELS = {
    "rbf": kernels.RBF,
    "matern12": lambda length: kernels.Matern(length, nu=0.5),
    "matern32": lambda length: kernels.Matern(length, nu=1.5),
    "matern52": lambda length: kernels.Matern(length, nu=2.5),
    "cauchy": lambda length: kernels.RationalQuadratic(length / 2**0.5, alpha=1.0),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gaussian_process_has_the_exact_marginal_likelihood(kernel):
    times = [0.0, 0.5, 2.0, 3.0, 3.5]
    prior = pv.priors.GaussianProcess((5, D), kernel, times=times, nugget=0.01).double()
    with torch.no_grad():
        prior.log_lengthscale.copy_(torch.tensor([1.5, 0.7]).log())
    at = torch.tensor(times).reshape(-1, 1).numpy()
    K = torch.stack([torch.as_tensor(KERNELS[kernel](length)(at)) for length in (1.5, 0.7)])
    K = 0.99 * K + 0.01 * torch.eye(5)  # (D, T, T)
    C, s = torch.randn(F, D), 0.5
    covariance = torch.einsum("fd,dst,gd->fsgt", C, K, C).reshape(F * 5, F * 5)
    marginal = dist.MultivariateNormal(torch.zeros(F * 5), covariance + s**2 * torch.eye(F * 5))
    x = marginal.sample((4,)).reshape(4, F, 5)

    z = torch.randn(3, 5, D)
    by_kernel = [dist.MultivariateNormal(torch.zeros(5), K[d]).log_prob(z[..., d]) for d in (0, 1)]
    torch.testing.assert_close(prior().log_prob(z), sum(by_kernel))

    network = pv.networks.StepwiseMLP((5, D), (F, 5), [])
    likelihood = pv.likelihoods.Normal((F, 5), network, scale=s).double()
    with torch.no_grad():
        likelihood.head.layer.weight.copy_(C[..., None]), likelihood.head.layer.bias.zero_()
    # The exact posterior, slightly widened, in the order (T, D) of the latent.
    cross = torch.einsum("dst,gd->sdgt", K, C).reshape(5 * D, F * 5)
    prior_covariance = torch.einsum("dst,de->sdte", K, torch.eye(D)).reshape(5 * D, 5 * D)
    gain = torch.linalg.solve(marginal.covariance_matrix, cross.T).T
    tril = torch.linalg.cholesky(prior_covariance - gain @ cross.T)

    class Exact(nn.Module):
        def forward(self, x, *, context=None):
            loc = x.flatten(-2) @ gain.T
            q = dist.MultivariateNormal(loc, scale_tril=1.1 * tril)
            return pv.distributions.Reshaped(q, (5, D))

    program = pv.VAE(prior, likelihood, Exact())
    score = pv.log_likelihood(program, x, num_samples=3000, compile="off")
    exact = marginal.log_prob(x.flatten(1))
    assert ((score.values - exact).abs() < 4 * score.mc_se).all() and (score.mc_se < 0.1).all()


@pytest.mark.parametrize("state", [(), (2,), (2, 3)])
def test_a_deep_chain_is_the_product_of_its_steps(state):
    prior = pv.priors.DeepMarkov((4, *state), hidden=[5]).double()
    network = pv.networks.RecurrentSmoother((1, 4), width=3)
    q = pv.posteriors.DeepMarkov((4, *state), network, width=5).double()
    for path in (prior(), q(torch.randn(3, 1, 4))):
        z = path.sample((2,))
        assert z.shape == (2, *path.batch_shape, 4, *state)
        states = z.reshape(2, *path.batch_shape, 4, -1)
        before, total = path.start.expand(*states[..., :1, :].shape), 0.0
        for t in range(4):
            step = path.transition(before, slice(t, t + 1))
            before = states[..., t : t + 1, :]
            total = total + step.log_prob(before).squeeze(-1)
        torch.testing.assert_close(path.log_prob(z), total)


@pytest.mark.parametrize(
    "prior, posterior",
    [
        ("GaussianMarkov", "GaussianMarkov"),
        ("DeepMarkov", "DeepMarkov"),
        ("GaussianProcess", "GaussianMarkov"),
    ],
)
def test_unequal_series_train_score_and_come_back_from_disk(prior, posterior, tmp_path):
    t = torch.arange(8.0)
    x = torch.sin(t + 6 * torch.rand(60, 1, 1)) + 0.1 * torch.randn(60, 2, 8)
    for n in range(0, 60, 3):
        x[n, :, 4 + n % 4 :] = math.nan
    data = pv.datasets.Dataset(x, missing=True)
    network = pv.networks.RecurrentSmoother(pv.networks.WithMask.doubled((2, 8)), width=12)
    decoder = pv.networks.StepwiseMLP((8, 2), (2, 8), [12])
    program = pv.VAE(
        getattr(pv.priors, prior)((8, 2)),
        pv.likelihoods.Missing(pv.likelihoods.Normal((2, 8), decoder, scale=0.3)),
        getattr(pv.posteriors, posterior)((8, 2), pv.networks.WithMask((2, 8), network)),
    )
    before = pv.elbo(program, data, num_samples=5)
    options = {"batch_size": 20, "learning_rate": 1e-2, "compile": "off", "progress": False}
    pv.fit(program, data, epochs=6, **options)
    after = pv.elbo(program, data, num_samples=5)
    assert after.mean - before.mean > 5 * (before.se + after.se)
    pv.save(program, tmp_path / "saved")
    again = pv.elbo(pv.load(tmp_path / "saved").double(), data, num_samples=5)
    assert torch.equal(again.values, after.values)
    complete = pv.reconstruct(program, data)
    assert torch.equal(complete[~x.isnan()], x[~x.isnan()]) and not complete.isnan().any()
    assert pv.generate(program, 3).shape == (3, 2, 8)
    idata = pv.to_inference_data(program, data[:4], num_samples=10)
    assert idata.posterior["z"].shape == (1, 10, 4, 8, 2)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: pv.networks.StepwiseMLP((5, 2), (3, 4)), "size: got 4 steps for a path of 5"),
        (lambda: pv.networks.RecurrentSmoother((1, 8, 8)), r"in_shape: got \(1, 8, 8\)"),
        (lambda: pv.priors.GaussianProcess(5, "rfb"), "did you mean 'rbf'"),
        (lambda: pv.priors.GaussianProcess(2, times=[1.0]), "times: got 1 numbers, expected 2"),
        (lambda: pv.priors.GaussianProcess(2, times=[1.0, 1.0]), "times that do not increase"),
        (lambda: pv.priors.GaussianProcess(2, nugget=1.0), "nugget: got 1.0"),
    ],
)
def test_arguments_that_cannot_be(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()
