"""A test of few data fails a sound program no more often than it says, and sees a wrong one."""

from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import LinearGaussian
from scipy import stats
from test_checks import EXACT, normal, verdict

import pyro_vae as pv
from pyro_vae.checks import Subject, running
from pyro_vae.checks.base import Checked
from pyro_vae.checks.questions import leakage, overfitting
from pyro_vae.checks.questions.predictions import Predictions, _pooled
from pyro_vae.checks.questions.probabilities import _groups, _p_value
from pyro_vae.checks.statistics_by_kind import departures, statistics_of
from pyro_vae.checks.subject import Claims
from pyro_vae.datasets import Dataset
from pyro_vae.diagnostics import two_sample_test
from pyro_vae.validation import InvalidInput

TIMES = 300


def uniform(random, num, entries, dependence):
    """Uniform values (N, D), those of a datum correlated so much before the normal's integral."""
    shared = random.standard_normal((num, 1))
    own = random.standard_normal((num, entries))
    return stats.norm.cdf(dependence**0.5 * shared + (1 - dependence) ** 0.5 * own)


SIZES = [(5, 3), (20, 3), (20, 64), (50, 3), (100, 3), (200, 1)]


@pytest.mark.parametrize("num, entries", SIZES)
@pytest.mark.parametrize("dependence", [0.0, 0.5, 1.0])
def test_values_that_are_uniform_are_found_so(num, entries, dependence):
    random = np.random.default_rng(0)
    found = [_pooled(uniform(random, num, entries, dependence))[1] for _ in range(TIMES)]
    assert np.mean(np.array(found) < 0.01) < 0.01 + 3 * (0.01 * 0.99 / TIMES) ** 0.5


@pytest.mark.parametrize("num, entries", SIZES)
@pytest.mark.parametrize("dependence", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_probabilities_that_hold_are_found_to(num, entries, dependence, rate):
    random, found = np.random.default_rng(0), []
    for _ in range(TIMES):
        p = rate * random.uniform(0.8, 1.2, (num, entries))
        x = (uniform(random, num, entries, dependence) < p).astype(float)
        said, seen, error = _groups(x, p, np.ones_like(x, dtype=bool))
        found.append(_p_value((seen - said) / error, num))
    assert np.mean(np.array(found) < 0.01) < 0.01 + 3 * (0.01 * 0.99 / TIMES) ** 0.5


def test_what_is_wrong_is_seen_all_the_same():
    random = np.random.default_rng(0)
    narrow = stats.norm.cdf(1.3 * random.standard_normal((100, 30)))
    assert _pooled(narrow)[1] < 1e-4
    p = np.full((100, 30), 0.3)
    x = (random.random((100, 30)) < 0.45).astype(float)
    said, seen, error = _groups(x, p, np.ones_like(x, dtype=bool))
    assert _p_value((seen - said) / error, 100) < 1e-4


def test_missing_entries_and_data_without_any_are_left_out():
    u = np.random.default_rng(0).random((60, 4))
    u[::2, 1:] = np.nan
    _, p, _ = _pooled(u)
    _, again, _ = _pooled(np.concatenate([u, np.full((5, 4), np.nan)]))
    assert p == again > 0.01
    assert _pooled(u[:1])[1] == 1.0


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_sound_program_passes_with_twenty_data(seed, float64):
    found = verdict(
        "intervals of entries given the others", EXACT.program(widen=1.02), normal(20, seed)
    )
    assert found.passed is not False and found.p_value > 0.01


SOUND = EXACT.program(widen=1.02)


@pytest.mark.parametrize("count", [1, 2])
def test_what_one_or_two_data_cannot_tell_is_not_told(count, float64):
    found = {
        name: verdict(name, SOUND, EXACT.data(count), train=EXACT.data(200))
        for name in (
            "mutual information",
            "training against test data",
            "draws K of the reported log p(x)",
            "intervals of entries given the others",
        )
    }
    assert all(each.passed is not False for each in found.values())
    for each in found.values():
        assert each.passed is None or "nan" not in each.means, each.means


def test_a_check_that_was_left_out_is_named():
    checked = Checked((), {"q against NUTS": 130.0}, 0.01, 5, 0, "")
    with pytest.raises(InvalidInput, match=r"time did not allow.* raise minutes by 3"):
        checked["q against NUTS"]
    with pytest.raises(InvalidInput, match="name: got 'q against nuts'"):
        checked["q against nuts"]


KINDS = {  # values of the model, and whether they are discrete, and binary
    "rare ones": (lambda random, shape: random.random(shape) < 0.05, True, True),
    "rare counts": (lambda random, shape: random.poisson(0.05, shape), True, False),
    "many steps": (lambda random, shape: random.integers(0, 256, shape) / 255 + 1e-3, False, False),
    "a limit": (lambda random, shape: random.standard_normal(shape).clip(min=1.5), False, False),
    "mostly zero": (
        lambda random, shape: random.standard_normal(shape) * (random.random(shape) < 0.1),
        False,
        False,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num, entries", [(20, 20), (50, 20)])
def test_data_of_the_model_s_own_depart_in_no_statistic(kind, num, entries):
    values, *kinds = KINDS[kind]
    random, times, found = np.random.default_rng(0), 60, 0
    for _ in range(times):
        real = values(random, (num, entries)).astype(float)
        simulated = values(random, (4, num, entries)).astype(float)
        tests = statistics_of(real, simulated, *(np.full(entries, each) for each in kinds))
        found += bool(departures(list(tests), 0.01))
    assert found / times < 0.01 + 3 * (0.01 * 0.99 / times) ** 0.5


def test_what_departs_in_a_rare_statistic_is_seen():
    random = np.random.default_rng(0)
    real = (random.random((100, 3)) < 0.4).astype(float)
    simulated = (random.random((4, 100, 3)) < 0.05).astype(float)
    found = departures(list(statistics_of(real, simulated, *np.full((2, 3), True))), 0.01)
    assert {each.fault(d) for each, d in found} == {"more often so than in the model"}
    rounded = random.standard_normal((100, 2)).round(1)
    own = random.standard_normal((4, 100, 2))
    found = departures(list(statistics_of(rounded, own, *np.full((2, 2), False))), 0.01)
    assert "values rounded or repeated" in {each.fault(d) for each, d in found}


def intervals(pit):
    """The finding of intervals that such values of LOO-PIT (N, D) give."""
    part = SimpleNamespace(pit=torch.as_tensor(pit), name="", x=torch.as_tensor(pit))
    subject = SimpleNamespace(once=lambda _: [part], column=lambda name, i: f"x[{i}]")
    return Predictions().look(subject)


@pytest.mark.parametrize("num", [2, 5, 10, 20])
def test_a_likelihood_that_is_too_wide_is_not_passed_for_want_of_data(num):
    random = np.random.default_rng(num)
    found = intervals(stats.norm.cdf(random.standard_normal((num, 3)) / 3))
    assert not found.clear
    with_many = intervals(stats.norm.cdf(random.standard_normal((200, 3)) / 3))
    assert with_many.matters and with_many.p_value < 1e-4


def test_data_with_nothing_observed_are_covered_by_no_interval_and_missed_by_none():
    u = np.random.default_rng(0).random((100, 4))
    empty = np.full((60, 4), np.nan)
    one, other = intervals(u), intervals(np.concatenate([u, empty]))
    assert one.numbers["covered by 90% intervals"] == other.numbers["covered by 90% intervals"]
    assert one.p_value == other.p_value


def test_scores_with_a_long_tail_are_not_found_to_be_larger():
    random, times = np.random.default_rng(0), 400
    for few, many in ((10, 200), (20, 200)):
        found = 0
        for _ in range(times):
            train, test = (torch.from_numpy(-random.chisquare(1, n) / 2) for n in (few, many))
            found += overfitting._p_value(train, test) < 0.01
        assert found / times < 0.01 + 3 * (0.01 * 0.99 / times) ** 0.5
    train, test = (torch.from_numpy(random.normal(mean, 1, 60)) for mean in (1.5, 0.0))
    assert overfitting._p_value(train, test) < 1e-4


def test_two_test_data_do_not_show_that_nothing_is_learnt_by_heart(float64):
    for num in (2, 3, 5):
        test = 1.4 * normal(num)
        found = verdict("training against test data", EXACT.program(), test, train=normal(200, 1))
        assert found.passed is not True


ROWS = {
    "counts": lambda num: torch.poisson(torch.full((num, 2), 50.0)),
    "large counts": lambda num: torch.poisson(torch.full((num, 2), 200.0)),
    "tenths": lambda num: (170 + 10 * torch.randn(num, 1)).mul(10).round() / 10,
    "standardised counts": lambda num: (torch.poisson(torch.full((num, 2), 200.0)) - 200) / 14,
    "some zeros": lambda num: torch.randn(num, 1) * (torch.rand(num, 1) < 0.93),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("num_train, num_test", [(10, 40), (30, 100), (200, 100)])
def test_rows_that_repeat_by_chance_are_no_leak(kind, num_train, num_test, float64):
    times, found = 60, 0
    for seed in range(times):
        torch.manual_seed(seed)
        train, test = Dataset(ROWS[kind](num_train)), Dataset(ROWS[kind](num_test))
        looked = leakage.Leakage().look(Subject(EXACT.program(), test, train, None, Claims(), seed))
        found += looked.matters and looked.p_value < 0.01
    assert found / times < 0.01 + 3 * (0.01 * 0.99 / times) ** 0.5


def looked_for_leaks(test, train):
    subject = Subject(EXACT.program(), Dataset(test), Dataset(train), None, Claims(), 0)
    return leakage.Leakage().look(subject)


def test_pairs_of_equal_numbers_in_a_sole_column_are_no_leak(float64):
    """Of a pair of training rows both are twins: their share varies more than if one were."""
    found = []
    for seed in range(60):
        torch.manual_seed(1000 + seed)
        test, train = (torch.randint(0, 10_000, (num, 1)).double() for num in (300, 700))
        looked = looked_for_leaks(test, train)
        found.append(looked.p_value if looked.matters else 1.0)
    assert np.mean(np.array(found) < 0.05) < 0.05 and min(found) > 1e-3
    copied = torch.cat([test[:240], train[:60]])
    assert looked_for_leaks(copied, train).p_value < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_copies_with_noise_are_a_leak_in_any_unit(scale, share, float64):
    truth, num = LinearGaussian(2, 5, noise=0.6), 400
    train, test = truth.data(600 + num).split([600, num])
    assert not looked_for_leaks(scale * test, scale * train).matters
    count = round(share * num)
    torch.manual_seed(0)
    noisy = train[:count] + 0.05 * torch.randn(count, 5)
    looked = looked_for_leaks(scale * torch.cat([noisy, test[count:]]), scale * train)
    assert looked.matters and looked.p_value < 1e-4


def test_data_that_lie_closer_together_than_the_training_data_are_no_leak(float64):
    train, test = normal(600), normal(400, 1)
    for like in (0.1 * test, 0.5 * test + 1, 2 * test):
        looked = looked_for_leaks(like, train)
        assert not (looked.matters and looked.p_value < 0.05)


def test_a_row_that_cannot_repeat_by_chance_is_a_leak(float64):
    for rows in (torch.randn(160, 3), torch.poisson(1e6 * torch.rand(160, 3))):
        train, test = rows[:100], rows[98:]
        subject = Subject(EXACT.program(), Dataset(test), Dataset(train), None, Claims(), 0)
        looked = leakage.Leakage().look(subject)
        assert looked.matters and looked.p_value < 1e-4


def test_a_latent_that_is_not_used_does_not_pass_on_few_data(float64):
    collapsed = LinearGaussian(8, 5)
    collapsed.weight *= 0
    collapsed.gain, collapsed.covariance = torch.zeros(8, 5), torch.eye(8)
    for num in (5, 10, 20, 50):
        found = verdict("active units", collapsed.program(), collapsed.data(num))
        assert found.passed is not True
    assert verdict("active units", collapsed.program(), collapsed.data(100)).passed is False
    for seed in range(10):
        assert verdict("active units", SOUND, normal(2, seed)).passed is not False
        assert verdict("mutual information", SOUND, normal(3, seed)).passed is not False
    assert verdict("active units", SOUND, normal(20)).passed


@pytest.mark.parametrize("scale", [0.05, 1.0, 100.0])
def test_whether_a_latent_is_used_does_not_depend_on_its_unit(scale, float64):
    def program(slope):
        def model(data):
            with pyro.plate("data", len(data)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), scale).to_event(1))
                location = (slope * z / scale).expand(*z.shape[:-1], 4)
                pyro.sample("x", dist.Normal(location, 1.0).to_event(1), obs=data)

        def guide(data):
            precision = 1 + 4 * slope**2
            mean = scale * slope * data.sum(-1, keepdim=True) / precision
            with pyro.plate("data", len(data)):
                pyro.sample("z", dist.Normal(mean, scale * precision**-0.5).to_event(1))

        return pv.Program(model, guide)

    for seed in range(5):
        torch.manual_seed(seed)
        x = 2 * torch.randn(8, 1) + torch.randn(8, 4)
        assert verdict("active units", program(2.0), x).passed is True
        assert verdict("active units", program(0.0), torch.randn(100, 4)).passed is False


def test_a_gap_of_which_only_the_least_is_known_does_not_pass(float64):
    narrow = LinearGaussian(12, 12, noise=0.02)
    found = verdict("inference gap", narrow.program(mean_field=True), narrow.data(50))
    assert found.passed is not True and found.numbers["share whose gap may be larger"] > 0.5


def test_a_context_that_both_share_does_not_blind_the_classifier():
    random = np.random.default_rng(0)
    context = random.standard_normal((500, 30))
    a, b = (np.concatenate([random.standard_normal((500, 2)), context], axis=1) for _ in "ab")
    same = two_sample_test(a, b, paired=True)
    assert abs(same.z_score) < 3
    a[:, :2] += 0.8
    assert two_sample_test(a, b, paired=True).z_score > 3 + two_sample_test(a, b).z_score
    with pytest.raises(InvalidInput, match="b: got 499 draws beside 500"):
        two_sample_test(a, b[1:], paired=True)


def test_a_column_with_few_observed_values_cannot_be_told_of(float64):
    x = normal(300)
    x[:, 0] += 1
    x[5:, 0] = torch.nan
    network = pv.networks.MLP
    torch.manual_seed(0)
    likelihood = pv.likelihoods.Missing(pv.likelihoods.Normal(4, network(2, [])))
    posterior = pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(4, network(8, [8])))
    vae = pv.VAE(pv.priors.StandardNormal(2), likelihood, posterior)
    data = Dataset(x, missing=True)
    pv.fit(vae, Dataset(normal(300, 1)), epochs=60, learning_rate=0.02, progress=False)
    found = verdict("statistics of the data", vae, data)
    assert found.passed is not True and found.numbers["of the column with the fewest"] == 5


def test_a_moment_of_another_process_does_not_make_a_program_slow_on_one_datum(
    monkeypatch, float64
):
    """A run of one datum is so short that what delays it would count for all of its draws."""
    now, runs = [0.0], []

    def evaluate(program, data, draws, **_):
        runs.append(len(data) * draws)
        delay = 0.05 if len(runs) > 3 and len(runs) % 2 else 0.0
        now[0] += 0.01 + 1e-6 * len(data) * draws + delay

    monkeypatch.setattr(running, "evaluate", evaluate)
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    for num in (1, 3, 200):
        runs.clear()
        speed = running._Speed.of(Subject(EXACT.program(), Dataset(normal(num))))
        assert 0.5e-6 < speed.row < 5e-6 and speed.call == pytest.approx(0.001, rel=0.1)
        assert max(runs) > max(200 * num, 20_000) - num


def test_what_is_too_few_for_a_classifier_is_said(float64):
    for name in ("data against generated data", "aggregate posterior against the prior"):
        found = verdict(name, SOUND, normal(5))
        assert found.passed is None
        assert found.means == "5 data are too few to fit a classifier to"
        assert found.change == "Check on 10 data or more."


class Labelled:
    """x ~ N(label, 1), whose label the model knows."""

    def model(self, x, label):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            loc = (label + 0 * z).unsqueeze(-1).expand(*z.shape, 2)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x, label):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


def test_few_data_of_a_label_cannot_tell_whether_they_go_with_it(float64):
    torch.manual_seed(0)
    pair = Labelled()
    program = pv.Program(pair.model, pair.guide, event_shape=(2,))

    def words(num):
        label = torch.arange(2).repeat(num)
        x = torch.randn(2 * num, 2) + label.unsqueeze(-1)
        return verdict("data given the context", program, (x, label)).word

    assert words(15) == "could not tell"
    assert words(400) == "passed"
