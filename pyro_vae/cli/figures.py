"""The figures that training leaves beside a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from matplotlib.axes import Axes
from torch import Tensor

from pyro_vae import checkpoint, plotting
from pyro_vae.cli.runs import parse_context
from pyro_vae.cli.terminal import console_of
from pyro_vae.contracts import ProgramLike, context_of, num_classes_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.distributions import NoDraws
from pyro_vae.runtime.predictive import encode, generate, reconstruct
from pyro_vae.training.history import History
from pyro_vae.validation import InvalidInput

__all__ = ["FIGURES", "add_format_argument", "draw_figures"]

FIGURES = ("training", "reconstructions", "latents", "samples")


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
    figures: dict[str, tuple[Callable[[Axes], Axes], tuple[float, float]]] = {
        "training": (lambda ax: plotting.plot_training(history, ax), (6.0, 4.5))
    }
    is_clip = plotting.is_clip(test.datum_shape)
    few = test[:4] if is_clip else test[:10]
    reconstructions = only_tensor(reconstruct(program, few))
    figures["reconstructions"] = (
        lambda ax: plotting.plot_reconstructions(few.x, reconstructions, ax, test.vocabulary),
        (7.5, 7.0) if is_clip else (8.0, 1.9),
    )
    rows, context = _rows_and_context(program, test)
    num = 64 if context is None else len(context)
    latents = _latents(program, test)
    figures["latents"] = (
        lambda ax: plotting.plot_latents(latents, ax, test.labels, names=test.label_names),
        (6.5, 6.0),
    )
    try:
        samples = only_tensor(generate(program, num, context=context)).cpu()
    except NoDraws as refusal:
        console_of().print(f"no samples: {refusal}", highlight=False, soft_wrap=True)
    else:
        title = "new data, p(x | z) at draws z from the prior"
        figures["samples"] = (
            lambda ax: plotting.plot_data(
                samples,
                ax,
                columns=8 if rows else None,
                rows=rows,
                title=f"{title}, a row for each label" if rows else title,
                vocabulary=test.vocabulary,
            ),
            (6.0, 6.0),
        )
    folder = checkpoint.subfolder(run, "figures")
    pictures: dict[str, bytes] = {}
    for name, (draw, size) in figures.items():
        pictures |= plotting.figure_files(name, draw, size, formats)
    checkpoint.commit(folder, pictures)
    return [folder / name for name in pictures]


def _rows_and_context(program: ProgramLike, test: Dataset) -> tuple[list[str], Tensor | None]:
    """Row names for the samples, and their context: labels in turn, or the data's covariates."""
    classes = num_classes_of(program)
    if classes is not None:
        names = test.label_names
        rows = [names[i] if i < len(names) else str(i) for i in range(classes)]
        return rows, parse_context(program, None, 8 * classes)
    if context_of(program) is not None:
        return [], test[torch.arange(64) % len(test)].context
    return [], None


def _latents(program: ProgramLike, data: Dataset) -> Tensor:
    """Means of q(z | x) as vectors, or draws if the mean has no closed form, as for flows."""
    try:
        latents = encode(program, data)
    except InvalidInput:
        latents = encode(program, data, draws=True)
    return next(iter(latents.values())).flatten(1)
