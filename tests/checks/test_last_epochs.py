"""Convergence is judged beside the spread of a datum's score, and by the learning rate."""

import numpy as np
import pytest
import torch
from test_checks import EXACT, normal, verdict

import pyro_vae as pv
from pyro_vae.training import History
from pyro_vae.training.convergence import fall_of, slope_of, still_to_gain

pytestmark = pytest.mark.usefixtures("float64")

NAME = "slope of the last epochs"
EPOCHS = np.arange(60)


def rows(curve, rates=None, validated=True, steps=100):
    return [
        {
            "epoch": i + 1,
            "step": steps * (i + 1),
            "objective": value,
            "validation_elbo": value if validated else None,
            "learning_rate": 1e-3 if rates is None else rates[i],
        }
        for i, value in enumerate(curve)
    ]


def looked(curve, program=None, history=lambda rows: rows, **options):
    return verdict(
        NAME, program or EXACT.program(), normal(100), history=history(rows(curve, **options))
    )


def spread():
    return pv.elbo(EXACT.program(), normal(100), 20, seed=0).values.std().item()


def test_a_rise_that_is_small_beside_the_spread_of_scores_is_no_fault():
    """A rise of 0.04 nats failed a fixed decoder that had made the data; scores spread by 1.5."""
    noise = 0.002 * np.random.default_rng(0).normal(size=60)
    found = looked(-30 + 0.002 * EPOCHS + noise)  # 0.04 nats in twenty epochs
    assert found.passed and 0.035 < found.numbers["nats gained over them"] < 0.045
    assert found.numbers["standard deviation of a datum's ELBO"] == pytest.approx(spread(), rel=0.4)
    large = looked(-30 + 0.01 * EPOCHS + noise)  # 0.2 nats
    assert large.faults == ("under-trained",)


def test_a_rise_that_ends_with_the_learning_rate_is_no_fault():
    """It halves every ten epochs: 0.08 nats in the last twenty, and a third of that to come."""
    curve = -30 - 1.6 * 0.5 ** (EPOCHS / 10)
    rates = 1e-3 * (1 + np.cos(np.pi * EPOCHS / 60)) / 2
    constant = looked(curve)
    assert constant.faults == ("under-trained",)
    decayed = looked(curve, rates=rates)
    assert decayed.passed and "as the learning rate falls" in decayed.means
    rising = looked(-30 + 0.05 * EPOCHS, rates=rates)
    assert rising.faults == ("under-trained",)


def test_a_learning_rate_that_fell_in_few_steps_says_nothing():
    rates = 1e-3 * (1 + np.cos(np.pi * EPOCHS / 60)) / 2
    curve = -30 - 10 * np.exp(-EPOCHS / 5) + 0.01 * np.random.default_rng(0).normal(size=60)
    assert looked(curve, rates=rates).passed
    hasty = looked(curve, rates=rates, steps=4)
    assert hasty.word == "could not tell" and "240 steps" in hasty.change


def test_a_validation_elbo_that_falls_does_not_pass():
    """It fell by nine nats over the second half, and the check called that converged."""
    curve = np.concatenate([-90 + 20 * (1 - np.exp(-EPOCHS[:30] / 5)), -70 - 0.3 * EPOCHS[:30]])
    found = looked(curve)
    assert found.word == "could not tell" and found.means.startswith("the validation ELBO fell by")
    assert found.numbers["fall since the best epochs"] == pytest.approx(7.9, abs=0.1)
    assert "train=" in found.change and found.faults == ()
    kept = looked(curve, history=History)
    assert kept.passed and "fit kept the weights of the best" in kept.means
    assert looked(curve, validated=False).passed  # the objective of training data is no such sign


def test_a_validation_elbo_that_varies_does_not_fall():
    random = np.random.default_rng(0)
    for _ in range(5):
        curve = -30 - 10 * np.exp(-EPOCHS / 3) + 0.5 * random.normal(size=60)
        assert not looked(curve).means.startswith("the validation ELBO fell")


def test_a_program_without_an_elbo_has_a_tolerance_of_its_curve_alone():
    program = pv.VAE(
        pv.priors.Flat(1),
        pv.likelihoods.Normal(4, pv.networks.MLP(1, [4])),
        pv.posteriors.Delta(1, pv.networks.MLP(4, [4])),
    )
    found = looked(-30 + 0.002 * EPOCHS, program=program)
    assert found.faults == ("under-trained",)
    assert found.numbers["standard deviation of a datum's ELBO"] == 0


def test_what_is_still_to_gain_is_the_rest_of_a_decay():
    curve = -(0.5 ** (np.arange(90) / 10))
    left = still_to_gain(curve, slope_of(curve))
    assert left == pytest.approx(0.5**9, rel=0.2)
    assert still_to_gain(-np.arange(90.0), slope_of(-np.arange(90.0))) == 0
    line = np.arange(90.0)
    assert still_to_gain(line, slope_of(line)) == pytest.approx(9 * 30)


def test_the_fall_is_that_of_the_means_of_a_few_epochs():
    curve = torch.cat([torch.full((10,), -5.0), torch.full((10,), -7.0)]).numpy()
    fall = fall_of(curve)
    assert fall.nats == pytest.approx(2) and fall.best == 3 and fall.error > 0
    assert fall_of(np.arange(20.0)).nats == 0
