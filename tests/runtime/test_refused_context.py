"""A context for a program that takes none is refused wherever one can be given."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.validation import InvalidInput


def pair(conditional: bool) -> pv.Program:
    """A program of plain functions, whose model has a context as its second argument or not."""
    decoder = torch.nn.Linear(2, 3)

    def model(x, shift=0.0):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z) + shift, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    def conditional_model(x, context):
        model(x, context[:, None])

    return pv.Program(conditional_model if conditional else model, guide, event_shape=3)


@pytest.mark.parametrize("wrap", [lambda p: p, pv.Refined, lambda p: pair(False)])
def test_an_unconditional_program_refuses_a_context(wrap):
    program = wrap(small_vae())
    for use in (
        lambda: pv.generate(program, 3, context=2),
        lambda: pv.decode(program, torch.zeros(3, 2), context=2),
        lambda: Decoder(program, context=2),
    ):
        with pytest.raises(InvalidInput, match=r"^context: got one for a program that is not"):
            use()


def test_labels_of_data_are_left_alone():
    data = pv.datasets.Dataset(torch.zeros(4, 1, 8, 8), torch.arange(4))
    assert len(pv.elbo(small_vae(), data, 2).values) == 4


def test_a_conditional_pair_takes_its_context():
    program = pair(True)
    program.prepare(torch.zeros(2, 3), torch.zeros(2))
    near, far = (pv.generate(program, 4, context=c) for c in (0.0, 100.0))
    torch.testing.assert_close(far, near + 100)
