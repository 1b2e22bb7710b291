"""decompose RUN: the ELBO in its parts, and what the latent carries."""

from __future__ import annotations

from functools import partial

from pyro_vae import plotting
from pyro_vae.cli.measured import Measured, Row, add_subject_arguments, deliver, row_of, subject_of
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.titles import title_of
from pyro_vae.evaluation.active import active_units
from pyro_vae.evaluation.aggregate import aggregate_posterior
from pyro_vae.evaluation.decomposition import decompose
from pyro_vae.validation import check_count


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "decompose",
        "The ELBO as reconstruction less the KL of each latent site; the KL as information about "
        "the datum and mismatch with the prior; active units. Written to RUN/decompose.json and "
        "RUN/decompose.png.",
    )
    add_subject_arguments(parser, limit=500)
    parser.add_argument("--num_samples", type=int, default=100, help="draws for each datum")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("num_samples", options.num_samples, minimum=2)
    check_count("limit", options.limit, minimum=2)
    subject = subject_of(options)
    program, data = subject.program, subject.data
    parts = decompose(program, data, options.num_samples, seed=options.seed, progress=True)
    sites = [name for name in parts if "/" in name]
    if len(sites) == 1:  # it is the whole KL
        del parts[sites[0]]
    units = active_units(program, data, options.num_samples, seed=options.seed)
    whole = aggregate_posterior(program, data, seed=options.seed)
    rows = [
        *(row_of(name, score) for name, score in parts.items()),
        *(
            Row(name, value, mc_se=float(whole.errors[key]))
            for name, key, value in (
                ("I(x; z), within the KL", "mutual_information", whole.mutual_information),
                ("KL(q(z) || p(z)), within it", "marginal_kl", whole.marginal_kl),
            )
        ),
        Row("active units", units.active, digits=0),
        Row("latent dimensions", units.total, digits=0),
    ]
    measured = Measured(
        title_of(data),
        rows,
        [
            partial(plotting.plot_means, {_shown(name): parts[name] for name in sorted(parts)}),
            partial(plotting.plot_units, units),
        ],
        ["I(x; z) is of these data, and at most the logarithm of their number"],
        {
            "variance": {name: value.flatten().tolist() for name, value in units.variance.items()},
            "share": {name: value.flatten().tolist() for name, value in units.share.items()},
        },
    )
    deliver("decompose", subject, measured, options, as_written(argv))


def _shown(name: str) -> str:
    """The name of a part on the figure."""
    known = {"elbo": "ELBO", "kl": "KL"}
    return known.get(name) or name.replace("kl/", "KL of ")
