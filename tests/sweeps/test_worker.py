"""A trial's process: one command after another, and no longer than the process that started it."""

import json
import os
import subprocess
import sys
import threading

import pytest

from pyro_vae.report.commands import remember
from pyro_vae.sweeps.grid import Setting
from pyro_vae.sweeps.trial import Crashed, Trial, run_trial
from pyro_vae.sweeps.worker import ABANDONED
from pyro_vae.validation import InvalidInput


def trial_of(folder, *commands):
    return Trial(folder / "run", Setting((), ()), 0, commands, folder / "logs" / "log", folder)


def test_a_command_that_fails_is_the_last_and_says_why(tmp_path):
    outcome = run_trial(trial_of(tmp_path, ("--version",), ("trian",), ("--help",)), threads=1)
    assert outcome.problem.startswith("command: got 'trian'")
    lines = (tmp_path / "logs" / "log").read_text().splitlines()
    assert len(lines) == 2 and lines[0][0].isdigit()


def test_commands_that_end_well_are_a_success(tmp_path):
    outcome = run_trial(trial_of(tmp_path, ("--version",)), threads=1)
    assert outcome.words == "done"


def test_a_look_at_a_run_leaves_its_trial_done_and_another_score_does_not(tmp_path):
    trial = trial_of(tmp_path, ("train", "--epochs", "1"), ("evaluate", "run"))
    trial.folder.mkdir()
    assert not trial.is_done
    for command in trial.commands:
        remember(trial.folder, command)
    remember(trial.folder, ["check", "--minutes", "1"])
    assert trial.is_done
    remember(trial.folder, ["evaluate", "run", "--limit", "5"])
    assert not trial.is_done


def test_a_trial_that_is_given_up_is_no_success(tmp_path):
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(Crashed, match="SIGTERM"):
        run_trial(trial_of(tmp_path, ("train",)), 1, given_up)


def test_it_ends_when_the_process_that_started_it_does(tmp_path):
    command = [sys.executable, "-m", "pyro_vae.sweeps.worker", json.dumps([["train"]])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as worker:
        worker.stdin.close()
        assert worker.wait(60) == ABANDONED


def test_it_looks_for_no_module_in_the_folder_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}")
    for name in ("json", "torch", "pyro_vae", "importlib"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    assert run_trial(trial_of(tmp_path, ("--version",)), threads=1).words == "done"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["run", "logs", "logs/log"])
def test_it_writes_through_no_link(tmp_path, name):
    mine, path = tmp_path / "mine", tmp_path / name
    mine.mkdir()
    (mine / "log").write_text("mine")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(mine / "log" if name == "logs/log" else mine)
    with pytest.raises(InvalidInput, match=r"a symbolic link|cannot be written"):
        run_trial(trial_of(tmp_path, ("--version",)), threads=1)
    assert (mine / "log").read_text() == "mine" and len(list(mine.iterdir())) == 1
