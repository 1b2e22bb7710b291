"""anneal RUN: log p(x) by annealing, and how far to trust it."""

from __future__ import annotations

import math
from functools import partial

from pyro_vae import plotting
from pyro_vae.cli.measured import Measured, Row, add_subject_arguments, deliver, row_of, subject_of
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.titles import title_of
from pyro_vae.evaluation.annealing import ais, bdmc
from pyro_vae.evaluation.importance import elbo
from pyro_vae.validation import check_count

CLEAR = 3.0  # standard errors that chance does not reach


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "anneal",
        "log p(x) by annealed importance sampling, which finds modes that q(z | x) misses; and "
        "bounds from both sides on data simulated from the model, which say how accurate it is. "
        "Written to RUN/anneal.json and RUN/anneal.png.",
    )
    add_subject_arguments(parser, limit=20)
    parser.add_argument("--num_chains", type=int, default=16, help="chains for each datum")
    parser.add_argument("--num_temperatures", type=int, default=200, help="steps of each chain")
    parser.add_argument(
        "--simulated", type=int, default=20, help="how many data to simulate; 0 for none"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("simulated", options.simulated, minimum=0)
    subject = subject_of(options)
    program, data = subject.program, subject.data
    given = (options.num_chains, options.num_temperatures)
    found = ais(program, data, *given, seed=options.seed, progress=True)
    bound = elbo(program, data, options.num_chains, seed=options.seed)
    rows = [row_of("log p(x) by annealing", found), row_of("ELBO", bound)]
    draws = [partial(plotting.plot_bounds, {"annealing": found, "ELBO": bound})]
    notes: list[str] = []
    if options.simulated:
        both = bdmc(
            program,
            options.simulated,
            *given,
            like=data,
            seed=options.seed,
            progress=True,
        )
        rows += [
            row_of("simulated: lower bound", both.lower),
            row_of("simulated: upper bound", both.upper),
            Row("simulated: between them", both.gap, both.gap_se, digits=3),
        ]
        bounds = {"upper, simulated data": both.upper, "lower, simulated data": both.lower}
        draws.append(partial(plotting.plot_bounds, bounds))
        if told := on_crossing(both.gap, both.gap_se):
            notes.append(told)
    notes.append(
        f"acceptance {found.acceptance.double().mean():.2f}, effective chains "
        f"{found.ess.double().median():.1f} of {options.num_chains}; where these are low, raise "
        "--num-temperatures"
    )
    title = title_of(data)
    measured = Measured(title, rows, draws, notes)
    deliver("anneal", subject, measured, options, as_written(argv))


def on_crossing(gap: float, error: float) -> str:
    """A sentence on bounds whose lower one lies above the upper; nothing where it does not.

    The bounds hold on average over chains: by chance, those that meet cross.

    Example:
        >>> on_crossing(0.2, 0.1)
        ''
        >>> on_crossing(-0.163, 0.189).partition(":")[0]
        'the lower bound lies above the upper one by 0.163 +- 0.189'
    """
    if not gap < 0:
        return ""
    crossed = f"the lower bound lies above the upper one by {-gap:.3f}"
    if math.isnan(error):
        return f"{crossed}: of one datum the error is not known, so simulate more (--simulated)"
    crossed += f" +- {error:.3f}"
    if -gap <= CLEAR * error:
        return f"{crossed}: the two agree within their error, and log p(x) is known to that"
    return (
        f"{crossed}: that is no chance, so one of them is no bound. Raise --num-temperatures; if "
        "they still cross, a density of the program is wrong (pyro_vae.testing checks each)"
    )
