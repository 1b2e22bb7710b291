"""sweep RECIPE.yaml: train and score every combination of some options, and tabulate."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse import Namespace
from rich.table import Table

from pyro_vae import checkpoint
from pyro_vae.cli.options import as_options, as_written, parse
from pyro_vae.cli.outputs import check_replaceable
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.processes import add_ray_arguments, ray_of
from pyro_vae.cli.runs import add_trust_argument
from pyro_vae.cli.terminal import console_of
from pyro_vae.cli.train import RECIPES, Parts, Prepared, load_parts, prepare
from pyro_vae.cli.train import SECTIONS as TRAINING
from pyro_vae.files.reading import read_bytes
from pyro_vae.recipes.recipe import Recipe
from pyro_vae.runtime.checks import checked_data, support_of
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.runtime.traces import find_plates
from pyro_vae.sweeps.engines import Engine, Local
from pyro_vae.sweeps.grid import Setting, check_each_once, combinations_of, read_axis
from pyro_vae.sweeps.page import COMMAND, files_of, notes_of, rows_of
from pyro_vae.sweeps.racing import Racing
from pyro_vae.sweeps.results import Results, read_results
from pyro_vae.sweeps.search import SAMPLERS, Search, read_range
from pyro_vae.sweeps.sweep import Plan, Sweep
from pyro_vae.sweeps.trial import Outcome
from pyro_vae.validation import InvalidInput, check_choice, check_count

FILES = ("table.json", "table.md", "figure.png", "report.html")
BOUNDS = ("log_likelihood", "elbo")  # of a guide with a density
OF_A_POINT = ("log_joint",)  # of a guide that is a point, which has neither bound
SCORES = (*BOUNDS, *OF_A_POINT)

# The keys of a recipe that its data follow from.
READ_BY = (*TRAINING["data"], "context", "seed")

SECTIONS = {
    "what is tried": ("vary", "seeds", "search", "trials", "sampler"),
    "how it is scored": ("num_samples", "limit", "score"),
    "where it runs": (
        "engine",
        "jobs",
        "retries",
        "address",
        "cpus",
        "gpus",
        "early_stopping",
        "grace",
    ),
    "output": ("out", "trust"),
}


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "sweep",
        "Train and score every combination of some options from several seeds: SWEEP/table.json, "
        "table.md, figure.png and report.html. Given again, the command continues what it began.",
        SECTIONS,
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="the recipe, as train takes it")
    parser.add_argument(
        "--vary",
        type=str,
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="an option of train and its values, as prior=Flow,VampPrior or 'encoder.hidden="
        "[200],[400]'. Options behind a value go with it: 'prior=Flow,VampPrior "
        "--prior.components 500'. May be given several times",
    )
    parser.add_argument("--seeds", type=int, default=1, help="each is trained from so many seeds")
    parser.add_argument(
        "--search",
        type=str,
        action="append",
        default=[],
        metavar="NAME=LOW..HIGH",
        help="a number to search for, as learning-rate=1e-4..1e-2:log; the validation ELBO chooses",
    )
    parser.add_argument("--trials", type=int, default=20, help="settings that a search tries")
    parser.add_argument(
        "--sampler", type=str, default="TPE", help=f"Optuna's sampler: {', '.join(SAMPLERS)}"
    )
    parser.add_argument("--num_samples", type=int, default=1000, help="draws K for each datum")
    parser.add_argument("--limit", type=int, default=1000, help="test data that are scored")
    parser.add_argument(
        "--score", type=str, default=SCORES[0], help=f"what ranks them: {', '.join(SCORES)}"
    )
    parser.add_argument("--jobs", type=int, default=None, help="trials at once; locally one")
    add_ray_arguments(parser, "trial")
    parser.add_argument(
        "--early_stopping",
        type=str,
        default="none",
        help="none, or asha: Ray Tune stops the trials whose validation ELBO falls behind",
    )
    parser.add_argument("--grace", type=int, default=5, help="epochs before a trial is stopped")
    parser.add_argument("--out", type=str, required=True, help="the sweep's folder")
    add_trust_argument(parser)
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    engine, is_race = _engine(options), options.early_stopping == "asha"
    axes = [read_axis(text) for text in options.vary]
    ranges = [read_range(text) for text in options.search]
    _check(options)
    check_each_once(axes, [each.name for each in ranges])
    folder = Path(options.out).resolve()
    for name in FILES:
        check_replaceable(folder / name, COMMAND)
    scoring = ("--num-samples", str(options.num_samples), "--limit", str(options.limit))
    plan, recipe = Plan(folder, options.seeds, scoring, options.trust), Path(options.recipe)
    with checkpoint.claimed(folder):
        text = read_bytes(recipe, RECIPES)
        plan.check_recipe(text)
        asked = [(each, plan.options(each, 0, recipe)) for each in combinations_of(axes)]
        looked = _look_at(asked, bool(ranges) or is_race)
        _check_score(options.score, looked.scores)
        if is_race:
            racing = Racing(**vars(engine), epochs=looked.epochs, grace=options.grace)
            engine = racing
        _say_what_is_refused(looked)
        settings: Sequence[Setting] | Search = looked.allowed
        if ranges:
            settings = Search(
                folder / "search.log", looked.allowed, ranges, options.trials,
                sampler=options.sampler,
            )  # fmt: skip
        plan.keep_recipe(text)
        sweep = Sweep(plan, settings, engine)
        _tell(sweep.run(), options.trials if ranges else len(looked.allowed), options.seeds)
        failed = [outcome for outcome in sweep.outcomes if outcome.problem]
        good = [outcome.trial for outcome in sweep.outcomes if not outcome.problem]
        results = read_results(good, options.score, looked.refused, failed, bool(ranges))
        command = f"pyro-vae sweep {shlex.join(as_written(argv))}"
        files = files_of(results, command)
        for name, content in files.items():
            check_replaceable(folder / name, COMMAND, content)
        checkpoint.commit(folder, files)
    _print(results, folder)


def _engine(options: Namespace) -> Engine:
    check_choice("engine", options.engine, ["local", "ray"])
    check_choice("early_stopping", options.early_stopping, ["none", "asha"])
    check_count("grace", options.grace)
    if options.engine == "ray":
        return ray_of(options, options.jobs)
    if options.early_stopping == "asha":
        raise InvalidInput(
            "early_stopping",
            got="asha with the engine local",
            expected="trials side by side, for some to fall behind",
            fix="add --engine ray, which needs no cluster",
        )
    return Local(1 if options.jobs is None else options.jobs, options.retries)


def _check(options: Namespace) -> None:
    check_choice("score", options.score, SCORES)
    for name in ("seeds", "trials", "num_samples", "limit"):
        check_count(name, options[name])


@dataclass
class _Looked:
    """Settings whose programs were built: those that make sense, and why others do not."""

    allowed: list[Setting] = field(default_factory=list)
    refused: dict[Setting, str] = field(default_factory=dict)
    epochs: int = 1  # the most of any
    scores: tuple[str, ...] = SCORES  # that all of them have


def _look_at(asked: Iterable[tuple[Setting, Sequence[str]]], needs_validation: bool) -> _Looked:
    """Build the program of each setting, on its data.

    Args:
        asked: settings, and the options of their trainings.
        needs_validation: whether a search or a race looks at validation data.

    Raises:
        InvalidInput: if none can be built, two of them are one training, their test data or their
            scores differ, or a search has no validation data to choose by.
    """
    looked, loading = _Looked(), _Loading()
    found: dict[str, Setting] = {}
    kinds: dict[str, Setting] = {}
    trained: dict[str, Setting] = {}
    scored: dict[tuple[str, ...], Setting] = {}
    for setting, options in asked:
        try:
            ready = prepare(as_options(options), loading)
            scores = _scores_of(ready)
        except InvalidInput as error:
            looked.refused[setting] = str(error)
            continue
        named = trained.setdefault(repr(ready.namespace), setting)
        if named != setting:
            raise InvalidInput(
                "vary",
                got=f"{named.name} and {setting.name}, which are one training",
                expected="settings that differ",
                fix="leave one of them out",
            )
        looked.allowed.append(setting)
        looked.epochs = max(looked.epochs, ready.recipe.epochs)
        found.setdefault(ready.test.sha256, setting)
        kinds.setdefault(_kind_of(ready), setting)
        scored.setdefault(scores, setting)
        if needs_validation and ready.validation is None:
            raise InvalidInput(
                "validation",
                got="a recipe without validation data",
                expected="some, whose ELBO chooses among trials: the test data must not",
                fix="add --vary validation=200, or validation: 200 to the recipe",
            )
    if not looked.allowed:
        setting, reason = next(iter(looked.refused.items()))
        raise InvalidInput(
            "vary",
            got=f"no combination that makes sense; {setting.name or 'the recipe'}: {reason}",
            expected="one at least",
            fix="vary other options",
        )
    _check_alike("test data that differ", found)
    _check_alike(f"scores that are {' and '.join(kinds)}", kinds)
    if len(scored) > 1:
        raise InvalidInput(
            "vary",
            got=f"a guide with a density and one that is a point, {scored[BOUNDS].name} and "
            f"{scored[OF_A_POINT].name}",
            expected="settings that have one score: a point has neither an ELBO nor a log p(x)",
            fix="sweep those whose guide is a point into a folder of their own, with --score "
            f"{OF_A_POINT[0]}",
        )
    looked.scores = next(iter(scored))
    return looked


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


def _check_score(score: str, known: Sequence[str]) -> None:
    if score not in known:
        raise InvalidInput(
            "score",
            got=f"{score!r} of guides that are {'a point' if score in BOUNDS else 'no point'}",
            expected=f"one of {', '.join(known)}",
            fix=f"add --score {known[0]}",
        )


def _kind_of(ready: Prepared) -> str:
    support = support_of(ready.program, ready.test.x, ready.test.context)
    return "probabilities" if support is not None and support.is_discrete else "densities"


def _check_alike(what: str, found: Mapping[str, Setting]) -> None:
    if len(found) > 1:
        first, other = list(found.values())[:2]
        raise InvalidInput(
            "vary",
            got=f"{what} between {first.name} and {other.name}",
            expected="scores that can be compared: of the same data, all densities or all "
            "probabilities",
            fix="sweep each of them into a folder of its own",
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


def _say_what_is_refused(looked: _Looked) -> None:
    console = console_of(stderr=True)
    count = len(looked.allowed) + len(looked.refused)
    if looked.refused:
        console.print(f"{len(looked.refused)} of {count} combinations are refused:")
    for setting, reason in looked.refused.items():
        console.print(f"  {setting.name}: {reason}", highlight=False, soft_wrap=True)


def _tell(outcomes: Iterable[Outcome], settings: int, seeds: int) -> None:
    """Print a line for each trial that ends."""
    console = console_of(stderr=True)
    for number, outcome in enumerate(outcomes, 1):
        console.print(
            f"[{number}/{settings * seeds}] {outcome.trial.name}: {outcome.words}",
            highlight=False,
            soft_wrap=True,
        )


# The columns that a terminal has room for, by their places.
COMPACT = {0: "setting", 2: "score", 3: "s.d.", 4: "less best", 5: "s.e.", 6: "p (Holm)"}


def _print(results: Results, folder: Path) -> None:
    console = console_of()
    table = Table(title=f"{results.score}; nats per datum", title_justify="left")
    columns = {**COMPACT, **({1: "seeds"} if results.has_lost else {})}
    for place, head in sorted(columns.items()):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows_of(results):
        table.add_row(*(row[place] for place in sorted(columns)))
    console.print(table)
    for line in (
        *notes_of(results),
        *(f"{each.trial.name}: {each.words}" for each in results.failed),
        *(f"wrote    {folder / name}" for name in FILES),
    ):
        console.print(line, highlight=False, soft_wrap=True)
