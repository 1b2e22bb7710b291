"""Compare samples with data by nearest neighbours: are they alike, are all data reached?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.validation import InvalidInput, check_count, flattened

__all__ = ["Fidelity", "fidelity"]


@dataclass(frozen=True, repr=False)
class Fidelity:
    """Precision, recall, density and coverage of samples, as `fidelity` returns them.

    All but the density lie in [0, 1], and each is highest for the best samples.

    Args:
        precision: the share of samples that lie in a real point's ball: are they like data?
        recall: the share of real points that lie in a sample's ball: are all data reached? One
            outlying sample has a large ball.
        density: in how many real balls a sample lies, over the number that a real point would, so
            one for the best.
        coverage: the share of real points whose ball has a sample in it, which outliers do not
            raise.
    """

    precision: float
    recall: float
    density: float
    coverage: float

    __repr__, _repr_html_ = result_words, result_html


def fidelity(real: Tensor, samples: Tensor, num_neighbours: int = 5) -> Fidelity:
    r"""Precision, recall, density and coverage of samples by k-nearest-neighbour balls.

    .. math:: \mathrm{precision} = \frac1M \sum_j 1[y_j \in \textstyle\bigcup_i B_i], \quad
              \mathrm{recall} = \frac1N \sum_i 1[x_i \in \textstyle\bigcup_j B'_j]

    .. math:: \mathrm{density} = \frac{1}{k M} \sum_j \sum_i 1[y_j \in B_i], \quad
              \mathrm{coverage} = \frac1N \sum_i 1[\exists j: y_j \in B_i]

    with :math:`B_i` the ball around the real point x_i that reaches to its k-th nearest other real
    point, and
    :math:`B'_j` that around the sample y_j. Distances are Euclidean in the space that the points
    are given in: pixels, or a classifier's features. All four depend on the numbers of points, so
    compare models at the same ones; half of the data against the other half says what the best is.

    Args:
        real: data (N, \*event).
        samples: samples (M, \*event).
        num_neighbours: k.

    Raises:
        InvalidInput: if k is not below both numbers of points, or events differ in shape.

    Source: Kynkaanniemi et al. (2019), Improved Precision and Recall Metric for Assessing
    Generative Models; Naeem et al. (2020), Reliable Fidelity and Diversity Metrics for Generative
    Models.

    Example:
        >>> x = torch.randn(500, 2)
        >>> inside = fidelity(x, torch.randn(500, 2))
        >>> outside = fidelity(x, torch.randn(500, 2) + 100.0)
        >>> inside.precision > 0.9, inside.coverage > 0.9, outside.precision, outside.coverage
        (True, True, 0.0, 0.0)
    """
    check_count("num_neighbours", num_neighbours)
    if real.shape[1:] != samples.shape[1:]:
        raise InvalidInput(
            "samples",
            got=f"events of shape {tuple(samples.shape[1:])}",
            expected=f"{tuple(real.shape[1:])}, as the data",
            fix="give both in one space",
        )
    if num_neighbours >= min(len(real), len(samples)):
        raise InvalidInput(
            "num_neighbours",
            got=str(num_neighbours),
            expected=f"fewer than {min(len(real), len(samples))}, the number of points",
            fix=f"pass more than {num_neighbours} points (--points), or fewer neighbours",
        )
    x, y = (flattened(points.detach().cpu().double()) for points in (real, samples))
    x, y = x - x.mean(0), y - x.mean(0)  # far from the origin squares would lose their digits
    own, others = _radii(x, num_neighbours), _radii(y, num_neighbours)
    between = torch.cdist(x, y)
    in_real = between <= own.unsqueeze(1)
    return Fidelity(
        precision=in_real.any(0).double().mean().item(),
        recall=(between <= others).any(1).double().mean().item(),
        density=in_real.double().sum(0).mean().item() / num_neighbours,
        coverage=in_real.any(1).double().mean().item(),
    )


def _radii(points: Tensor, num_neighbours: int) -> Tensor:
    """The distance of each point to its k-th nearest other one."""
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(torch.inf)
    return distances.kthvalue(num_neighbours, dim=1).values
