"""What is known of a sweep's settings before anything is trained, and what is refused by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyro_vae.cli.options import as_options
from pyro_vae.cli.train import SECTIONS, Parts, Prepared, load_parts, prepare
from pyro_vae.recipes.recipe import Recipe
from pyro_vae.runtime.checks import checked_data, support_of
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.runtime.traces import find_plates
from pyro_vae.sweeps.grid import Setting
from pyro_vae.validation import InvalidInput

__all__ = ["SCORES", "Looked", "check_score", "look_at"]

BOUNDS = ("log_likelihood", "elbo")  # of a guide with a density
OF_A_POINT = ("log_joint",)  # of a guide that is a point, which has neither bound
SCORES = (*BOUNDS, *OF_A_POINT)

# The keys of a recipe that its data follow from.
READ_BY = (*SECTIONS["data"], "context", "seed")


@dataclass(frozen=True)
class _Facts:
    """What is known of a training before it begins."""

    asked: str  # all of its options
    epochs: int
    test: str  # the hash of its test data
    kind: str  # of its scores
    scores: tuple[str, ...]
    has_validation: bool


@dataclass
class Looked:
    """Settings whose programs were built: those that make sense, and why others do not."""

    allowed: list[Setting] = field(default_factory=list)
    refused: dict[Setting, str] = field(default_factory=dict)
    facts: dict[Setting, _Facts] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """The most of any."""
        return max(each.epochs for each in self.facts.values())

    @property
    def scores(self) -> tuple[str, ...]:
        """Those that all of them have."""
        return next(iter(self.facts.values())).scores

    def first_by(self, name: str) -> dict[object, Setting]:
        """The first setting of each value of a fact."""
        found: dict[object, Setting] = {}
        for setting, facts in self.facts.items():
            found.setdefault(vars(facts)[name], setting)
        return found


Points = Mapping[Setting, Sequence[str]]  # settings, and the options of their trainings


def look_at(asked: Mapping[Setting, Points], argument: str, needs_validation: bool) -> Looked:
    """Build the program of each setting, on its data, at each of the points that stand for it.

    Args:
        asked: points by setting: itself, or with numbers that are searched for.
        argument: what asks for them.
        needs_validation: whether a search or a race looks at validation data.

    Raises:
        InvalidInput: if none can be built, two of them are one training, their test data or their
            scores differ, or a search has no validation data to choose by.
    """
    looked, loading = Looked(), _Loading()
    for setting, points in asked.items():
        facts: dict[Setting, _Facts] = {}
        for point, options in points.items():
            try:
                facts[point] = _facts_of(prepare(as_options(options), loading))
            except InvalidInput as error:
                looked.refused[point] = str(error)
                break
        else:
            looked.allowed.append(setting)
            looked.facts |= facts
    if not looked.allowed:
        point, reason = next(iter(looked.refused.items()))
        raise InvalidInput(
            argument,
            got=f"no combination that makes sense; {point.name or 'the recipe'}: {reason}",
            expected="one at least",
            fix="vary other options"
            if argument == "vary"
            else "search for other options or in other ranges: of integers where both ends are",
        )
    if needs_validation and not all(each.has_validation for each in looked.facts.values()):
        raise InvalidInput(
            "validation",
            got="a recipe without validation data",
            expected="some, whose ELBO chooses among trials: the test data must not",
            fix="add --vary validation=200, or validation: 200 to the recipe",
        )
    _check_different(looked)
    _check_comparable(argument, looked)
    return looked


def _facts_of(ready: Prepared) -> _Facts:
    support = support_of(ready.program, ready.test.x, ready.test.context)
    return _Facts(
        asked=repr(ready.namespace),
        epochs=ready.recipe.epochs,
        test=ready.test.sha256,
        kind="probabilities" if support is not None and support.is_discrete else "densities",
        scores=_scores_of(ready),
        has_validation=ready.validation is not None,
    )


def _scores_of(ready: Prepared) -> tuple[str, ...]:
    """The scores that its evaluation will have.

    Raises:
        InvalidInput: if it cannot be scored.
    """
    try:
        with evaluating(ready.program, 0):
            find_plates(ready.program, *checked_data(ready.program, ready.test[:2]))
    except NoBound:
        return OF_A_POINT
    return BOUNDS


def _check_different(looked: Looked) -> None:
    named = looked.first_by("asked")
    for setting, facts in looked.facts.items():
        if named[facts.asked] != setting:
            raise InvalidInput(
                "vary",
                got=f"{named[facts.asked].name} and {setting.name}, which are one training",
                expected="settings that differ",
                fix="leave one of them out",
            )


def _check_comparable(argument: str, looked: Looked) -> None:
    kinds, scored = looked.first_by("kind"), looked.first_by("scores")
    _check_alike(argument, "test data that differ", looked.first_by("test"))
    _check_alike(argument, f"scores that are {' and '.join(map(str, kinds))}", kinds)
    if len(scored) > 1:
        raise InvalidInput(
            argument,
            got=f"a guide with a density and one that is a point, {scored[BOUNDS].name} and "
            f"{scored[OF_A_POINT].name}",
            expected="settings that have one score: a point has neither an ELBO nor a log p(x)",
            fix="sweep those whose guide is a point into a folder of their own, with --score "
            f"{OF_A_POINT[0]}",
        )


def _check_alike(argument: str, what: str, found: Mapping[object, Setting]) -> None:
    if len(found) > 1:
        first, other = list(found.values())[:2]
        raise InvalidInput(
            argument,
            got=f"{what} between {first.name} and {other.name}",
            expected="scores that can be compared: of the same data, all densities or all "
            "probabilities",
            fix="sweep each of them into a folder of its own"
            if argument == "vary"
            else "give the option one value, or sweep each of them into a folder of its own",
        )


def check_score(score: str, known: Sequence[str]) -> None:
    """Raise `InvalidInput` for a score that the settings will not have."""
    if score not in known:
        raise InvalidInput(
            "score",
            got=f"{score!r} of guides that are {'a point' if score in BOUNDS else 'no point'}",
            expected=f"one of {', '.join(known)}",
            fix=f"add --score {known[0]}",
        )


class _Loading:
    """Loads data once for all settings that read them alike."""

    def __init__(self) -> None:
        self.key = ""
        self.parts: Parts | None = None

    def __call__(self, recipe: Recipe) -> Parts:
        read_by = repr([vars(recipe)[name] for name in READ_BY])
        if self.parts is None or self.key != read_by:
            self.key, self.parts = read_by, load_parts(recipe)
        return self.parts
