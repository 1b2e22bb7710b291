"""The gallery of a program: which figures and numbers it gets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pyro_vae import plotting
from pyro_vae.contracts import ProgramLike, context_of, num_classes_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.inspection.anomaly import anomaly
from pyro_vae.inspection.embedding import latent_site
from pyro_vae.programs import is_unconditional
from pyro_vae.report import decoder_figures, latent_figures, level_figures
from pyro_vae.report.figures import Gallery, Subject, embedding
from pyro_vae.report.findings import Outliers
from pyro_vae.report.reference import compare_with_nuts
from pyro_vae.runtime.at_globals import at_globals

__all__ = ["Gallery", "inspect"]


def inspect(
    program: ProgramLike,
    train: Dataset,
    test: Dataset,
    folder: Path,
    *,
    outside: Dataset | None = None,
    reference: int = 1,
    reference_draws: int = 800,
    seed: int = 0,
    progress: bool = False,
    formats: Sequence[str] = ("png",),
) -> Gallery:
    """Draw every figure that applies to a program and its data, and measure its numbers.

    Args:
        program: any program with a vector latent nearest to x.
        train: training data, which the probes are fitted on.
        test: data to look at.
        folder: where the figures and ``inspection.json`` go, all at one moment.
        outside: other data of the same shape, for an anomaly score.
        reference: data whose posterior NUTS draws from; 0 for none.
        reference_draws: NUTS draws for each of them, over four chains.
        seed: seed of every draw.
        progress: show progress bars.
        formats: of the figures, see `pyro_vae.plotting.figure_files`.
    """
    gallery = Gallery(folder, formats=formats)
    whole, program = program, at_globals(program, test, seed)
    if program is not whole:
        gallery.warnings.append("figures and numbers are at one draw of the global latents")
    site = latent_site(program, test)
    means = embedding(program, test, site, gallery.numbers)
    subject = Subject(program, train, test, site, means, seed)
    latent_figures.show_map(subject, gallery)
    latent_figures.show_aggregate(subject, gallery)
    latent_figures.show_neighbours(subject, gallery)
    if subject.labels is not None:
        latent_figures.probe_labels(subject, gallery)
    if not test.parts:
        with gallery.where_defined():
            level_figures.show_levels(subject, gallery)
    if test.parts:
        gallery.leave_out(
            "Left out: figures of the decoder, and whether data are told apart by their "
            "reconstructions, which are of data of a single site."
        )
    elif context_of(program) is None and (test.context is None or is_unconditional(program)):
        with gallery.where_defined():
            decoder_figures.show_decoder(subject, gallery)
    elif context_of(program) is None:
        gallery.leave_out(
            "Left out: figures of the decoder, for the program may take a context in its own way."
        )
    elif num_classes_of(program) is not None:
        decoder_figures.show_classes(subject, gallery)
        label = 0 if test.labels is None else max(0, int(test.labels[0]))
        decoder_figures.show_decoder(subject, gallery, label)
    if outside is not None:
        _show_outliers(subject, outside, gallery)
    if reference:
        few = test[:reference]
        compare_with_nuts(subject, few, reference_draws, gallery, progress=progress)
    gallery.save(seed)
    return gallery


def _show_outliers(subject: Subject, outside: Dataset, gallery: Gallery) -> None:
    """Draw and measure how well scores separate the test data from other data."""
    inside = subject.test
    for score in ("elbo",) if inside.parts else ("elbo", "reconstruction"):
        with gallery.where_defined():
            found = anomaly(subject.program, inside, outside, score, seed=subject.seed)
            counts = len(found.inside), len(found.outside)
            gallery.numbers.outliers.append(
                Outliers(score, inside.name, outside.name, found.auroc, found.se, *counts)
            )
            gallery.figure(
                f"anomaly_{score}",
                f"Scores ({score}) of {inside.name} and of {outside.name}.",
                partial(plotting.plot_anomaly, found, inside=inside.name, outside=outside.name),
            )
