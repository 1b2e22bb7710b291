"""A sweep: its folder, its trials, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_vae.files.reading import MEGABYTE, Kind, read_bytes
from pyro_vae.files.writing import write_bytes
from pyro_vae.sweeps.engines import Engine
from pyro_vae.sweeps.grid import Setting
from pyro_vae.sweeps.results import mean_validation
from pyro_vae.sweeps.search import Search
from pyro_vae.sweeps.trial import Outcome, Trial
from pyro_vae.validation import InvalidInput

__all__ = ["Plan", "Sweep"]

RECIPE = Kind("out", "the recipe of a sweep", "choose another folder", MEGABYTE)
CHEAP = ("--num-samples", "20", "--limit", "20")  # the score at the end of a training, taken anew


@dataclass(frozen=True)
class Plan:
    """What the trials of a sweep share.

    Args:
        folder: the sweep's.
        seeds: how many seeds each setting is trained from.
        scoring: options of ``pyro-vae evaluate``.
        trust: modules that the recipe may name, as ``--trust`` takes them.
    """

    folder: Path
    seeds: int
    scoring: tuple[str, ...]
    trust: str = ""

    @property
    def recipe(self) -> Path:
        """The sweep's own copy of its recipe."""
        return self.folder / "recipe.yaml"

    def check_recipe(self, text: bytes) -> None:
        """Check that the sweep's folder is not of another recipe.

        Raises:
            InvalidInput: if it is.
        """
        if self.recipe.exists() and read_bytes(self.recipe, RECIPE, self.folder) != text:
            raise InvalidInput(
                "out",
                got=f"{self.folder}, a sweep of another recipe",
                expected="a new folder, or one of this recipe's",
                fix="choose another folder, or give the recipe that lies in it",
            )

    def keep_recipe(self, text: bytes) -> None:
        """Copy the recipe into the sweep's folder, once it is known that it can be trained."""
        write_bytes(self.recipe, text)

    def options(self, setting: Setting, seed: int, recipe: Path | None = None) -> list[str]:
        """The options of a trial's training, but for where it is written.

        Args:
            setting: what it varies.
            seed: the seed of its training.
            recipe: the recipe's file; by default the sweep's own copy.
        """
        trust = ["--trust", self.trust] if self.trust else []
        return [str(recipe or self.recipe), *setting.options, "--seed", str(seed), *trust]

    def trial(self, setting: Setting, seed: int) -> Trial:
        """A training of a setting from a seed, and its score."""
        name = f"{setting.folder},seed={seed}"
        folder, trust = self.folder / "trials" / name, ["--trust", self.trust] * bool(self.trust)
        train = ["train", *self.options(setting, seed), "--out", str(folder), "--resume", *CHEAP]
        evaluate = ["evaluate", str(folder), *self.scoring, *trust]
        return Trial(
            folder, setting, seed, (tuple(train), tuple(evaluate)),
            self.folder / "logs" / f"{name}.log", Path.cwd(),
        )  # fmt: skip


class Sweep:
    """The trials of a sweep, run by an engine.

    Args:
        plan: what they share.
        settings: those to try, or a search that chooses them.
        engine: what runs them.
    """

    def __init__(self, plan: Plan, settings: Sequence[Setting] | Search, engine: Engine):
        self.plan, self.settings, self.engine = plan, settings, engine
        self.ended: dict[Setting, list[Outcome]] = {}
        self.done: list[Outcome] = []

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of the trials so far, in the order of their settings and seeds."""
        return [
            outcome
            for found in self.ended.values()
            for outcome in sorted(found, key=lambda outcome: outcome.trial.seed)
        ]

    def run(self) -> Iterator[Outcome]:
        """Run what is not done yet; yield each trial as it ends, and those done before."""
        for outcome in self.engine.run(self._pending()):
            self._note(outcome)
            yield from self._done()
            yield outcome
        yield from self._done()

    def _done(self) -> Iterator[Outcome]:
        while self.done:
            yield self.done.pop(0)

    def _pending(self) -> Iterator[Trial]:
        """The trials that are to be run; those that need not be are noted."""
        for setting in self._to_try():
            self.ended[setting] = []
            for seed in range(self.plan.seeds):
                trial = self.plan.trial(setting, seed)
                if trial.is_done and not self.engine.takes_finished:
                    self.done.append(Outcome(trial))
                    self._note(Outcome(trial))
                else:
                    yield trial

    def _to_try(self) -> Iterator[Setting]:
        if isinstance(self.settings, Search):
            return self.settings.settings_to_try()
        return iter(self.settings)

    def _note(self, outcome: Outcome) -> None:
        """Remember an outcome; a search is told of a setting once all its seeds have ended."""
        found = self.ended[outcome.trial.setting]
        found.append(outcome)
        if isinstance(self.settings, Search) and len(found) == self.plan.seeds:
            self.settings.tell(outcome.trial.setting, mean_validation(found))
