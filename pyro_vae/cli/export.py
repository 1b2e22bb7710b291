"""export RUN --out FOLDER: encoder, decoder and sampler as files that need no Pyro."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.cli.options import parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.runs import add_data_arguments, add_trust_argument, data_of, program_of, trusted
from pyro_vae.cli.terminal import console_of
from pyro_vae.sharing import export
from pyro_vae.sharing.formats import FORMATS
from pyro_vae.validation import InvalidInput, check_choice


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "export",
        "The encoder, the decoder and a sampler of a VAE as graphs, each compared with the program "
        "on a few test data. FOLDER/export.json names what each takes and gives.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--out", type=str, default=None, help="the folder to write to")
    parser.add_argument("--format", type=str, default="torch", help=f"one of {', '.join(FORMATS)}")
    add_data_arguments(parser)
    add_trust_argument(parser)
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_choice("format", options.format, FORMATS)
    if not options.out:
        raise InvalidInput(
            "out", got="nothing", expected="a folder to write to", fix="add --out FOLDER"
        )
    folder, target = Path(options.run), Path(options.out)
    checkpoint.check_writable(target)
    program = program_of(folder, trusted(options.trust))
    made = export(program, data_of(folder, options)["test"], target, options.format)
    console = console_of()
    for name in made.parts:
        place = target / f"{name}{FORMATS[options.format].suffix}"
        console.print(f"{place}: as the program", highlight=False, soft_wrap=True)
    for name, reason in made.left_out.items():
        console.print(f"{name}: not exported, {reason}", highlight=False, soft_wrap=True)
