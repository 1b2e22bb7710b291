"""Improve a program's guide for each datum by gradient steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Protocol, Self, runtime_checkable

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints, transform_to

from pyro_vae.contracts import (
    EventShape,
    Initializable,
    ProgramLike,
    Quantity,
    Site,
    Tensors,
    context_of,
    known_by,
)
from pyro_vae.distributions import TorchToPyro, as_pyro
from pyro_vae.validation import InvalidInput, check_count, check_positive

__all__ = ["FitsItsGuide", "Refined", "ShiftParameters", "parameters_of"]

Offsets = dict[tuple[str, str], Tensor]  # by the names of site and parameter


@runtime_checkable
class FitsItsGuide(Protocol):
    """A program whose guide is fitted to the data at every run, and can be fitted once for many."""

    def fitted(self, x: Tensors, context: Tensors | None = None) -> ProgramLike: ...


class Refined(nn.Module):
    r"""A program whose guide takes a few gradient steps for each datum.

    .. math:: \lambda_0 = \mathrm{encoder}(x), \quad
              \lambda_{t+1} = \lambda_t + \eta\, \nabla_\lambda \widehat{\mathrm{ELBO}}(x;
              \lambda_t), \quad z \sim q(z; \lambda_T)

    This is semi-amortised inference. :math:`\lambda` are the parameters of the wrapped program's
    posterior, one set for each datum, on an unconstrained scale (such as a scale's logarithm), and
    each step's ELBO is that of one draw. Whatever takes a program takes this one: it trains, scores
    and reconstructs with the refined guide. Training differentiates through the steps, so the
    encoder learns where to start. The number of steps is fixed, so the whole is one static graph.
    Each step runs encoder and decoder once, forwards and backwards, whatever the number of draws K
    that follow.

    The steps refine every latent whose distribution is reparametrised and made of its parameters,
    such as a normal; a latent given another one moves by the same amount for all values of that
    other. Flows and mixtures stay as the encoder has them.

    Args:
        program: any program, such as a `VAE`.
        steps: number of steps T.
        step_size: :math:`\eta`.

    Raises:
        InvalidInput: if no latent of the program can be refined (when it first runs), or on steps <
            1.

    Source: Kim et al. (2018), Semi-Amortized Variational Autoencoders; Cremer, Li and Duvenaud
    (2018), Inference Suboptimality in Variational Autoencoders, for the gap that it narrows.

    Example:
        >>> refined = pv.Refined(vae, steps=2, step_size=0.05)
        >>> pv.elbo(refined, torch.zeros(3, 1, 8, 8), num_samples=10).values.shape
        torch.Size([3])
    """

    def __init__(self, program: ProgramLike, steps: int = 5, step_size: float = 0.05):
        super().__init__()
        check_count("steps", steps)
        check_positive("step_size", step_size)
        self.program, self.steps, self.step_size = program, steps, step_size
        self._fixed: Offsets | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, nn.Module) and name != "program":
            raise InvalidInput(
                name,
                got=f"a {type(value).__name__} as a part of Refined",
                expected="a part of the program that it refines",
                fix=f"write refined.program.{name} = ...",
            )
        super().__setattr__(name, value)  # type: ignore[arg-type]  # torch means any value

    @property
    def event_shape(self) -> EventShape | None:
        return self.program.event_shape

    @property
    def context(self) -> nn.Module | None:
        return context_of(self.program)

    @property
    def known(self) -> Mapping[str, Quantity]:
        return known_by(self.program)

    def initialize(self, x: Tensors, context: Tensors | None = None) -> None:
        """Start the wrapped program from data."""
        if isinstance(self.program, Initializable):
            self.program.initialize(x, context)

    def model(self, x: Tensors, context: Tensors | None = None) -> object:
        return self.program.model(x, context)

    def guide(self, x: Tensors, context: Tensors | None = None) -> object:
        offsets = self._offsets(x, context) if self._fixed is None else self._fixed
        return ShiftParameters(offsets)(self.program.guide)(x, context)

    def fitted(self, x: Tensors, context: Tensors | None = None) -> Self:
        """The same program, its guide refined for these data once, to be run on them many times."""
        fitted = copy.copy(self)
        offsets = self._offsets(x, context)
        fitted._fixed = {name: offset.detach() for name, offset in offsets.items()}
        return fitted

    def _offsets(self, x: Tensors, context: Tensors | None) -> Offsets:
        """The shift of each site's parameters from the encoder's values."""
        training = torch.is_grad_enabled()
        # Blocked, so that the steps are taken once for each datum, outside the plate of particles
        # and of any weight.
        with poutine.block(), torch.enable_grad():
            shift = ShiftParameters({})
            for _ in range(self.steps):
                elbo = self._elbo(shift, x, context)
                offsets = shift.offsets
                gradients = torch.autograd.grad(elbo, [*offsets.values()], create_graph=training)
                for site, gradient in zip(offsets, gradients):
                    moved = offsets[site] + self.step_size * gradient
                    offsets[site] = moved if training else moved.detach().requires_grad_()
        return shift.offsets

    def _elbo(self, shift: ShiftParameters, x: Tensors, context: Tensors | None) -> Tensor:
        """The ELBO, summed over the data, of one draw from the guide with shifted parameters."""
        guide = poutine.trace(shift(self.program.guide)).get_trace(x, context)
        replayed = poutine.replay(self.program.model, trace=guide)
        model = poutine.trace(replayed).get_trace(x, context)
        if not shift.offsets:
            raise InvalidInput(
                "program",
                got="no latent whose posterior can be refined",
                expected="a reparametrised posterior given by its parameters",
                fix="choose DiagonalNormal or another normal, or leave Refined out",
            )
        latents = guide.log_prob_sum(lambda _, site: not site["is_observed"])
        return torch.as_tensor(model.log_prob_sum() - latents)


class ShiftParameters(Messenger):
    """Move the parameters of latent sites by offsets on an unconstrained scale.

    Args:
        offsets: by the names of site and parameter; where a site is met for the first time, zeros
            are put there.
    """

    def __init__(self, offsets: Offsets):
        super().__init__()
        self.offsets = offsets

    def _pyro_sample(self, msg: Site) -> None:  # type: ignore[override]  # of a narrower type
        if msg["is_observed"] or not msg["cond_indep_stack"]:
            return  # also for global latents, whose parameters belong to no datum
        fn = msg["fn"].wrapped if isinstance(msg["fn"], TorchToPyro) else msg["fn"]
        base = fn.base_dist if isinstance(fn, Independent) else fn
        parameters = parameters_of(base)
        if not parameters:
            return
        for name, value in parameters.items():
            transform = transform_to(constraints_of(base)[name])
            free = transform.inv(value)
            start = torch.zeros_like(free, requires_grad=True)
            parameters[name] = transform(free + self.offsets.setdefault((msg["name"], name), start))
        rebuild: Callable[..., Distribution] = type(base)
        moved = rebuild(**parameters)
        if isinstance(fn, Independent):
            moved = Independent(moved, fn.reinterpreted_batch_ndims)
        msg["fn"] = as_pyro(moved)


def parameters_of(distribution: Distribution) -> dict[str, Tensor]:
    """The tensor parameters of a reparametrised distribution; none if it has other parts."""
    if not distribution.has_rsample or isinstance(distribution, Delta):
        return {}
    found = {}
    known = constraints_of(distribution)
    for name, argument in inspect.signature(type(distribution)).parameters.items():
        required = argument.default is argument.empty
        if required and name not in known:
            return {}
        if name in known and (required or name in vars(distribution)):
            found[name] = getattr(distribution, name)
    batch = distribution.batch_shape
    per_datum = all(value.shape[: len(batch)] == batch for value in found.values())
    return found if per_datum else {}


def constraints_of(distribution: Distribution) -> dict[str, constraints.Constraint]:
    """Constraints of a distribution's parameters, by name."""
    return distribution.arg_constraints  # type: ignore[return-value]
