"""Draws and their ArviZ data of programs that can run in one precision alone, and of one chain."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from common import small_vae
from torch import nn

import pyro_vae as pv
from pyro_vae.evaluation.arviz_compat import arviz

SAMPLER = pv.diagnostics.NUTS(num_chains=2, warmup=20)


class PlainPrior(nn.Module):
    """A prior that makes its tensors anew, in torch's default type."""

    def __init__(self, latent):
        super().__init__()
        self.latent = (latent,)

    def forward(self, *, context=None):
        return dist.Normal(torch.zeros(self.latent, dtype=torch.float32), 1.0).to_event(1)


def linear_program() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x ~ N(W z + b, 1) and z ~ N(0, 1) in float32; data, posterior mean and its s.d."""
    torch.manual_seed(0)
    network = pv.networks.MLP(2, [])
    likelihood = pv.likelihoods.Normal(3, network, scale=1.0)
    guide = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, []))
    layer, x = likelihood.head.layer, torch.randn(1, 3)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    covariance = torch.linalg.inv(torch.eye(2).double() + weight.T @ weight)
    mean = covariance @ weight.T @ (x[0].double() - bias)
    return pv.VAE(PlainPrior(2), likelihood, guide), x, mean, covariance.diagonal().sqrt()


@pytest.mark.filterwarnings("ignore::pyro_vae.diagnostics.UnreliableDraws")
def test_nuts_draws_where_the_program_makes_tensors_in_single_precision():
    program, x, mean, sd = linear_program()
    draws = pv.to_inference_data(program, x, 80, sampler=SAMPLER).posterior["z"].values
    draws = draws.reshape(-1, 2)
    assert draws.dtype == np.float32
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * sd.max().item() / 40**0.5)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.5)


def test_a_pair_in_half_precision_has_arviz_data():
    decoder = nn.Linear(2, 3).bfloat16()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    idata = pv.to_inference_data(pv.Program(model, guide), torch.zeros(2, 3), 10)
    assert idata.posterior["z"].dtype == np.float32 and np.isfinite(idata.posterior["z"]).all()


def test_one_chain_has_a_summary_without_nan_or_a_warning():
    idata = pv.to_inference_data(small_vae(), torch.zeros(2, 1, 8, 8), 50)
    az = arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = az.summary(idata, kind="stats")
    assert not table.isna().any().any() and len(table) == 4
    assert "kind='stats'" in idata.posterior.attrs["note"]


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize(
    "score",
    [
        lambda program, x: pv.elbo(program, x, 30),
        lambda program, x: pv.log_likelihood(program, x, 30),
        lambda program, x: pv.evaluation.decompose(program, x, 30),
        lambda program, x: pv.evaluation.ais(program, x, num_chains=2, num_temperatures=3),
    ],
    ids=["elbo", "log_likelihood", "decompose", "ais"],
)
def test_large_weights_in_single_precision_are_said_to_be_rounded(score):
    program = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, pv.networks.MLP(2, [4])),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    x = torch.full((2, 3), 1e3)
    with pytest.warns(pv.evaluation.UnreliableEstimate, match="rounding alone may change"):
        score(program, x)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*rounding alone")
        score(program.double(), x.double())
