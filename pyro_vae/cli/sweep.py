"""sweep RECIPE.yaml: train and score every combination of some options, and tabulate."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.table import Table

from pyro_vae import checkpoint
from pyro_vae.cli.looked import SCORES, Looked, check_score, look_at
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.outputs import check_replaceable
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.processes import add_ray_arguments, ray_of
from pyro_vae.cli.runs import add_trust_argument
from pyro_vae.cli.terminal import console_of
from pyro_vae.cli.train import RECIPES
from pyro_vae.files.reading import read_bytes
from pyro_vae.sweeps.engines import Engine, Local
from pyro_vae.sweeps.grid import Setting, check_each_once, combinations_of, read_axis
from pyro_vae.sweeps.page import COMMAND, files_of, notes_of, rows_of
from pyro_vae.sweeps.racing import Racing
from pyro_vae.sweeps.results import Results, read_results
from pyro_vae.sweeps.search import SAMPLERS, Search, points_of, read_range
from pyro_vae.sweeps.sweep import Plan, Sweep
from pyro_vae.sweeps.trial import Outcome
from pyro_vae.validation import InvalidInput, check_choice, check_count

FILES = ("table.json", "table.md", "figure.png", "report.html")

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
        asked = {
            each: {point: plan.options(point, 0, recipe) for point in points_of(each, ranges)}
            for each in combinations_of(axes)
        }
        looked = look_at(asked, "search" if ranges else "vary", bool(ranges) or is_race)
        check_score(options.score, looked.scores)
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


def _say_what_is_refused(looked: Looked) -> None:
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
