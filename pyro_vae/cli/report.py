"""report RUN: the run as one HTML page."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.cli.options import parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.runs import add_trust_argument, program_of, trusted
from pyro_vae.cli.terminal import console_of
from pyro_vae.report.page import report


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "report",
        "The model, its data, its scores and how to reproduce them, as one page: RUN/report.html. "
        "It shows what train, evaluate and inspect have written.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    add_trust_argument(parser)
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    folder = Path(options.run)
    program = program_of(folder, trusted(options.trust))
    checkpoint.check_writable(folder)
    checkpoint.write_text(folder / "report.html", report(folder, program))
    console_of().print(str(folder / "report.html"), highlight=False, soft_wrap=True)
