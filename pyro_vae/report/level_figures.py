"""What each level of a hierarchy holds, as a figure."""

from __future__ import annotations

import torch

from pyro_vae import plotting
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.inspection.levels import resample_levels
from pyro_vae.report.figures import Gallery, Subject
from pyro_vae.runtime.predictive import reconstruct

__all__ = ["show_levels"]

IMAGES, SENTENCES = 10, 3  # data: sentences need more room than images
MOST_LEVELS = 12


def show_levels(subject: Subject, gallery: Gallery) -> None:
    """Draw data with one level at a time drawn anew, the others as the guide found them."""
    if not subject.is_visible:
        return
    vocabulary = subject.test.vocabulary
    few = subject.test[: IMAGES if vocabulary is None else SENTENCES]
    anew = resample_levels(subject.program, few, 1, seed=subject.seed)
    if len(anew) < 2:
        return
    found = reconstruct(subject.program, few, seed=subject.seed)
    apart = -(-len(anew) // MOST_LEVELS)
    shown = list(anew)[::apart]  # the guide draws the top level first
    rows = [only_tensor(few.x), only_tensor(found), *(anew[name][0] for name in shown)]
    images = plotting.still(torch.cat([row.to(rows[1]) for row in rows]))
    gallery.figure(
        "levels",
        "Data; their reconstructions; and, in each row below, one level of latents drawn anew "
        "from its prior, given the levels above it, the others as the guide found them. What "
        "changes in a row is what its level holds.",
        lambda ax: plotting.plot_data(
            images,
            ax,
            columns=len(few),
            title="one level drawn anew",
            rows=["x", "reconstructed", *(f"{name} anew" for name in shown)],
            vocabulary=vocabulary,
        ),
        (6.5, 0.62 * len(rows) + 0.6),
    )
