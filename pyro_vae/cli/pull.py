"""pull USER/NAME --out RUN: a run from the Hugging Face hub; none of its code is run."""

from __future__ import annotations

from pyro_vae import checkpoint
from pyro_vae.cli.options import parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.terminal import console_of


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "pull",
        "The files of a run from the Hugging Face hub. No code is fetched, and nothing is run; a "
        "class of somebody's own needs --trust when the run is used.",
    )
    parser.add_argument(
        "name", metavar="USER/NAME", help="the repository, with @REVISION behind it if wanted"
    )
    parser.add_argument(
        "--out", type=str, default=None, help="the run's folder; by default one of your cache"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    console_of().print(
        str(checkpoint.pull(options.name, options.out)), highlight=False, soft_wrap=True
    )
