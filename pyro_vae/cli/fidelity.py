"""fidelity RUN: whether samples are like data, and reach all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.cli.measured import Measured, Row, Subject, add_subject_arguments, deliver, subject_of
from pyro_vae.cli.options import as_written, parse
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.evaluation.fidelity import fidelity
from pyro_vae.programs import is_unconditional
from pyro_vae.programs.contexts import marks_of
from pyro_vae.runtime.predictive import generate
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.validation import InvalidInput, check_choice, check_count, tensors_of

PLACE = "training data in their place"


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "fidelity",
        "Precision, recall, density and coverage of samples, by distances to nearest neighbours "
        "among the data; and those of training data in place of samples, which are the best that "
        "can be had. Written to RUN/fidelity.json and RUN/fidelity.png.",
    )
    add_subject_arguments(parser, limit=1000)
    parser.add_argument(
        "--points", type=int, default=100, help="data and samples that are compared at once"
    )
    parser.add_argument("--neighbours", type=int, default=5, help="the neighbour a ball reaches to")
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("points", options.points, minimum=2)
    check_count("neighbours", options.neighbours)
    check_choice("split", options.split, ["train", "test"])
    subject = subject_of(options, fixed=False, in_any_order=True)
    if options.split == "train":  # other training data than those that are measured
        subject = replace(subject, train=subject.train[len(subject.data) :])
    repeats = min(len(subject.data), len(subject.train)) // options.points
    _check_points(subject, repeats)
    found: dict[tuple[str, str], list[float]] = {}
    with progress_bar("comparisons", total=repeats) as advance:
        for number in range(repeats):
            parts = _points(subject, number, options.points, options.seed)
            for site, real, samples, others in parts:
                for of, points in (("samples", samples), (PLACE, others)):
                    measured = fidelity(real, points, options.neighbours)
                    for name, value in vars(measured).items():
                        found.setdefault((f"{site}{name}", of), []).append(value)
            advance(1)
    rows = [_row(f"{name}, {of}", torch.tensor(v)) for (name, of), v in found.items()]
    names = [c.name for c in subject.data.columns or () if c.kind == "category"]
    left_out = [f"without {', '.join(names)}: categories have no distances"] if names else []
    whole = Measured(
        f"{repeats} times {options.points} {subject.data.split} data and as many samples",
        rows,
        [partial(plotting.plot_estimates, [r.name for r in rows], [r.value for r in rows],
                 [r.se for r in rows])],
        ["the four depend on the number of points: compare runs at the same --points", *left_out],
        size=(6.0, 1.0 + 0.3 * len(rows)),
    )  # fmt: skip
    deliver("fidelity", subject, whole, options, as_written(argv))


def _check_points(subject: Subject, repeats: int) -> None:
    data = subject.data
    context, marks = tensors_of(data.context), marks_of(subject.program)
    found = {
        "text": data.vocabulary is not None,
        "data with missing entries": any(t.isnan().any() for t in tensors_of(data.x).values()),
        "categories alone": data.columns is not None
        and all(column.kind == "category" for column in data.columns),
        "data some of which are bounds": any((context[k] != v).any() for k, v in marks.items()),
    }
    if any(found.values()):
        raise InvalidInput(
            "run",
            got=next(name for name, there in found.items() if there),
            expected="complete data with distances between them",
            fix="measure features instead: pv.evaluation.fidelity(features(x), features(samples))",
        )
    if repeats < 2:
        fewest = min(len(data), len(subject.train))
        raise InvalidInput(
            "points",
            got=f"too many for {fewest} data",
            expected="half of them at most, so that the error is known",
            fix=f"pass --points {max(2, fewest // 2)}, or another --limit",
        )


def _points(
    subject: Subject, number: int, count: int, seed: int
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """For each site its name, data, as many samples given their context, and training data."""
    rows = slice(number * count, (number + 1) * count)
    real, others = subject.data[rows], subject.train[rows]
    program = subject.program
    context = None if is_unconditional(program) else real.context
    samples = tensors_of(generate(program, count, context=context, draws=True, seed=seed + number))
    known, columns = tensors_of(others.x), subject.data.columns
    for name, part in tensors_of(real.x).items():
        made, learnt = samples[name].cpu(), known[name]
        if columns is not None:  # names have no distance from one another
            kept = [column.kind != "category" for column in columns]
            part, made, learnt = part[:, kept], made[:, kept], learnt[:, kept]
        yield f"{name}: " if name else "", part, made, learnt


def _row(name: str, values: Tensor) -> Row:
    """The mean over repeats, which have no datum in common, with its standard error."""
    return Row(name, values.mean().item(), values.std().item() / math.sqrt(len(values)), digits=3)
