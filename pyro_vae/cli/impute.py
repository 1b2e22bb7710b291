"""impute RUN: a table with its missing entries filled in."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.cli.options import parse
from pyro_vae.cli.outputs import check_replaceable
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.runs import add_data_arguments, add_run_arguments, load_run, whole_data_of
from pyro_vae.cli.terminal import console_of
from pyro_vae.runtime.imputation import impute
from pyro_vae.validation import InvalidInput, check_choice, check_count, counted


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "impute",
        "A table completed: its missing entries become medians of draws of p(x | z), or the most "
        "frequent category. FILE-entries.csv beside it has the draws and an interval of each.",
    )
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument(
        "--out", type=str, default=None, help="a .csv file; by default RUN/imputed.csv"
    )
    parser.add_argument("--num_draws", type=int, default=100, help="draws of each missing entry")
    parser.add_argument(
        "--probability", type=float, default=0.9, help="of the interval of each missing entry"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("num_draws", options.num_draws)
    folder, program = load_run(options)
    if isinstance(program.event_shape, dict):
        raise InvalidInput(
            "run",
            got=f"a run on several sites, {', '.join(program.event_shape)}",
            expected="one on a table, whose gaps are filled in",
            fix="pv.generate(program, given={...}) draws the sites that a datum lacks",
        )
    target = Path(options.out) if options.out else folder / "imputed.csv"
    check_choice("out", target.suffix, [".csv"])
    checkpoint.check_writable(target.parent)
    given = whole_data_of(folder, options)
    filled = impute(
        program,
        given,
        options.num_draws,
        probability=options.probability,
        seed=options.seed,
        progress=True,
    )
    beside = target.with_name(f"{target.stem}-entries.csv")
    files = {
        beside: filled.entries().to_csv(index=False).encode(),
        target: filled.frame().to_csv(index=False).encode(),
    }
    if options.out:  # a table carries no name of who wrote it, and must be compared
        for path, data in files.items():
            check_replaceable(path, "pyro-vae impute", data)
    checkpoint.commit(target.parent, {path.name: data for path, data in files.items()})
    console = console_of()
    for line in (
        f"{counted(len(filled.places), 'missing entry', 'missing entries')} of "
        f"{counted(len(given), 'row')} filled in: {target}",
        f"their draws and intervals: {beside}",
    ):
        console.print(line, highlight=False, soft_wrap=True)
