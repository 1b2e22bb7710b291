"""Figures and numbers of the latent space: where the data lie, and what can be predicted."""

from __future__ import annotations

from functools import partial

import torch

from pyro_vae import plotting
from pyro_vae.contracts import context_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.forms import shuffled
from pyro_vae.diagnostics.two_sample import two_sample_test
from pyro_vae.evaluation.active import active_units
from pyro_vae.inspection.embedding import embed, neighbours, prior_draws
from pyro_vae.inspection.probes import knn_accuracy, linear_probe
from pyro_vae.report.figures import Gallery, Subject, embedding
from pyro_vae.report.findings import LabelProbe, TwoSample

__all__ = ["probe_labels", "show_aggregate", "show_map", "show_neighbours"]

PAIRS = 5  # dimensions in a figure of pairs
IMAGES, SENTENCES = 9, 3  # neighbours of a datum: sentences need more room than images
MAPPED, LINES = 1000, 5  # data in the graph of neighbours and lines from each; more would be black
FEWEST_TO_TEST = 20  # data
PROBED = 10_000  # training data that a classifier is fitted on
DECIDE = 10  # nearest training data that tell a label


def show_map(subject: Subject, gallery: Gallery) -> None:
    """A map of the test data in the latent space."""
    labels = subject.labels
    gallery.figure(
        "latents",
        "Where the data lie in the latent space" + (", by label." if labels is not None else "."),
        lambda ax: plotting.plot_latents(subject.means, ax, labels, names=subject.test.label_names),
        (6.5, 6),
    )


def show_aggregate(subject: Subject, gallery: Gallery) -> None:
    """The aggregated posterior against the prior, in the dimensions that move with the data."""
    program, test, site, seed = subject.program, subject.test, subject.site, subject.seed
    drawn = embed(program, test, draws=True, site=site, seed=seed)
    by_variance = (
        embed(program, test, draws=True, site=site, seed=seed + 2).var(0).argsort(descending=True)
    )
    units = active_units(program, test[:500], num_samples=20, seed=seed)
    active = units.moves[site].flatten().nonzero().flatten().tolist()
    numbers = gallery.numbers
    numbers.active_dims, numbers.latent_dims = len(active), drawn.shape[1]
    shown = (active + [d for d in by_variance.tolist() if d not in active])[:PAIRS]
    with gallery.where_defined():
        prior = prior_draws(program, test, site=site, seed=seed + 1)
        if len(test) >= FEWEST_TO_TEST:
            found = two_sample_test(drawn.cpu().numpy(), prior.cpu().numpy(), seed=seed)
            numbers.aggregate = TwoSample(found.accuracy, found.se)
        samples = {"aggregated posterior": drawn[:, shown], "prior": prior[:, shown]}
        names = [f"z[{d}]" for d in shown]
        gallery.grid(
            "aggregate",
            "A draw from q(z | x) for each datum, together the aggregated posterior, beside draws "
            "from the prior. Where the prior has mass and the posterior has none, samples are "
            "unlike the training data.",
            lambda axes: plotting.plot_pairs(samples, axes, names),
            len(shown),
        )


def show_neighbours(subject: Subject, gallery: Gallery) -> None:
    """Draw the graph of nearest neighbours, and a few data beside their neighbours."""
    test, means, labels = subject.test, subject.means, subject.labels
    most = IMAGES if test.vocabulary is None else SENTENCES
    found = neighbours(means, min(most, len(test) - 1))
    shown = means[:MAPPED]
    graph = neighbours(shown, min(LINES, len(shown) - 1))
    colours = None if labels is None else labels[:MAPPED]
    gallery.figure(
        "graph",
        "Test data, with a line from each to its nearest neighbours in the latent space.",
        lambda ax: plotting.plot_neighbours(shown, graph, ax, colours),
        (6.5, 6),
    )
    if not subject.is_visible:
        return
    few = torch.tensor([[n, *found.of(n)] for n in range(min(8, len(test)))])
    pictures, columns = plotting.still(test.tensor[few.flatten()]), few.shape[1]
    gallery.figure(
        "neighbours",
        "Test data (first in each row) and their nearest neighbours in the latent space.",
        lambda ax: plotting.plot_data(
            pictures,
            ax,
            columns=columns,
            title="a datum (left) and its nearest neighbours, the nearest first",
            rows=[] if labels is None else [_name_of(test, int(labels[n])) for n in few[:, 0]],
            vocabulary=test.vocabulary,
        ),
        (7.0, 5.0),
    )


def _name_of(data: Dataset, label: int) -> str:
    """The name of a label, or its number."""
    return data.label_names[label] if 0 <= label < len(data.label_names) else str(label)


def probe_labels(subject: Subject, gallery: Gallery) -> None:
    """Measure how well classifiers predict the labels from the latent, where labels are known."""
    labels, numbers = subject.labels, gallery.numbers
    numbers.is_given_labels = context_of(subject.program) is not None
    if subject.train.labels is None or labels is None:
        return
    known = (subject.train.labels >= 0).nonzero().flatten()
    some = subject.train[known[shuffled(len(known), subject.seed)[:PROBED].sort().values]]
    is_known = labels >= 0
    if some.labels is None or len(some.labels.unique()) < 2 or not is_known.any():
        return
    features = embedding(subject.program, some, subject.site, numbers)
    classifiers = {"linear probe": linear_probe}
    if len(some) >= DECIDE:
        classifiers[f"{DECIDE} nearest neighbours"] = partial(knn_accuracy, k=DECIDE)
    for name, classifier in classifiers.items():
        means = subject.means[is_known.to(subject.means.device)]
        found = classifier(features, some.labels, means, labels[is_known])
        numbers.probes.append(
            LabelProbe(name, found.value, found.se, found.num_data, num_train=len(some))
        )
