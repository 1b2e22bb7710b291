"""push RUN USER/NAME: the run on the Hugging Face hub, with a model card."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.cli.options import parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.terminal import console_of
from pyro_vae.sharing import push
from pyro_vae.validation import counted


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "push",
        "The run's program, recipe, scores and figures on the Hugging Face hub, with a model card. "
        "The data stay here; the names of a table's columns and categories go along.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("name", metavar="USER/NAME", help="the repository, made if there is none")
    parser.add_argument(
        "--private", type=bool, default=True, help="whether a new repository is for you alone"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    names = push(Path(options.run), options.name, private=options.private)
    console = console_of()
    for name in names:
        console.print(f"  {name}", highlight=False, soft_wrap=True)
    console.print(
        f"{counted(len(names), 'file')} in hf://{options.name}", highlight=False, soft_wrap=True
    )
