"""A search over numbers: Optuna's samplers choose the next trial by those before it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.files.optional import optional
from pyro_vae.files.reading import Kind, open_file, parsing
from pyro_vae.files.writing import new_folder, writing_to
from pyro_vae.sweeps.grid import Setting, check_free
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["SAMPLERS", "Range", "Search", "points_of", "read_range"]

# Optuna's samplers of numbers that need nothing but Optuna.
SAMPLERS = ("TPE", "Random", "QMC")

LOG = Kind("out", "the log of a search", "choose another folder", 2**32)

COMBINATION = "combination"  # the parameter that chooses among the settings of a grid

INSIDE = 0.381966  # of the way between two ends: hardly an integer if the range is not of integers


@dataclass(frozen=True)
class Range:
    """A number that is searched for.

    Args:
        name: the option without its dashes.
        low: the least value.
        high: the largest value.
        is_log: whether it is sampled on a logarithmic scale.
        is_integer: whether it is an integer.
    """

    name: str
    low: float
    high: float
    is_log: bool
    is_integer: bool

    def suggested_by(self, trial: Any) -> str:
        """The value that a trial of Optuna takes, as it is written on the command line."""
        if self.is_integer:
            low, high = int(self.low), int(self.high)
            return str(trial.suggest_int(self.name, low, high, log=self.is_log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=self.is_log):.4g}"

    @property
    def inside(self) -> float:
        """A number between its ends."""
        if self.is_log:
            return float(self.low * (self.high / self.low) ** INSIDE)
        return self.low + INSIDE * (self.high - self.low)


def read_range(text: str) -> Range:
    """A range as ``NAME=LOW..HIGH`` or, on a logarithmic scale, ``NAME=LOW..HIGH:log``.

    It is of integers where both ends are.

    Raises:
        InvalidInput: for anything else, and for an option that the sweep itself sets.

    Example:
        >>> read_range("learning_rate=1e-4..1e-2:log")
        Range(name='learning-rate', low=0.0001, high=0.01, is_log=True, is_integer=False)
    """
    name, _, rest = text.partition("=")
    name = name.strip().lstrip("-").replace("_", "-")
    ends, _, scale = rest.partition(":")
    low, dots, high = ends.partition("..")
    try:
        least, most = float(low), float(high)
    except ValueError:
        least, most = math.nan, math.nan
    finite = math.isfinite(least) and math.isfinite(most)
    if not (name and dots and finite and least < most and scale in ("", "log")):
        raise InvalidInput(
            "search",
            got=repr(text),
            expected="an option and two numbers, the lesser first",
            fix="write for instance --search learning-rate=1e-4..1e-2:log",
        )
    if scale and least <= 0:
        raise InvalidInput(
            "search",
            got=f"{least:g} on a logarithmic scale",
            expected="a number above 0",
            fix="start above 0, or leave :log out",
        )
    check_free("search", name)
    is_integer = low.strip().lstrip("+-").isdigit() and high.strip().lstrip("+-").isdigit()
    return Range(name, least, most, bool(scale), is_integer)


def points_of(setting: Setting, ranges: Sequence[Range]) -> list[Setting]:
    """A setting at both ends of all ranges and between them, to see if they can be trained at all.

    Example:
        >>> ranges = [read_range("latent=2..9"), read_range("learning-rate=1e-4..1e-2:log")]
        >>> [point.name for point in points_of(Setting((), ()), ranges)]  # doctest: +ELLIPSIS
        ['latent=2, learning-rate=0.0001', 'latent=9, learning-rate=0.01', 'latent=4, ...']
    """
    params = [
        {each.name: each.low for each in ranges},
        {each.name: each.high for each in ranges},
        {each.name: each.inside for each in ranges},
    ]
    return list(dict.fromkeys(_at(setting, ranges, each) for each in params))


def _at(setting: Setting, ranges: Sequence[Range], params: Mapping[str, float]) -> Setting:
    """A setting with a number from each range."""
    fixed = _Fixed(params)
    numbers = tuple((each.name, each.suggested_by(fixed)) for each in ranges)
    shown = (*setting.shown, *(each.name for each in ranges))
    return Setting((*setting.values, *numbers), shown)


class Search:
    """The settings of a search, each chosen by what those before it reached.

    What was asked and told is kept in a file: a search that was killed goes on, and asks what it
    would have asked.

    Args:
        path: the file.
        settings: those of the grid, among which it chooses too.
        ranges: the numbers that are searched for.
        num: how many settings to try.
        sampler: one of `SAMPLERS`.
        seed: the sampler's.

    Raises:
        InvalidInput: if Optuna is not installed, or the file is of another search.
    """

    def __init__(
        self,
        path: Path,
        settings: Sequence[Setting],
        ranges: Sequence[Range],
        num: int,
        *,
        sampler: str = "TPE",
        seed: int = 0,
    ):
        check_count("trials", num)
        check_choice("sampler", sampler, SAMPLERS)
        optuna = optional("optuna", "sweep", "search", "Optuna, which is not installed")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optional("optuna.storages", "sweep", "search", "Optuna's storages")
        journal = optional("optuna.storages.journal", "sweep", "search", "Optuna's storages")
        self.failed, self.running = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.RUNNING
        self.settings = {setting.name: setting for setting in settings}
        self.ranges, self.num, self.seed = ranges, num, seed
        self.sampler = vars(optuna.samplers)[f"{sampler}Sampler"]
        new_folder(path.parent)
        if os.path.lexists(path):  # which must be a file of the sweep's own
            if path.is_symlink():
                LOG.refuse(path, "a link")
            open_file(path, LOG).close()
        with parsing(path, LOG), writing_to(path.parent):
            self.study = optuna.create_study(
                storage=storage.JournalStorage(journal.JournalFileBackend(str(path))),
                study_name="sweep",
                direction="maximize",
                load_if_exists=True,
            )
        asked = {"ranges": [list(vars(each).values()) for each in ranges], "sampler": sampler,
                 "settings": list(self.settings), "seed": seed}  # fmt: skip
        known = self.study.user_attrs.get("asked")
        if known not in (None, asked):
            raise InvalidInput(
                "search",
                got=f"other ranges, settings or another sampler than {path} was begun with",
                expected="those of the first call",
                fix="give them again, or choose another folder for --out",
            )
        self.study.set_user_attr("asked", asked)
        self.asked, self.numbers = 0, dict[Setting, list[int]]()

    def settings_to_try(self) -> Iterator[Setting]:
        """The settings, the next chosen when it is asked for; those already asked come first.

        One that a sampler takes twice is yielded once.
        """
        for trial in self.study.get_trials(deepcopy=False):
            if len(trial.params) == len(self.ranges) + (len(self.settings) > 1):
                yield from self._if_new(trial.params, trial.number)
            elif trial.state == self.running:  # killed while it was being asked
                self.study.tell(trial.number, state=self.failed)
        while self.asked < self.num:
            self.study.sampler = self.sampler(seed=self.seed + self.asked)
            trial = self.study.ask()
            if len(self.settings) > 1:
                trial.suggest_categorical(COMBINATION, list(self.settings))
            for each in self.ranges:
                each.suggested_by(trial)
            yield from self._if_new(trial.params, trial.number)

    def _if_new(self, params: dict[str, Any], number: int) -> Iterator[Setting]:
        setting = self._setting(params)
        numbers = self.numbers.setdefault(setting, [])
        numbers.append(number)
        self.asked += 1
        if len(numbers) == 1:
            yield setting
            return
        first = self.study.get_trials(deepcopy=False)[numbers[0]]
        if first.state != self.running:
            self.tell(setting, first.value)

    def _setting(self, params: dict[str, Any]) -> Setting:
        grid = self.settings[params.get(COMBINATION, next(iter(self.settings)))]
        return _at(grid, self.ranges, params)

    def tell(self, setting: Setting, value: float | None) -> None:
        """Say what a setting reached; ``None`` if it failed."""
        trials = self.study.get_trials(deepcopy=False)
        for number in self.numbers[setting]:
            if trials[number].state == self.running:
                self.study.tell(number, value, state=self.failed if value is None else None)


@dataclass(frozen=True)
class _Fixed:
    """What a trial of Optuna took, suggested again."""

    params: Mapping[str, float]

    def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
        return int(self.params[name])

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        return float(self.params[name])
