"""What a caller has set for torch changes no number, and is left as it was."""

from contextlib import contextmanager

import pytest
import torch
from common import small_vae

import pyro_vae as pv

X = (torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def trained(vae):
    pv.fit(vae, X, epochs=2, progress=False, compile="off", seed=0)
    return torch.cat([parameter.flatten() for parameter in vae.parameters()])


NUMBERS = {
    "log_likelihood": lambda vae: pv.log_likelihood(vae, X, 20).values,
    "elbo": lambda vae: pv.elbo(vae, X, 20).values,
    "ais": lambda vae: pv.evaluation.ais(vae, X[:2], 2, 3, num_leapfrog=2).values,
    "decompose": lambda vae: pv.evaluation.decompose(vae, X, 5)["kl"].values,
    "generate": lambda vae: pv.generate(vae, 3),
    "reconstruct": lambda vae: pv.reconstruct(vae, X),
    "decode": lambda vae: pv.decode(vae, torch.ones(2, 2)),
    "fit": trained,
}


@contextmanager
def other_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "default dtype": other_default,
    "inference_mode": torch.inference_mode,
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.filterwarnings("ignore:Pareto k")
@pytest.mark.filterwarnings("ignore:.*few.*:UserWarning")
def test_a_number_is_the_program_s_alone(number, setting):
    plain, other = small_vae(seed=0), small_vae(seed=0)
    expected = NUMBERS[number](plain)
    with SETTINGS[setting]():
        was = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        found = NUMBERS[number](other)
        assert was == (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    assert torch.equal(expected, found)
