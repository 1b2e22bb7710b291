"""What NUTS evaluates at every step."""

import threading

import pytest
import torch
from closed_forms import LinearGaussian
from common import small_vae

import pyro_vae as pv
from pyro_vae.diagnostics.samplers import _Posterior
from pyro_vae.diagnostics.turns import in_turns
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
        captured = posterior.captured(torch.zeros(4, size))
        assert captured != posterior.value_and_gradient
        for seed in range(3):
            u = torch.randn(4, size, generator=torch.Generator().manual_seed(seed))
            found = [function(u) for function in (posterior.value_and_gradient, captured)]
            assert torch.equal(found[0][0], found[1][0])
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-14, atol=0)
            alone = [posterior.value_and_gradient(u[[k]]) for k in range(4)]
            for i in (0, 1):
                one_by_one = torch.cat([each[i] for each in alone])
                torch.testing.assert_close(found[1][i], one_by_one, rtol=1e-12, atol=0)


def test_chains_in_turns_draw_alike_each_time_and_reach_a_posterior_that_is_known(float64):
    """The posterior of a normal mean; each chain has its own path."""
    exact = LinearGaussian(1, features=2)
    sampler = pv.diagnostics.NUTS(num_chains=3, warmup=60)
    first, again = (
        pv.to_inference_data(exact.program(), exact.data(1), 300, sampler=sampler, seed=4)
        for _ in range(2)
    )
    draws = first.posterior["z"].values[:, :, 0, 0]
    assert (draws == again.posterior["z"].values[:, :, 0, 0]).all()
    assert len({tuple(chain[:5]) for chain in draws}) == 3


def test_what_a_chain_raises_ends_all_and_is_raised():
    asked = []

    def fails(ask):
        ask(torch.ones(1))
        raise ValueError("a chain's own")

    def goes_on(ask):
        while True:
            asked.append(ask(torch.zeros(1)))

    def evaluate(points):
        return points.sum(-1), torch.ones_like(points)

    before = threading.active_count()
    with pytest.raises(ValueError, match="a chain's own"):
        in_turns([goes_on, fails], evaluate, [torch.zeros(1)] * 2)
    assert threading.active_count() == before and len(asked) == 1
