"""evaluate RUN: ELBO and importance-sampled log-likelihood of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyro_vae import checkpoint
from pyro_vae.cli.options import as_written, explaining
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.processes import (
    FLAGS,
    RAY_FLAGS,
    add_process_arguments,
    add_ray_arguments,
    in_processes,
    ray_of,
)
from pyro_vae.cli.runs import (
    SPLITS,
    add_data_arguments,
    add_run_arguments,
    add_split_argument,
    load_run,
    split_of,
)
from pyro_vae.cli.scores import print_places, print_table, score_run
from pyro_vae.evaluation.proposals import Proposal
from pyro_vae.ranks.group import speaks
from pyro_vae.recipes.components import resolve_component
from pyro_vae.recipes.parser import parse_components
from pyro_vae.report.commands import remember, without_flags
from pyro_vae.sweeps.group import run_in_group
from pyro_vae.validation import check_choice, check_count


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "evaluate",
        "ELBO and importance-sampled log-likelihood of a run, written to RUN/evaluation.json.",
    )
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--num_samples", type=int, default=1000, help="draws K for each datum")
    add_split_argument(parser)
    parser.add_argument(
        "--limit", type=int, default=None, help="score only this many data, the first"
    )
    parser.add_argument(
        "--proposal",
        type=Callable[..., Proposal],
        default={"class_path": resolve_component("proposal", "Guide")},
        help="the proposal of the log-likelihood, as --proposal Refitted --proposal.steps 50",
    )
    add_process_arguments(parser)
    add_ray_arguments(parser, "process")
    return parser


def run(argv: list[str]) -> None:
    parser = arguments()
    with explaining(parser):
        options = parse_components(parser, argv, {})
    check_count("num_samples", options.num_samples)
    check_choice("split", options.split, SPLITS)
    if options.limit is not None:
        check_count("limit", options.limit)
    check_choice("engine", options.engine, ["local", "ray"])
    if options.engine == "ray":
        command = ["evaluate", *as_written(without_flags(argv, [*FLAGS, *RAY_FLAGS]))]
        print(run_in_group(ray_of(options), command, options.processes), end="")
        return
    if in_processes("evaluate", argv):
        return
    folder, program = load_run(options)
    checkpoint.check_writable(folder)
    data = split_of(folder, options)[: options.limit]
    with explaining(parser):
        proposal = parser.instantiate(options).proposal
    told = partial(print_table, data=data, proposal=proposal)
    score_run(program, data, options.num_samples, folder, options.seed, proposal, told)
    if speaks():
        remember(folder, ["evaluate", *as_written(argv)])
    print_places(folder)
