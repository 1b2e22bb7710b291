"""Random numbers that a guide draws beside its sites: found, and held fixed."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from common import small_vae
from pyro import poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.noise import FixedNoise, block_seed, has_own_noise

CPU = torch.device("cpu")


def data(num=3):
    return torch.rand(num, 1, 8, 8).round()


def with_dropout():
    def guide(x):
        with pyro.plate("data", len(x)):
            hidden = nn.functional.dropout(x, 0.5, training=True)
            pyro.sample("z", dist.Normal(hidden, 1.0).to_event(1))

    return lambda x, context=None: guide(x)


def drawn(guide, x):
    return poutine.trace(guide).get_trace(x, None).nodes["z"]


def test_a_guide_that_refits_is_told_from_one_that_only_draws():
    vae = small_vae()
    assert not has_own_noise(vae.guide, CPU, data(), None)
    assert has_own_noise(pv.Refined(vae, steps=2).guide, CPU, data(), None)
    assert has_own_noise(with_dropout(), CPU, torch.randn(3, 2), None)


def test_a_point_and_several_sites_are_no_noise_of_a_guides_own():
    def guide(x, context=None):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x[:, 0], 1.0))
            pyro.sample("z", dist.Delta(a))

    assert not has_own_noise(guide, CPU, torch.randn(3, 2), None)


@pytest.mark.parametrize("kind", ["refined", "dropout"])
def test_a_fixed_guides_density_is_a_function_of_the_seed_and_its_draws_go_on(kind):
    program = pv.Refined(small_vae(), steps=2)
    guide, x = (program.guide, data()) if kind == "refined" else (with_dropout(), torch.ones(3, 2))

    def density(site):
        return site["fn"].mean.detach()

    with torch.random.fork_rng():
        torch.manual_seed(1)
        fixed = FixedNoise(CPU, 4)(guide)
        first, second = drawn(fixed, x), drawn(fixed, x)
        again = drawn(FixedNoise(CPU, 4)(guide), x)
        other = drawn(FixedNoise(CPU, 5)(guide), x)
        free = [drawn(guide, x) for _ in range(2)]
    assert torch.equal(density(first), density(second))
    assert torch.equal(density(first), density(again))
    assert not torch.equal(density(first), density(other))
    assert not torch.equal(density(free[0]), density(free[1]))
    assert not torch.equal(first["value"], second["value"])


def test_the_draws_of_the_sites_are_those_without_the_handler():
    vae, x = small_vae(), data()
    torch.manual_seed(3)
    plain = [drawn(vae.guide, x)["value"] for _ in range(2)]
    torch.manual_seed(3)
    fixed = [drawn(FixedNoise(CPU, 9)(vae.guide), x)["value"] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(plain, fixed))


def test_a_program_given_data_knows_whether_its_guide_has_noise():
    for program, noisy in ((small_vae(), False), (pv.Refined(small_vae(), steps=2), True)):
        with conditioned(program, data(), seed=0) as given:
            assert (given.noise is not None) == noisy


def test_seeds_of_blocks_are_all_different():
    seeds = {block_seed(seed, block) for seed in range(50) for block in range(50)}
    assert len(seeds) == 2500
