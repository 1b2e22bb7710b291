"""What an error advises is what helps."""

import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation import UnreliableEstimate
from pyro_vae.validation import InvalidInput, check_event_shape


@pytest.mark.parametrize(
    "shape, event, advised",
    [
        ((4, 12, 2), (2, 12), "x.movedim(-1, 1)"),
        ((4, 28, 20, 3), (3, 28, 20), "x.movedim(-1, 1)"),
        ((2, 12), (2, 12), "x[None]"),
        ((4, 24), (2, 12), "reshape x"),
    ],
)
def test_axes_in_another_order_are_moved_and_not_reshaped(shape, event, advised):
    with pytest.raises(InvalidInput) as refused:
        check_event_shape(torch.zeros(shape), event)
    assert advised in str(refused.value)
    if "movedim" in advised:
        assert torch.zeros(shape).movedim(-1, 1).shape[1:] == event


def test_a_missing_label_is_not_a_class_too_many():
    labels = torch.tensor([0, -1, 1])
    with pytest.raises(InvalidInput, match=r"label -1, of a datum without one.*SemiSupervisedVAE"):
        pv.networks.OneHot(2).check(labels)
    pv.networks.OneHot(2, unknown=True).check(labels)
    with pytest.raises(InvalidInput, match=r"label 2, expected .* more than 2 classes"):
        pv.networks.OneHot(2).check(torch.tensor([0, -1, 2]).clamp_min(0))


class Wide(torch.nn.Module):
    """A mean that all data share, under a guide that is much too narrow."""

    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.tensor(0.0))

    def model(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    def guide(self, x):
        pyro.sample("mean", dist.Normal(self.loc, 0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.9 * x, 0.6))


def test_more_draws_are_advised_where_few_are_of_the_global_latents():
    pair = Wide()
    program, x = pv.Program(pair.model, pair.guide, pair), torch.linspace(-6.0, 6.0, 10)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pv.log_likelihood(program, x, 100)
    (words,) = [str(each.message) for each in said if each.category is UnreliableEstimate]
    assert "ais" not in words and "Widened" not in words
    ((advised,),) = [re.findall(r"num_samples=([0-9_]+)", words)]
    assert int(advised) == 1000
