"""What NUTS evaluates at every step."""

import pytest
import torch
from conftest import small_vae

import pyro_vae as pv
from pyro_vae.diagnostics.samplers import _Posterior
from pyro_vae.runtime.conditioned import conditioned

T, D = 4, 2


def path_program():
    torch.manual_seed(0)
    decoder = pv.networks.StepwiseMLP((T, D), (3, T), [4])
    return pv.VAE(
        pv.priors.DeepMarkov((T, D), hidden=[4]),
        pv.likelihoods.Normal((3, T), decoder, 0.3),
        pv.posteriors.DeepMarkov((T, D), pv.networks.RecurrentSmoother((3, T), width=4)),
    )


def binary():
    return torch.arange(64.0).remainder(3).clamp(max=1).reshape(1, 1, 8, 8)


@pytest.mark.parametrize(
    "program, x, size",
    [
        (small_vae, binary, 2),
        (path_program, lambda: torch.linspace(-1, 1, 12).view(1, 3, T), T * D),
    ],
    ids=["vector", "path"],
)
def test_the_captured_potential_and_gradient_are_the_eager_ones_to_the_bit(
    float64, program, x, size
):
    with conditioned(program().double(), x().double(), seed=0) as given, torch.enable_grad():
        posterior = _Posterior(given)
        captured = posterior.captured(torch.zeros(size))
        assert captured != posterior.potential
        for seed in range(3):
            u = torch.randn(size, generator=torch.Generator().manual_seed(seed))
            found = []
            for potential in (posterior.potential, captured):
                point = u.clone().requires_grad_(True)
                value = potential(point)
                found.append((value.detach(), *torch.autograd.grad(3 * value, point)))
            assert torch.equal(found[0][0], found[1][0])
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-14, atol=0)
