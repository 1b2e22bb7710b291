"""Data of several observed sites: a dictionary of tensors wherever a tensor is taken."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput


class TwoViews(torch.nn.Module):
    """Two views of one latent: a ~ N(2 z + c, 1), b ~ N(-z, 4); the guide is the posterior."""

    event_shape = {"a": (), "b": ()}

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(2.0))

    def model(self, x, context=None):
        with pyro.plate("data", len(x["a"])):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("a", dist.Normal(self.slope * z + context["c"], 1.0), obs=x["a"])
            pyro.sample("b", dist.Normal(-z, 2.0), obs=x["b"])

    def guide(self, x, context=None):
        precision = 1 + self.slope**2 + 0.25
        mean = (self.slope * (x["a"] - context["c"]) - 0.25 * x["b"]) / precision
        with pyro.plate("data", len(x["a"])):
            pyro.sample("z", dist.Normal(mean, precision**-0.5))


def exact(x, context):
    covariance = torch.tensor([[5.0, -2.0], [-2.0, 5.0]])
    centred = torch.stack([x["a"] - context["c"], x["b"]], -1)
    return dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(centred)


@pytest.fixture
def data():
    torch.manual_seed(0)
    x = {"a": torch.randn(7), "b": 3 * torch.randn(7)}
    return pv.datasets.Dataset(x, {"c": torch.randn(7)})


def test_scores_of_two_sites_are_exact_under_the_exact_guide(data):
    want = exact(data.x, data.context)
    for score in (pv.elbo(TwoViews(), data, 3), pv.log_likelihood(TwoViews(), data, 3)):
        torch.testing.assert_close(score.values.float(), want)
        assert score.sha256 == data.sha256
    pair = (data.x, data.context)
    torch.testing.assert_close(pv.log_likelihood(TwoViews(), pair, 3).values.float(), want)


@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_program_of_two_sites_trains(data, compile):
    program = TwoViews()
    before = pv.elbo(program, data, 10).mean
    pv.fit(program, data, epochs=20, batch_size=3, learning_rate=0.05, compile=compile)
    assert pv.elbo(program, data, 10).mean > before + 0.01


def test_parts_are_sliced_moved_and_hashed_together(data):
    few = data[2:4]
    assert few.event_shape == {"a": (), "b": ()} and len(few) == 2
    torch.testing.assert_close(few.x["b"], data.x["b"][2:4])
    assert data.to("cpu", torch.float32).x["a"].dtype == torch.float32
    swapped = pv.datasets.Dataset({"a": data.x["b"], "b": data.x["a"]}, data.context)
    assert len({data.sha256, few.sha256, swapped.sha256}) == 3
    x, context = data[3]
    assert x["a"] == data.x["a"][3] and context["c"] == data.context["c"][3]


def test_each_part_is_binarised_by_its_own_policy():
    grey = torch.full((1000,), 0.5)
    part = pv.datasets.Dataset(grey, binarize="dynamic")
    data = pv.datasets.Dataset({"a": part, "b": part, "c": grey}).to("cpu")
    for x in (data.x, data.batch(torch.arange(1000))[0], data[:1000].x):
        assert x["a"].unique().tolist() == [0, 1] and x["c"].unique().tolist() == [0.5]
    drawn, _ = data.batch(torch.arange(1000))  # two parts share no random numbers
    agreement = (drawn["a"] == drawn["b"]).double().mean().item()
    assert abs(agreement - 0.5) < 5 * math.sqrt(0.25 / 1000)


def test_wrong_dictionaries_are_refused(data):
    with pytest.raises(InvalidInput, match="same number of data"):
        pv.datasets.Dataset({"a": torch.zeros(3), "b": torch.zeros(4)})
    with pytest.raises(InvalidInput, match=r"parts \['a'\], expected parts \['a', 'b'\]"):
        pv.elbo(TwoViews(), ({"a": data.x["a"]}, data.context))
    with pytest.raises(InvalidInput, match="one tensor, expected parts"):
        pv.elbo(TwoViews(), (data.x["a"], data.context))
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        pv.elbo(TwoViews(), ({**data.x, "b": data.x["b"] / 0}, data.context))
    with pytest.raises(InvalidInput, match="a setting for each"):
        pv.datasets.Dataset(data.x, binarize="fixed")
