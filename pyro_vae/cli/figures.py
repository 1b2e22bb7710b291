"""The figures that training leaves beside a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from pyro_vae import checkpoint, plotting
from pyro_vae.cli.terminal import console_of
from pyro_vae.contracts import ProgramLike, Tensors, num_classes_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.distributions import NoDraws
from pyro_vae.plotting.files import Draw, named
from pyro_vae.programs import is_unconditional
from pyro_vae.programs.contexts import with_labels
from pyro_vae.runtime.decoding import decode
from pyro_vae.runtime.observed import NotObserved
from pyro_vae.runtime.predictive import encode, generate, reconstruct
from pyro_vae.training.history import History
from pyro_vae.validation import InvalidInput, count_of, flattened, tensors_of

__all__ = ["FIGURES", "add_format_argument", "draw_figures"]

FIGURES = ("training", "reconstructions", "latents", "samples")
NEW_ROWS = 1000  # at least, that the columns of a table are compared with


def add_format_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--figure_format",
        type=str,
        default="png",
        help="pdf or svg for figures in this format besides the PNG that a report shows",
    )


def draw_figures(
    program: ProgramLike, test: Dataset, history: History, run: Path, formats: Sequence[str]
) -> list[Path]:
    """Draw the training curve, reconstructions, latents and samples; returns the run's files."""
    has_clips = any(plotting.is_clip(part.shape[1:]) for part in tensors_of(test[:1].x).values())
    few = test[:4] if has_clips else test[:10]
    entries = [] if test.columns is None else test.columns.names
    figures: dict[str, tuple[Draw | list[Draw], tuple[float, float]]] = {
        "training": (lambda ax: plotting.plot_training(history, ax), (6.0, 4.5)),
    }
    across = {"samples": 1 if test.columns is None else 4}
    try:
        again = _again(program, few)
    except NotObserved as refusal:
        console_of().print(f"no reconstructions: {refusal}", highlight=False, soft_wrap=True)
    else:
        wide = (8.0, 1.9) if test.vocabulary or len(test.event_shape) > 1 else (8.0, 4.5)
        figures["reconstructions"] = (
            plotting.reconstruction_plots(few.x, again, test.vocabulary, entries),
            (7.5, 7.0) if has_clips else wide,
        )
    latents, (labels, names, title) = _latents(program, test), _colours(test)
    figures["latents"] = (
        lambda ax: plotting.plot_latents(latents, ax, labels, title, names),
        (6.5, 6.0),
    )
    try:
        figures["samples"] = _samples(program, test)
    except (NoDraws, NotObserved) as refusal:
        console_of().print(f"no samples: {refusal}", highlight=False, soft_wrap=True)
    folder = checkpoint.subfolder(run, "figures")
    pictures: dict[str, bytes] = {}
    for name, (draw, size) in figures.items():
        pictures |= plotting.figure_files(name, draw, size, formats, across.get(name, 1))
    checkpoint.commit(folder, pictures)
    return [folder / name for name in pictures]


def _again(program: ProgramLike, few: Dataset) -> Tensors:
    """The means of p(x | z); `reconstruct` would give back what was observed of data with gaps."""
    if not few.missing or few.parts:
        return reconstruct(program, few)
    context = None if is_unconditional(program) else few.context
    return decode(program, encode(program, few, draws=True), context)


def _samples(program: ProgramLike, test: Dataset) -> tuple[list[Draw], tuple[float, float]]:
    """New data, and the size of a picture; for a table its columns beside the test data's."""
    if test.columns is not None:
        places = torch.arange(max(len(test), NEW_ROWS)) % len(test)
        context = None if is_unconditional(program) else test[places].context
        new = generate(program, len(places), context=context, draws=True)
        (values,) = tensors_of(new).values()
        return plotting.column_plots(test.tensor, values, test.columns), (2.6, 2.2)
    rows, context = _rows_and_context(program, test)
    num = 64 if context is None else count_of(context)
    title = "new data, p(x | z) at draws z from the prior"
    title = f"{title}, a row for each label" if rows else title
    new = generate(program, num, context=context)
    plots = plotting.data_plots(
        new, title, columns=8 if rows else None, rows=rows, vocabulary=test.vocabulary
    )
    return plots, (6.0, 6.0)


def _colours(test: Dataset) -> tuple[Tensor | None, Sequence[str], str]:
    """What latents are coloured by, its names, and a title: labels, or a column of categories."""
    title = "latent map: mean of q(z | x)"
    if test.labels is None and test.columns is not None:
        for i, column in enumerate(test.columns):
            values = test.tensor[:, i]
            if column.categories and not values.isnan().any():
                return values.long(), column.categories, f"{title}, by {named(column.name)}"
    return test.labels, test.label_names, title


def _rows_and_context(program: ProgramLike, test: Dataset) -> tuple[list[str], Tensors | None]:
    """Row names for the samples, and their context: labels in turn, or the data's covariates."""
    classes = num_classes_of(program)
    if classes is not None:
        names = test.label_names
        rows = [names[i] if i < len(names) else str(i) for i in range(classes)]
        own = test[torch.arange(8 * classes) % len(test)].context
        return rows, with_labels(program, own, torch.arange(classes).repeat_interleave(8))
    if not is_unconditional(program):  # a pair of one's own may take a context, too
        return [], test[torch.arange(64) % len(test)].context
    return [], None


def _latents(program: ProgramLike, data: Dataset) -> Tensor:
    """Means of q(z | x) as vectors, or draws if the mean has no closed form, as for flows."""
    try:
        latents = encode(program, data)
    except InvalidInput:
        latents = encode(program, data, draws=True)
    return flattened(next(iter(latents.values())))
