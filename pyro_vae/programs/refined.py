"""A guide improved for each datum by gradient steps."""

from __future__ import annotations

import inspect
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_vae.contracts import ProgramLike
from pyro_vae.distributions import TorchToPyro, as_pyro
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Refined", "ShiftParameters", "parameters_of"]


class Refined(nn.Module):
    r"""A program whose guide is improved for each datum by a few gradient steps: semi-amortised inference.

    .. math:: \lambda_0 = \mathrm{encoder}(x), \quad
              \lambda_{t+1} = \lambda_t + \eta\, \nabla_\lambda \widehat{\mathrm{ELBO}}(x;
              \lambda_t), \quad z \sim q(z; \lambda_T)

    :math:`\lambda` are the parameters of the wrapped program's own posterior, one set for each
    datum, on an unconstrained scale (a scale's logarithm, for one), and each step's ELBO is that of
    one draw. All that takes a program takes this one: it trains, scores and reconstructs with the
    refined guide. In training the steps are differentiated through, so the encoder learns where to
    start from. Their number is fixed, so the whole is one static graph. Each step runs encoder and
    decoder once, forwards and backwards, whatever the number of draws K that follow.

    Refined is every latent whose distribution is reparametrised and made of its parameters, such as
    the normals; a latent given another one is moved by the same amount for all values of that
    other. Flows and mixtures are left as the encoder has them.

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
        self.program, self.steps, self.step_size = program, steps, step_size

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        return self.program.event_shape

    @property
    def context(self) -> nn.Module | None:
        return getattr(self.program, "context", None)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """As the wrapped program does."""
        if hasattr(self.program, "initialize"):
            self.program.initialize(x, context)

    def model(self, x: Tensor, context: Tensor | None = None) -> Any:
        return self.program.model(x, context)

    def guide(self, x: Tensor, context: Tensor | None = None) -> Any:
        return ShiftParameters(self._offsets(x, context))(self.program.guide)(x, context)

    def _offsets(self, x: Tensor, context: Tensor | None) -> dict[tuple[str, str], Tensor]:
        """How far each parameter of each site moves from where the encoder puts it."""
        training = torch.is_grad_enabled()
        # Blocked, so that the steps are taken once for each datum, outside the plate of particles
        # and of any weight.
        with poutine.block(), torch.enable_grad():
            shift = ShiftParameters({})
            for _ in range(self.steps):
                guide = poutine.trace(shift(self.program.guide)).get_trace(x, context)
                model = poutine.trace(poutine.replay(self.program.model, trace=guide)).get_trace(
                    x, context
                )
                if not shift.offsets:
                    raise InvalidInput(
                        "program",
                        got="no latent whose posterior can be refined",
                        expected="a reparametrised one made of its parameters",
                        fix="choose DiagonalNormal or another normal, or leave Refined out",
                    )
                elbo = model.log_prob_sum() - guide.log_prob_sum(
                    lambda _, site: not site["is_observed"]
                )
                gradients = torch.autograd.grad(
                    elbo, list(shift.offsets.values()), create_graph=training
                )
                moved = [
                    offset + self.step_size * gradient
                    for offset, gradient in zip(shift.offsets.values(), gradients)
                ]
                shift.offsets = dict(
                    zip(
                        shift.offsets,
                        moved if training else [m.detach().requires_grad_() for m in moved],
                    )
                )
        return shift.offsets


class ShiftParameters(Messenger):
    """Moves the parameters of latent sites by offsets on an unconstrained scale.

    Args:
        offsets: by the names of site and parameter; where a site is met for the first time, zeros
            are put there.
    """

    def __init__(self, offsets: dict[tuple[str, str], Tensor]):
        super().__init__()
        self.offsets = offsets

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            return
        fn: Any = msg["fn"].wrapped if isinstance(msg["fn"], TorchToPyro) else msg["fn"]
        base: Any = fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn
        parameters = parameters_of(base)
        for name, value in parameters.items():
            transform: Any = transform_to(base.arg_constraints[name])
            free = transform.inv(value)
            parameters[name] = transform(
                free
                + self.offsets.setdefault(
                    (msg["name"], name), torch.zeros_like(free, requires_grad=True)
                )
            )
        if parameters:
            moved = type(base)(**parameters)
            msg["fn"] = as_pyro(
                torch.distributions.Independent(moved, fn.reinterpreted_batch_ndims)
                if base is not fn
                else moved
            )


def parameters_of(distribution: Any) -> dict[str, Tensor]:
    """The tensors that a reparametrised distribution can be built anew from; none if there are other things in it."""
    if not getattr(distribution, "has_rsample", False) or isinstance(
        distribution, pyro.distributions.Delta
    ):
        return {}
    found = {}
    for name, argument in inspect.signature(type(distribution)).parameters.items():
        required = argument.default is argument.empty
        if required and name not in distribution.arg_constraints:
            return {}
        if name in distribution.arg_constraints and (required or name in vars(distribution)):
            found[name] = getattr(distribution, name)
    per_datum = all(
        value.shape[: len(distribution.batch_shape)] == distribution.batch_shape
        for value in found.values()
    )
    return found if per_datum else {}
