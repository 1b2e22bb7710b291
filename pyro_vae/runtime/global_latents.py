r"""Latents of the whole data set: their draws, their densities, and the program at one draw.

A site outside the data plate is global: :math:`\theta`, of which there is one for all data. Given
:math:`\theta` a program is one of local latents, and everything else in the library takes it
(`pyro_vae.programs.AtGlobals`). What is left for this file is

.. math:: \theta_s \sim q(\theta), \qquad \log p(\theta_s) - \log q(\theta_s).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Site, Tensors, Trace, sites_of
from pyro_vae.distributions import is_point_mass
from pyro_vae.runtime.environment import isolated_random, reference_parameter
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.noise import block_seed
from pyro_vae.runtime.traces import Plates, importance_traces
from pyro_vae.validation import InvalidInput

__all__ = [
    "GlobalDraw",
    "HasGlobals",
    "check_globals",
    "draw_globals",
    "global_log_probs",
    "log_prior_of",
    "points_among",
]


class HasGlobals(InvalidInput):
    """A program with global latents, where one with local latents alone is expected."""

    def __init__(self, names: Iterable[str]):
        super().__init__(
            "program",
            got=f"latents outside the data plate ({', '.join(sorted(names)[:3])})",
            expected="latents that belong to one datum each",
            fix="look at it at one draw of them: pv.at_globals(program, data, seed=0)",
        )


Values = dict[str, Tensor]


@dataclass(frozen=True)
class GlobalDraw:
    r"""One draw of the global latents from the guide.

    Args:
        values: the value of each global site of the guide, by name.
        log_p: log p(theta) (1,), in nats.
        log_q: log q(theta) (1,), in nats.
        masses: the names of the sites that are point masses: points, or images of other sites.
    """

    values: Values
    log_p: Tensor
    log_q: Tensor
    masses: frozenset[str]

    @property
    def nbytes(self) -> int:
        """The bytes of its values."""
        return sum(value.nbytes for value in self.values.values())


def points_among(one: GlobalDraw, other: GlobalDraw) -> frozenset[str]:
    """The global latents that a guide such as AutoDelta puts at points: two draws are the same."""
    return frozenset(
        name for name in one.masses if torch.equal(one.values[name], other.values[name])
    )


def draw_globals(
    program: ProgramLike,
    args: tuple[Tensors, Tensors | None],
    plates: Plates,
    num_samples: int,
    seed: int,
) -> Iterator[GlobalDraw]:
    r"""Draw :math:`\theta_1, \theta_2, \ldots` from the guide, each by a seed of its own.

    So a draw depends on the seed and its number alone, and can be made again instead of being kept.

    Args:
        program: any program.
        args: data and context of one datum or more; the draws do not depend on them.
        plates: the program's plates.
        num_samples: how many.
        seed: of all of them.
    """
    for number in range(num_samples):
        with isolated_random(reference_parameter(program).device, block_seed(seed, number)):
            guide, model = importance_traces(program, *args)
        log_p, log_q = global_log_probs(guide, model, plates)
        sites = {n: site for n, site in latent_sites(guide).items() if n in plates.globals}
        values = {name: site["value"] for name, site in sites.items()}
        masses = frozenset(name for name, site in sites.items() if is_point_mass(site["fn"]))
        yield GlobalDraw(values, log_p, log_q, masses)


def global_log_probs(
    guide: Trace, model: Trace, plates: Plates, num_samples: int = 1
) -> tuple[Tensor, Tensor]:
    r"""log p(theta) and log q(theta) of two traces, unscaled, in nats: (K,) each.

    Factors outside the data plate count in the model and are training terms in the guide.
    """
    return (
        _total(sites_of(model), plates, num_samples),
        _total(latent_sites(guide), plates, num_samples),
    )


def _total(sites: dict[str, Site], plates: Plates, num_samples: int = 1) -> Tensor:
    """The log-probability (K,) of the global ones among some sites."""
    total = torch.zeros(num_samples)
    for site in (sites[name] for name in sites if name in plates.globals):  # in their order
        value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        value = scale_and_mask(value, mask=site["mask"])
        if num_samples > 1:
            value = value.reshape((1,) * (-plates.particle_dim - value.dim()) + value.shape)
            value = value.movedim(plates.particle_dim, 0)
            total = total.to(value) + value.reshape(len(value), -1).sum(-1)
        else:
            total = total.to(value) + value.sum()
    return total


def log_prior_of(
    program: ProgramLike, args: tuple[Tensors, Tensors | None], plates: Plates, values: Values
) -> Tensor:
    """log p(theta) (1,) at given values of the global latents."""
    model = poutine.condition(program.model, data=values)
    return _total(sites_of(poutine.trace(model).get_trace(*args)), plates)


def check_globals(
    program: ProgramLike,
    one: tuple[Tensors, Tensors | None],
    other: tuple[Tensors, Tensors | None],
    plates: Plates,
) -> None:
    """Raise `InvalidInput` if a density of global latents depends on which data are at hand."""
    (draw,) = draw_globals(program, one, plates, 1, seed=0)
    with isolated_random(reference_parameter(program).device, 0):
        guide, model = (
            sites_of(poutine.trace(poutine.condition(fn, data=draw.values)).get_trace(*other))
            for fn in (program.guide, program.model)
        )
    guide = {name: site for name, site in guide.items() if name in draw.values}
    for sites, before in ((model, draw.log_p), (guide, draw.log_q)):
        change = abs((_total(sites, plates) - before).item())
        if change > 1e-4 * max(1.0, abs(before.item())):
            raise InvalidInput(
                "program",
                got=f"a density of global latents that depends on the data (by {change:.3g} nats)",
                expected="a prior and a guide of them that are the same for every batch",
                fix="let them depend on parameters only, or move the latent inside the data plate",
            )
