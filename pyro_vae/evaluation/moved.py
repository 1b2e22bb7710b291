"""Guides whose continuous sites are moved and stretched, in unconstrained space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Transform,
    constraints,
)

from pyro_vae.contracts import Site, StochasticFunction, sites_of
from pyro_vae.distributions import innermost_support, is_point_mass, stated_support
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latents import to_real

__all__ = ["Moved", "movable_sites"]

CENTRE_DRAWS = 64


class Moved(Messenger):
    """Put each continuous latent site of a guide through an affine map, unconstrained.

    Args:
        affine: from a site's name, centre and scale to the map's offset and factor.
    """

    def __init__(self, affine: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]):
        super().__init__()
        self.affine = affine

    def _pyro_sample(self, msg: Site) -> None:
        if not _can_move(msg):
            return
        fn = msg["fn"]
        to_support = to_real(msg["name"], fn)
        offset, factor = self.affine(msg["name"], *_centre_and_scale(msg["name"], fn))
        # It remembers what its last value is the image of. To invert it cancels: of draws much
        # nearer to one another than to 0, little would be left of the density.
        affine = AffineTransform(offset, factor, to_support.domain.event_dim, cache_size=1)
        msg["fn"] = dist.TransformedDistribution(
            fn, [affine if _is_real(fn) else Within(stated_support(fn), to_support, affine)]
        )


class Within(ComposeTransform):
    """A map of real numbers applied to a support: out of it, through the map and back in.

    Torch takes a distribution's support from its last transform, which for an interval is a shift
    of the real line.
    """

    def __init__(self, support: constraints.Constraint, to_support: Transform, real_map: Transform):
        super().__init__([to_support.inv, real_map, _remembering(to_support)])
        self.support = support

    @constraints.dependent_property(is_discrete=False)
    def codomain(self):
        return self.support


def _remembering(transform: Transform) -> Transform:
    """The same map, which remembers what its last value is the image of, if it can."""
    try:
        return transform.with_cache(1)
    except NotImplementedError:
        return transform


def _can_move(msg: Site) -> bool:
    return msg["type"] == "sample" and not (
        # The image of an auxiliary site is a point mass, and moves with that site.
        msg["is_observed"]
        or site_is_subsample(cast(Message, msg))
        or is_point_mass(msg["fn"])
        or stated_support(msg["fn"]).is_discrete
    )


def movable_sites(guide: StochasticFunction, given: Conditioned) -> dict[str, Site]:
    """The sites that can be moved, at a single draw.

    Raises:
        InvalidInput: if a continuous one has no map to real numbers.
    """
    sites = sites_of(poutine.trace(guide).get_trace(*given.args))
    movable = {name: site for name, site in sites.items() if _can_move(site)}
    for name, site in movable.items():
        to_real(name, site["fn"])
    return movable


def _is_real(fn: TorchDistribution) -> bool:
    return innermost_support(stated_support(fn)) is constraints.real


def _centre_and_scale(name: str, fn: TorchDistribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a site's density in unconstrained space.

    They are in closed form, or else those of draws.

    From draws of a fixed seed they are a function of the density, the same wherever that density is
    scored again.
    """
    if _is_real(fn):
        try:
            return fn.mean, fn.stddev
        except NotImplementedError:
            pass
    with torch.no_grad(), _fixed_draws():
        real = to_real(name, fn).inv(fn.expand((CENTRE_DRAWS, *fn.batch_shape)).sample())
    return real.mean(0), real.std(0)


@contextmanager
def _fixed_draws() -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield
