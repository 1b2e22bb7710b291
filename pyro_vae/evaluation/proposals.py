r"""Proposals: what importance sampling draws its latents from, where the guide itself is a poor one.

A proposal is called with one chunk of data, ``proposal(program, x, context, where)``, and returns a
function from K to log-weights (K, N); whatever it draws from, the weights are those of p(x, z), so
the estimate of p(x) stays unbiased. Those that are guides of their own also offer ``guide(program,
x, context, where)``. They work on the sites of any program; discrete sites are drawn as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import AffineTransform, ComposeTransform, Transform, constraints

from pyro_vae.contracts import ProgramLike
from pyro_vae.distributions import is_point_mass
from pyro_vae.runtime.latents import check_no_auxiliary, draw, frozen, log_density, to_real
from pyro_vae.runtime.traces import NonFiniteLogWeight, Plates, log_weights
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Defensive", "Guide", "Proposal", "Refined", "Widened"]

LogWeights = Callable[[int], Tensor]


Proposal = Callable[[ProgramLike, Tensor, Tensor | None, Plates], LogWeights]


CENTRE_DRAWS = 64


@dataclass(frozen=True)
class Guide:
    """The program's guide as it is.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Guide()).num_samples
        10
    """

    def __call__(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> LogWeights:
        return partial(log_weights, program, x, context, where=where)

    def guide(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> Callable:
        return program.guide


def _guide_of(proposal: Any, *args: Any) -> Callable:
    return (proposal or Guide()).guide(*args)


@dataclass(frozen=True)
class Widened:
    r"""The guide, each continuous site stretched about its centre, in unconstrained space:

    .. math:: u' = c + a\,(u - c), \quad z = T(u')

    with c the mean of the site's density given x and the sites before it. For a guide that is too
    narrow, which is what maximising an ELBO gives, refining it included.

    Args:
        factor: the factor a on the scale.
        of: the guide to widen: `Refined`, for one; by default the program's own.

    Raises:
        InvalidInput: if the factor is not positive, or a continuous latent has no map to real
            numbers.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Widened(1.5)).num_samples
        10
    """

    factor: float = 1.2
    of: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise InvalidInput(
                "factor", got=repr(self.factor), expected="a number > 0", fix="pass factor=1.2"
            )

    def __call__(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> LogWeights:
        return partial(
            log_weights,
            program,
            x,
            context,
            where=where,
            guide=self.guide(program, x, context, where),
        )

    def guide(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> Callable:
        guide = _guide_of(self.of, program, x, context, where)
        _movable_sites(guide, x, context)
        return Moved(
            lambda name, centre, scale: (
                (1 - self.factor) * centre,
                torch.full_like(centre, self.factor),
            )
        )(guide)


@dataclass(frozen=True)
class Refined:
    r"""The guide, refined for each datum by gradient steps on its ELBO: each continuous site moved and stretched,

    .. math:: u' = c + s\,\delta + e^{\lambda} (u - c), \quad z = T(u')

    in unconstrained space, with c and s the site's mean and scale under the guide, and
    :math:`\delta, \lambda` of each datum fitted by Adam. For a mean-field normal guide these are
    all means and scales: the optimum is the best member of the family, and what is gained is the
    amortisation gap. For another guide it is a part of it. (`pyro_vae.Refined` is a program, with a
    few such steps in training too; this refines whatever program was trained, for its evaluation.)

    Args:
        steps: gradient steps.
        learning_rate: of Adam, in units of the guide's scale; it falls linearly to nothing.
        num_particles: draws for each gradient.

    Raises:
        InvalidInput: if a continuous site cannot be reparametrised, or has no map to real numbers.

    Source: Cremer, Li and Duvenaud (2018), Inference Suboptimality in Variational Autoencoders.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Refined(steps=5)).num_samples
        10
    """

    steps: int = 100
    learning_rate: float = 0.1
    num_particles: int = 8

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("num_particles", self.num_particles)

    def __call__(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> LogWeights:
        return partial(
            log_weights,
            program,
            x,
            context,
            where=where,
            guide=self.guide(program, x, context, where),
        )

    def guide(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> Callable:
        zeros = _zeros_of_sites(program.guide, x, context)
        shifts, log_scales = (
            {name: torch.zeros_like(zero, requires_grad=True) for name, zero in zeros.items()}
            for _ in range(2)
        )
        moved = Moved(
            lambda name, centre, scale: (
                (1 - log_scales[name].exp()) * centre + scale * shifts[name],
                log_scales[name].exp(),
            )
        )(program.guide)
        parameters = [*shifts.values(), *log_scales.values()]
        if not parameters:
            return program.guide
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        with frozen(program):
            for step in range(self.steps):
                bounds = log_weights(program, x, context, self.num_particles, where, moved).mean(0)
                for parameter, gradient in zip(
                    parameters, torch.autograd.grad(-bounds.sum(), parameters)
                ):
                    parameter.grad = gradient
                optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.steps)
                optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
        return moved


@dataclass(frozen=True)
class Defensive:
    r"""A guide mixed with the prior, so that no weight exceeds :math:`p(x \mid z) / \alpha`:

    .. math:: r(z) = (1 - \alpha)\, q(z \mid x) + \alpha\, p(z), \quad w = \frac{p(x, z)}{r(z)}

    It bounds the weights where q is too narrow, for discrete latents too. In many dimensions hardly
    any draw of the prior lands where it is needed, and the bound is a promise for K that nobody
    draws: there, refine.

    Args:
        weight: the prior's share :math:`\alpha`.
        of: the guide to mix with: `Widened` or `Refined`; by default the program's own.

    Raises:
        InvalidInput: if the weight is not within (0, 1), or the guide has auxiliary sites.

    Source: Hesterberg (1995), Weighted Average Importance Sampling and Defensive Mixture
    Distributions.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Defensive(0.1, of=Widened(1.2))).num_samples
        10
    """

    weight: float = 0.1
    of: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise InvalidInput(
                "weight",
                got=repr(self.weight),
                expected="a share between 0 and 1",
                fix="pass weight=0.1",
            )

    def __call__(
        self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
    ) -> LogWeights:
        check_no_auxiliary(program, x, context, where)
        guide = _guide_of(self.of, program, x, context, where)

        def mixture_log_weights(num_samples: int) -> Tensor:
            values, others = (
                draw(fn, x, context, num_samples, where) for fn in (guide, program.model)
            )
            from_prior = torch.rand(num_samples, len(x), device=x.device) < self.weight
            values = {
                name: torch.where(_in_shape_of(value, from_prior, where), others[name], value)
                for name, value in values.items()
            }
            log_q, _ = log_density(guide, values, x, context, num_samples, where)
            log_p, log_rest = log_density(program.model, values, x, context, num_samples, where)
            total = (
                log_p
                + log_rest
                - torch.logaddexp(log_q + math.log1p(-self.weight), log_p + math.log(self.weight))
            )
            bad = torch.isnan(total) | (total == torch.inf)
            if bad.any():
                raise NonFiniteLogWeight(
                    int(bad.any(0).nonzero()[0]), "under the mixture of guide and prior"
                )
            return total

        return mixture_log_weights


def _in_shape_of(value: Tensor, choice: Tensor, where: Plates) -> Tensor:
    """A choice (K, N) with dimensions of size one wherever a site's value has other ones."""
    shape = [1] * value.dim()
    shape[0], shape[where.data_dim - where.particle_dim] = choice.shape
    return choice.reshape(shape)


class Moved(Messenger):
    """Puts each continuous latent site of a guide through an affine map, in unconstrained space.

    Args:
        affine: from a site's name, centre and scale to the map's offset and factor.
    """

    def __init__(self, affine: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]):
        super().__init__()
        self.affine = affine

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not _can_move(msg):
            return
        fn = msg["fn"]
        to_support = to_real(msg["name"], fn)
        offset, factor = self.affine(msg["name"], *_centre_and_scale(msg["name"], fn))
        affine = AffineTransform(offset, factor, event_dim=to_support.domain.event_dim)
        msg["fn"] = dist.TransformedDistribution(
            fn, [affine if _is_real(fn) else Within(fn.support, to_support, affine)]
        )


class Within(ComposeTransform):
    """A map of real numbers applied to a support: out of it, through the map and back in.

    Torch takes a distribution's support from its last transform, which for an interval is a shift
    of the real line.
    """

    def __init__(self, support: Any, to_support: Transform, real_map: Transform):
        super().__init__([to_support.inv, real_map, to_support])
        self.support = support

    @constraints.dependent_property(is_discrete=False)
    def codomain(self):
        return self.support


def _can_move(msg: Any) -> bool:
    return msg["type"] == "sample" and not (
        # The image of an auxiliary site is a point mass, and moves with that site.
        msg["is_observed"]
        or site_is_subsample(msg)
        or is_point_mass(msg["fn"])
        or msg["fn"].support.is_discrete
    )


def _movable_sites(guide: Callable, x: Tensor, context: Tensor | None) -> dict[str, Any]:
    """The sites that can be moved, at a single draw; `InvalidInput` if one has no map to real numbers."""
    sites: dict[str, Any] = poutine.trace(guide).get_trace(x, context).nodes
    movable = {
        name: site for name, site in sites.items() if site["type"] == "sample" and _can_move(site)
    }
    for name, site in movable.items():
        to_real(name, site["fn"])
    return movable


def _zeros_of_sites(guide: Callable, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """For each site that can be moved, zeros in the shape of its unconstrained value at a single draw."""
    zeros = {}
    for name, site in _movable_sites(guide, x, context).items():
        if not site["fn"].has_rsample:
            raise InvalidInput(
                name,
                got="a guide site that cannot be reparametrised",
                expected="one with rsample",
                fix="use proposal=Widened() or Defensive()",
            )
        zeros[name] = torch.zeros_like(to_real(name, site["fn"]).inv(site["value"]))
    return zeros


def _is_real(fn: Any) -> bool:
    support = fn.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is constraints.real


def _centre_and_scale(name: str, fn: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a site's density in unconstrained space: in closed form, or else from draws.

    From draws of a fixed seed they are a function of the density, the same wherever that density is
    scored again.
    """
    if _is_real(fn):
        try:
            return fn.mean, fn.stddev
        except NotImplementedError:
            pass
    with torch.no_grad(), _fixed_draws():
        real = to_real(name, fn).inv(fn.sample((CENTRE_DRAWS,)))
    return real.mean(0), real.std(0)


@contextmanager
def _fixed_draws() -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield
