"""Each check passes a program whose posterior and data are known, and fails a planted fault."""

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian
from scipy import stats

import pyro_vae as pv
from pyro_vae.checks import Check, Claims, Finding, Scored, Subject, all_checks, running
from pyro_vae.checks.base import judged
from pyro_vae.checks.questions.statistics import bins_of, grid_of
from pyro_vae.checks.statistics_by_kind import statistics_of
from pyro_vae.checks.uniformity import uniform_test
from pyro_vae.datasets import Dataset, as_dataset
from pyro_vae.evaluation.over_seeds import holm

pytestmark = pytest.mark.usefixtures("float64")

EXACT = LinearGaussian(2, 4)


def named(name):
    return next(each for each in all_checks() if each.name == name)


def verdict(name, program, data, **options):
    found = pv.check(program, data, checks=[named(name)], minutes=1000, **options)
    return found.verdicts[0]


def normal(num, seed=0):
    """Data of the exact model."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num, 2, generator=generator)
    noise = torch.randn(num, 4, generator=generator)
    return z @ EXACT.weight.T + EXACT.mean + EXACT.noise * noise


def test_holm_is_that_of_an_independent_library():
    p = np.random.default_rng(0).random(9) ** 3
    order = np.argsort(p)
    stepped = np.maximum.accumulate((9 - np.arange(9)) * p[order]).clip(max=1)
    np.testing.assert_allclose(np.array(holm(p))[order], stepped)


def test_the_band_holds_as_often_as_it_says():
    random = np.random.default_rng(0)
    p = uniform_test(random.random((40, 1000))).p_value
    for level in (0.01, 0.1, 0.5):  # the count of any event is discrete, so the test is below it
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 1000)
    assert (p <= 0.1).mean() > 0.07
    assert uniform_test(random.beta(1.6, 1.0, (500, 1))).p_value[0] < 1e-4
    ranks = (random.integers(0, 100, (200, 300)) + random.random((200, 300))) / 100
    assert (uniform_test(ranks).p_value < 0.05).mean() < 0.09


def test_verdicts_are_corrected_for_their_number():
    class Small(Check):
        name, question = "small", "?"

        def look(self, subject):
            return Finding("")

    found = [(Small(), Finding("", p_value=0.004, faults=["a"]), 0.0)] * 3
    assert all(each.passed for each in judged(found, 0.01))
    assert judged(found, 0.02)[0].faults == ("a",)
    harmless = [(Small(), Finding("", p_value=1e-9, matters=False), 0.0)]
    assert judged(harmless, 0.01)[0].passed is True


def test_a_check_that_breaks_takes_no_other_with_it():
    class Broken(Check):
        name, question = "broken", "?"

        def look(self, subject):
            raise TypeError("no such\ntype")

    found = pv.check(EXACT.program(), normal(20), checks=[Broken(), named("active units")])
    assert found["broken"].passed is None and found["active units"].passed
    assert found["broken"].means == "This check cannot be made here: no such type"


@pytest.mark.parametrize(
    ("change", "fault"),
    [({}, None), ({"widen": 0.6}, "q is too narrow"), ({"widen": 1.8}, "q is too wide"),
     ({"shift": 0.6}, "q is shifted")],
)  # fmt: skip
def test_ranks(change, fault):
    found = verdict("ranks of simulated latents", EXACT.program(**change), normal(300))
    assert found.passed is (fault is None)
    assert fault is None or found.faults == (fault,)


def test_coverage_is_that_of_the_normal():
    name = "coverage of regions of q"
    assert verdict(name, EXACT.program(), normal(300)).passed
    found = verdict(name, EXACT.program(widen=0.6), normal(300))
    expected = stats.chi2.cdf(0.6**2 * stats.chi2.ppf(0.9, 2), 2)
    assert not found.passed and abs(found.numbers["covered by regions of 90%"] - expected) < 0.09


def test_weights():
    name = "Pareto k of the importance weights"
    assert verdict(name, EXACT.program(), normal(40)).passed
    narrow = verdict(name, EXACT.program(widen=0.45), normal(40))
    assert narrow.passed is None and "lower bound" in narrow.means
    assert narrow.change.index("--proposal Widened,") < narrow.change.index("Refitted")
    few = verdict(name, EXACT.program(), normal(40), claims=Claims(num_samples=10))
    assert few.passed is None


def test_statistics():
    name = "statistics of the data"
    assert verdict(name, EXACT.program(), normal(300)).passed
    heavy = normal(300) + 3 * (torch.rand(300, 4) < 0.03) * torch.randn(300, 4).sign() * 4
    assert "heavier tails than in the model" in verdict(name, EXACT.program(), heavy).faults
    rounded = verdict(name, EXACT.program(), normal(300).round()).faults
    assert "values rounded or repeated" in rounded
    censored = verdict(name, EXACT.program(), normal(300).clamp(max=EXACT.mean + 1.0)).faults
    assert "values heaped at a limit, as censored ones" in censored


def test_statistics_of_counts():
    random = np.random.default_rng(0)
    kinds = np.array([True]), np.array([False])
    made = random.poisson(3.0, (4, 400, 1)).astype(float)

    def faults(real):
        found = statistics_of(real, made, *kinds)
        return {each.fault(0) for each in found if each.p_value[0] < 1e-4}

    assert not faults(random.poisson(3.0, (400, 1)).astype(float))
    spread = random.negative_binomial(2, 0.4, (400, 1)).astype(float)
    assert "counts more dispersed than in the model" in faults(spread)
    zeros = random.poisson(3.0, (400, 1)) * (random.random((400, 1)) < 0.7)
    assert "more zeros than in the model" in faults(zeros.astype(float))


def test_active_units_tell_a_collapse_from_an_encoder_that_ignores_x():
    name = "active units"
    assert verdict(name, EXACT.program(), normal(100)).passed
    blind = EXACT.program()
    with torch.no_grad():
        blind.posterior.exact = LinearGaussian(2, 4)
        blind.posterior.exact.gain = 0 * EXACT.gain
    assert verdict(name, blind, normal(100)).faults == ("q ignores x",)
    blind.likelihood.head.layer.weight.data.zero_()
    assert verdict(name, blind, normal(100)).faults == ("the latent has collapsed",)


def rows(curve, validation=None):
    others = [None] * len(curve) if validation is None else validation
    return [{"objective": x, "validation_elbo": y} for x, y in zip(curve, others)]


def test_convergence():
    name, epochs = "slope of the last epochs", np.arange(40)
    noise = 0.05 * np.random.default_rng(0).normal(size=40)
    flat = rows(-100 - 20 * np.exp(-epochs / 3) + noise)
    assert verdict(name, EXACT.program(), normal(40), history=flat).passed
    rising = verdict(name, EXACT.program(), normal(40), history=rows(-100 + 0.5 * epochs + noise))
    assert rising.faults == ("under-trained",)
    assert abs(rising.numbers["nats gained over them"] - 6.5) < 0.5
    assert verdict(name, EXACT.program(), normal(40)).passed is None
    slow = verdict(name, EXACT.program(), normal(40), history=rows(-100 + 0.001 * epochs))
    assert slow.passed and slow.means.endswith("is little")
    by_heart = rows(-100 + 0.5 * epochs + noise, validation=-100 - 20 * np.exp(-epochs / 3) + noise)
    found = verdict(name, EXACT.program(), normal(40), history=by_heart)
    assert found.passed and "validation ELBO" in found.means


def test_leakage():
    name, train, test = "test data among the training data", normal(300), normal(100, 1)
    assert verdict(name, EXACT.program(), test, train=train).passed
    leaked = torch.cat([test[:95], train[:5]])
    found = verdict(name, EXACT.program(), leaked, train=train)
    assert found.faults == ("test data leaked into the training data",)
    assert found.numbers["of them among the training data"] == 5
    assert verdict(name, EXACT.program(), test).passed is None


@pytest.mark.parametrize("entries", [4, 100])
def test_copies_with_fewer_digits_are_a_leak(entries):
    name, many = "test data among the training data", normal(400)[:, torch.arange(entries) % 4]
    many = many + 0.5 * torch.randn(many.shape)
    train, test = many[:300], many[300:]
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Normal(entries, pv.networks.MLP(1, [])),
        pv.posteriors.DiagonalNormal(1, pv.networks.MLP(entries, [])),
    )
    assert verdict(name, program, test, train=train).passed
    copies = torch.cat([test[:90], (train[:10] * 1000).round() / 1000])
    found = verdict(name, program, copies, train=train)
    assert found.faults == ("test data leaked into the training data",)
    assert found.numbers["of them among the training data"] == 0
    assert found.numbers["test data right beside a training datum"] == 10


def test_rows_that_repeat_by_chance_are_no_leak():
    model = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Bernoulli(3, pv.networks.MLP(1, [])),
        pv.posteriors.DiagonalNormal(1, pv.networks.MLP(3, [])),
    )
    train, test = torch.rand(200, 3).round(), torch.rand(100, 3).round()
    assert verdict("test data among the training data", model, test, train=train).passed


def test_overfitting():
    name = "training against test data"
    assert verdict(name, EXACT.program(), normal(200, 1), train=normal(200)).passed
    found = verdict(name, EXACT.program(), normal(200, 1), train=EXACT.mean + normal(200) * 0.1)
    assert found.faults == ("over-trained",)


def test_a_program_that_learns_by_heart_is_not_told_to_train_longer():
    """Both checks may fail; their advice is one."""
    names = ("slope of the last epochs", "training against test data")
    few = [each for each in all_checks() if each.name in names]
    epochs = np.arange(40)
    noise = 0.05 * np.random.default_rng(0).normal(size=40)
    by_heart = {"train": EXACT.mean + normal(200) * 0.1, "checks": few, "minutes": 1}
    rising = rows(-100 + 0.5 * epochs + noise)
    found = pv.check(EXACT.program(), normal(200, 1), history=rising, **by_heart)
    assert found.faults == ["over-trained"] and len(found.of(False)) == 2
    slope, gap = (found[name] for name in names)
    assert slope.change == gap.change and "learns by heart" in slope.means
    validated = rows(-100 + 0.5 * epochs + noise, validation=-100 + 0.5 * epochs + noise)
    both = pv.check(EXACT.program(), normal(200, 1), history=validated, **by_heart)
    assert sorted(both.faults) == ["over-trained", "under-trained"]
    assert "stop where the validation ELBO ends to" in both[names[0]].change
    alone = pv.check(
        EXACT.program(), normal(200, 1), history=rising, train=normal(200), checks=few, minutes=1
    )
    assert alone.faults == ["under-trained"]


def test_bins_follow_the_levels_of_a_grid():
    """A histogram of values on a grid has no comb: each bin holds as many levels."""
    draws = np.random.default_rng(0)
    for step, least, levels in ((1 / 16, 0.0, 17), (0.1, 3.03, 90), (2.5, -7.0, 31)):
        values = least + step * draws.integers(0, levels, 4000)
        bins = bins_of(values, grid_of(values))
        held = np.histogram(least + step * np.arange(levels), bins)[0]
        assert set(held[1:-1]) == {-(-levels // 30)} and len(bins) < 35
    smooth = draws.normal(size=500)
    assert len(bins_of(smooth, grid_of(smooth))) == 31


def test_binarisation():
    name = "binarisation and identity of the data"
    grey = torch.rand(150, 1, 8, 8)
    model = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(1, [])),
        pv.posteriors.DiagonalNormal(1, pv.networks.MLP((1, 8, 8), [])),
    )
    drawn = Dataset(grey, binarize="dynamic")
    assert verdict(name, model, drawn, claims=Claims("dynamic", drawn.sha256)).passed
    threshold = Dataset((grey > 0.5).double())
    found = verdict(name, model, threshold, claims=Claims("dynamic", drawn.sha256))
    assert found.faults == ("wrong binarisation", "not the data of the run")
    assert verdict(name, model, drawn).passed is None


def test_the_data_that_were_scored():
    """A score of training data, or of other data, is named, whatever the data looked at are."""
    name, test = "binarisation and identity of the data", Dataset(normal(60), name="a")
    train = Dataset(normal(80, 1), name="a", split="train")

    def found(scored, whole=test):
        claims = Claims(sha256=test.sha256, scored=scored, whole=whole)
        return verdict(name, EXACT.program(), test, train=train, claims=claims)

    assert found(Scored(test.sha256, 60)).passed
    few = found(Scored(test[:20].sha256, 20))
    assert few.passed and few.means.endswith("the score is of the first 20 of 60")
    assert found(Scored(test.sha256, 60), whole=None).passed
    for learnt in (
        Scored(train.sha256, 80),
        Scored(train[:9].sha256, 9),
        Scored("", 140, "a", "all"),
    ):
        seen = found(learnt)
        assert seen.faults == ("the score is of training data",) and "--split test" in seen.change
    for other in (Scored("0" * 64, 60, "a"), Scored("0" * 64, 60, "b", "train")):
        seen = found(other)
        assert seen.faults == ("the score is of other data",) and other.name in seen.means


def test_draws():
    name = "draws K of the reported log p(x)"
    assert verdict(name, EXACT.program(), normal(50), claims=Claims(num_samples=5)).passed
    found = verdict(name, EXACT.program(widen=2.0), normal(50), claims=Claims(num_samples=2))
    assert found.faults == ("K is too small",)


def test_aggregate():
    name = "aggregate posterior against the prior"
    assert verdict(name, EXACT.program(), normal(300)).passed
    moved = normal(300) + (torch.ones(2) @ EXACT.weight.T)
    assert not verdict(name, EXACT.program(), moved).passed


def test_a_check_of_another_kind_of_program_is_not_left_out_for_want_of_time():
    names = ("leave-one-out with global latents", "inference gap")
    few = [each for each in all_checks() if each.name in names]
    found = pv.check(EXACT.program(), EXACT.data(20), checks=few, minutes=1e-9)
    assert [verdict.name for verdict in found.verdicts] == [names[0]]
    assert found.verdicts[0].passed is None and set(found.left_out) == {names[1]}


@pytest.mark.parametrize("call, row", [(0.001, 1e-6), (0.05, 1e-3), (0.4, 0.02), (1.0, 5.0)])
def test_the_speed_of_a_slow_program_is_measured_in_little_time(monkeypatch, call, row):
    now = 0.0

    def scored(program, data, num_samples, **options):
        nonlocal now
        now += call + row * len(data) * num_samples

    monkeypatch.setattr(running, "evaluate", scored)
    monkeypatch.setattr(running.time, "monotonic", lambda: now)
    speed = running._Speed.of(Subject(EXACT.program(), as_dataset(normal(500))))
    assert speed.row == pytest.approx(row, rel=1e-3)
    assert speed.call == pytest.approx((call + row) / 10)
    assert now < 4 * (call + row) + running.GROWTH**2 * running.BRIEF


def test_what_is_loaded_once_is_no_part_of_the_speed(monkeypatch):
    now, loads = 0.0, [1.0, 3.0]  # at the first run, and at the first of more draws

    def scored(program, data, num_samples, **options):
        nonlocal now
        if loads and (num_samples > 1 or len(loads) == 2):
            now += loads.pop(0)
        now += 0.001 + 1e-6 * len(data) * num_samples

    monkeypatch.setattr(running, "evaluate", scored)
    monkeypatch.setattr(running.time, "monotonic", lambda: now)
    speed = running._Speed.of(Subject(EXACT.program(), as_dataset(normal(2))))
    assert speed.row == pytest.approx(1e-6, rel=1e-3)
    assert speed.call == pytest.approx(0.0001, rel=0.01)


@pytest.mark.parametrize("minutes, runs", [(1e9, 1), (1.0, 8), (0.1, 12)])
def test_the_speed_is_measured_only_until_all_checks_fit(monkeypatch, minutes, runs):
    class Long(Check):
        name, question = "long", "?"
        calls, rows = 10, 1_000_000

        def look(self, subject):
            return Finding("it was made", numbers={"part": self.size})

    scored = []

    def evaluate(program, data, num_samples, **options):
        scored.append(len(data) * num_samples)
        now[0] += 0.01 + 1e-6 * scored[-1]

    now = [0.0]
    monkeypatch.setattr(running, "evaluate", evaluate)
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    found = pv.check(EXACT.program(), normal(50), checks=[Long(), Long()], minutes=minutes)
    assert len(scored) == runs and found.left_out == {}
    assert [each.numbers["part"] for each in found.verdicts] == [1.0, 1.0]
