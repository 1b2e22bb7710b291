import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import Hierarchy, LinearGaussian
from scipy import stats

import pyro_vae as pv
from pyro_vae.diagnostics.calibration import Calibration, calibrate
from pyro_vae.runtime.blocks import BLOCK_BYTES, Blocks
from pyro_vae.runtime.memory import Cost
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


def test_the_exact_posterior_is_calibrated():
    result = calibrate(LinearGaussian(3, features=5).program(), 1000, 49)
    assert result.ranks.shape == (1000, 3) and result.ranks.min() >= 0 and result.ranks.max() <= 49
    assert result.names == ["z[0]", "z[1]", "z[2]"]
    assert result.test_uniform().smallest > 0.05
    levels, central, highest = result.coverage()
    assert ((central - levels[:, None]).abs() < 0.06).all() and (
        (highest - levels).abs() < 0.06
    ).all()


@pytest.mark.parametrize("widen, sign", [(0.6, -1), (1.6, 1)])
def test_a_guide_too_narrow_covers_too_seldom_and_a_wide_one_too_often(widen, sign):
    result = calibrate(LinearGaussian(3, features=5).program(widen=widen), 500, 49)
    assert result.test_uniform().smallest < 1e-6
    levels, central, highest = result.coverage(torch.tensor([0.5, 0.8]))
    assert (sign * (central - levels[:, None]) > 0.05).all() and (
        sign * (highest - levels) > 0.1
    ).all()
    # in closed form: the central half of a normal of another scale, discretised by 50 ranks
    truth = (
        2 * dist.Normal(0.0, 1.0).cdf(widen * dist.Normal(0.0, 1.0).icdf((1 + levels[0]) / 2)) - 1
    )
    assert ((central[0] - truth).abs() < 0.09).all()


def test_a_shifted_guide_gives_ranks_with_a_slope():
    result = calibrate(LinearGaussian(2, features=4).program(shift=1.0), 500, 49)
    assert result.test_uniform().smallest < 1e-6 and result.ranks.double().mean() < 20


def test_a_hierarchy_with_labels_and_its_misfit_level():
    y = torch.arange(600) % 3
    good = calibrate(Hierarchy(labels=3).program(), context=y, num_samples=49)
    assert (
        good.names == ["z2[0]", "z2[1]", "z1[0]", "z1[1]", "z1[2]"]
        and good.test_uniform().smallest > 0.05
    )
    top = calibrate(
        Hierarchy(labels=3, narrow_top=0.4).program(), context=y, num_samples=49
    ).test_uniform()
    assert (top.p_value[:2] < 1e-6).all()


def test_discrete_latents_rank_fairly():
    probabilities = torch.tensor([[0.9, 0.1, 0.2], [0.2, 0.8, 0.5]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Bernoulli(probabilities[z.long()]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            terms = (
                dist.Bernoulli(probabilities).log_prob(x[:, None]).sum(-1)
                + torch.tensor([0.7, 0.3]).log()
            )
            pyro.sample("z", dist.Bernoulli(logits=terms[:, 1] - terms[:, 0]))

    result = calibrate(pv.Program(model, guide, event_shape=3), 1000, 19)
    assert result.test_uniform().smallest > 0.05


def test_chunks_cover_all_data_and_the_test_is_scipys(monkeypatch):
    monkeypatch.setattr(Cost, "of", lambda run: Cost(per_datum=0, per_draw=1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 60)
    result = calibrate(LinearGaussian(2, features=3).program(), 200, 19)
    assert result.ranks.shape == (200, 2) and result.test_uniform().smallest > 0.01
    counts = torch.bincount(result.ranks[:, 0] // 2, minlength=10).numpy()
    theirs = stats.chisquare(counts)
    ours = result.test_uniform(bins=10)
    assert ours.statistic[0].item() == pytest.approx(theirs.statistic)
    assert ours.p_value[0].item() == pytest.approx(theirs.pvalue)


def test_draws_in_parts_are_scored_by_the_density_that_drew_them(float64, monkeypatch):
    """The guide draws numbers of its own after a site, so their shape has the number of draws."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x[:, 0] / 2, 0.7))
            pyro.sample("b", dist.Normal(torch.randn(a.shape), 1e-3))

    in_parts = staticmethod(lambda *_: Blocks(20, (5, 4)))
    monkeypatch.setattr(Blocks, "of", in_parts)
    found = calibrate(pv.Program(model, guide, event_shape=1), 20, 9)
    # The truth is far out under numbers that it was not drawn from, each draw near its middle.
    assert (found.density_ranks >= 9).all()


def test_coverage_of_uniform_ranks_is_exact():
    ranks = torch.arange(20)[:, None]
    levels, central, highest = Calibration(ranks, ranks[:, 0], ["z[0]"], 19, seed=0).coverage(
        torch.tensor([0.1, 0.5, 0.93])
    )
    assert levels.tolist() == [0.1, 0.5, 0.95]
    torch.testing.assert_close(central[:, 0], levels)
    torch.testing.assert_close(highest, levels)


def test_counts_are_checked():
    program = LinearGaussian(2, features=3).program()
    for options in ({"num_data": 0}, {"num_samples": 0}):
        with pytest.raises(InvalidInput):
            calibrate(program, **options)
    with pytest.raises(InvalidInput, match="bins"):
        calibrate(program, 10, 9).test_uniform(bins=1)
