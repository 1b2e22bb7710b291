"""compare RUN RUN ...: scores of several runs on the same data, paired datum by datum."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pyro_vae import checkpoint
from pyro_vae.cli.options import new_parser, parse
from pyro_vae.cli.scores import without_nan
from pyro_vae.evaluation.comparison import compare, load_scores, spread
from pyro_vae.evaluation.scores import Score, versions
from pyro_vae.recipes.recipe import read_recipe
from pyro_vae.validation import InvalidInput, check_choice


def run(argv: list[str]) -> None:
    parser = new_parser(
        "compare",
        "Scores that pyro-vae evaluate wrote, compared datum by datum: each run less the first. Runs "
        "that differ in nothing but their seed are also put together, with mean and spread.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="the runs' folders, the one to compare with first"
    )
    parser.add_argument(
        "--score",
        type=str,
        default="log_likelihood",
        help="log_likelihood or elbo; log_joint or squared_error of autoencoders",
    )
    parser.add_argument("--out", type=str, default=None, help="a .json file for the numbers")
    options = parse(parser, argv)
    check_choice("score", options.score, ["log_likelihood", "elbo", "log_joint", "squared_error"])
    if len(options.runs) < 2:
        raise InvalidInput(
            "RUN", got="one run", expected="two or more", fix="name the runs to compare"
        )
    scores = {name: _score_of(name, options.score) for name in options.runs}
    first, *others = scores
    differences = {name: compare(scores[name], scores[first]) for name in others}
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault(_recipe_without_seed(Path(name)), []).append(name)
    spreads = {
        " ".join(names): spread([scores[name] for name in names])
        for names in groups.values()
        if len(names) > 1
    }
    _print_comparison(options.score, scores, differences, spreads)
    if options.out:
        result = {
            "score": options.score,
            "reference": first,
            "sha256": scores[first].sha256,
            "versions": versions(),
            "runs": {
                name: {
                    "mean": score.mean,
                    "se": score.se,
                    "mc_se": score.mean_mc_se,
                    "num_samples": score.num_samples,
                    "seed": score.seed,
                }
                for name, score in scores.items()
            },
            "differences": {name: vars(difference) for name, difference in differences.items()},
            "seeds": [
                {"runs": names.split(" "), **vars(over_seeds)}
                for names, over_seeds in spreads.items()
            ],
        }
        checkpoint.write_text(Path(options.out), json.dumps(without_nan(result), indent=1) + "\n")


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


def _recipe_without_seed(folder: Path) -> str:
    """What runs over seeds have in common; a run without a recipe is like no other."""
    if not (folder / "recipe.yaml").exists():
        return str(folder)
    return json.dumps(
        {key: value for key, value in read_recipe(folder / "recipe.yaml").items() if key != "seed"},
        sort_keys=True,
        default=str,
    )


def _print_comparison(name: str, scores: dict, differences: dict, spreads: dict) -> None:
    first = next(iter(scores))
    table = Table(
        title=f"{name}, {len(scores[first].values):,} data; nats per datum", title_justify="left"
    )
    for column in (
        "run",
        "K",
        "mean",
        "s.e. over data",
        f"less {first}",
        "its s.e.",
        "Monte Carlo s.e.",
    ):
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for run, score in scores.items():
        paired = differences.get(run)
        table.add_row(
            run,
            f"{score.num_samples:,}",
            f"{score.mean:.2f}",
            f"{score.se:.2f}",
            *(
                ("", "", "")
                if paired is None
                else (f"{paired.mean:+.2f}", f"{paired.se:.2f}", f"{paired.mc_se:.3f}")
            ),
        )
    console = Console()
    console.print(table)
    if spreads:
        seeds = Table(title="over seeds; nats per datum", title_justify="left")
        for column in ("runs", "mean", "s.d. between runs"):
            seeds.add_column(
                column, justify="left" if column == "runs" else "right", overflow="fold"
            )
        for runs, over_seeds in spreads.items():
            seeds.add_row(runs, f"{over_seeds.mean:.2f}", f"{over_seeds.sd:.2f}")
        console.print(seeds)
    if len({score.num_samples for score in scores.values()}) > 1:
        console.print(
            "The runs were scored with different K: fewer draws give a lower log p(x) on average. Evaluate them alike.",
            highlight=False,
            soft_wrap=True,
        )
