"""Figures and numbers of the decoder: how it maps the latent space to data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.contracts import num_classes_of
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.distributions import is_thin, words_of
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.geometry import geodesic, interpolate, manifold, tangent_planes, traverse
from pyro_vae.programs.contexts import with_labels
from pyro_vae.report.figures import Gallery, Subject
from pyro_vae.report.findings import LocalDimension
from pyro_vae.runtime.predictive import generate
from pyro_vae.validation import InvalidInput, rows_of

__all__ = ["show_classes", "show_decoder"]

IMAGES, SENTENCES = 10, 4  # dimensions traversed: sentences need more room than images


def show_classes(subject: Subject, gallery: Gallery) -> None:
    """Draws from the prior, decoded under each label."""
    program, vocabulary = subject.program, subject.test.vocabulary
    classes = num_classes_of(program) or 0
    labels = torch.arange(10 * classes) // 10
    own = rows_of(subject.test.context, torch.arange(len(labels)) % len(subject.test))
    context = with_labels(program, own, labels)
    images = plotting.still(
        only_tensor(generate(program, len(labels), context=context, seed=subject.seed))
    )
    gallery.figure(
        "classes",
        "Draws from the prior, decoded under each label.",
        lambda ax: plotting.plot_data(
            images,
            ax,
            columns=10,
            rows=[str(c) for c in range(classes)],
            title="p(x | z, label), a row for each label",
            vocabulary=vocabulary,
        ),
        (6.5, 6.5),
    )


def show_decoder(subject: Subject, gallery: Gallery, label: int | None = None) -> None:
    """Draw how the decoder maps the latent space, under one label if it takes labels."""
    context = None
    if label is not None:  # with what is known of the first datum
        own = rows_of(subject.test.context, slice(0, 1))
        context = with_labels(subject.program, own, torch.tensor([label]))
    decoder = Decoder(subject.program, context=context, site=subject.site, seed=subject.seed)
    under = "" if label is None else f", under the label {label}"
    # Of q(z | x) on a sphere the mean lies within it: no latent, as its direction is.
    subject = replace(subject, means=decoder.space.nearest(subject.means))
    if decoder.is_smooth:
        planes = tangent_planes(decoder, subject.means[:50])
        dimension = planes.local_dimension().double()
        gallery.numbers.local_dimension = LocalDimension(
            dimension.median().item(), len(dimension), decoder.dim, label
        )
        gallery.figure(
            "tangent",
            f"Singular values of the decoder's Jacobian at test data{under}.",
            lambda ax: plotting.plot_singular_values(planes, ax),
        )
    if not subject.is_visible:
        return
    pairs = _pairs(subject.labels, len(subject.means))
    if decoder.space.is_discrete:
        gallery.leave_out(
            "Left out: what is decoded between two data, for between discrete latents there is "
            "nothing."
        )
    else:
        _show_interpolations(subject, gallery, decoder, pairs, under)
    _show_traversals(subject, gallery, decoder, under)
    if decoder.dim == 2 and decoder.is_smooth and not decoder.space.is_discrete:
        if is_thin(decoder.support):
            gallery.leave_out(
                f"Left out: the decoded manifold and its metric, for latents on "
                f"{words_of(decoder.support)} fill no plane."
            )
        else:
            _show_plane(subject, gallery, decoder, under)
        _show_paths(subject, gallery, decoder, pairs, under)


def _show_interpolations(
    subject: Subject, gallery: Gallery, decoder: Decoder, pairs: list[tuple[int, int]], under: str
) -> None:
    means, vocabulary = subject.means, subject.test.vocabulary
    space = decoder.space
    arcs = (False, True) if space.is_flat else (False,)  # an arc leaves any other space
    steps = [
        interpolate(means[a], means[b], 10, spherical=arc, decoder=decoder)
        for a, b in pairs
        for arc in arcs
    ]
    with torch.no_grad():
        images = plotting.still(decoder(torch.cat(steps)))
    gallery.figure(
        "interpolation",
        f"Between pairs of test data{under}: on the {space.line}"
        + (", and on an arc." if space.is_flat else "."),
        lambda ax: plotting.plot_data(
            images,
            ax,
            columns=10,
            title="from one datum to another",
            rows=["line", "arc"][: len(arcs)] * len(pairs),
            vocabulary=vocabulary,
        ),
        (6.5, 0.62 * len(arcs) * len(pairs) + 0.6),
    )


def _show_traversals(subject: Subject, gallery: Gallery, decoder: Decoder, under: str) -> None:
    means, vocabulary = subject.means, subject.test.vocabulary
    most = IMAGES if vocabulary is None else SENTENCES
    widest = means.var(0).argsort(descending=True)[:most].tolist()
    is_centred = decoder.space.is_flat and bool((means.mean(0).abs() < 1).all())
    at_rest = torch.zeros_like(means[0]) if is_centred else means.mean(0)
    low, high = decoder.space.shown(means[:, widest])
    steps = 2 if decoder.space.is_discrete else 11
    try:
        moved = traverse(decoder, at_rest, widest, torch.linspace(low, high, steps))
    except InvalidInput:
        gallery.leave_out(
            "Left out: one latent dimension at a time, which would leave the latents: "
            f"{words_of(decoder.support)}."
        )
        return
    between = f"from {low:.3g} to {high:.3g}"
    gallery.figure(
        "traversals",
        f"One latent dimension at a time, {between}, the others {decoder.space.rest}{under}. The "
        "dimensions shown have the largest variance.",
        lambda ax: plotting.plot_data(
            plotting.still(moved.flatten(0, 1)),
            ax,
            columns=steps,
            title=f"one latent dimension at a time, {between}",
            rows=[f"z[{d}]" for d in widest],
            vocabulary=vocabulary,
        ),
        (6.5, 0.58 * len(widest) + 0.6),
    )


def _show_plane(subject: Subject, gallery: Gallery, decoder: Decoder, under: str) -> None:
    """Draw a whole two-dimensional latent space: decoded, and its metric."""
    means, labels = subject.means, subject.labels
    with gallery.where_defined():
        grid = plotting.still(manifold(decoder, 20, seed=subject.seed))
        gallery.figure(
            "manifold",
            f"Decoded at equally spaced quantiles of the prior{under}: the first dimension to the "
            "right, the second upwards.",
            lambda ax: plotting.plot_data(grid, ax, columns=20, title="decoded manifold"),
            (7, 7),
        )
    low, high = means.quantile(0.01, dim=0), means.quantile(0.99, dim=0)
    ticks = [torch.linspace(a, b, 15) for a, b in zip(low.tolist(), high.tolist())]
    at = torch.cartesian_prod(*ticks).to(means)
    planes = tangent_planes(decoder, at)
    gallery.figure(
        "metric",
        f"Ellipses of the steps in z that move x equally far{under}. They are small where the "
        "decoder stretches.",
        lambda ax: plotting.plot_tangent_planes(means, at, planes, ax, labels),
        (6.5, 6),
    )


def _show_paths(
    subject: Subject, gallery: Gallery, decoder: Decoder, pairs: list[tuple[int, int]], under: str
) -> None:
    """Draw shortest paths of a two-dimensional latent space."""
    means, labels = subject.means, subject.labels
    try:
        paths = [geodesic(decoder, means[a], means[b], points=24, steps=100) for a, b in pairs[:3]]
    except InvalidInput as refusal:  # a support of one's own
        gallery.leave_out(f"Left out: shortest paths. {refusal}.")
        return
    gallery.figure(
        "paths",
        f"Paths along which x changes least{under}, and {decoder.space.line}s, with their lengths.",
        lambda ax: plotting.plot_paths(means, paths, ax, labels),
        (6.5, 6),
    )


def _pairs(labels: Tensor | None, count: int) -> list[tuple[int, int]]:
    """A few pairs of data, of different labels where there are labels."""
    if labels is None:
        return [(i, count - 1 - i) for i in range(min(3, count // 2))]
    known = [label for label in labels.unique().tolist() if label >= 0]  # -1 is of no class
    first = [int((labels == label).nonzero()[0]) for label in known[:6]]
    return list(zip(first[::2], first[1::2]))
