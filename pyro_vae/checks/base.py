"""What a check is, what it finds, and what a page of checks is made of."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from pyro_vae.checks.subject import Subject
from pyro_vae.datasets.shown import facts_html
from pyro_vae.evaluation.over_seeds import holm
from pyro_vae.validation import InvalidInput, check_choice

__all__ = [
    "CLEAR",
    "TOLD",
    "WORDS",
    "Check",
    "Checked",
    "Finding",
    "Number",
    "Verdict",
    "exceeds",
    "is_clear",
    "judged",
]

Number = float | int | str | bool | None

WORDS = ("passed", "failed", "could not tell", "does not apply")
SHORT = {True: "passed", False: "failed", None: "could not tell"}
WORTH = 0.1  # a departure of a share that a check which passes would have seen
TOLD = 0.15  # the same of a classifier's accuracy
CLEAR = 3.0  # standard errors


@dataclass(frozen=True)
class Finding:
    """What a check found out, before all checks are judged together.

    Args:
        means: what the numbers mean, in one sentence.
        numbers: the numbers by name, each with its error beside it.
        p_value: of a test that nothing is wrong, corrected for all looks within this check;
            ``None`` for a check that is no test.
        matters: whether the departure is large enough to matter. A test fails where it does and is
            significant.
        passed: the verdict of a check that is no test; ``None`` where it could not tell.
        clear: whether a departure that is worth caring about would have been seen. A test that
            finds nothing passes where it would, and could not tell otherwise.
        applies: whether the question can be asked of such a program at all.
        faults: what is wrong, in a few words each, where the check fails.
        change: what to change, where the check fails or could not tell.
        more: what would make a test clear, where it is not.
        figure: what draws it.
    """

    means: str
    numbers: Mapping[str, Number] = field(default_factory=dict)
    p_value: float | None = None
    matters: bool = True
    passed: bool | None = None
    clear: bool = True
    applies: bool = True
    faults: Sequence[str] = ()
    change: str = ""
    more: str = "Check on more data: so few would not have shown a departure that matters."
    figure: Callable[[], Figure] | None = None


class Check(ABC):
    """One question that a reviewer asks, and how it is answered.

    A new check is a new module of `pyro_vae.checks.questions` with a subclass in it; nothing else
    has to know of it.

    Args:
        name: what it is called, in a few words.
        question: the question that it helps to answer.
        calls: about how often it runs the program.
        rows: on how many data and draws altogether.
        least: the smallest part of this at which it still tells something.
        size: the part of it that is made, which `pyro_vae.check` sets where time is short.
    """

    name: str
    question: str
    calls: int = 10
    rows: int = 1000
    least: float = 1.0
    size: float = 1.0

    def suits(self, subject: Subject) -> bool:
        """Whether it is of a kind with the program; if not, it says so and takes no time."""
        return True

    @abstractmethod
    def look(self, subject: Subject) -> Finding:
        """Look at a program and its data.

        Raises:
            CannotTell: where the question has no answer here.
            DoesNotApply: where the question cannot be asked of such a program.
        """


def exceeds(value: float, error: float, limit: float) -> bool | None:
    """Whether a value is beyond a limit by `CLEAR` of its standard errors; ``None`` if in doubt.

    Example:
        >>> exceeds(0.9, 0.1, 0.5), exceeds(0.1, 0.1, 0.5), exceeds(0.4, 0.1, 0.5)
        (True, False, None)
    """
    if value - CLEAR * error > limit:
        return True
    return False if value + CLEAR * error < limit else None


def is_clear(error: float, worth: float = WORTH) -> bool:
    """Whether a departure worth caring about would have been seen, beside such an error.

    Example:
        >>> is_clear(0.03), is_clear(0.07)
        (True, False)
    """
    return CLEAR * error <= worth


@dataclass(frozen=True)
class Verdict:
    """A check's answer, judged together with all others.

    Args:
        name: of the check.
        question: that it helps to answer.
        passed: whether it passed; ``None`` where it could not tell or does not apply.
        applies: whether the question can be asked of such a program.
        means: what was found, in one sentence.
        change: what to change where it failed or could not tell.
        faults: what is wrong, in a few words each; empty unless it failed.
        numbers: the numbers by name.
        p_value: of a test, corrected for the looks within it.
        adjusted: the p-value corrected for all tests of the page by Holm's method.
        seconds: that it took.
        about: how it is done, as the check's docstring says.
        figure: what draws it.
    """

    name: str
    question: str
    passed: bool | None
    means: str
    change: str = ""
    faults: tuple[str, ...] = ()
    numbers: dict[str, Number] = field(default_factory=dict)
    p_value: float | None = None
    adjusted: float | None = None
    seconds: float = 0.0
    about: str = ""
    figure: Callable[[], Figure] | None = None
    applies: bool = True

    @property
    def word(self) -> str:
        """The verdict: passed, failed, could not tell, or does not apply."""
        if self.passed is None:
            return "could not tell" if self.applies else "does not apply"
        return "passed" if self.passed else "failed"

    def to_dict(self) -> dict[str, object]:
        """The verdict as ``check.json`` holds it."""
        return {
            "name": self.name,
            "question": self.question,
            "verdict": self.word,
            "passed": self.passed,
            "means": self.means,
            "what_to_do": self.change,
            "faults": list(self.faults),
            "numbers": dict(self.numbers),
            "p_value": self.p_value,
            "p_value_adjusted": self.adjusted,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, repr=False)
class Checked:
    """All verdicts on a program and its data.

    Args:
        verdicts: one for each check that was made.
        left_out: the checks that the time did not allow, each with the seconds that it needs.
        level: the probability that a sound program fails any of the tests.
        num_data: data that were looked at.
        seed: of all draws.
        sha256: of the data.
    """

    verdicts: tuple[Verdict, ...]
    left_out: dict[str, float]
    level: float
    num_data: int
    seed: int
    sha256: str

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, name: str) -> Verdict:
        known = {verdict.name: verdict for verdict in self.verdicts}
        if name in self.left_out:
            raise InvalidInput(
                "name",
                got=f"{name!r}, a check that the time did not allow",
                expected="one that was made",
                fix=f"raise minutes by {math.ceil(self.left_out[name] / 60)}",
            )
        check_choice("name", name, list(known))
        return known[name]

    def of(self, word: bool | str | None) -> list[Verdict]:
        """The verdicts of one kind.

        Args:
            word: a word of `Verdict.word`, or ``True``, ``False`` and ``None`` for passed, failed
                and could not tell.
        """
        kind = SHORT[word] if word is None or isinstance(word, bool) else word
        return [verdict for verdict in self.verdicts if verdict.word == kind]

    @property
    def faults(self) -> list[str]:
        """What is wrong, in a few words each, without repetition."""
        return list(dict.fromkeys(fault for each in self.verdicts for fault in each.faults))

    @property
    def counts(self) -> dict[str, str]:
        """How many verdicts are of each kind, in words."""
        many = {word: len(self.of(word)) for word in WORDS}
        return {
            word: f"{count} {word if count == 1 else word.replace('does', 'do')}"
            for word, count in many.items()
        }

    def __str__(self) -> str:
        counts = ", ".join(self.counts.values())
        out = f", {len(self.left_out)} left out" if self.left_out else ""
        found = f": {'; '.join(self.faults)}" if self.faults else ""
        return f"{counts}{out}{found}"

    def __repr__(self) -> str:
        return f"Checked({self})"

    def _repr_html_(self) -> str:
        facts = {each.name: f"{each.word}: {each.means}" for each in self.verdicts}
        return facts_html(f"checks: {self}", facts)


def judged(found: Sequence[tuple[Check, Finding, float]], level: float) -> tuple[Verdict, ...]:
    """Judge findings together: the tests among them are corrected for their number.

    Args:
        found: each check with what it found and the seconds that it took.
        level: the probability that a sound program fails any of the tests.
    """
    p_values = {
        i: p
        for i, (_, finding, _) in enumerate(found)
        if (p := finding.p_value) is not None and not math.isnan(p)
    }
    adjusted = dict(zip(p_values, holm(list(p_values.values()))))
    verdicts = []
    for i, (check, finding, seconds) in enumerate(found):
        if finding.p_value is not None and i not in adjusted:  # too few data for an error
            finding = replace(finding, p_value=None, passed=None, change=finding.more)
        if i in adjusted:
            failed = adjusted[i] < level and finding.matters
            finding = replace(finding, passed=False if failed else True if finding.clear else None)
        failed = finding.passed is False
        if finding.passed is None and i in adjusted:
            finding = replace(finding, change=finding.more)
        verdicts.append(
            Verdict(
                name=check.name,
                question=check.question,
                passed=finding.passed,
                applies=finding.applies,
                means=finding.means,
                change="" if finding.passed else finding.change,
                faults=tuple(finding.faults) if failed else (),
                numbers={key: _finite(value) for key, value in finding.numbers.items()},
                p_value=finding.p_value,
                adjusted=adjusted.get(i),
                seconds=seconds,
                about=inspect.getdoc(type(check)) or "",
                figure=finding.figure,
            )
        )
    return tuple(verdicts)


def _finite(value: Number) -> Number:
    """A number as JSON has it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
