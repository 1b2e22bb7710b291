"""explore RUN [RUN]: a page on this machine to look around in the latent space."""

from __future__ import annotations

from functools import partial

from jsonargparse import Namespace

from pyro_vae.cli.options import parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.runs import (
    SPLITS,
    add_data_arguments,
    add_loading_arguments,
    add_split_argument,
    load_run,
    split_of,
)
from pyro_vae.cli.terminal import console_of
from pyro_vae.explorer.explored import Explored
from pyro_vae.validation import InvalidInput, check_choice, check_count


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "explore",
        "A page for the browser of this machine: the latent map of a run, or of two side by side. "
        "It decodes where you click, and shows each datum's posterior and scores. It writes "
        "nothing. Ctrl-C ends it.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or of two")
    add_loading_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--port", type=int, default=5006, help="of the page; 0 for any free one")
    add_split_argument(parser)
    parser.add_argument("--limit", type=int, default=1000, help="data on the map, the first")
    parser.add_argument("--num_samples", type=int, default=200, help="draws K for the scores")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("limit", options.limit)
    check_count("num_samples", options.num_samples)
    check_choice("split", options.split, SPLITS)
    check_count("port", options.port, minimum=0)
    if len(options.runs) > 2:
        raise InvalidInput(
            "RUN", got=f"{len(options.runs)} runs", expected="one or two", fix="name two at most"
        )
    try:
        from pyro_vae.explorer.server import serve
    except ImportError:
        raise InvalidInput(
            "explore",
            got="no Bokeh, which makes the page",
            expected="it installed",
            fix='pip install "pyro-vae[explore]"',
        ) from None
    explored = [_explored(name, options) for name in options.runs]
    serve(explored, options.port, partial(console_of().print, highlight=False, soft_wrap=True))


def _explored(name: str, options: Namespace) -> Explored:
    given = Namespace(**{**vars(options), "run": name})
    folder, program = load_run(given)
    data = split_of(folder, given)[: options.limit]
    return Explored(
        folder.resolve().name,
        program,
        data,
        num_samples=options.num_samples,
        seed=options.seed,
        progress=True,
    )
