"""The figures that a fitted program gets, each with the sentence that it needs beside it, and what they measure."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.diagnostics.inference_data import LARGEST_R_HAT, UnreliableDraws, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import compare_posteriors, draws_of, two_sample_test
from pyro_vae.distributions import NoDraws
from pyro_vae.evaluation.decomposition import active_units
from pyro_vae.inspection.anomaly import anomaly
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import embed, latent_site, neighbours, prior_draws
from pyro_vae.inspection.geometry import geodesic, interpolate, manifold, tangent_planes, traverse
from pyro_vae.inspection.probes import knn_accuracy, linear_probe
from pyro_vae.runtime.predictive import generate
from pyro_vae.runtime.traces import NoBound
from pyro_vae.validation import InvalidInput

__all__ = ["Gallery", "inspect"]

PAIRS, NEIGHBOURS, TRAVERSED = 5, 9, 10


# Sentences need more room than images.
READ, SENTENCES_TRAVERSED = 3, 4


MAPPED, LINES = 1000, 5  # of the graph of neighbours: more would be black


@dataclass
class Gallery:
    """Figures in a folder, in order, with their captions; numbers and warnings that came out on the way.

    Args:
        folder: where the figures lie.
        captions: by file name.
        numbers: what was measured, by what it is, in words.
        warnings: what a reader must know before believing them.
    """

    folder: Path
    captions: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def figure(
        self,
        name: str,
        caption: str,
        draw: Callable[[Any], object],
        size: tuple[float, float] = (6.0, 4.5),
    ) -> None:
        """One pair of axes as a file of that name."""
        plotting.save_figure(self.folder / f"{name}.png", draw, size)  # type: ignore[arg-type]
        self.captions[f"{name}.png"] = caption

    def grid(self, name: str, caption: str, draw: Callable[[Any], object], count: int) -> None:
        """A square of axes as a file of that name."""
        plotting.save_grid(self.folder / f"{name}.png", draw, count)
        self.captions[f"{name}.png"] = caption


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
) -> Gallery:
    """Draws every figure that makes sense for a program and its data.

    Args:
        program: any program with a vector latent nearest to x.
        train: training data, for probes.
        test: data to look at.
        folder: where the figures go.
        outside: other data of the same shape, for an anomaly score.
        reference: data whose posterior NUTS draws from; 0 for none.
        reference_draws: NUTS draws of each, over four chains.
        seed: of everything random.
        progress: show bars.
    """
    gallery = Gallery(folder)
    site = latent_site(program, test)
    labels = test.context if test.num_classes is not None else None
    means = _means(program, test, site, gallery)
    gallery.figure(
        "latents",
        "Where the data lie in the latent space" + (", by label." if labels is not None else "."),
        lambda ax: plotting.plot_latents(means, ax, labels),
        (6.5, 6),
    )
    _aggregate(program, test, site, seed, gallery)
    found = neighbours(means, min(NEIGHBOURS if test.vocabulary is None else READ, len(test) - 1))
    shown = means[:MAPPED]
    graph = neighbours(shown, min(LINES, len(shown) - 1))
    gallery.figure(
        "graph",
        "Test data and a line from each to its nearest neighbours in the latent space.",
        lambda ax: plotting.plot_neighbours(
            shown, graph, ax, None if labels is None else labels[:MAPPED]
        ),
        (6.5, 6),
    )
    if _can_be_shown(test):
        few = torch.cat([torch.tensor([n, *found.of(n)]) for n in range(min(8, len(test)))])
        gallery.figure(
            "neighbours",
            "Test data (each first) and their nearest neighbours among the test data in the latent space.",
            lambda ax: plotting.plot_data(
                plotting.still(test.x[few]),
                ax,
                columns=1 + found.index.shape[1],
                title="data (first) and their neighbours",
                vocabulary=test.vocabulary,
            ),
            (6.5, 5.4),
        )
    if labels is not None:
        _probe(program, train, means, labels, site, gallery)
    if getattr(program, "context", None) is None:
        _decoder(program, test, means, labels, site, seed, gallery)
    elif getattr(program.context, "num_classes", None) is not None:
        classes = program.context.num_classes
        images = plotting.still(
            generate(program, 10 * classes, context=torch.arange(10 * classes) // 10, seed=seed)
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
                vocabulary=test.vocabulary,
            ),
            (6.5, 6.5),
        )
        _decoder(
            program,
            test,
            means,
            labels,
            site,
            seed,
            gallery,
            context=int(test.context[0]) if test.context is not None else 0,
        )
    if outside is not None:
        _anomaly(program, test, outside, seed, gallery)
    if reference:
        _reference(program, test[:reference], reference_draws, seed, progress, gallery)
    return gallery


@contextmanager
def _where_defined(gallery: Gallery) -> Iterator[None]:
    """Goes on where something has no meaning for this program, with the reason among the warnings."""
    try:
        yield
    except (NoBound, NoDraws) as refusal:
        gallery.warnings += [
            note for note in (f"Left out: {refusal}.",) if note not in gallery.warnings
        ]


def _means(program: ProgramLike, data: Dataset, site: str, gallery: Gallery) -> Tensor:
    """Means of q(z | x); draws, and a word about it, where there are none."""
    try:
        return embed(program, data, draws=False, site=site)
    except InvalidInput:
        note = "q(z | x) has no mean in closed form: embeddings are single draws from it."
        gallery.warnings += [note] if note not in gallery.warnings else []
        return embed(program, data, draws=True, site=site)


def _aggregate(program: ProgramLike, test: Dataset, site: str, seed: int, gallery: Gallery) -> None:
    drawn = embed(program, test, draws=True, site=site, seed=seed)
    by_variance = (
        embed(program, test, draws=True, site=site, seed=seed + 2).var(0).argsort(descending=True)
    )
    units = active_units(program, test[:500], num_samples=20, seed=seed)
    active = (units.variance[site].flatten() > units.threshold).nonzero().flatten().tolist()
    gallery.numbers["active dimensions of the latent"] = f"{len(active)} of {drawn.shape[1]}"
    if not active:
        gallery.warnings.append(
            "No dimension of the latent moves with the data: the posterior has collapsed to the prior."
        )
    shown = (active + [d for d in by_variance.tolist() if d not in active])[:PAIRS]
    with _where_defined(gallery):
        prior = prior_draws(program, test, site=site, seed=seed + 1)
        if len(test) >= 20:
            test_result = two_sample_test(drawn.cpu().numpy(), prior.cpu().numpy(), seed=seed)
            gallery.numbers["aggregated posterior against prior, two-sample test"] = (
                f"accuracy {test_result.accuracy:.3f} (0.5 +- {test_result.se:.3f} if they were one)"
            )
        gallery.grid(
            "aggregate",
            "A draw from q(z | x) for each datum, together the aggregated posterior, against draws from the prior: "
            "where the prior has mass and the posterior none, samples are of no kind that was trained on.",
            lambda axes: plotting.plot_pairs(
                {"aggregated posterior": drawn[:, shown], "prior": prior[:, shown]},
                axes,
                [f"$z_{{{d + 1}}}$" for d in shown],
            ),
            len(shown),
        )


def _probe(
    program: ProgramLike, train: Dataset, means: Tensor, labels: Tensor, site: str, gallery: Gallery
) -> None:
    some = train[:10_000]
    features = _means(program, some, site, gallery)
    given = (
        " (the label is given to the encoder, so the latent need not hold it)"
        if getattr(program, "context", None) is not None
        else ""
    )
    for name, classifier in (
        ("linear probe", linear_probe),
        ("10 nearest neighbours", knn_accuracy),
    ):
        accuracy = classifier(features, some.context, means, labels)
        gallery.numbers[f"accuracy of labels read off the latent, {name}"] = (
            f"{accuracy}, fitted on {len(some):,} training data{given}"
        )


def _decoder(
    program: ProgramLike,
    test: Dataset,
    means: Tensor,
    labels: Tensor | None,
    site: str,
    seed: int,
    gallery: Gallery,
    context: int | None = None,
) -> None:
    """What the decoder does with the latent space, under one label where it takes one."""
    decoder = Decoder(program, context=context, site=site, seed=seed)
    under = "" if context is None else f", under the label {context}"
    if decoder.is_smooth:
        planes = tangent_planes(decoder, means[:50])
        dimension = planes.local_dimension().double()
        gallery.numbers["local dimension of the decoder"] = (
            f"{dimension.median():.0f} (median over {len(dimension)} data) of {decoder.dim}{under}"
        )
        gallery.figure(
            "tangent",
            f"Singular values of the decoder's Jacobian at test data{under}.",
            lambda ax: plotting.plot_singular_values(planes, ax),
        )
    if not _can_be_shown(test):
        return
    pairs = _pairs(labels, len(means))
    steps = [
        interpolate(means[a], means[b], 10, spherical=arc)
        for a, b in pairs
        for arc in (False, True)
    ]
    with torch.no_grad():
        images = plotting.still(decoder(torch.cat(steps)))
    gallery.figure(
        "interpolation",
        f"Between pairs of test data{under}: on the straight line, and on an arc.",
        lambda ax: plotting.plot_data(
            images,
            ax,
            columns=10,
            title="from one datum to another",
            rows=["line", "arc"] * len(pairs),
            vocabulary=test.vocabulary,
        ),
        (6.5, 0.62 * 2 * len(pairs) + 0.6),
    )
    spread = (
        means.var(0)
        .argsort(descending=True)[: TRAVERSED if test.vocabulary is None else SENTENCES_TRAVERSED]
        .tolist()
    )
    moved = traverse(
        decoder,
        torch.zeros_like(means[0]) if _is_centred(means) else means.mean(0),
        spread,
        torch.linspace(-2.5, 2.5, 11),
    )
    gallery.figure(
        "traversals",
        f"One latent dimension at a time from -2.5 to 2.5, the others at rest{under}; those of the largest variance.",
        lambda ax: plotting.plot_data(
            plotting.still(moved.flatten(0, 1)),
            ax,
            columns=11,
            title="traversals",
            rows=[f"$z_{{{d + 1}}}$" if test.vocabulary is None else f"z_{d + 1}" for d in spread],
            vocabulary=test.vocabulary,
        ),
        (6.5, 0.58 * len(spread) + 0.6),
    )
    if decoder.dim == 2 and decoder.is_smooth:
        with _where_defined(gallery):
            grid = plotting.still(manifold(decoder, 20, seed=seed))
            gallery.figure(
                "manifold",
                f"Decoded at equally spaced quantiles of the prior{under}: the first dimension rightwards, the second "
                "upwards.",
                lambda ax: plotting.plot_data(grid, ax, columns=20, title="decoded manifold"),
                (7, 7),
            )
        low, high = means.quantile(0.01, dim=0), means.quantile(0.99, dim=0)
        at = torch.cartesian_prod(
            *(torch.linspace(a, b, 15) for a, b in zip(low.tolist(), high.tolist()))
        ).to(means)
        planes_there = tangent_planes(decoder, at)
        gallery.figure(
            "metric",
            f"Ellipses of the steps in z that move x equally far{under}: small where the decoder stretches.",
            lambda ax: plotting.plot_tangent_planes(means, at, planes_there, ax, labels),
            (6.5, 6),
        )
        paths = [geodesic(decoder, means[a], means[b], points=24, steps=100) for a, b in pairs[:3]]
        gallery.figure(
            "paths",
            f"Paths that change x least on the way{under}, and their lengths, beside those of straight lines.",
            lambda ax: plotting.plot_paths(means, paths, ax, labels),
            (6.5, 6),
        )


def _can_be_shown(data: Dataset) -> bool:
    """Whether a datum is something to look at: an image, or a sentence."""
    return len(data.event_shape) == 3 or data.vocabulary is not None


def _anomaly(
    program: ProgramLike, test: Dataset, outside: Dataset, seed: int, gallery: Gallery
) -> None:
    for score in ("elbo", "reconstruction"):
        with _where_defined(gallery):
            result = anomaly(program, test, outside, score, seed=seed)
            gallery.numbers[f"AUROC by {score}, {test.name} against {outside.name}"] = str(
                result
            ).removeprefix("AUROC ")
            gallery.figure(
                f"anomaly_{score}",
                f"Scores ({score}) of {test.name} and of {outside.name}.",
                partial(plotting.plot_anomaly, result, inside=test.name, outside=outside.name),
            )


def _pairs(labels: Tensor | None, count: int) -> list[tuple[int, int]]:
    """A few pairs of data, of different labels where there are labels."""
    if labels is None:
        return [(i, count - 1 - i) for i in range(min(3, count // 2))]
    first = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()[:6]]
    return list(zip(first[::2], first[1::2]))


def _is_centred(means: Tensor) -> bool:
    return bool((means.mean(0).abs() < 1).all())


def _reference(
    program: ProgramLike,
    few: Dataset,
    num_samples: int,
    seed: int,
    progress: bool,
    gallery: Gallery,
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableDraws)  # said below, and beside the figures
            chains = to_inference_data(
                program, few, num_samples, sampler=NUTS(progress=progress), seed=seed
            )
            apart = float(chains["diagnostics"]["r_hat"].max())
            gallery.numbers["largest R-hat of NUTS from dispersed points"] = f"{apart:.3f}"
            if apart > LARGEST_R_HAT:
                gallery.warnings.append(
                    f"Chains of NUTS from dispersed points did not meet (R-hat {apart:.2f}): the posterior has modes that they do not move "
                    "between, and q may miss some. What follows compares q with chains that start where q is."
                )
                chains = to_inference_data(
                    program,
                    few,
                    num_samples,
                    sampler=NUTS(start="guide", progress=progress),
                    seed=seed,
                )
    except InvalidInput as refusal:
        gallery.warnings.append(f"No reference posterior by NUTS: {refusal}.")
        return
    guide = to_inference_data(program, few, num_samples, seed=seed)
    comparison = compare_posteriors(guide, chains, seed=seed)
    gallery.numbers["q(z | x) against NUTS"] = str(comparison)
    gallery.numbers["largest R-hat of the NUTS it is compared with"] = (
        f"{float(chains['diagnostics']['r_hat'].max()):.3f}"
    )
    gallery.figure(
        "reference",
        "How often a classifier tells draws of q(z | x) from draws of NUTS, the reference, with two standard errors.",
        lambda ax: plotting.plot_comparison(comparison, ax),
    )
    (ours, names, _), (theirs, _, _) = draws_of(guide), draws_of(chains)
    worst = int(comparison.accuracy.argmax())
    far = comparison.wasserstein[worst].argsort()[::-1][:PAIRS].copy()
    gallery.grid(
        "reference_pairs",
        f"q(z | x) and NUTS for datum {comparison.obs[worst]}, in the dimensions that differ most.",
        lambda axes: plotting.plot_pairs(
            {
                "q(z | x)": torch.from_numpy(_flat(ours, worst, far)),
                "NUTS": torch.from_numpy(_flat(theirs, worst, far)),
            },
            axes,
            [names[d] for d in far],
        ),
        len(far),
    )
    if comparison.distinguishable.any():
        gallery.warnings.append(
            f"The encoder is measurably wrong for {int(comparison.distinguishable.sum())} of {len(few)} data: a classifier "
            "tells its posterior from the reference."
        )


def _flat(draws: Any, datum: int, dimensions: Sequence[int]) -> Any:
    return draws[:, :, datum].reshape(-1, draws.shape[-1])[:, dimensions]
