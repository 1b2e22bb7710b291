"""A training that was short is told so, in one line with what to add; another one is not."""

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.training.convergence import slope_of

MLP = pv.networks.MLP


def small_vae():
    torch.manual_seed(0)
    return pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Normal(3, MLP(1, [8])),
        pv.posteriors.DiagonalNormal(1, MLP(3, [8])),
    )


def curve(rate, epochs=90, first=0.0, noise=0.002):
    """Minus an exponential decay, with a first epoch from far away."""
    values = -np.exp(-rate * np.arange(epochs)) * 10
    values[0] -= first
    return values + noise * np.random.default_rng(0).normal(size=epochs)


@pytest.mark.parametrize("first", [0.0, 1e6])  # data far from 0 lose millions of nats at first
def test_a_curve_that_rises_is_told_from_a_flat_one(first):
    assert slope_of(curve(0.02, first=first)).rises
    assert not slope_of(curve(0.2, first=first)).rises
    assert not slope_of(curve(0.2, first=first, noise=0.3)).rises


def test_the_gain_is_that_of_the_line():
    slope = slope_of(np.arange(30) * 0.5)
    assert slope.gain == pytest.approx(5.0) and slope.epochs == 10 and slope.rises
    assert slope_of(np.arange(5)) is None


def test_a_short_training_is_told_what_to_add_and_it_works(capsys, tmp_path):
    x = torch.randn(200, 3)
    options = {"batch_size": 100, "out": tmp_path / "run"}
    pv.fit(small_vae(), x, epochs=3, **options)
    line = [each for each in capsys.readouterr().err.splitlines() if "optimizer steps" in each]
    assert line == [
        "3 epochs of these data are 6 optimizer steps, which are few; train on with --epochs 2000 "
        f"--resume --out {tmp_path / 'run'} (epochs=2000, resume=True)"
    ]
    history = pv.fit(small_vae(), x, epochs=4, resume=True, progress=False, **options)
    assert len(history) == 4 and not capsys.readouterr().err


def test_a_training_that_has_ended_by_its_data_is_told_nothing(capsys):
    x = torch.randn(200, 3)
    pv.fit(small_vae(), x, epochs=30, batch_size=5)
    assert "train" not in capsys.readouterr().err  # 1200 steps, and the noise has no structure
    pv.fit(small_vae(), x, epochs=8, validation=x[:50], patience=1, learning_rate=1.0)
    assert "train longer" not in capsys.readouterr().err
