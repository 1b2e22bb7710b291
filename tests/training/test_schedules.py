"""Schedules of the learning rate: what they give, and what none of them can be."""

import math

import pytest
import torch
from cases import small_vae

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.training import schedules
from pyro_vae.training.changed import differs, settings_of
from pyro_vae.training.schedules import Constant, Cosine, Exponential, Stages, Steps
from pyro_vae.validation import InvalidInput


@pytest.mark.parametrize("name", schedules.__all__)
def test_a_schedule_begins_at_the_rate_that_was_asked_for_and_never_rises(name):
    factors = [getattr(schedules, name)()(step / 1000) for step in range(1001)]
    assert factors[0] == 1 and factors == sorted(factors, reverse=True) and factors[-1] >= 0


@pytest.mark.parametrize(
    "make, argument",
    [
        *((lambda bad=bad: Cosine(bad), "final") for bad in (2, -0.1, math.nan, "a", None, True)),
        *((lambda bad=bad: Exponential(bad), "final") for bad in (0, -1, 2, math.nan, "a", None)),
        *((lambda bad=bad: Stages(bad), "count") for bad in (0, -1, 1.5, "a", None)),
        *((lambda bad=bad: Stages(ratio=bad), "ratio") for bad in (0, -1, math.inf, "a")),
        *((lambda bad=bad: Stages(factor=bad), "factor") for bad in (0, -1, math.nan, "a")),
        *((lambda bad=bad: Steps(factor=bad), "factor") for bad in (0, -1, math.inf, None)),
        *((lambda bad=bad: Steps(bad), "milestones") for bad in (0.5, (0,), (20, 30), "a", None)),
    ],
)
def test_numbers_that_no_schedule_has_are_refused(make, argument):
    with pytest.raises(InvalidInput, match=rf"^{argument}: got .*; pass {argument}="):
        make()


def turns(done):
    return 1.0 if done < 0.4 else -1.0


@pytest.mark.parametrize(
    "schedule, said",
    [
        (Cosine, r"got the class Cosine, .*; pass Cosine\(\)"),
        (Steps, r"got the class Steps, "),
        (None, "got None, "),
        (0.5, r"got 0\.5, "),
        (lambda done: -1.0, r"got -1\.0 at 0 of the run, expected a finite factor >= 0"),
        (lambda done: "fast", "got 'fast' at 0 of the run"),
        (lambda done: None, "got None at 0 of the run"),
        (lambda done: math.nan, "got nan at 0 of the run"),
        (Stages(1000), "got inf at 0 of the run"),
        (turns, r"got -1\.0 at 0\.5 of the run"),
    ],
)
def test_a_schedule_that_gives_no_factor_is_refused_before_training(schedule, said):
    vae = small_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(InvalidInput, match=f"^schedule: {said}"):
        pv.fit(vae, torch.zeros(10, 1, 8, 8), epochs=2, schedule=schedule, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_a_factor_is_checked_at_every_step():
    def between(done):
        return -1.0 if 0.2 < done < 0.4 else 1.0

    with pytest.raises(InvalidInput, match=r"^schedule: got -1\.0 at 0\.25 of the run"):
        pv.fit(
            small_vae(),
            torch.zeros(10, 1, 8, 8),
            epochs=2,
            batch_size=5,
            schedule=between,
            progress=False,
        )


@pytest.mark.parametrize(
    "options, argument",
    [
        (["Steps", "--schedule.factor", "-1"], "factor"),
        (["Exponential", "--schedule.final", "-1"], "final"),
        (["Stages", "--schedule.count", "0"], "count"),
    ],
)
def test_the_command_line_says_it_in_one_line(options, argument, tmp_path, capsys):
    arguments = [
        "train",
        "--data",
        "digits",
        "--out",
        str(tmp_path / "run"),
        "--schedule",
        *options,
    ]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{argument}: got " in said


def test_other_milestones_are_refused_when_a_run_is_continued(tmp_path):
    data = pv.datasets.load("digits")[0][:100]
    fit = dict(epochs=2, batch_size=50, progress=False, compile="off", out=str(tmp_path / "run"))
    pv.fit(small_vae(), data, schedule=Steps((0.5, 0.75)), **fit)
    with pytest.raises(InvalidInput, match="schedule"):
        pv.fit(small_vae(), data, schedule=Steps((0.2, 0.75)), resume=True, **fit)
    again = pv.fit(small_vae(), data, schedule=Steps((0.5, 0.75)), resume=True, **fit)
    assert len(again) == 2


def test_a_setting_that_an_older_run_did_not_save_is_not_compared():
    saved = {"class": "Steps", "factor": 0.1}
    assert not differs(settings_of(Steps()), saved)
    assert differs(settings_of(Steps(factor=0.2)), saved)
    assert differs(settings_of(Constant()), saved)
