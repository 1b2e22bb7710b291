"""All checks of a program, in order of their cost, within a given time."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from pyro_vae.checks import questions
from pyro_vae.checks.base import Check, Checked, Finding, Verdict, judged
from pyro_vae.checks.subject import CannotTell, Claims, DoesNotApply, Subject
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.programs import as_program
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.training.history import History, Row
from pyro_vae.validation import InvalidInput, as_number, check_positive, check_seed

__all__ = ["BROKEN", "all_checks", "check", "finding_of"]

BROKEN = "This check cannot be made here"
MEND = "Mend what the message names, in the program or in the data, and check again."

LEVEL = 0.01
OVER, UNDER = "over-trained", "under-trained"  # which two checks may both find
DRAWS = 200  # of the largest run that the speed is measured by, for each datum
ROWS = 20_000  # at least, of data and draws: of fewer, a moment's delay would hide what one takes
GROWTH = 4  # of such runs, from each to the next
BRIEF = 2.0  # seconds that are too few to measure it by
SPARE = 2  # times longer than measured that checks may take, where nothing more is measured


def all_checks() -> list[Check]:
    """Every check in `pyro_vae.checks.questions`, the cheap ones first.

    Example:
        >>> "active units" in [each.name for each in all_checks()]
        True
    """
    names = [each.name for each in pkgutil.iter_modules(questions.__path__)]
    modules = [importlib.import_module(f"{questions.__name__}.{name}") for name in names]
    found = [
        member()
        for module in modules
        for member in vars(module).values()
        if inspect.isclass(member)
        and member.__module__ == module.__name__
        and issubclass(member, Check)
    ]
    return sorted(found, key=lambda each: (1000 * each.calls + each.rows, each.name))


def check(
    program: ProgramLike,
    data: Data,
    *,
    train: Data | None = None,
    history: History | Sequence[Row] | None = None,
    claims: Claims = Claims(),
    minutes: float = 5.0,
    checks: Sequence[Check] | None = None,
    level: float = LEVEL,
    seed: int = 0,
    progress: bool = False,
) -> Checked:
    r"""Ask of a program and its data what a careful reviewer would ask.

    Does q match the posterior, does the bound hold, does the model fit, is the latent used, has
    training converged, is the score honest? Each check has a verdict: passed, failed, or could not
    tell, with the numbers, their errors, and what to change. Tests among them are corrected for
    their number by Holm's method, so that a sound program fails any of them with probability
    ``level`` at most; a departure must also be large enough to matter.

    Args:
        program: any program.
        data: data that it was not trained on: a data set, a tensor x (N, \*event), or a pair
            (x, context).
        train: the data that it was trained on.
        history: what `pyro_vae.fit` returned.
        claims: what is said of the score: how the data were binarised, its draws K.
        minutes: the time for all checks. The cheap ones come first, and those that would take
            longer than what is left are left out and named.
        checks: the checks to make; by default all of them.
        level: the probability that a sound program fails a test.
        seed: of all draws; the caller's random state is left as it was.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data or settings.

    Example:
        >>> few = [each for each in all_checks() if each.name == "active units"]
        >>> found = pv.check(vae, torch.rand(50, 1, 8, 8).round(), checks=few)
        >>> [each.name for each in found.verdicts]
        ['active units']
    """
    check_positive("minutes", minutes)
    check_seed(seed)
    if not 0 < as_number(level) < 1:
        raise InvalidInput(
            "level", got=repr(level), expected="a probability within (0, 1)", fix="pass level=0.01"
        )
    program, data = as_program(program), as_dataset(data)
    check_data(program, data)
    subject = Subject(
        program, data, None if train is None else as_dataset(train), history, claims, seed
    )
    chosen = all_checks() if checks is None else list(checks)
    found: list[tuple[Check, Finding, float]] = []
    left_out: dict[str, float] = {}
    end = time.monotonic() + 60 * minutes

    def all_fit(speed: _Speed) -> bool:
        """Whether each check, whole, takes less than its share of the time."""
        longest = max((speed.seconds(one) for one in chosen), default=0.0)
        return SPARE * longest * len(chosen) <= end - time.monotonic()

    speed = _Speed.of(subject, all_fit)
    with progress_bar("checks", total=len(chosen), shown=progress) as advance:
        for place, one in enumerate(chosen):
            needed, began = speed.seconds(one), time.monotonic()
            advance(0, note=one.name)  # which may take a minute
            size = _size(one, needed, end - began, len(chosen) - place)
            if size < one.least and one.suits(subject):
                left_out[one.name] = needed * one.least
            else:
                one = copy(one)  # a check that is handed over stays as it is
                one.size = min(1.0, max(size, one.least))
                finding = finding_of(one, subject)
                found.append((one, finding, time.monotonic() - began))
            advance(1)
    verdicts = _fitted_together(judged(found, level))
    return Checked(verdicts, left_out, level, len(subject.few), seed, data.sha256)


def _fitted_together(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """No advice to train longer a program that already learns its training data by heart.

    A training objective that still rises says so, too; a validation ELBO that rises says that more
    epochs still help, though not as much as the training data show.
    """
    over = next((each for each in verdicts if OVER in each.faults), None)
    if over is None:
        return verdicts
    told = []
    for each in verdicts:
        if UNDER in each.faults and each.numbers.get("curve") == "objective":
            means = f"{each.means}, of training data alone, which the program learns by heart"
            each = replace(each, means=means, faults=(OVER,), change=over.change)
        elif UNDER in each.faults:
            change = f"{each.change} Training data score higher than new ones, and still new ones "
            each = replace(each, change=f"{change}gain: stop where the validation ELBO ends to.")
        told.append(each)
    return tuple(told)


def _size(one: Check, needed: float, left: float, to_come: int) -> float:
    """The part of a check that the time allows.

    It is what fits into an equal share of the time that is left, for the cheap checks come first
    and leave more to the others; at least the smallest part, if that fits into all of what is left.
    """
    if needed <= 0 or left <= 0:
        return float(needed <= 0)
    return max(min(1.0, left / to_come / needed), one.least * float(one.least * needed <= left))


def finding_of(one: Check, subject: Subject) -> Finding:
    """What a check finds; where it cannot be made, why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a warning says, a check says in its own words
        try:
            return one.look(subject)
        except DoesNotApply as no:
            return Finding(str(no), applies=False)
        except CannotTell as no:
            return Finding(str(no), change=no.change)
        except Exception as no:  # whatever the program raises: the other checks go on
            said = " ".join(str(no).split()) or type(no).__name__
            return Finding(f"{BROKEN}: {said}", change=MEND)


@dataclass(frozen=True)
class _Speed:
    """How long a program takes.

    Args:
        call: seconds of a run, however few its data.
        row: seconds of each draw for each datum besides.
    """

    call: float
    row: float

    @classmethod
    def of(cls, subject: Subject, is_enough: Callable[[_Speed], bool] = lambda _: False) -> _Speed:
        """Measure it, by scores of a datum and of ever more data and draws until they take long.

        Args:
            subject: the program and its data.
            is_enough: whether a speed will do though it may be higher: then no more is measured.
        """

        def seconds(num: int, draws: int) -> float:
            began = time.monotonic()
            evaluate(subject.local, subject.few[:num], draws, seed=subject.seed, compile="off")
            return time.monotonic() - began

        most, rows = len(subject.few), 1
        largest = max(DRAWS * most, ROWS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call = seconds(1, 1)
                for _ in range(2):
                    if is_enough(cls(call, call)):
                        return cls(call, call)
                    call = min(call, seconds(1, 1))
                whole = call
                while True:
                    slowest = cls(call, whole / rows)  # a row of a larger run takes less
                    if is_enough(slowest):
                        return slowest
                    before = whole
                    rows = min(GROWTH * rows, largest)
                    num = min(rows, most)
                    draws = rows // num
                    whole = seconds(num, draws)
                    if whole > 2 * GROWTH * before:  # something was loaded, or another process ran
                        whole = min(whole, seconds(num, draws))
                    if whole > BRIEF or rows == largest:
                        break
                if whole < BRIEF / GROWTH:
                    whole = min(whole, seconds(num, draws))
            except InvalidInput:  # a program without a bound has few checks, and all are cheap
                return cls(0.0, 0.0)
        return cls(call / 10, max(0.0, whole - call) / (draws * num - 1))

    def seconds(self, one: Check) -> float:
        """About how long a check takes."""
        return self.call * one.calls + self.row * one.rows
