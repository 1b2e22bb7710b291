"""ArviZ data of programs with global latents: the posterior, and what loo says of it."""

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from global_programs import Conjugate, Factors, conjugate

import pyro_vae as pv
from pyro_vae.diagnostics import NUTS, Resampled
from pyro_vae.evaluation.arviz_compat import group_of, leave_one_out
from pyro_vae.validation import InvalidInput

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter"),
]


def test_globals_have_no_dimension_of_data():
    x = torch.randn(5, 3)
    idata = pv.to_inference_data(Factors(), x, 30)
    posterior = group_of(idata, "posterior")
    assert posterior["w"].dims == ("chain", "draw", "w_dim_0", "w_dim_1")
    assert posterior["z"].dims == ("chain", "draw", "obs", "z_dim_0")
    assert group_of(idata, "prior")["w"].shape == (1, 30, 2, 3)
    assert group_of(idata, "posterior_predictive")["x"].shape == (1, 30, 5, 3)
    assert group_of(idata, "log_likelihood")["x"].dims == ("chain", "draw", "obs")
    assert group_of(idata, "sample_stats")["lp"].dims == ("chain", "draw")
    np.testing.assert_array_equal(group_of(idata, "observed_data")["x"], x)


def test_the_pointwise_log_likelihood_is_marginal_over_local_latents(tmp_path):
    program, train, _ = conjugate()
    idata = pv.to_inference_data(program, train, 20)
    w = torch.tensor(group_of(idata, "posterior")["w"].values[0])
    scale = np.hypot(program.s, program.t)
    exact = torch.distributions.Normal(w @ train[1].T, scale).log_prob(train[0][:, 0])
    found = group_of(idata, "log_likelihood")["x"].values[0]
    np.testing.assert_allclose(found, exact, rtol=1e-9)  # the local guide is exact
    pv.evaluation.arviz_compat.write_netcdf(idata, tmp_path / "posterior.nc")


def test_pareto_k_says_that_an_exact_guide_is_exact():
    exact, wrong = (conjugate(widen) for widen in (1.0, 0.3))
    k = [
        float(group_of(pv.to_inference_data(program, train, 100), "diagnostics")["pareto_k"])
        for program, train, _ in (exact, wrong)
    ]
    assert k[0] == -np.inf and k[1] > 0.7


def test_loo_is_the_density_of_each_datum_given_the_others():
    program, (x, c), _ = conjugate()
    idata = pv.to_inference_data(program, (x, c), 800)
    loo = leave_one_out(idata)
    exact = []
    for n in range(len(x)):
        others = [i for i in range(len(x)) if i != n]
        held_out = Conjugate(c[others], x[others])
        exact.append(held_out.predictive(c[n : n + 1], x[n : n + 1]).item())
    np.testing.assert_allclose(loo.pointwise, exact, atol=0.15)
    assert loo.elpd == pytest.approx(sum(exact), abs=0.4)


def test_nuts_draws_globals_and_locals_from_their_posterior():
    program, train, _ = conjugate(num=8)
    sampler = NUTS(num_chains=2, warmup=80, max_tree_depth=4)
    idata = pv.to_inference_data(program, train, 200, sampler=sampler)
    posterior = group_of(idata, "posterior")
    assert posterior["w"].shape == (2, 100, 3) and posterior["z"].shape == (2, 100, 8, 1)
    w = posterior["w"].values.reshape(-1, 3)
    exact = program.posterior
    spread = exact.variance.sqrt().numpy()
    np.testing.assert_allclose(w.mean(0), exact.loc, atol=0.4 * spread.max())
    np.testing.assert_allclose(w.std(0), spread, rtol=0.35)
    assert (group_of(idata, "diagnostics")["w_r_hat"] < 1.1).all()
    assert "diverging" in group_of(idata, "sample_stats")


def test_a_sampler_of_single_data_is_refused():
    program, train, _ = conjugate()
    with pytest.raises(InvalidInput, match="FromGuide or NUTS for a program with global latents"):
        pv.to_inference_data(program, train, 20, sampler=Resampled())


def test_loo_ranks_bayesian_decoders_as_held_out_log_p_does():
    torch.manual_seed(3)
    data = torch.randn(120, 2) @ torch.randn(2, 5) + 0.7 * torch.randn(120, 5)
    train, test = data[:80], data[80:]
    loo, held_out = {}, {}
    for latent in (1, 2):
        likelihood = pv.likelihoods.Normal(5, pv.networks.MLP(latent, []), scale=0.7)
        program = pv.VAE(
            pv.priors.StandardNormal(latent),
            pv.networks.Bayesian(likelihood),
            pv.posteriors.DiagonalNormal(latent, pv.networks.MLP(5, [])),
        )
        pv.fit(program, train, epochs=150, learning_rate=0.05, compile="off", progress=False)
        loo[latent] = pv.to_inference_data(program, train, 60)
        held_out[latent] = pv.log_likelihood(program, test, 600)
    ranking = az.compare({str(latent): idata for latent, idata in loo.items()})
    best = max(held_out, key=lambda latent: held_out[latent].mean)
    assert ranking.index[0] == str(best)
    assert best == 2
    (elpd,) = {"elpd_loo", "elpd"} & {*ranking.columns}  # the name in 0.x and in 1.x
    difference = ranking.loc["2", elpd] - ranking.loc["1", elpd]
    assert difference > 2 * ranking.loc["1", "dse"]


class Coarse(torch.nn.Module):
    """t ~ N(0, 1), z ~ N(t, 1), x ~ N(z, 1/4); the guide has the posterior of t, not of z."""

    event_shape = (1,)

    def __init__(self, x, slope, weight, scale):
        super().__init__()
        precision = 1 + len(x) / 1.25
        self.loc = torch.nn.Parameter(x.sum() / 1.25 / precision)
        self.spread = precision**-0.5
        self.slope, self.weight, self.scale = slope, weight, scale

    def model(self, x, context=None):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(t, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.5).to_event(1), obs=x)

    def guide(self, x, context=None):
        t = pyro.sample("t", dist.Normal(self.loc, self.spread))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.slope * x[..., 0] + self.weight * t, self.scale))


def test_the_error_of_local_draws_is_told_from_the_spread_over_globals():
    torch.manual_seed(0)
    x = torch.randn(12, 1) * 1.5
    with pytest.warns(pv.evaluation.UnreliableEstimate, match="p_loo of az.loo is too large"):
        coarse = pv.to_inference_data(Coarse(x, 0.4, 0.3, 0.55), x, 400, seed=1)
    exact = pv.to_inference_data(Coarse(x, 0.8, 0.2, 0.2**0.5), x, 400, seed=1)
    errors = [
        group_of(each, "diagnostics")["log_likelihood_error"].values for each in (coarse, exact)
    ]
    np.testing.assert_allclose(errors[1], 0, atol=1e-6)
    t = torch.tensor(group_of(coarse, "posterior")["t"].values[0])
    truth = dist.Normal(t[:, None], 1.25**0.5).log_prob(x[:, 0]).numpy()
    off = group_of(coarse, "log_likelihood")["x"].values[0] - truth
    measured = np.sqrt((off**2).mean(0))
    assert (errors[0] / measured > 0.4).all() and (errors[0] / measured < 1.6).all()
    assert az.loo(coarse).p_loo > az.loo(exact).p_loo + 0.2
