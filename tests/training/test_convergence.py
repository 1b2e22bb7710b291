"""A training that was short is told so, in one line with what to add; another one is not."""

import shlex

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main
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
    (line,) = line
    what, _, how = line.partition("; ")
    assert what == "3 epochs of these data are 6 optimizer steps, which are few"
    assert how.startswith("if the test ELBO is near the objective, go on for some ")
    assert line.endswith(": fit again with epochs=2000, resume=True")
    history = pv.fit(small_vae(), x, epochs=4, resume=True, progress=False, **options)
    assert len(history) == 4 and not capsys.readouterr().err


def test_a_training_that_has_ended_by_its_data_is_told_nothing(capsys):
    x = torch.randn(200, 3)
    pv.fit(small_vae(), x, epochs=30, batch_size=5)
    assert "go on for" not in capsys.readouterr().err  # 1200 steps, and the noise has no structure
    pv.fit(small_vae(), x, epochs=8, validation=x[:50], patience=1, learning_rate=1.0)
    assert "go on for" not in capsys.readouterr().err


def test_a_run_of_the_command_line_is_told_a_command_that_goes_on(capsys, tmp_path):
    folder = tmp_path / "a run"
    options = ["--data", "digits", "--limit", "10", "--num-samples", "2", "--batch-size", "1000"]
    main(["train", *options, "--epochs", "2", "--out", str(folder)])
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "go on for" in each]
    command = shlex.split(line.partition(": ")[2])
    assert command[:2] == ["pyro-vae", "train"] and int(command[-1]) > 2
    main([*command[1:-1], "3", "--limit", "10", "--num-samples", "2"])
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3


def test_a_run_with_a_schedule_is_told_a_command_that_goes_on_from_its_weights(capsys, tmp_path):
    folder = tmp_path / "a run"
    few = ["--limit", "10", "--num-samples", "2"]
    options = ["--data", "digits", *few, "--batch-size", "1000", "--compile", "off"]
    options += ["--latent", "2", "--schedule", "Cosine", "--epochs", "2"]
    assert main(["train", *options, "--out", str(folder)]) == 0
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "go on for" in each]
    command = shlex.split(line.partition(": ")[2])
    assert int(command[-1]) > 2
    new = f"{folder}-2"
    expected = ["pyro-vae", "train", f"{folder}/recipe.yaml", "--start", str(folder)]
    assert command[:-1] == [*expected, "--out", new, "--epochs"]
    assert main(["train", "--resume", "--out", str(folder), "--epochs", "3", *few]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "epochs: got 3, expected 2, over which the schedule Cosine spread" in said
    assert shlex.split(said.partition("weights: ")[2]) == [*command[:-1], "3"]
    assert main([*command[1:-1], "3", *few]) == 0
    assert len((tmp_path / "a run-2" / "metrics.csv").read_text().splitlines()) == 1 + 3
    assert pv.load(new).event_shape == pv.load(folder).event_shape


def test_a_program_with_a_schedule_is_fitted_again(capsys, tmp_path):
    x, options = torch.randn(200, 3), {"schedule": pv.training.schedules.Cosine()}
    program = small_vae()
    pv.fit(program, x, epochs=2, out=tmp_path / "run", **options)
    assert "fit the trained program again with epochs=" in capsys.readouterr().err
    with pytest.raises(pv.InvalidInput, match="the schedule Cosine spread"):
        pv.fit(program, x, epochs=3, out=tmp_path / "run", resume=True, **options)


def test_a_validation_curve_is_its_own_condition(capsys):
    x = torch.randn(200, 3) + 5
    pv.fit(small_vae(), x, epochs=12, validation=x[:50], learning_rate=1e-4)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "go on for" in each]
    assert line.startswith("the validation ELBO still rises") and "if the test" not in line


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_epochs_in_a_row_that_are_alike_are_no_slope(alike):
    random, times, found = np.random.default_rng(0), 400, 0
    for _ in range(times):
        noise = random.normal(size=200)
        for i in range(1, 200):
            noise[i] = alike * noise[i - 1] + (1 - alike**2) ** 0.5 * noise[i]
        found += slope_of(-50 - 40 * np.exp(-np.arange(100) / 2) + noise[100:]).rises
    assert found / times < 0.02 + 3 * (0.02 * 0.98 / times) ** 0.5


def test_a_flat_curve_has_no_slope_and_no_error():
    flat = slope_of([-1.0] * 30)
    assert (flat.gain, flat.error, flat.rises) == (0.0, 0.0, False)


def test_one_epoch_is_told_of_in_the_singular(capsys):
    history = pv.fit(small_vae(), torch.randn(20, 3), epochs=1)
    said = capsys.readouterr().err
    assert "1 epoch of these data is 1 optimizer step, which is few; if" in said
    assert str(history).startswith("History(1 epoch, the last: ")


def test_a_training_that_blew_up_is_not_told_to_go_on(capsys):
    vae = small_vae()
    with torch.no_grad():
        for parameter in vae.likelihood.parameters():
            parameter.mul_(1e6)
    pv.fit(vae, torch.randn(20, 3), epochs=1)
    said = capsys.readouterr().err
    assert "training has blown up" in said and "lower learning_rate" in said
    assert "go on" not in said


def test_how_much_is_little_does_not_grow_with_the_way_to_it():
    """A third of a nat more over the last third is a rise, from however far a curve came."""
    epochs = np.arange(100)
    for first in (10.0, 40.0, 4000.0):
        curve = -7.6 + 0.0097 * (epochs - 99) - 1.0 * np.exp(-epochs / 25) - first * (epochs == 0)
        slope = slope_of(curve.tolist())
        assert slope.rises and slope.little < 0.2
    small = -7.6 + 0.0006 * (epochs - 99) - 10.0 * np.exp(-epochs / 5)
    assert not slope_of(small.tolist()).rises
