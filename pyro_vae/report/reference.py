"""The guide beside a reference posterior: draws of NUTS, and how they differ from q(z | x)."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.diagnostics.inference_data import LARGEST_R_HAT, UnreliableDraws, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import compare_posteriors, draws_of, largest_r_hat
from pyro_vae.report.figures import Gallery, Subject
from pyro_vae.report.findings import Reference
from pyro_vae.validation import InvalidInput

__all__ = ["compare_with_nuts"]

PAIRS = 5  # dimensions in the figure of pairs


def compare_with_nuts(
    subject: Subject, few: Dataset, num_samples: int, gallery: Gallery, *, progress: bool
) -> None:
    """Draw from a few data's posteriors by NUTS, and compare q(z | x) with these draws.

    Chains start from dispersed points. Where they do not meet, chains that start where q is take
    their place: they tell whether q is right about the mode that it covers.
    """
    program, seed = subject.program, subject.seed

    def nuts(sampler: NUTS):
        chains = to_inference_data(program, few, num_samples, sampler=sampler, seed=seed)
        return chains, largest_r_hat(chains)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableDraws)  # the numbers say it
            chains, apart = nuts(NUTS(progress=progress))
            compared, met = apart, not apart > LARGEST_R_HAT
            if not met:
                chains, compared = nuts(NUTS(start="guide", progress=progress))
    except InvalidInput as refusal:
        gallery.leave_out(f"No reference posterior by NUTS: {refusal}.")
        return
    guide = to_inference_data(program, few, num_samples, seed=seed)
    found = compare_posteriors(guide, chains, seed=seed)
    gallery.numbers.reference = Reference(
        r_hat=apart,
        r_hat_compared=compared,
        met=met,
        num_data=len(few),
        distinguishable=int(found.distinguishable.sum()),
        accuracy=float(found.accuracy.mean()),
        wasserstein=float(found.wasserstein.mean()),
        noise=float(found.noise.mean()),
    )
    gallery.figure(
        "reference",
        "How often a classifier tells draws of q(z | x) from draws of NUTS, the reference; bars "
        "are two standard errors.",
        lambda ax: plotting.plot_comparison(found, ax),
    )
    (ours, names, _), (theirs, _, _) = draws_of(guide), draws_of(chains)
    worst = int(found.accuracy.argmax())
    far = found.wasserstein[worst].argsort()[::-1][:PAIRS].copy()
    samples = {"q(z | x)": _flat(ours, worst, far), "NUTS": _flat(theirs, worst, far)}
    gallery.grid(
        "reference_pairs",
        f"q(z | x) and NUTS for datum {found.obs[worst]}, in the dimensions that differ most.",
        lambda axes: plotting.plot_pairs(samples, axes, [names[d] for d in far]),
        len(far),
    )


def _flat(draws: np.ndarray, datum: int, dimensions: np.ndarray) -> Tensor:
    """The draws (S, D) of one datum, all chains together."""
    return torch.from_numpy(draws[:, :, datum].reshape(-1, draws.shape[-1])[:, dimensions])
