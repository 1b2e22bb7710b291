r"""Proposals: what importance sampling draws from where the guide is a poor one.

A proposal is called with a program given a few data and returns a function from K to log-weights
(K, N). Whatever it draws from, the weights are those of p(x, z), so the estimate of p(x) stays
unbiased. A proposal that is a guide of its own also offers ``guide(given)``. All work on the sites
of any program. Discrete sites are drawn as they were.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from pyro_vae.contracts import StochasticFunction
from pyro_vae.evaluation.moved import Moved, movable_sites
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latents import frozen, to_real
from pyro_vae.runtime.traces import NonFiniteLogWeight, Plates, is_no_weight
from pyro_vae.validation import InvalidInput, as_number, check_count

__all__ = [
    "Defensive",
    "Guide",
    "GuideProposal",
    "Proposal",
    "Refitted",
    "Widened",
    "in_one_step",
    "recorded",
]

P = TypeVar("P")

LogWeights = Callable[[int], Tensor]
Proposal = Callable[[Conditioned], LogWeights]


@runtime_checkable
class GuideProposal(Protocol):
    """A proposal that is a guide of its own, whose density at given latents is known."""

    def __call__(self, given: Conditioned) -> LogWeights: ...
    def guide(self, given: Conditioned) -> StochasticFunction: ...


@dataclass(frozen=True)
class Guide:
    """The program's guide as it is.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Guide()).num_samples
        10
    """

    def __call__(self, given: Conditioned) -> LogWeights:
        return given.log_weights

    def guide(self, given: Conditioned) -> StochasticFunction:
        return given.fitted().guide


def _guide_of(proposal: GuideProposal | None, given: Conditioned) -> StochasticFunction:
    return (proposal or Guide()).guide(given)


@dataclass(frozen=True)
class Widened:
    r"""The guide, each continuous site stretched about its centre:

    .. math:: u' = c + a\,(u - c), \quad z = T(u')

    with c the mean of the site's density given x and the sites before it. For a guide that is too
    narrow, which is what maximising an ELBO gives, refining it included.

    Args:
        factor: the factor a on the scale.
        of: the guide to widen: `Refitted`, for one; by default the program's own.

    Raises:
        InvalidInput: if the factor is not positive, or a continuous latent has no map to real
            numbers.

    Example:
        >>> pv.log_likelihood(vae, torch.zeros(2, 1, 8, 8), 10, proposal=Widened(1.5)).num_samples
        10
    """

    factor: float = 1.2
    of: GuideProposal | None = None

    def __post_init__(self) -> None:
        if not 0 < as_number(self.factor) < math.inf:
            raise InvalidInput(
                "factor", got=repr(self.factor), expected="a number > 0", fix="pass factor=1.2"
            )

    def __call__(self, given: Conditioned) -> LogWeights:
        return partial(given.log_weights, guide=self.guide(given))

    def guide(self, given: Conditioned) -> StochasticFunction:
        guide = _guide_of(self.of, given)
        movable_sites(guide, given)
        return Moved(
            lambda name, centre, scale: (
                (1 - self.factor) * centre,
                torch.full_like(centre, self.factor),
            )
        )(guide)


@dataclass(frozen=True)
class Refitted:
    r"""The guide refined for each datum, its sites moved and stretched by gradient steps:

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
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> pv.log_likelihood(vae, x, 10, proposal=Refitted(steps=5)).num_samples
        10
    """

    steps: int = 100
    learning_rate: float = 0.1
    num_particles: int = 8

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("num_particles", self.num_particles)

    def __call__(self, given: Conditioned) -> LogWeights:
        return partial(given.log_weights, guide=self.guide(given))

    def guide(self, given: Conditioned) -> StochasticFunction:
        given = given.fitted()
        zeros = _zeros_of_sites(given)
        shifts, log_scales = (
            {name: torch.zeros_like(zero, requires_grad=True) for name, zero in zeros.items()}
            for _ in range(2)
        )
        moved = Moved(
            lambda name, centre, scale: (
                (1 - log_scales[name].exp()) * centre + scale * shifts[name],
                log_scales[name].exp(),
            )
        )(given.guide)
        parameters = [*shifts.values(), *log_scales.values()]
        if not parameters:
            return given.guide
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        with frozen(given.program):
            for step in range(self.steps):
                bounds = given.log_weights(self.num_particles, moved).mean(0)
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
        of: the guide to mix with: `Widened` or `Refitted`; by default the program's own.

    Raises:
        InvalidInput: if the weight is not within (0, 1), or the guide has auxiliary sites.

    Source: Hesterberg (1995), Weighted Average Importance Sampling and Defensive Mixture
    Distributions.

    Example:
        >>> mixture, x = Defensive(0.1, of=Widened(1.2)), torch.zeros(2, 1, 8, 8)
        >>> pv.log_likelihood(vae, x, 10, proposal=mixture).num_samples
        10
    """

    weight: float = 0.1
    of: GuideProposal | None = None

    def __post_init__(self) -> None:
        if not 0 < as_number(self.weight) < 1:
            raise InvalidInput(
                "weight",
                got=repr(self.weight),
                expected="a share between 0 and 1",
                fix="pass weight=0.1",
            )

    def __call__(self, given: Conditioned) -> LogWeights:
        given.check_no_auxiliary()
        guide = _guide_of(self.of, given)

        def mixture_log_weights(num_samples: int) -> Tensor:
            values, others = (given.draw(fn, num_samples) for fn in (guide, given.model))
            from_prior = torch.rand(num_samples, len(given), device=given.device) < self.weight
            values = {
                name: torch.where(
                    _in_shape_of(value, from_prior, given.plates), others[name], value
                )
                for name, value in values.items()
            }
            log_q, _ = given.log_density(guide, values)
            log_p, log_rest = given.log_density(given.model, values)
            log_mixture = torch.logaddexp(
                log_q + math.log1p(-self.weight), log_p + math.log(self.weight)
            )
            total = log_p + log_rest - log_mixture
            bad = is_no_weight(total)
            if bad.any():
                datum = int(bad.any(0).nonzero()[0])
                raise NonFiniteLogWeight(datum, "under the mixture of guide and prior")
            return total

        return mixture_log_weights


def never_reaches_all(given: Conditioned, proposal: Proposal) -> bool:
    """Whether a proposal takes one value of a discrete latent, as the guide that it is made of.

    The mean of its weights is then p(x) without all that the other values add, however many draws.
    """
    return given.plates.chooses and isinstance(proposal, GuideProposal)


def draws_states(proposal: Proposal, given: Conditioned) -> bool:
    """Whether a proposal draws a discrete latent, and as the guide that it is made of does."""
    return given.plates.has_states and isinstance(proposal, GuideProposal)


def to_try_after(proposal: Proposal | None) -> list[Widened]:
    """The proposals to try where the weights of this one have too heavy a tail, cheapest first.

    Example:
        >>> to_try_after(Guide())[0], [wider.of is None for wider in to_try_after(Guide())]
        (Widened(factor=1.2, of=None), [True, False])
        >>> [wider.factor for wider in to_try_after(Widened(1.2, of=Refitted()))]
        [1.6]
        >>> to_try_after(Widened(2.5, of=Refitted()))
        []
    """
    factor, is_refitted, inner = 1.0, False, proposal
    while inner is not None:
        factor *= inner.factor if isinstance(inner, Widened) else 1.0
        is_refitted |= isinstance(inner, Refitted)
        inner = inner.of if isinstance(inner, Widened | Defensive) else None
    wider = Widened().factor if factor == 1 else round(4 / 3 * factor, 1)
    found = [Widened(wider, of=Refitted() if is_refitted else None)] if factor < 2 else []
    return found if is_refitted else [*found, Widened(max(Widened().factor, factor), of=Refitted())]


def in_one_step(proposal: P) -> P:
    """The same proposal, refitted by one step: its draws take as much memory, in hardly any time.

    Example:
        >>> in_one_step(Widened(1.3, of=Refitted(steps=100)))
        Widened(factor=1.3, of=Refitted(steps=1, learning_rate=0.1, num_particles=8))
    """
    if isinstance(proposal, Refitted):
        return replace(proposal, steps=1)
    if isinstance(proposal, Widened | Defensive):
        return replace(proposal, of=in_one_step(proposal.of))
    return proposal


def recorded(record: Mapping[str, str]) -> Proposal | None:
    """The proposal of an evaluation, as ``evaluation.json`` records it; ``None`` if it is not ours.

    Args:
        record: its name, and each of its settings as it is written in Python.

    Example:
        >>> recorded({"name": "Widened", "factor": "1.3", "of": "Refitted(steps=20)"})
        Widened(factor=1.3, of=Refitted(steps=20, learning_rate=0.1, num_particles=8))
        >>> recorded({"name": "Mine", "factor": "1.3"}) is None
        True
    """
    settings = ", ".join(f"{name}={value}" for name, value in record.items() if name != "name")
    try:
        made = _made_of(ast.parse(f"{record.get('name', '')}({settings})", mode="eval").body)
    except (SyntaxError, TypeError, ValueError):
        return None
    return made if isinstance(made, Guide | Widened | Refitted | Defensive) else None


def _made_of(written: ast.expr) -> object:
    """A proposal of ours, or a literal, from its expression; nothing else is evaluated."""
    if not isinstance(written, ast.Call):
        return ast.literal_eval(written)
    ours: dict[str, Callable[..., object]]
    ours = {one.__name__: one for one in (Guide, Widened, Refitted, Defensive)}
    if not isinstance(written.func, ast.Name) or written.func.id not in ours or written.args:
        raise ValueError(ast.unparse(written))
    settings = {str(each.arg): _made_of(each.value) for each in written.keywords}
    return ours[written.func.id](**settings)


def _in_shape_of(value: Tensor, choice: Tensor, plates: Plates) -> Tensor:
    """Give a choice (K, N) dimensions of size one wherever a site's value has other ones."""
    shape = [1] * value.dim()
    shape[0], shape[plates.data_axis] = choice.shape
    return choice.reshape(shape)


def _zeros_of_sites(given: Conditioned) -> dict[str, Tensor]:
    """Zeros in the shape of each site that can be moved, unconstrained, at a single draw."""
    zeros = {}
    for name, site in movable_sites(given.guide, given).items():
        if not site["fn"].has_rsample:
            raise InvalidInput(
                name,
                got="a guide site that cannot be reparametrised",
                expected="one with rsample",
                fix="use proposal=pv.evaluation.Widened() or pv.evaluation.Defensive()",
            )
        zeros[name] = torch.zeros_like(to_real(name, site["fn"]).inv(site["value"]))
    return zeros


FORMER_NAMES = {"Refined": Refitted}  # of version 0.1.0


def __getattr__(name: str) -> type[Refitted]:
    """Find `Refitted` under its name in version 0.1.0."""
    if name in FORMER_NAMES:
        return FORMER_NAMES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
