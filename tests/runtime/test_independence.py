"""A program whose numbers of a datum depend on other data, or on other draws, is refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import small_vae
from torch import nn
from torch.nn import functional

import pyro_vae as pv
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.traces import find_plates
from pyro_vae.validation import InvalidInput

MIXES = "a log-weight of one datum that depends on the other data in its batch"


class Mixing(nn.Module):
    """A decoder of 2 to 8 features, through a function of all rows."""

    out_shape = (8,)

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(2, 8), function

    def forward(self, z, context=None):
        return self.function(self.linear(z))


def vae_through(decoder):
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(4, decoder),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8])),
    )


def written_out(change):
    """A program in plain Pyro whose model puts the latents through a function."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(change(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    return pv.Program(model, guide, modules=nn.Linear(1, 1), event_shape=2)


def refusal(program, x):
    with pytest.raises(InvalidInput) as error:
        pv.elbo(program, x, 10)
    return str(error.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: functional.normalize(h, dim=0),
        lambda h: h.softmax(0),
        lambda h: h - h.mean(0),
    ],
    ids=["normalize", "softmax", "mean"],
)
def test_a_decoder_that_mixes_data_is_refused_with_its_name(function):
    said = refusal(vae_through(Mixing(function)), torch.randn(5, 4))
    assert MIXES in said and "first in module 'likelihood.network" in said


def test_batch_norm_on_the_statistics_of_its_batch_is_refused_with_its_name():
    vae = vae_through(Mixing(nn.BatchNorm1d(8, track_running_stats=False)))
    assert "module 'likelihood.network.function'" in refusal(vae, torch.randn(5, 4))


def test_an_encoder_that_mixes_data_is_refused_with_its_name():
    vae = small_vae()
    vae.posterior.network = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 16), nn.Softmax(dim=0))
    vae.posterior.network.out_shape = (16,)
    said = refusal(vae, torch.rand(5, 1, 8, 8).round())
    assert MIXES in said and "first in module 'posterior" in said


@pytest.mark.parametrize(
    "change",
    [lambda z: z - z.mean(0), lambda z: z - z.mean(-2, keepdim=True), lambda z: z.flip(-2)],
    ids=["mean", "mean of the data", "neighbour"],
)
def test_a_model_that_mixes_data_is_refused(change):
    said = refusal(written_out(change), torch.randn(5, 2))
    assert "depends on the other data in its batch" in said


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda z: z - z.mean(0) if z.dim() == 3 else z,
            "depends on the other draws of its latents",
        ),
        (
            lambda z: z.reshape(-1, 2),
            r"does not run with 2 draws in front of the data \(",
        ),
    ],
    ids=["mixes", "fails"],
)
def test_a_pair_that_takes_no_draws_in_front_is_run_one_draw_at_a_time(float64, change, words):
    x = torch.randn(5, 2)
    exact = dist.Normal(torch.zeros(2), 2**0.5).to_event(1).log_prob(x)
    with pytest.warns(UserWarning, match=f"{words}.*one draw at a time"):
        score = pv.log_likelihood(written_out(change), x, 300)
    assert ((score.values - exact).abs() < 4.5 * score.mc_se).all()


def test_a_program_of_parts_that_mixes_draws_is_refused():
    decoder = Mixing(lambda h: h.reshape(-1, 8))
    decoder.takes_draws = True  # which is not so
    said = refusal(vae_through(decoder), torch.randn(5, 4))
    assert "does not run with 2 draws in front of the data (" in said


CLEAN = {
    "plain": lambda: (small_vae(), torch.rand(5, 1, 8, 8).round()),
    "double": lambda: (small_vae().double(), torch.rand(5, 1, 8, 8).round()),
    "one datum": lambda: (small_vae(), torch.rand(1, 1, 8, 8).round()),
    "refined": lambda: (pv.Refined(small_vae(), steps=2), torch.rand(5, 1, 8, 8).round()),
    "batch norm": lambda: (vae_through(Mixing(nn.BatchNorm1d(8))), torch.randn(5, 4)),
    "layer norm": lambda: (vae_through(Mixing(nn.LayerNorm(8))), torch.randn(5, 4)),
    "last dimension": lambda: (
        vae_through(Mixing(lambda h: functional.normalize(h, dim=-1))),
        torch.randn(5, 4),
    ),
    "written out": lambda: (written_out(torch.tanh), torch.randn(5, 2)),
    "large values": lambda: (written_out(lambda z: 1e4 * z), 1e4 * torch.randn(5, 2)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_program_of_which_each_datum_is_its_own_passes(name):
    program, x = CLEAN[name]()
    with conditioned(program, x, seed=0) as given:
        assert len(given) == len(x)


def test_the_look_leaves_random_numbers_alone():
    program, x = small_vae().eval(), torch.rand(5, 1, 8, 8).round()
    torch.manual_seed(7)
    find_plates(program, x)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Conditioned.of(program, x, None)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(7)
    with conditioned(program, x, seed=0):
        torch.rand(1)
    after = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), after)
