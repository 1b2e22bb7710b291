"""Draws as ArviZ data: the groups, files without loss, and ArviZ 0.x and 1.x at work on them."""

import inspect

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from closed_forms import Hierarchy, LinearGaussian, TwoLevelGaussian, two_modes
from common import small_vae

import pyro_vae as pv
from pyro_vae.datasets import Dataset, load_whole
from pyro_vae.diagnostics.inference_data import to_inference_data
from pyro_vae.diagnostics.samplers import NUTS, FromGuide, Resampled
from pyro_vae.evaluation.arviz_compat import arviz, group_of, write_netcdf
from pyro_vae.evaluation.proposals import Refitted
from pyro_vae.evaluation.results import to_elpd
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.runtime.memory import Cost
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")
GROUPS = [
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
    "constant_data",
    "diagnostics",
]
NORMAL = torch.distributions.Normal


def test_every_group_against_its_formula():
    exact = LinearGaussian(2, features=4)
    program, data = (
        exact.program(widen=1.2),
        pv.datasets.Dataset(exact.data(3), torch.tensor([5, 1, 7]), name="pca", split="test"),
    )
    idata = to_inference_data(program, data, 400, indices=[10, 20, 30], run="runs/a", seed=3)
    posterior, stats = idata.posterior, idata.sample_stats
    assert posterior["z"].dims == ("chain", "draw", "obs", "latent") and posterior["z"].shape == (
        1,
        400,
        3,
        2,
    )
    assert posterior["obs"].values.tolist() == [10, 20, 30]
    z, x = torch.from_numpy(posterior["z"].values)[0], data.x
    log_x = NORMAL(z @ exact.weight.T + exact.mean, exact.noise).log_prob(x).sum(-1)
    log_q = program.posterior(x).log_prob(z)
    np.testing.assert_allclose(idata.log_likelihood["x"][0], log_x)
    np.testing.assert_allclose(stats["lp"][0], log_x + NORMAL(0.0, 1.0).log_prob(z).sum(-1))
    np.testing.assert_allclose(stats["log_q"][0], log_q)
    np.testing.assert_allclose(stats["log_weight"], stats["lp"] - stats["log_q"])
    estimate = torch.from_numpy(stats["log_weight"].values)[0].logsumexp(0) - np.log(400)
    assert (estimate - exact.marginal.log_prob(x)).abs().max() < 0.15
    summary = pv.evaluation.summarize(torch.from_numpy(stats["log_weight"].values)[0])
    np.testing.assert_allclose(idata.diagnostics["ess"], summary.ess)
    np.testing.assert_allclose(idata.diagnostics["pareto_k"], summary.pareto_k)
    np.testing.assert_array_equal(idata.observed_data["x"], x)
    assert idata.constant_data["context"].values.tolist() == [5, 1, 7] and idata.constant_data[
        "index"
    ].values.tolist() == [10, 20, 30]
    assert idata.prior["z"].shape == (1, 400, 3, 2) and abs(idata.prior["z"].values.std() - 1) < 0.1
    residual = idata.posterior_predictive["x"][0].values - (z @ exact.weight.T + exact.mean).numpy()
    assert residual.std() == pytest.approx(exact.noise, rel=0.05)
    covariance = np.cov(idata.prior_predictive["x"].values[0].reshape(-1, 4).T)
    np.testing.assert_allclose(covariance, exact.marginal.covariance_matrix, atol=0.5)
    assert {
        "run": "runs/a",
        "seed": 3,
        "data": "pca",
        "split": "test",
        "sha256": data.sha256,
    }.items() <= idata.attrs.items()
    assert {"torch", "pyro-ppl", "arviz"} <= idata.attrs.keys()
    assert (
        "say nothing about how near" in posterior.attrs["note"]
        and "1 / p(x | z)" in idata.log_likelihood.attrs["note"]
    )


@pytest.mark.parametrize("draws", [FromGuide(), Resampled(), Resampled(5, Refitted(steps=3))])
def test_the_posterior_of_a_wide_guide_and_what_resampling_makes_of_it(draws):
    exact = LinearGaussian(2, features=4)
    x = exact.data(2)
    z = torch.from_numpy(
        group_of(to_inference_data(exact.program(widen=1.5), x, 4000, sampler=draws), "posterior")[
            "z"
        ].values
    )[0]
    spread = torch.stack([torch.cov(z[:, n].T) for n in range(2)]) / exact.covariance
    wide = isinstance(draws, FromGuide)
    torch.testing.assert_close(
        spread.diagonal(dim1=1, dim2=2),
        torch.full((2, 2), 1.5**2 if wide else 1.0),
        rtol=0.15,
        atol=0,
    )
    torch.testing.assert_close(z.mean(0), (x - exact.mean) @ exact.gain.T, rtol=0, atol=0.08)


def test_chunks_of_data_and_of_draws_give_the_same_groups(monkeypatch):
    exact = LinearGaussian(2, features=3)
    whole = to_inference_data(exact.program(), exact.data(5), 20)
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setattr("pyro_vae.runtime.memory.bytes_allocated", lambda run: 1)
    for budget in (7, 45):
        monkeypatch.setitem(BLOCK_BYTES, "cpu", budget)
        parts = to_inference_data(exact.program(), exact.data(5), 20, memory_budget=budget)
        for group in set(GROUPS) - {
            "posterior_predictive",
            "prior_predictive",
            "constant_data",
            "diagnostics",
        }:
            assert {name: values.shape for name, values in group_of(parts, group).items()} == {
                name: values.shape for name, values in group_of(whole, group).items()
            }
        assert parts.posterior_predictive["x"].shape == (1, 1, 5, 3), "draws of x are bounded, too"
        np.testing.assert_allclose(
            parts.sample_stats["log_weight"],  # q is exact: log p(x) at every draw
            exact.marginal.log_prob(exact.data(5)).expand(1, 20, 5),
        )


def test_several_sites_scalars_and_labels():
    exact = TwoLevelGaussian()
    idata = to_inference_data(exact.program(), exact.marginal.sample((4,)), 10)
    assert idata.posterior["z1"].dims == ("chain", "draw", "obs", "z1_latent") and idata.posterior[
        "z1"
    ].shape == (1, 10, 4, 3)
    assert idata.prior["z2"].dims == ("chain", "draw", "obs", "z2_latent")
    labelled = Hierarchy(labels=3)
    x, y = labelled.data(6)
    idata = to_inference_data(labelled.program(), (x, y), 10)
    np.testing.assert_allclose(
        idata.sample_stats["log_weight"], labelled.log_p(x, y).expand(1, 10, 6)
    )
    assert idata.constant_data["context"].values.tolist() == y.tolist()
    scalar = to_inference_data(two_modes().program(), torch.linspace(4, 9, 3), 10)
    assert scalar.posterior["z"].dims == ("chain", "draw", "obs") and scalar.observed_data[
        "x"
    ].dims == ("obs",)


def test_a_program_without_a_density_still_has_draws():
    MLP = pv.networks.MLP
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli((1, 8, 8), MLP(2, [8])),
        pv.posteriors.Delta(2, MLP((1, 8, 8), [8])),
    )
    idata = to_inference_data(vae, torch.zeros(3, 1, 8, 8), 5)
    assert set(group_of(idata, "sample_stats")) == {"lp"} and group_of(idata, "diagnostics") is None
    assert idata.posterior_predictive["x"].dims == (
        "chain",
        "draw",
        "obs",
        "x_dim_0",
        "x_dim_1",
        "x_dim_2",
    )


@pytest.mark.filterwarnings(
    "ignore::pyro_vae.diagnostics.inference_data.UnreliableDraws"
)  # chains this short are for the file only
def test_a_netcdf_round_trip_is_lossless(any_arviz, tmp_path):
    torch.set_default_dtype(torch.float32)
    vae = small_vae()
    data = pv.datasets.load("digits")[1][:4]
    idata = to_inference_data(
        vae,
        data,
        16,
        indices=[3, 1, 4, 15],
        run="runs/digits",
        sampler=NUTS(num_chains=2, warmup=8, start="guide"),
    )
    assert (
        write_netcdf(idata, tmp_path / "sub" / "a.nc").stat().st_size > 0
        and len(list((tmp_path / "sub").iterdir())) == 1
    )
    again = any_arviz.from_netcdf(str(tmp_path / "sub" / "a.nc"))
    for group in GROUPS:
        before, after = group_of(idata, group), group_of(again, group)
        xarray.testing.assert_identical(before, after)
        assert {name: v.dtype for name, v in before.items()} == {
            name: v.dtype for name, v in after.items()
        }
    assert dict(idata.attrs) == dict(again.attrs)
    assert (
        group_of(again, "sample_stats")["diverging"].dtype == bool
        and group_of(again, "posterior")["z"].dtype == np.float32
    )


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, to ArviZ
def test_summaries_and_comparisons_of_arviz(any_arviz):
    """ArviZ's loo is log p(x) on an exact posterior so wide that 1 / p(x | z) has a variance."""
    exact = LinearGaussian(1, features=2, noise=6.0)
    x = exact.data(20)
    idata = to_inference_data(exact.program(), x, 2000)
    table = any_arviz.summary(idata, var_names=["z"], round_to="none", kind="stats")
    np.testing.assert_allclose(
        table["mean"].astype(float), ((x - exact.mean) @ exact.gain.T).flatten(), atol=0.1
    )
    loo = any_arviz.loo(idata, pointwise=True)
    pointwise = getattr(loo, "elpd_i", None) if hasattr(loo, "elpd_i") else loo.loo_i
    np.testing.assert_allclose(pointwise, exact.marginal.log_prob(x), atol=0.03)
    scores = {widen: pv.log_likelihood(exact.program(widen=widen), x, 1000) for widen in (1.0, 1.4)}
    worse = pv.log_likelihood(LinearGaussian(1, features=2, noise=1.0).program(), x, 1000)
    unrounded = (
        {"round_to": "none"}
        if "round_to" in inspect.signature(any_arviz.compare).parameters
        else {}
    )
    table = any_arviz.compare(
        {"exact": to_elpd(scores[1.0]), "wider": to_elpd(scores[1.4]), "other": to_elpd(worse)},
        **unrounded,
    )
    elpd = table["elpd_loo" if "elpd_loo" in table else "elpd"].astype(float)
    assert table.index[-1] == "other" and elpd["exact"] == pytest.approx(
        exact.marginal.log_prob(x).sum().item(), abs=0.1
    )


def test_pareto_k_is_that_of_the_other_arviz(arviz_1x, monkeypatch):
    weights = torch.distributions.StudentT(3.0).sample((1000, 4))
    theirs = pv.evaluation.pareto_k(weights)
    monkeypatch.undo()
    torch.testing.assert_close(theirs, pv.evaluation.pareto_k(weights), rtol=0, atol=0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Matplotlib's, to ArviZ
@pytest.mark.filterwarnings("ignore::pyro_vae.diagnostics.inference_data.UnreliableDraws")
def test_plots_of_arviz():
    az = arviz()
    if "InferenceData" not in vars(az):
        pytest.skip("ArviZ 1.x has other figures")
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    exact = LinearGaussian(2, features=3)
    idata = to_inference_data(exact.program(), exact.data(4), 100)
    one = idata.sel(obs=2)
    assert az.plot_posterior(one, var_names=["z"]).size == 2
    assert az.plot_pair(one, var_names=["z"], group="posterior") is not None
    axes = az.plot_ppc(idata, num_pp_samples=20)
    assert len(axes.lines) >= 20
    assert (
        az.plot_khat(to_elpd(pv.log_likelihood(exact.program(widen=1.3), exact.data(4), 1000)))
        is not None
    )
    assert "r_hat" in az.summary(
        to_inference_data(exact.program(), exact.data(2), 40, sampler=NUTS(num_chains=2, warmup=30))
    )
    plt.close("all")


def test_a_float32_program_with_a_constrained_latent_keeps_its_parameters():
    torch.set_default_dtype(torch.float32)
    MLP = pv.networks.MLP
    vae = pv.VAE(
        pv.priors.Dirichlet(3),
        pv.likelihoods.Normal(2, MLP(3, [])),
        pv.posteriors.LogisticNormal(3, MLP(2, [])),
    )
    state, before = (
        torch.random.get_rng_state(),
        {name: value.clone() for name, value in vae.state_dict().items()},
    )
    idata = to_inference_data(vae, torch.zeros(1, 2), 200, sampler=NUTS(num_chains=2, warmup=60))
    np.testing.assert_allclose(idata.posterior["z"].sum("latent"), 1, atol=1e-5)
    assert idata.posterior["z"].dtype == np.float32 and torch.equal(
        state, torch.random.get_rng_state()
    )
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(p.requires_grad for p in vae.parameters())


def test_a_missed_mode_is_seen_by_chains_from_dispersed_points_and_by_nothing_of_the_guides():
    """A q on one of two modes has a perfect k and ESS; R-hat of NUTS from the prior shows both."""
    exact = two_modes()
    x = torch.tensor([6.0])
    guide = to_inference_data(exact.program(), x, 2000)
    assert (
        guide.diagnostics["pareto_k"].item() < 0.5 and guide.diagnostics["ess"].item() > 0.7 * 2000
    )
    assert (guide.posterior["z"] > 0).all()
    with pytest.warns(pv.diagnostics.UnreliableDraws, match="different modes"):
        sampler = NUTS(num_chains=6, warmup=40)
        chains = to_inference_data(exact.program(), x, 240, sampler=sampler, seed=1)
    assert chains.diagnostics["r_hat"].item() > 1.5
    share = (
        (chains.posterior["z"] > 0).mean(("draw", "obs")).values
    )  # each chain stays where it began
    assert set(share.round(1)) == {0.0, 1.0}
    positive = chains.posterior["z"].values[share > 0.5]
    assert positive.mean() == pytest.approx(6**0.5, abs=0.05)
    comparison = pv.diagnostics.compare_posteriors(guide, chains)
    assert comparison.distinguishable.all() and comparison.wasserstein.item() > 0.5


def test_what_cannot_be_drawn_is_refused():
    vae, x = small_vae(), torch.zeros(2, 1, 8, 8)
    for options, message in (
        ({"num_samples": 0}, "num_samples"),
        ({"indices": [1]}, "indices"),
        (
            {"num_samples": 10, "sampler": NUTS(num_chains=4)},
            "num_samples: got 10, expected a multiple",
        ),
    ):
        with pytest.raises(InvalidInput, match=message):
            to_inference_data(vae, x, **options)
    for wrong, message in (
        ({"num_chains": 1}, "num_chains"),
        ({"warmup": 0}, "warmup"),
        ({"start": "nowhere"}, "start"),
        ({"target_acceptance": 1.0}, "target_acceptance"),
        ({"max_tree_depth": 0}, "max_tree_depth"),
    ):
        with pytest.raises(InvalidInput, match=message):
            NUTS(**wrong)
    with pytest.raises(InvalidInput, match="ratio"):
        Resampled(0)


@pytest.mark.parametrize(
    "sampler", [FromGuide(), Resampled(ratio=3)], ids=lambda s: type(s).__name__
)
def test_the_draws_of_a_datum_depend_on_the_seed_and_its_place_alone(monkeypatch, sampler):
    """To the bit, in blocks of three data."""
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 60)
    program, x = small_vae(), torch.bernoulli(torch.rand(8, 1, 8, 8))
    whole = to_inference_data(program, x, 20, sampler=sampler)
    for count in (1, 4):
        part = to_inference_data(program, x[:count], 20, sampler=sampler)
        for group in ("posterior", "sample_stats", "log_likelihood", "diagnostics"):
            theirs = group_of(whole, group)
            for name, values in group_of(part, group).items():
                np.testing.assert_array_equal(values, theirs[name].isel(obs=slice(0, count)))


class StatesAbove(torch.nn.Module):
    """z around the mean of a state that the model sums over, and x around z."""

    def __init__(self):
        super().__init__()
        self.means = torch.nn.Parameter(torch.tensor([-1.0, 2.0]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            shares = torch.tensor([0.3, 0.7])
            c = pyro.sample("c", dist.Categorical(shares), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(self.means[c], 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))


def test_weights_of_a_program_that_sums_over_a_state():
    pair, x = StatesAbove(), torch.linspace(-2.0, 3.0, 6)
    idata = to_inference_data(pv.Program(pair.model, pair.guide, pair), x, 40)
    z = torch.from_numpy(idata["posterior"]["z"].values).reshape(40, 6)
    mixture = torch.tensor([0.3, 0.7]).log() + NORMAL(pair.means, 0.5).log_prob(z[..., None])
    joint = mixture.logsumexp(-1) + NORMAL(z, 1.0).log_prob(x)
    log_q = NORMAL(0.5 * x, 0.7).log_prob(z)
    stats = idata["sample_stats"]
    for name, expected in {"lp": joint, "log_q": log_q, "log_weight": joint - log_q}.items():
        np.testing.assert_allclose(stats[name].values.reshape(40, 6), expected.detach().numpy())
    assert set(idata["diagnostics"].data_vars) == {"ess", "pareto_k"}


def test_columns_of_a_site_that_is_a_table_have_their_names():
    frame = pd.DataFrame({"a": [0.1, 0.5, 0.3, 0.2], "b": [1.0, 2.0, 3.0, 4.0]})
    data = Dataset({"table": load_whole(frame), "more": torch.randn(4, 3)})
    parts = {"table": 2, "more": 3}
    vae = pv.MultimodalVAE(
        pv.priors.StandardNormal(1),
        likelihoods={
            n: pv.likelihoods.Normal(d, pv.networks.MLP(1, [4])) for n, d in parts.items()
        },
        posterior=pv.posteriors.MixtureOfExperts(
            1,
            {n: pv.posteriors.DiagonalNormal(1, pv.networks.MLP(d, [4])) for n, d in parts.items()},
        ),
    )
    idata = to_inference_data(vae, data, 5)
    assert idata["observed_data"]["table"].coords["table_dim_0"].values.tolist() == ["a", "b"]
