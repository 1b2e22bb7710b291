"""gaps RUN: what lies between the ELBO and log p(x)."""

from __future__ import annotations

from functools import partial

from pyro_vae import plotting
from pyro_vae.cli.measured import Measured, add_subject_arguments, deliver, row_of, subject_of
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.titles import title_of
from pyro_vae.evaluation.decomposition import inference_gap
from pyro_vae.evaluation.proposals import Refitted
from pyro_vae.validation import check_count


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "gaps",
        "log p(x) less the ELBO, in two: what the family of q(z | x) lacks, and what the encoder "
        "loses against the best member of it. Written to RUN/gaps.json and RUN/gaps.png.",
    )
    add_subject_arguments(parser, limit=50)
    parser.add_argument("--num_samples", type=int, default=1000, help="draws for each datum")
    parser.add_argument("--steps", type=int, default=300, help="that refit q(z | x) to each datum")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("num_samples", options.num_samples)
    check_count("steps", options.steps)
    subject = subject_of(options)
    data = subject.data
    refit = Refitted(steps=options.steps)
    found = inference_gap(
        subject.program,
        data,
        options.num_samples,
        refinement=refit,
        seed=options.seed,
        progress=True,
    )
    scores = {
        "inference gap": found.inference,
        "approximation: of the family": found.approximation,
        "amortisation: of the encoder": found.amortization,
    }
    measured = Measured(
        title_of(data),
        [row_of(name, score, digits=3) for name, score in scores.items()],
        [partial(plotting.plot_means, scores)],
        ["too few --steps make the approximation gap too large and the other too small"],
    )
    deliver("gaps", subject, measured, options, as_written(argv))
