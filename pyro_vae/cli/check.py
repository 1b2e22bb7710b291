"""check RUN: what a careful reviewer would ask of a run, each with a verdict."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.checks import Checked, Claims, Scored, check
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.run_data import read_data
from pyro_vae.cli.runs import add_data_arguments, add_run_arguments, data_of, load_run, recipe_of
from pyro_vae.cli.terminal import console_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.proposals import recorded
from pyro_vae.evaluation.scores import versions
from pyro_vae.files.reading import checked, parsing
from pyro_vae.report.check_page import check_page
from pyro_vae.report.commands import remember
from pyro_vae.report.run_files import FILES, Evaluation, as_json, read_file
from pyro_vae.training.history import History, Row
from pyro_vae.validation import check_count, check_positive


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "check",
        "Whether q matches the posterior, the bound holds, the model fits, the latent is used, "
        "training has converged and the score is honest: a verdict for each check, with its "
        "numbers, in RUN/check.json and RUN/check.html. The exit code is 0 whatever the verdicts "
        "are: a script reads them in check.json, where each check has a verdict.",
    )
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="the time for all checks; the cheap ones first"
    )
    parser.add_argument(
        "--limit", type=int, default=None, help="look only at this many test data, the first"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_positive("minutes", options.minutes)
    if options.limit is not None:
        check_count("limit", options.limit, minimum=2)
    folder, program = load_run(options)
    checkpoint.check_writable(folder)
    data = data_of(folder, options)
    test = data["test"][: options.limit]
    is_the_runs = options.data in (None, recipe_of(folder).get("data"))
    training = read_file(folder, "training.json")
    with parsing(folder / "training.json", FILES):
        history = checked(training.get("history") or [], list[Row])
    found = check(
        program,
        test,
        train=data["train"] if is_the_runs else None,
        history=History(history),  # of fit, which keeps the weights of the best epoch
        claims=_claims(folder, data["test"], test),
        minutes=options.minutes,
        seed=options.seed,
        progress=True,
    )
    title = f"Checks of {folder.resolve().name} on {test.name}"
    result = {
        "checks": [each.to_dict() for each in found.verdicts],
        "left_out": found.left_out,
        "level": found.level,
        "num_data": found.num_data,
        "data": {"name": test.name, "split": test.split, "sha256": test.sha256},
        "seed": found.seed,
        "versions": versions(),
    }
    _show(found)
    files = {"check.html": check_page(found, title).encode(), "check.json": as_json(result, True)}
    checkpoint.commit(folder, files)
    remember(folder, ["check", *as_written(argv)])
    for name in files:
        console_of().print(str(folder / name), highlight=False, soft_wrap=True)


def _claims(folder: Path, whole: Dataset, test: Dataset) -> Claims:
    """What a run says of its data and its score, where the test data are some of the whole."""
    with parsing(folder / "evaluation.json", FILES):
        scores = checked(read_file(folder, "evaluation.json"), Evaluation)
        ll, scored = scores.get("log_likelihood"), scores.get("data")
    known = read_data(folder).sha256
    return Claims(
        binarize=scored["binarize"] if scored else recipe_of(folder).get("binarize"),
        sha256=test.sha256 if known == whole.sha256 else known,
        num_samples=ll.get("num_samples") if ll else None,
        scored=Scored(scored["sha256"], scores["num_data"], scored["name"], scored["split"])
        if scored and "num_data" in scores
        else None,
        whole=whole,
        proposal=recorded(scores.get("proposal", {})),
    )


def _show(found: Checked) -> None:
    """Print the verdicts, failures first."""
    console = console_of()
    for word in ("failed", "could not tell", "passed", "does not apply"):
        for each in found.of(word):
            change = f" {each.change}" if each.change else ""
            line = f"{each.word:<16}{each.name}: {each.means}.{change}"
            console.print(line, highlight=False, soft_wrap=True)
    for name, seconds in found.left_out.items():
        line = f"{'left out':<16}{name}: about {seconds:.0f} s; raise --minutes"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(str(found), highlight=False, soft_wrap=True)
