"""calibrate RUN: whether q(z | x) covers what it says."""

from __future__ import annotations

from functools import partial

import torch

from pyro_vae import plotting
from pyro_vae.cli.measured import Measured, Row, add_subject_arguments, deliver, subject_of
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.diagnostics.calibration import calibrate
from pyro_vae.evaluation.widening import error_of_share
from pyro_vae.validation import check_count, counted

WORST = 5  # dimensions in the table; all are in the file
LEVEL = 0.9


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "calibrate",
        "Simulation-based calibration: on data simulated from the model, whether the latents that "
        "made them lie among the draws of q(z | x) as they should. Written to RUN/calibrate.json "
        "and RUN/calibrate.png.",
    )
    add_subject_arguments(parser, limit=1000)
    parser.add_argument("--simulated", type=int, default=1000, help="how many data to simulate")
    parser.add_argument("--num_samples", type=int, default=99, help="draws for each of them")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("simulated", options.simulated)
    check_count("num_samples", options.num_samples)
    subject = subject_of(options)
    count = options.simulated
    found = calibrate(
        subject.program,
        count,
        options.num_samples,
        like=subject.data,
        seed=options.seed,
        progress=True,
    )
    test = found.test_uniform()
    (level,), (central,), (highest,) = found.coverage(torch.tensor([LEVEL]))
    worst = test.p_value.argsort()[:WORST].tolist()
    share = f"{100 * level:.0f}%"
    covers = [
        (f"{share} regions of highest density, jointly", highest.item()),
        *((f"{share} intervals of {found.names[d]}", central[d].item()) for d in worst),
    ]
    rows = [
        Row("p of uniform ranks, all dimensions", test.smallest, is_p=True),
        *(Row(name, value, mc_se=error_of_share(value, count), digits=3) for name, value in covers),
    ]
    verdict = "a U of the ranks is a q too narrow, a hump one too wide, a slope a bias"
    notes = [verdict, f"the {len(worst)} dimensions with the smallest p of {len(found.names)}"]
    measured = Measured(
        f"{counted(count, 'simulated datum', 'simulated data')}; shares of simulated "
        "latents that are covered",
        rows,
        [
            partial(plotting.plot_coverage, found),
            partial(plotting.plot_ranks, found, column=worst[0]),
        ],
        notes,
        {
            "p_values": dict(zip(found.names, test.p_value.tolist())),
            "coverage": dict(zip(found.names, central.tolist())),
        },
    )
    deliver("calibrate", subject, measured, options, as_written(argv))
