"""Trials that race, judged by a stand-in for Tune: what is said of them is what they reached."""

from types import SimpleNamespace

import pytest
from sweeps.fake_trials import finish

from pyro_vae.sweeps import racing
from pyro_vae.sweeps.grid import combinations_of, read_axis
from pyro_vae.sweeps.racing import METRIC
from pyro_vae.sweeps.sweep import Plan
from pyro_vae.sweeps.trial import Crashed, Outcome

EPOCHS = 6


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "POLL", 0.01)
    (setting,) = combinations_of([read_axis("latent=2")])
    return Plan(tmp_path, 1, ()).trial(setting, 0)


def log(trial, epochs):
    trial.folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{epoch},{-10 + epoch}" for epoch in range(1, epochs + 1)]
    (trial.folder / "metrics.csv").write_text("\n".join([f"epoch,{METRIC}", *rows]))


def raced(trial, monkeypatch, run, stop_at=None):
    """What becomes of a trial that Tune stops at an epoch, and the epochs that were reported."""
    reports = []

    def report(metrics):
        reports.append(metrics)
        if metrics["epoch"] == stop_at:
            raise SystemExit  # as Tune does

    monkeypatch.setattr(racing, "run_trial", run)
    try:
        racing._race(report, trial, 1, EPOCHS)
    except SystemExit:
        assert reports[-1]["epoch"] == stop_at
    found = SimpleNamespace(error=None, metrics=reports[-1])
    return racing._outcome(trial, found), [each["epoch"] for each in reports]


def test_a_trial_that_is_stopped_says_which_epoch_it_reached_and_is_ended(trial, monkeypatch):
    ends = []

    def run(trial, threads, given_up):
        log(trial, 4)
        ends.append(given_up.wait(60))
        raise Crashed("its process ended by SIGTERM")

    outcome, reported = raced(trial, monkeypatch, run, stop_at=2)
    assert reported == [1, 2] and ends == [True] and outcome.was_stopped
    said = "stopped by ASHA after epoch 4, for a validation ELBO of -8.00 at epoch 2"
    assert outcome.words == said
    log(trial, 2)
    assert racing._outcome(trial, SimpleNamespace(error=None, metrics={
        "ended": False, "epoch": 2, METRIC: -8.0})).words == said.replace(
        "epoch 4", "epoch 2").replace(" at epoch 2", "")  # fmt: skip


def test_a_trial_that_has_ended_counts_in_the_race_and_is_finished(trial, monkeypatch):
    def run(trial, threads, given_up):
        log(trial, 3)  # out of patience before its last epoch
        return finish(trial)

    outcome, reported = raced(trial, monkeypatch, run)
    assert outcome == Outcome(trial) and reported[-2:] == [3, 3]
    again, reported = raced(trial, monkeypatch, run, stop_at=1)
    assert again == Outcome(trial) and reported == [1]


def test_a_trial_that_is_trained_to_the_end_is_judged_once_it_is_scored(trial, monkeypatch):
    def run(trial, threads, given_up):
        log(trial, EPOCHS)
        assert not given_up.wait(0.2)
        return finish(trial)

    outcome, reported = raced(trial, monkeypatch, run, stop_at=1)
    assert outcome == Outcome(trial) and reported == [1]


def test_a_trial_that_ended_while_it_was_judged_is_finished(trial, monkeypatch):
    def run(trial, threads, given_up):
        log(trial, 2)
        given_up.wait(60)
        return finish(trial)

    assert raced(trial, monkeypatch, run, stop_at=2)[0] == Outcome(trial)


def test_a_trial_that_fails_says_why(trial, monkeypatch):
    outcome, _ = raced(trial, monkeypatch, lambda *_: Outcome(trial, "latent: got -1"))
    assert outcome.words == "failed: latent: got -1"
