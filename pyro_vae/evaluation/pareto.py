"""Pareto k: whether importance weights have a tail too heavy for their error to be believed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.evaluation.arviz_compat import psis_tail_shape

__all__ = ["is_heavy", "pareto_k", "pareto_k_threshold", "tail_size"]

FEWEST_AT_WORK = 2.5  # effective draws, over the root of their number


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""The tail shape k of importance weights, by Pareto-smoothed importance sampling.

    The largest :math:`M = \min(K / 5, 3 \sqrt K)` weights are fitted by a generalised Pareto
    distribution; its shape k says how many moments the weights have. NaN where the tail has fewer
    than five draws (nothing can be said), -inf where it is constant (an exact posterior): neither
    is a warning.

    Args:
        log_weights: log-weights (K, N).

    Returns:
        k for each datum (N,), by ArviZ's implementation.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto Smoothed Importance Sampling.

    Example:
        >>> pareto_k(torch.zeros(1000, 2))
        tensor([-inf, -inf], dtype=torch.float64)
    """
    shapes = psis_tail_shape(log_weights.double().T.cpu().numpy())
    return torch.from_numpy(shapes).to(log_weights.device)


def pareto_k_threshold(num_samples: int) -> float:
    """The k above which an estimate from K draws is unreliable, min(1 - 1 / log10 K, 0.7).

    Source: Vehtari et al. (2024).

    Example:
        >>> round(pareto_k_threshold(1000), 3), pareto_k_threshold(100_000)
        (0.667, 0.7)
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


def tail_size(num_samples: int) -> float:
    r"""How many of the largest weights the tail has, :math:`M = \min(K / 5, 3 \sqrt K)`.

    Example:
        >>> tail_size(100), round(tail_size(1000), 1)
        (20.0, 94.9)
    """
    return min(num_samples / 5, 3 * math.sqrt(num_samples))


def is_heavy(pareto_k: Tensor, ess: Tensor, num_samples: int) -> Tensor:
    r"""Whether weights have too heavy a tail for an interval: k is above its threshold or near.

    .. math:: \hat k + \Big(1 - \frac{\mathrm{ESS}}{K}\Big) \frac{1 + \hat k^+}{\sqrt M} > \min(1 -
              1 / \log_{10} K, 0.7) \quad \text{or} \quad \mathrm{ESS} < 2.5 \sqrt K

    A k is fitted to the :math:`M = \min(K / 5, 3 \sqrt K)` largest weights, and has a standard
    error; draws that happened to miss a heavy tail show a small k. So k must be below the threshold
    by its error, but for the share of the draws that are at work: where all are, there is no tail
    to miss. The second rule is for a few weights that outweigh all others. Where there is no k, the
    answer is yes.

    Args:
        pareto_k: k of each datum (N,).
        ess: the effective number of draws (N,).
        num_samples: K.

    Source: Vehtari et al. (2024) for the threshold; ``experiments/evaluation/single.py`` for the
    rest.

    Example:
        >>> k, ess = torch.tensor([0.6, 0.6, 0.1, 0.1]), torch.tensor([990.0, 300.0, 300.0, 50.0])
        >>> is_heavy(k, ess, 1000)
        tensor([False,  True, False,  True])
    """
    if num_samples == 1:
        return torch.ones_like(pareto_k, dtype=torch.bool)
    error = (
        (1 - ess / num_samples) * (1 + pareto_k.clamp(min=0)) / math.sqrt(tail_size(num_samples))
    )
    is_below = pareto_k + error <= pareto_k_threshold(num_samples)
    return ~is_below | (ess < FEWEST_AT_WORK * math.sqrt(num_samples))
