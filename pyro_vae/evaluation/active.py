"""Active units: the latent dimensions whose posterior mean moves with the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.latents import in_rows
from pyro_vae.validation import check_count

__all__ = ["ActiveUnits", "active_units"]

CLEAR = 3  # standard errors, beyond which a unit moves with the data and not with its draws
ROUNDING = 16  # units in the last place, by which a batch changes a mean that does not move


@dataclass(frozen=True, repr=False)
class ActiveUnits:
    r"""How much the posterior mean of each latent dimension moves with the data.

    Args:
        variance: for each latent site :math:`\mathrm{Var}_x\, \mathrm{E}_q[z_d]`, in the shape of
            that latent and in squared units of z.
        threshold: the share above which a dimension counts as active, where its variance is more
            than three standard errors.
        num_samples: the number of draws K for each datum.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data.
        mc_se: the standard error of each variance by its draws and by rounding, for these data;
            empty if unknown.
        spread: the variance of each dimension over data and draws, which is that of the aggregate
            posterior and of which a variance above is a part; where unknown it is taken as 1, that
            of a standard normal.
    """

    variance: dict[str, Tensor]
    threshold: float
    num_samples: int
    seed: int
    sha256: str
    mc_se: dict[str, Tensor] = field(default_factory=dict)
    spread: dict[str, Tensor] = field(default_factory=dict)

    __repr__, _repr_html_ = result_words, result_html

    @property
    def share(self) -> dict[str, Tensor]:
        r"""The part of each dimension's variance that is between data, 0 where it is constant."""
        return {
            name: (value / self.spread.get(name, 1.0)).nan_to_num(0.0)
            for name, value in self.variance.items()
        }

    @property
    def moves(self) -> dict[str, Tensor]:
        """Whether each dimension of each latent site is active."""
        return {
            name: (share > self.threshold)
            & (self.variance[name] > CLEAR * self.mc_se.get(name, 0.0))
            for name, share in self.share.items()
        }

    @property
    def active(self) -> int:
        """How many dimensions are active."""
        return sum(int(value.sum()) for value in self.moves.values())

    @property
    def total(self) -> int:
        """How many dimensions there are."""
        return sum(value.numel() for value in self.variance.values())


def active_units(
    program: ProgramLike,
    data: Data,
    num_samples: int = 100,
    *,
    threshold: float = 0.01,
    seed: int = 0,
) -> ActiveUnits:
    r"""Measure how much each latent's posterior mean varies over data.

    A dimension is active if more than a hundredth of its own variance is between data:

    .. math:: A_d = \frac{\mathrm{Var}_x\, \mathrm{E}_q[z_d]}
              {\mathrm{Var}_x\, \mathrm{E}_q[z_d] + \mathrm{E}_x\, \mathrm{Var}_q[z_d]} > 0.01

    Below the line is the variance of :math:`z_d` under the aggregate posterior q(z). A share has no
    unit, so the same model in other units of z has the same active units, and dimensions that are
    small by nature count like others: those of a sphere have variance 1 / D, and proportions of K
    parts still less. Burda et al. compare the variance itself with 0.01, under a prior of variance
    1. The two are one number where the aggregate posterior has the variance of that prior.

    The mean is that of K draws, and the variance that their noise adds is subtracted, so no closed
    form is needed and levels of a hierarchy count alike; it can come out slightly negative where
    nothing moves. All draws are made at once: it is a number of these data together, and those of
    one of them depend on how many there are.

    Args:
        program: any program; dimensions of discrete latents are taken as numbers.
        data: a data set, a tensor x (N, \*event), or a pair (x, context), of at least two data.
        num_samples: draws K for each datum, at least 2.
        threshold: the share above which a dimension counts as active.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data or K < 2.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, for the
    variance of the means.

    Example:
        >>> units = active_units(vae, torch.rand(20, 1, 8, 8).round())
        >>> units.total, units.share["z"].shape
        (2, torch.Size([2]))
    """
    check_count("num_samples", num_samples, minimum=2)
    data = as_dataset(data)
    check_count("data", len(data), minimum=2)
    # A point's mean moves too, so the guide needs no density.
    with conditioned(program, data, seed, scored=False) as given:
        values = given.draw(given.guide, num_samples)
    rows = {name: in_rows(value, given.plates).double() for name, value in values.items()}
    noise = {name: row.var(0).mean(0) / num_samples for name, row in rows.items()}
    variance = {name: row.mean(0).var(0) - noise[name] for name, row in rows.items()}
    mc_se, spread = {}, {}
    for name, value in variance.items():
        between = value.clamp(min=0)
        error = ((2 * noise[name] + 4 * between) * noise[name] / (len(data) - 1)).sqrt()
        mc_se[name] = error + _rounding(rows[name], values[name].dtype)
        spread[name] = between + num_samples * noise[name]
    return ActiveUnits(variance, threshold, num_samples, seed, data.sha256, mc_se, spread)


def _rounding(row: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance that rounding alone gives to the mean of draws (K, N, *latent)."""
    digits = torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps
    return (ROUNDING * digits * row.abs().amax((0, 1))).square()
