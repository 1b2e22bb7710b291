"""A program that observes x in several sites is judged as one that observes it in one."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.checks.leave_one_out import predicted
from pyro_vae.checks.subject import Subject
from pyro_vae.datasets import Dataset
from pyro_vae.distributions import Columns as OfColumns
from pyro_vae.distributions import entries_of
from pyro_vae.runtime.conditioned import conditioned

NUM = 40
WEIGHTS = torch.tensor([1.0, -1.0, 2.0, 0.5])


class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            loc = 0.1 * x.nan_to_num().sum(-1)
            pyro.sample("z", dist.Normal(loc, self.scale))


class GuideOfSteps(Guide):
    def forward(self, x):
        pyro.module("guide", self)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(0.1 * x.sum((1, 2))[:, None], self.scale))


class Columns(nn.Module):
    """Columns in any order: two normal ones, a count, a binary one."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("on", dist.Bernoulli(logits=WEIGHTS[2] * z), obs=x[:, 3])
            real = dist.Normal(z[..., None] * WEIGHTS[:2], 0.5).to_event(1)
            pyro.sample("real", real, obs=x[:, :2])
            pyro.sample("count", dist.Poisson((WEIGHTS[3] * z).exp()), obs=x[:, 2])


class Steps(nn.Module):
    """Three rows of two entries: the first in a plate of columns, the others at a site each."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("columns", 2, dim=-1):
                pyro.sample("x_0", dist.Normal(z * WEIGHTS[:2], 0.5), obs=x[:, 0])
            for t in (1, 2):
                law = dist.Normal(z[..., None] * WEIGHTS[:2], 0.5 + t).to_event(1)
                pyro.sample(f"x_{t}", law, obs=x[:, t, None])


class OwnMask(nn.Module):
    """Columns of which missing entries are masked by the program itself."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            law = dist.Normal(z[..., None] * WEIGHTS, 0.5).mask(~x.isnan()).to_event(1)
            pyro.sample("x", law, obs=torch.where(x.isnan(), 0.0, x))


class Whole(nn.Module):
    """The same columns at one site."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            parts = [
                dist.Normal(z[..., None] * WEIGHTS[:2], 0.5),
                dist.Poisson((WEIGHTS[3] * z).exp()[..., None]),
                dist.Bernoulli(logits=(WEIGHTS[2] * z)[..., None]),
            ]
            places = [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3])]
            pyro.sample("x", OfColumns(parts, places).to_event(1), obs=x)


def table():
    z = torch.randn(NUM)
    return torch.stack(
        [
            z + 0.5 * torch.randn(NUM),
            -z + 0.5 * torch.randn(NUM),
            torch.poisson((0.5 * z).exp()),
            (torch.rand(NUM) < torch.sigmoid(2 * z)).to(z),
        ],
        1,
    )


def laws(model, x, num_samples=3):
    """The distribution of entries at draws of the guide, and p(x given z) of the program (K, N)."""
    program = pv.Program(model, Guide())
    with conditioned(program, Dataset(x), 0) as given:
        values = given.draw(given.guide, num_samples)
        return entries_of(given.predictive(values)), given.densities(values, given.guide)[1]


@pytest.mark.parametrize("model", [Columns(), Whole()], ids=["sites", "one site"])
def test_entries_add_up(model):
    x = table()
    law, log_x = laws(model, x)
    each = law.log_prob(x)
    assert each.shape == (3, NUM, 4)
    torch.testing.assert_close(each.sum(-1), log_x)
    drawn = law.sample()
    assert drawn.shape == (3, NUM, 4) and not (drawn == drawn[:1]).all()


def test_sites_equal_one_site():
    x = table()
    sites, whole = (laws(model, x)[0] for model in (Columns(), Whole()))
    for value in (x, torch.ones_like(x), x.expand(3, NUM, 4) + torch.zeros(3, 1, 1)):
        torch.testing.assert_close(sites.log_prob(value), whole.log_prob(value))
    torch.testing.assert_close(sites.joined(sites.split(x)), x.expand(3, NUM, 4))


def test_predictions_equal_those_of_one_site():
    x = table()
    found = [
        predicted(Subject(pv.Program(model, Guide()), Dataset(x), seed=0))
        for model in (Columns(), Whole())
    ]
    (sites,), (whole,) = found
    for field in ("x", "one", "ess"):
        torch.testing.assert_close(getattr(sites, field), getattr(whole, field))
    # Those of real entries are ranks among so many draws, those of discrete ones randomised too.
    assert ((sites.pit - whole.pit).abs()[:, :2] <= 1 / (1 + sites.ess[:, :2])).all()


def test_sites_in_plates():
    x = torch.randn(NUM, 3, 2)
    program = pv.Program(Steps(), GuideOfSteps())
    with conditioned(program, Dataset(x), 0) as given:
        values = given.draw(given.guide, 5)
        law, log_x = entries_of(given.predictive(values)), given.densities(values, given.guide)[1]
    z = values["z"].reshape(5, NUM, 1, 1)
    scale = torch.tensor([0.5, 1.5, 2.5])[:, None]
    expected = torch.distributions.Normal(z * WEIGHTS[:2], scale).log_prob(x)
    torch.testing.assert_close(law.log_prob(x), expected)
    torch.testing.assert_close(expected.sum((-2, -1)), log_x)


def test_a_program_may_mask_its_missing_entries():
    x = table()
    x[: NUM // 2, 1:] = torch.nan
    (found,) = predicted(Subject(pv.Program(OwnMask(), Guide()), Dataset(x, missing=True), seed=0))
    assert torch.equal(found.pit.isnan(), x.isnan())
