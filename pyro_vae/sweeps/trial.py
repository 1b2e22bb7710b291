"""A trial: commands in a folder of its own, in a process of their own.

Given again, the commands continue what they began. So a trial that was killed is simply run again,
by whatever engine.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pyro_vae.files.writing import new_folder, new_log, subfolder, writing_to
from pyro_vae.report.commands import words_given
from pyro_vae.sweeps.grid import Setting
from pyro_vae.sweeps.worker import run_commands

__all__ = ["Crashed", "Outcome", "Trial", "last_words", "run_trial"]


class Crashed(RuntimeError):
    """A trial whose process was killed or broke down: run again, it may well succeed."""


@dataclass(frozen=True)
class Trial:
    """Commands that train a program and score it.

    Args:
        folder: the run.
        setting: what it varies.
        seed: the seed of its training.
        commands: what follows ``pyro-vae``, one command after another.
        log: the file to which they print.
        cwd: the folder from which names of files are read.
    """

    folder: Path
    setting: Setting
    seed: int
    commands: tuple[tuple[str, ...], ...]
    log: Path
    cwd: Path

    @property
    def name(self) -> str:
        """It as people read it."""
        return f"{self.setting.name or 'the recipe'}, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether the last commands that change the run were those of this trial.

        A score that was taken otherwise since then is taken anew; a look at the run changes none.
        """
        own = {command[0] for command in self.commands}
        given = [words for words in words_given(self.folder) if words and words[0] in own]
        is_last = given[-1:] == [[*self.commands[-1]]]
        return is_last and all([*command] in given for command in self.commands)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: ``problem`` is empty if it succeeded, and says why it was stopped."""

    trial: Trial
    problem: str = ""
    was_stopped: bool = False

    @property
    def words(self) -> str:
        """It as people read it."""
        return f"{'' if self.was_stopped else 'failed: '}{self.problem}" if self.problem else "done"


def run_trial(trial: Trial, threads: int, given_up: Event | None = None) -> Outcome:
    """Run a trial in a process of its own, which ends when this one does.

    Args:
        trial: what to run.
        threads: those that its process computes with.
        given_up: set where its process is to be ended.

    Raises:
        Crashed: if the process was killed or failed by no mistake of the user's.
    """
    for path in (trial.log.parent, trial.folder.parent, trial.folder):  # none is a link
        subfolder(new_folder(path.parent), path.name)
    with writing_to(trial.log), new_log(trial.log) as log:
        code = run_commands(
            trial.commands, log, trial.cwd, {"OMP_NUM_THREADS": str(threads)}, given_up
        )
    if code == 0:
        return Outcome(trial)
    if code == 2:
        return Outcome(
            trial,
            last_words(trial.log.read_text(errors="replace")) or "its process ended with code 2",
        )
    how = f"code {code}" if code > 0 else signal.Signals(-code).name
    raise Crashed(f"its process ended by {how}; {trial.log} has what it said")


def last_words(said: str) -> str:
    """The line of ours that a process said last."""
    lines = said.splitlines()
    ours = [line for line in lines if line.startswith("pyro-vae: ") and ": warning: " not in line]
    return ours[-1].removeprefix("pyro-vae: ") if ours else ""
