"""Differences over seeds: against closed forms, and how often many of them mislead by chance."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_vae.evaluation.difference import compare
from pyro_vae.evaluation.over_seeds import against_best, best_over_seeds, compare_over_seeds, holm
from pyro_vae.evaluation.scores import Score
from pyro_vae.validation import InvalidInput


def scores(values):
    """Scores of each seed, from values (S, N)."""
    return {
        seed: Score(torch.as_tensor(row), torch.zeros(len(row)), 100, sha256="data")
        for seed, row in enumerate(values)
    }


def test_of_one_seed_it_is_the_paired_difference_and_tells_nothing_of_other_seeds():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 40))
    found, alone = compare_over_seeds(scores(a), scores(b)), compare(scores(a)[0], scores(b)[0])
    assert (found.mean, found.se) == pytest.approx((alone.mean, alone.se))
    assert math.isnan(found.se_seeds) and math.isnan(found.p_value)


def test_of_seeds_that_are_alike_it_is_student_over_data():
    a, b = np.random.default_rng(0).normal(size=(2, 40))
    found = compare_over_seeds(scores([a, a, a]), scores([b, b, b]))
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_of_data_that_are_alike_it_is_student_over_seeds():
    runs = np.random.default_rng(0).normal(size=(2, 5, 1))
    a, b = np.broadcast_to(runs, (2, 5, 30))
    found = compare_over_seeds(scores(a.copy()), scores(b.copy()))
    expected = stats.ttest_rel(runs[0, :, 0], runs[1, :, 0])
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.se_data == pytest.approx(0, abs=1e-12)


def test_the_same_scores_do_not_differ_and_a_shift_without_spread_surely_does():
    a = np.random.default_rng(0).normal(size=(2, 9))
    assert compare_over_seeds(scores(a), scores(a)).p_value == 1
    zeros = np.zeros((2, 9))
    assert compare_over_seeds(scores(zeros + 1), scores(zeros)).p_value == 0


def test_only_seeds_of_both_are_paired():
    a = scores(np.random.default_rng(0).normal(size=(3, 9)))
    assert compare_over_seeds(a, {1: a[1], 2: a[2]}).num_seeds == 2
    with pytest.raises(InvalidInput, match="share none"):
        compare_over_seeds({0: a[0]}, {1: a[1]})


def test_holm_is_between_nothing_and_bonferroni_and_keeps_the_order():
    p = np.random.default_rng(0).uniform(size=20) ** 3
    adjusted = np.array(holm(list(p)))
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, 20 * p)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert adjusted.min() == pytest.approx(20 * p.min())
    assert holm([0.5, math.nan]) == pytest.approx([0.5, math.nan], nan_ok=True)


def simulated(generator, effect=0.0, models=5, seeds=3, data=60):
    """Scores of models that differ by chance alone, but the first."""
    own = generator.normal(size=(models, seeds, data))
    runs = 0.3 * generator.normal(size=(models, seeds, 1))
    taste = 0.5 * generator.normal(size=(models, 1, data))
    found = own + runs + taste
    found[0] += effect
    return {str(model): scores(values) for model, values in enumerate(found)}


@pytest.mark.parametrize(("models", "seeds"), [(2, 2), (6, 2), (6, 3), (5, 5)])
def test_of_equal_models_the_best_is_rarely_told_from_another(models, seeds):
    generator = np.random.default_rng(1)
    wrong, inside = 0, 0
    for _ in range(200):
        equal = simulated(generator, models=models, seeds=seeds)
        _, found = against_best(equal)
        wrong += any(each.adjusted < 0.05 for each in found.values())
        one = compare_over_seeds(equal["0"], equal["1"])
        inside += abs(one.mean) < 1.96 * one.se
    chance = 2 * math.sqrt(0.05 * 0.95 / 200)
    assert wrong / 200 <= 0.05 + chance and inside / 200 >= 0.95 - chance


def test_two_seeds_that_agree_by_chance_are_no_proof():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(2, 1000)) * 0.8 + 0.25
    own -= own.mean(1, keepdims=True) - np.array([[0.23], [0.27]])
    found = compare_over_seeds(scores(own), scores(np.zeros((2, 1000))))
    assert found.se_seeds == pytest.approx(0.02) and found.mean == pytest.approx(0.25)
    assert 0.05 < found.p_value < stats.t.sf(0.25 / 0.02, 1) * 3


@pytest.mark.parametrize("p", [1e-60, 1e-6, 0.03, 0.4, 0.99])
def test_the_p_value_is_where_the_interval_ends(p):
    rng = np.random.default_rng(0)
    d = rng.normal(size=(4, 1)) + rng.normal(size=(4, 50))
    found = compare_over_seeds(scores(d), scores(0 * d))
    ends = math.hypot(
        stats.t.isf(p / 2, 49) * found.se_data, stats.t.isf(p / 2, 3) * found.se_seeds
    )
    moved = compare_over_seeds(scores(d - d.mean() + ends), scores(0 * d))
    assert moved.p_value == pytest.approx(p, rel=1e-6)


def test_a_model_that_is_better_is_found_and_all_others_are_told_from_it():
    best, found = against_best(simulated(np.random.default_rng(2), effect=3.0, seeds=5))
    assert best == "0" and len(found) == 4
    assert all(each.mean < 0 and each.adjusted < 0.05 for each in found.values())


def test_differences_from_a_reference_need_less_correction():
    models = simulated(np.random.default_rng(3), effect=1.0)
    best, all_pairs = against_best(models)
    _, of_one = against_best(models, best)
    assert all(of_one[name].adjusted <= each.adjusted for name, each in all_pairs.items())
    assert of_one["1"].mean == all_pairs["1"].mean


def test_models_without_a_common_seed_have_no_difference():
    models = simulated(np.random.default_rng(4), seeds=3)
    some = {
        "0": {seed: models["0"][seed] for seed in (0, 1)},
        "1": {seed: models["1"][seed] for seed in (0, 1)},
        "2": {2: models["2"][2]},
    }
    best, found = against_best(some)
    assert {best, *found} == {"0", "1"}
    assert against_best({"1": some["1"], "2": some["2"]}) == ("1", {})


def scores_by_seed(values):
    """Scores of two data that are alike, from a value for each seed."""
    return {
        seed: Score(torch.full((2,), value), torch.zeros(2), 100, sha256="data")
        for seed, value in values.items()
    }


def test_a_model_that_lost_a_seed_is_not_the_best_by_the_seeds_that_are_left():
    """The best of unpaired means would be A, which is worse by 0.5 over the seed of both."""
    values = {"A": {1: -1.0}, "B": {0: -10.0, 1: -0.5}}
    best, found = against_best(
        {name: scores_by_seed(own) for name, own in values.items()},
    )
    assert best == "B" and found["A"].mean == pytest.approx(-0.5) and found["A"].num_seeds == 1


def test_of_models_that_lack_a_seed_each_the_best_is_better_over_those_that_two_share():
    """The first seed is a hard one, which C lost: by its mean alone C would be the best."""
    values = {
        "A": {0: -10.0, 1: -1.0},
        "B": {0: -11.0, 1: -2.0},
        "C": {1: -1.5, 2: -1.0},
        "D": {2: 0.0},
    }
    assert best_over_seeds(values) == "A"
    best, found = against_best({name: scores_by_seed(own) for name, own in values.items()})
    assert best == "A" and set(found) == {"B", "C"}
    assert all(each.mean < 0 for each in found.values())


def test_where_no_model_lacks_a_seed_the_best_has_the_highest_mean():
    generator = np.random.default_rng(5)
    for seeds in (1, 4):
        values = {name: dict(enumerate(generator.normal(size=seeds))) for name in "ABCDE"}
        assert best_over_seeds(values) == max(values, key=lambda a: sum(values[a].values()))
