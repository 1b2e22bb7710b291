"""Checks look at every part of the data: at columns of a table one by one, and at every site."""

import pytest
import torch
from pyro import distributions as dist
from test_checks import EXACT, named, normal, verdict
from torch import nn

import pyro_vae as pv
from pyro_vae.checks import Check, Claims, DoesNotApply, Finding
from pyro_vae.datasets import Dataset
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.distributions import Columns as ByColumn

pytestmark = pytest.mark.usefixtures("float64")

COLUMNS = Columns(
    (
        Column("weight", "real"),
        Column("visits", "count"),
        Column("smoker", "binary", ("no", "yes")),
        Column("region", "category", ("east", "north", "west")),
    )
)
SHARES = torch.tensor([0.5, 0.3, 0.2])


class Table(nn.Module):
    """A real column, a count, a binary column and a category, the same for every z."""

    def __init__(self, smokers=0.3, shares=SHARES):
        super().__init__()
        self.event_shape = (4,)
        self.loc = nn.Parameter(torch.zeros(1))
        self.smokers, self.shares = smokers, shares

    def forward(self, z, *, context=None):
        rows = z.shape[:-1]
        parts = [
            dist.Normal(self.loc.expand(*rows, 1), 1.0),
            dist.Poisson(torch.full((*rows, 1), 3.0)),
            dist.Bernoulli(torch.full((*rows, 1), self.smokers)),
            dist.Categorical(self.shares.expand(*rows, 1, 3)),
        ]
        return ByColumn(parts, [torch.tensor([i]) for i in range(4)]).to_event(1)


def program(**options):
    return pv.VAE(
        pv.priors.StandardNormal(1),
        Table(**options),
        pv.posteriors.DiagonalNormal(1, pv.networks.MLP(4, [])),
    )


def table(num=400, seed=0):
    """Data of the table's own model."""
    torch.manual_seed(seed)
    x = Table()(torch.zeros(num, 1)).sample()
    return Dataset(x, columns=COLUMNS)


def test_probabilities_of_a_binary_column_beside_others():
    name = "calibration of probabilities"
    found = verdict(name, program(), table())
    assert found.passed and found.numbers["binary entries"] == 1
    wrong = verdict(name, program(smokers=0.6), table())
    assert wrong.faults == ("probabilities are not calibrated",)
    assert abs(wrong.numbers["said"] - 0.6) < 1e-6 and abs(wrong.numbers["seen"] - 0.3) < 0.07
    none = verdict(name, EXACT.program(), normal(50))
    assert none.word == "does not apply" and none.passed is None


def test_categories_are_no_counts_and_columns_are_named():
    name = "statistics of the data"
    assert verdict(name, program(), table()).passed
    found = verdict(name, program(shares=SHARES.flip(0)), table())
    assert set(found.faults) == {
        "more often so than in the model",
        "less often so than in the model",
    }
    assert "region = east" in found.means and "region = west" in found.means
    assert "smoker" not in found.means and "NegativeBinomial" not in found.change
    whole = table()
    whole.x[:, 0] = whole.x[:, 0].round()
    rounded = verdict(name, program(), Dataset(whole.x, columns=COLUMNS))
    assert "values rounded or repeated (weight)" in rounded.means
    assert "Rounding is of the data: harmless" in rounded.change


def test_a_figure_shows_a_column_in_its_own_units():
    data = table()
    columns = Columns((Column("weight", "real", (), 70.0, 10.0), *list(COLUMNS)[1:]))
    data.x[:, 0] += 2
    found = verdict("statistics of the data", program(), Dataset(data.x, columns=columns))
    (ax,) = found.figure().axes
    assert ax.get_xlabel() == "weight" and ax.get_title().startswith("weight differs most, in its ")
    low, high = ax.get_xlim()
    assert 30 < low < 60 and 100 < high < 130


def test_a_row_of_a_table_with_one_real_column_is_known_again():
    name = "test data among the training data"
    train, test = table(400), table(100, 1)
    assert verdict(name, program(), test, train=train).passed
    test.x[0] = train.x[0]
    found = verdict(name, program(), Dataset(test.x, columns=COLUMNS), train=train)
    assert found.faults == ("test data leaked into the training data",)


class Bits(nn.Module):
    """Four binary entries, the same probability for every z."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.logits = (4,), nn.Parameter(torch.zeros(4))

    def forward(self, z, *, context=None):
        return dist.Bernoulli(logits=self.logits.expand(*z.shape[:-1], 4)).to_event(1)


class Pair(nn.Module):
    """Two numbers that depend on one another given z."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.loc = (2,), nn.Parameter(torch.zeros(2))

    def forward(self, z, *, context=None):
        return dist.MultivariateNormal(self.loc.expand(*z.shape[:-1], 2), torch.eye(2) + 0.5)


def test_a_part_whose_entries_depend_on_one_another_hides_no_other():
    torch.manual_seed(0)
    x = {"bits": torch.rand(300, 4).round(), "pair": torch.randn(300, 2)}
    experts = {
        name: pv.posteriors.DiagonalNormal(1, pv.networks.MLP(size, []))
        for name, size in (("bits", 4), ("pair", 2))
    }
    both = pv.MultimodalVAE(
        pv.priors.StandardNormal(1),
        {"bits": Bits(), "pair": Pair()},
        pv.posteriors.ProductOfExperts(1, experts),
    )
    found = verdict("calibration of probabilities", both, Dataset(x))
    assert found.passed and found.numbers["binary entries"] == 4, found.means
    name = "binarisation and identity of the data"
    train = Dataset({**x, "bits": torch.ones(300, 4)})
    wrong = verdict(name, both, Dataset(x), train=train, claims=Claims("threshold"))
    assert wrong.numbers["entries whose share of ones differs from training"] == 4


@pytest.mark.parametrize("name", ["coverage of regions of q", "ranks of simulated latents"])
def test_few_simulated_data_pass_nothing(name):
    many = verdict(name, EXACT.program(), normal(30))
    assert many.passed and many.numbers["simulated data"] == 1000
    assert "1,000 simulated" in many.means and " +- " in many.means
    assert sized(name, EXACT.program(), 0.05).word == "could not tell"
    assert sized(name, EXACT.program(widen=0.3), 0.05).word == "failed"


def test_a_small_departure_is_told_and_called_small():
    small = verdict("coverage of regions of q", EXACT.program(widen=0.93), normal(30))
    assert small.passed and small.p_value < 0.01 and "off by a little" in small.means


def sized(name, program, size):
    """The verdict of a check that is made only in part."""

    class Smaller(type(named(name))):
        def look(self, subject):
            self.size = size
            return super().look(subject)

    return pv.check(program, normal(30), checks=[Smaller()], minutes=1e9, seed=1).verdicts[0]


def test_a_costly_check_is_made_in_part_or_left_out():
    seen = []

    class Costly(Check):
        name, question, calls, rows = "costly", "?", 10**7, 0

        def __init__(self, least):
            self.least = least

        def look(self, subject):
            seen.append(self.size)
            return Finding("", passed=True)

    for least in (1e-9, 0.5):
        found = pv.check(EXACT.program(), normal(20), checks=[Costly(least)], minutes=0.05)
        assert set(found.left_out) == ({"costly"} if least > 0.1 else set())
    assert len(seen) == 1 and 1e-9 < seen[0] < 0.5


def test_a_question_that_cannot_be_asked_does_not_apply():
    class Never(Check):
        name, question, calls = "never", "?", 0

        def look(self, subject):
            raise DoesNotApply("there is nothing to ask")

    found = pv.check(EXACT.program(), normal(20), checks=[Never()])
    assert found["never"].word == "does not apply" == found["never"].to_dict()["verdict"]
    assert found.of("does not apply") == list(found.verdicts) and not found.of(None)
    assert str(found) == "0 passed, 0 failed, 0 could not tell, 1 does not apply"


def test_a_lower_score_of_training_data_is_called_lower():
    found = verdict(
        "training against test data", EXACT.program(), normal(200), train=3 * normal(200, 1)
    )
    gap = found.numbers["training less test ELBO"]
    assert gap < 0 and f"{-gap:.3g} +- " in found.means and "nats lower than test" in found.means
