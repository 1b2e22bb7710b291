"""Each check can be made of programs of plain functions in single precision."""

from copy import copy

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.checks import all_checks
from pyro_vae.checks.running import BROKEN, finding_of
from pyro_vae.checks.subject import Subject
from pyro_vae.datasets import Dataset
from pyro_vae.diagnostics.two_sample import largest_r_hat


def single(*shape):
    """Numbers of single precision that are no parameters, as a notebook's programs have them."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


WEIGHT, OFFSETS = single(4, 2), single(3, 4)


def of_labels():
    """x ~ N(W z + B[y], 1) with its posterior, given integers."""

    def model(x, y):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(WEIGHT.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHT.T + OFFSETS[y], 1.0).to_event(1), obs=x)

    def guide(x, y):
        covariance = torch.linalg.inv(WEIGHT.T @ WEIGHT + torch.eye(2))
        with pyro.plate("data", len(x), dim=-1):
            loc = (x - OFFSETS[y]) @ WEIGHT @ covariance
            pyro.sample("z", dist.MultivariateNormal(loc, covariance))

    y = torch.arange(60) % 3
    x = single(60, 2) @ WEIGHT.T + OFFSETS[y] + single(61, 4)[1:]
    return model, guide, Dataset(x, y)


def of_two_levels():
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1) with its posterior."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            upper = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            lower = pyro.sample("z1", dist.Normal(upper, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(lower, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            upper = pyro.sample("z2", dist.Normal(x / 3, (2 / 3) ** 0.5).to_event(1))
            pyro.sample("z1", dist.Normal((x + upper) / 2, 0.5**0.5).to_event(1))

    return model, guide, Dataset(3**0.5 * single(60, 1))


def of_two_modes():
    """z of two modes, x ~ N(|z|, 1), and a guide of two modes, which Pyro's class draws."""

    def modes(loc):
        parts = torch.stack([-loc, loc], -2)
        return dist.MixtureOfDiagNormals(parts, 0 * parts + 0.4, parts[..., 0] * 0)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", modes(x.new_full((1,), 2.0)))
            pyro.sample("x", dist.Normal(z.abs().expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", modes((12.5 + x.sum(-1, keepdim=True)) / (6.25 + x.shape[-1])))

    return model, guide, Dataset(2 + single(60, 3))


def of_kinds():
    """z of three kinds, x ~ N(3 z, 1), with its posterior."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Categorical(x.new_ones(3)))
            pyro.sample("x", dist.Normal(3 * z[..., None].to(x), 1.0).to_event(1), obs=x)

    def guide(x):
        logits = dist.Normal(3 * torch.arange(3).to(x), 1.0).log_prob(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Categorical(logits=logits))

    return model, guide, Dataset(3 * (torch.arange(60) % 3)[:, None].float() + single(60, 1))


MOVING = ("q against NUTS", "importance sampling within bounds")


@pytest.mark.parametrize("make", [of_labels, of_two_levels, of_two_modes, of_kinds])
def test_each_check_can_be_made_in_its_smallest_part(make, quick_chains):
    model, guide, data = make()
    program = pv.Program(model, guide, event_shape=data.x.shape[1])
    parts = [copy(each) for each in all_checks()]
    for each in parts:
        each.size = each.least
    subject = Subject(program, data)
    found = {each.name: finding_of(each, subject) for each in parts}
    assert [one.means for one in found.values() if one.means.startswith(BROKEN)] == []
    for name in MOVING:
        assert found[name].applies is (make is not of_kinds)


def test_nuts_draws_in_the_precision_of_a_program_that_has_no_parameters():
    model, guide, data = of_two_levels()
    program = pv.Program(model, guide, event_shape=1)
    sampler = pv.diagnostics.NUTS(num_chains=2, warmup=100)
    chains = pv.to_inference_data(program, data[:2], 400, sampler=sampler)
    assert largest_r_hat(chains) < 1.05
    assert np.isnan(largest_r_hat(pv.to_inference_data(program, data[:2], 8)))
    chains["diagnostics"]["z1_r_hat"].values[0] = np.nan  # of a latent that never moved
    assert 0.9 < largest_r_hat(chains) < 1.05
    z2 = chains.posterior["z2"]
    assert torch.allclose(
        torch.tensor(z2.mean(("chain", "draw")).values), data.x[:2] / 3, atol=0.15
    )
    assert abs(float(z2.std(("chain", "draw")).mean()) - (2 / 3) ** 0.5) < 0.1


def test_what_moves_latents_does_not_apply_on_a_sphere():
    program = pv.VAE(
        prior=pv.priors.UniformOnSphere(3),
        likelihood=pv.likelihoods.Normal(4, pv.networks.MLP(3, [4])),
        posterior=pv.posteriors.VonMisesFisher(3, pv.networks.MLP(4, [4])),
    )
    subject = Subject(program, Dataset(single(30, 4)))
    for one in all_checks():
        if one.name in {*MOVING, "inference gap"}:
            found = finding_of(one, subject)
            assert not found.applies and "Sphere" in found.means
