"""A test of few data fails a sound program no more often than it says, and sees a wrong one."""

import numpy as np
import pytest
import torch
from scipy import stats
from test_checks import EXACT, verdict

from pyro_vae.checks.base import Checked
from pyro_vae.checks.questions.predictions import _pooled
from pyro_vae.checks.questions.probabilities import _groups, _p_value
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
    _, p = _pooled(u)
    _, again = _pooled(np.concatenate([u, np.full((5, 4), np.nan)]))
    assert p == again > 0.01
    assert _pooled(u[:1])[1] == 1.0


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_sound_program_passes_with_twenty_data(seed, float64):
    torch.manual_seed(seed)
    found = verdict(
        "intervals of entries given the others", EXACT.program(widen=1.02), EXACT.data(20)
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
        assert each.passed or each.change or "single" in each.means


def test_a_check_that_was_left_out_is_named():
    checked = Checked((), {"q against NUTS": 130.0}, 0.01, 5, 0, "")
    with pytest.raises(InvalidInput, match=r"time did not allow.* raise minutes by 3"):
        checked["q against NUTS"]
    with pytest.raises(InvalidInput, match="name: got 'q against nuts'"):
        checked["q against nuts"]
