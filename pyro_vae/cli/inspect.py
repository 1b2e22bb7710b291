"""inspect RUN: draws of the posterior as ArviZ data; figures of the latent space."""

from __future__ import annotations

from pyro_vae import checkpoint, plotting
from pyro_vae.cli.figures import add_format_argument
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.runs import (
    add_data_arguments,
    add_run_arguments,
    data_of,
    load_run,
    outside_of,
)
from pyro_vae.cli.terminal import console_of
from pyro_vae.diagnostics.global_data import global_latents_of
from pyro_vae.diagnostics.inference_data import to_inference_data
from pyro_vae.evaluation.arviz_compat import arviz, write_netcdf
from pyro_vae.files.elsewhere import elsewhere
from pyro_vae.report.commands import remember
from pyro_vae.report.gallery import inspect as inspect_program
from pyro_vae.report.sentences import facts_of, warnings_of
from pyro_vae.runtime.checks import check_data
from pyro_vae.validation import check_count


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "inspect",
        "Draws of q(z | x) as ArviZ data in RUN/posterior.nc; figures of the latent space, of the "
        "decoder, and of q(z | x) beside NUTS in RUN/inspection/.",
    )
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument(
        "--num_samples", type=int, default=200, help="draws for each datum in posterior.nc"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=2000,
        help="test data to look at; the first 50 go to posterior.nc",
    )
    parser.add_argument(
        "--reference",
        type=int,
        default=1,
        help="how many data NUTS draws reference posteriors of; 0 for none",
    )
    parser.add_argument(
        "--outside",
        type=str,
        default=None,
        help="other data of the same shape, for an anomaly score",
    )
    add_format_argument(parser)
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    formats = plotting.formats_with(options.figure_format)
    check_count("num_samples", options.num_samples)
    check_count("limit", options.limit, minimum=2)
    check_count("reference", options.reference, minimum=0)
    folder, program = load_run(options)
    checkpoint.check_writable(folder)
    data = data_of(folder, options)
    test, outside = data["test"][: options.limit], None
    if options.outside is not None:
        outside = outside_of(folder, options, test)[: options.limit]
        check_data(program, outside)
    with elsewhere():
        arviz()
    idata = to_inference_data(
        program,
        test[:50],
        options.num_samples,
        seed=options.seed,
        run=folder.name,
        memory_budget=2**26,
        progress=True,
    )
    console = console_of()
    for line in global_latents_of(idata):
        console.print(line, highlight=False, soft_wrap=True)
    write_netcdf(idata, folder / "posterior.nc")
    gallery = inspect_program(
        program,
        data["train"],
        test,
        checkpoint.subfolder(folder, "inspection"),
        outside=outside,
        reference=options.reference,
        seed=options.seed,
        progress=True,
        formats=formats,
    )
    remember(folder, ["inspect", *as_written(argv)])
    for name, value in facts_of(gallery.numbers).items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    for warning in (*warnings_of(gallery.numbers), *gallery.warnings):
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    for path in (folder / "posterior.nc", *(gallery.folder / name for name in gallery.captions)):
        console.print(str(path), highlight=False, soft_wrap=True)
