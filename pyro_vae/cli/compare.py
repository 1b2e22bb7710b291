"""compare RUN RUN ...: scores of several runs on the same data, paired datum by datum."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pyro_vae.checkpoint import check_writable, with_current_paths
from pyro_vae.cli.options import parse
from pyro_vae.cli.outputs import check_replaceable, write_output
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.run_data import read_data
from pyro_vae.cli.runs import recipe_of
from pyro_vae.cli.terminal import console_of
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.shown import known, measured
from pyro_vae.evaluation.comparison import Difference, Spread, compare, load_scores, spread
from pyro_vae.evaluation.importance_score import share_of_bounds
from pyro_vae.evaluation.over_seeds import SeedDifference, against_best
from pyro_vae.evaluation.scores import Score, versions
from pyro_vae.report.run_files import as_json
from pyro_vae.validation import InvalidInput, check_choice, counted

COMMAND = "pyro-vae compare"
OF_THE_MACHINE = ("device", "compile", "data_root", "in_memory")  # settings that make no model


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "compare",
        "Scores that pyro-vae evaluate wrote, compared datum by datum: each run minus the first. "
        "Runs that differ only in their seeds are also compared as one model, over data and seeds.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the runs' folders; the first is subtracted from the others",
    )
    parser.add_argument(
        "--score",
        type=str,
        default="log_likelihood",
        help="log_likelihood or elbo; for autoencoders log_joint or squared_error",
    )
    parser.add_argument("--out", type=str, default=None, help="a .json file for the numbers")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_choice("score", options.score, ["log_likelihood", "elbo", "log_joint", "squared_error"])
    if options.out:
        check_choice("out", Path(options.out).suffix, [".json"])
        check_replaceable(Path(options.out), COMMAND)
        check_writable(Path(options.out).parent)
    if len(options.runs) < 2:
        raise InvalidInput(
            "RUN", got="one run", expected="two or more", fix="name the runs to compare"
        )
    compared = _compare({name: _score_of(name, options.score) for name in options.runs})
    _print_comparison(options.score, compared)
    if options.out:
        found = {"written_by": COMMAND, "score": options.score, **compared.to_json()}
        write_output(Path(options.out), as_json(found), COMMAND)


@dataclass(frozen=True)
class _Comparison:
    """Scores by run, each run's difference from the first, and the same over seeds by runs.

    A run that repeats another one's recipe and seed counts once over seeds: ``repeated`` names it.
    """

    scores: Mapping[str, Score]
    differences: Mapping[str, Difference]
    spreads: Mapping[tuple[str, ...], Spread]
    over_seeds: Mapping[tuple[str, ...], SeedDifference]
    repeated: Mapping[str, str]

    @property
    def reference(self) -> str:
        """The run with which the others are compared."""
        return next(iter(self.scores))

    def to_json(self) -> dict[str, object]:
        """All of it as JSON."""
        return {
            "reference": self.reference,
            "sha256": self.scores[self.reference].sha256,
            "versions": versions(),
            "runs": {
                name: {
                    "mean": score.mean,
                    "se": score.se,
                    "mc_se": score.mean_mc_se,
                    "share_of_bounds": share_of_bounds(score),
                    "num_samples": score.num_samples,
                    "seed": score.seed,
                }
                for name, score in self.scores.items()
            },
            "differences": {
                name: {
                    "mean": paired.mean,
                    "se": paired.se,
                    "mc_se": paired.mc_se,
                    "num_data": paired.num_data,
                }
                for name, paired in self.differences.items()
            },
            # ">=", "<=" or "~" where a score is a bound: then the Monte Carlo error is too small.
            "signs": {name: paired.sign for name, paired in self.differences.items()},
            "seeds": [
                {
                    "runs": list(names),
                    **vars(over_seeds),
                    **(
                        {"difference": vars(found)} if (found := self.over_seeds.get(names)) else {}
                    ),
                }
                for names, over_seeds in self.spreads.items()
            ],
        }


def _compare(scores: Mapping[str, Score]) -> _Comparison:
    first, *others = scores
    _check_units(scores)
    groups: dict[str, dict[int, str]] = {}  # by recipe and seed
    repeated: dict[str, str] = {}
    for name in scores:
        by_seed = groups.setdefault(_recipe_without_seed(Path(name)), {})
        known_as = by_seed.setdefault(_seed_of(Path(name)), name)
        if known_as != name:
            repeated[name] = known_as
    models = [tuple(by_seed.values()) for by_seed in groups.values()]
    return _Comparison(
        scores,
        {name: compare(scores[name], scores[first]) for name in others},
        {names: spread([scores[name] for name in names]) for names in models if len(names) > 1},
        _over_seeds(scores, models),
        repeated,
    )


def _over_seeds(
    scores: Mapping[str, Score], models: Sequence[tuple[str, ...]]
) -> Mapping[tuple[str, ...], SeedDifference]:
    """The differences from the first run's model of those that share two seeds or more with it."""
    first, *others = models
    runs = {names: {_seed_of(Path(name)): scores[name] for name in names} for names in models}
    shared = [names for names in others if len(runs[names].keys() & runs[first].keys()) > 1]
    if not shared:
        return {}
    return against_best({names: runs[names] for names in (first, *shared)}, reference=first)[1]


def _check_units(runs: Iterable[str]) -> None:
    """Raise `InvalidInput` where one table was standardised otherwise than another."""
    (first, columns), *others = ((run, read_data(Path(run)).columns) for run in runs)
    for run, other in others:
        if columns is None or other is None or columns.names != other.names:
            continue
        if [(c.center, c.scale) for c in columns] != [(c.center, c.scale) for c in other]:

            def units(of: Columns) -> str:
                return "standardised units" if of.is_standardized else "the columns' own units"

            raise InvalidInput(
                "RUN",
                got=f"{first} in {units(columns)} and {run} in {units(other)}",
                expected="densities in the same units, of tables that were split alike",
                fix="train both with the same --standardize, --seed and --data",
            )


def _score_of(run: str, name: str) -> Score:
    scores = load_scores(Path(run) / "evaluation.npz")
    if name not in scores:
        raise InvalidInput(
            "score",
            got=f"{name!r}, which {run} does not have",
            expected=f"one of {', '.join(scores)}",
            fix="a guide that is a point has neither an ELBO nor a log p(x): add --score log_joint",
        )
    return scores[name]


def _seed_of(folder: Path) -> int:
    seed = recipe_of(folder).get("seed")
    return seed if isinstance(seed, int) else 0


def _recipe_without_seed(folder: Path) -> str:
    """The recipe without its seed and machine, to group runs by; the folder if there is none."""
    settings = recipe_of(folder)
    if not settings:
        return str(folder)
    recipe = with_current_paths({**settings, "seed": None, **dict.fromkeys(OF_THE_MACHINE)})
    return json.dumps(recipe, sort_keys=True, default=str)


def _print_comparison(name: str, compared: _Comparison) -> None:
    scores, console = compared.scores, console_of()
    short = {run: _breaking(each, console) for run, each in _short_names(scores).items()}
    first = scores[compared.reference]
    draws = {score.num_samples for score in scores.values()}
    said = f"{name}, K = {first.num_samples:,}" if len(draws) == 1 else name
    title = f"{said}, {counted(len(first.values), 'datum', 'data')}; {first.unit} per datum"
    heads = ["mean", "s.e. over\ndata", "minus\nthe first", "its\ns.e.", "Monte Carlo\ns.e."]
    table = _table(title, "run", heads if len(draws) == 1 else ["K", *heads])
    for run, score in scores.items():
        mean = f"{score.sign} {measured(score.mean, score.se)}".strip()
        difference = ("", "", "")
        if paired := compared.differences.get(run):
            value = f"{paired.sign} {measured(paired.mean, paired.se, '+')}".strip()
            difference = value, known(paired.se), paired.error
        number = () if len(draws) == 1 else (f"{score.num_samples:,}",)
        table.add_row(short[run], *number, mean, known(score.se), *difference)
    console.print(table)
    if compared.spreads:
        console.print(_seeds_table(compared, short))
    for run, same in compared.repeated.items():
        console.print(
            f"{run} has the recipe and the seed of {same}: over seeds, they are one.",
            highlight=False,
            soft_wrap=True,
        )
    if any(map(_is_bound, scores.values())):
        console.print(
            "Scores marked >= are bounds: some of their data have a Pareto k above or near "
            "the threshold, or none because K is too small. A difference marked ~ is of two "
            "bounds, and the true one may be larger or smaller: its errors are those of the "
            "bounds.",
            highlight=False,
            soft_wrap=True,
        )
    if len({score.num_samples for score in scores.values()}) > 1:
        console.print(
            "The runs were scored with different K, and fewer draws give a lower log p(x) on "
            "average: evaluate all of them with one --num-samples.",
            highlight=False,
            soft_wrap=True,
        )


def _short_names(runs: Iterable[str]) -> dict[str, str]:
    """The folders of runs without the folders that all of them lie in.

    Example:
        >>> _short_names(["runs/a/1", "runs/b/1"])
        {'runs/a/1': 'a/1', 'runs/b/1': 'b/1'}
    """
    parts = {run: Path(run).parts for run in runs}
    levels = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts.values()))
    shared = min(len(list(levels)), min(map(len, parts.values())) - 1)
    return {run: str(Path(*each[shared:])) for run, each in parts.items()}


def _breaking(run: str, console: Console) -> str:
    """A name of a run, such as the settings of a sweep, on several lines where there is no room."""
    return run if console.width >= 100 else run.replace(",", ",\n")


def _model_of(runs: Sequence[str]) -> str:
    """What the names of a model's runs have in common before their seeds, or else all names.

    Example:
        >>> _model_of(["prior=Flow,seed=0", "prior=Flow,seed=1"])
        'prior=Flow, 2 runs'
    """
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*runs))
    model = re.match(r"(.*\w)[\W_]+seed", "".join(letters[0] for letters in alike))
    return f"{model[1]}, {len(runs)} runs" if model else "\n".join(runs)


def _table(title: str, runs: str, heads: Sequence[str]) -> Table:
    """A table of runs by their names and numbers, none of which is broken."""
    table = Table(title=title, title_justify="left")
    table.add_column(runs, overflow="fold", min_width=9)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _is_bound(score: Score) -> bool:
    return share_of_bounds(score) > 0


def _seeds_table(compared: _Comparison, short: Mapping[str, str]) -> Table:
    unit = compared.scores[compared.reference].unit
    heads = ["mean", "s.d. of\nruns"]
    if compared.over_seeds:
        heads += ["minus\nthe first", "its\ns.e.", "of\ndata", "of\nseeds", "p"]
    table = _table(f"over seeds; {unit} per datum", "runs", heads)
    for runs, over_seeds in compared.spreads.items():
        sign = ">= " * any(_is_bound(compared.scores[run]) for run in runs)
        paired = compared.over_seeds.get(runs)
        table.add_row(
            _model_of([short[run] for run in runs]),
            f"{sign}{measured(over_seeds.mean, over_seeds.sd)}",
            known(over_seeds.sd),
            *(() if paired is None else _words(paired)),
        )
    return table


def _words(paired: SeedDifference) -> tuple[str, ...]:
    value = f"{paired.sign} {measured(paired.mean, paired.se, '+')}".strip()
    errors = (known(error) for error in (paired.se, paired.se_data, paired.se_seeds))
    return value, *errors, "< 0.001" if paired.adjusted < 0.001 else known(paired.adjusted, 3)
