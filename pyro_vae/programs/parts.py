"""What several programs share: their sites, contexts and plates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import broadcast_batch, flatten_event
from pyro_vae.validation import InvalidInput

__all__ = [
    "check_parts",
    "draw_latent",
    "embed",
    "flattened",
    "initialize",
    "join_context",
    "particles",
]


def check_parts(prior: Any, likelihood: Any, posterior: Any) -> None:
    """Raises `InvalidInput` unless all are modules, and the likelihood states the shape of x."""
    for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
        if not isinstance(part, nn.Module) or (
            part is likelihood and not hasattr(part, "event_shape")
        ):
            raise InvalidInput(
                name,
                got=type(part).__name__,
                expected="a module whose forward returns a distribution"
                + (", with event_shape" if part is likelihood else ""),
                fix="pass the parts by name: prior=, likelihood=, posterior=",
            )


def embed(module: nn.Module | None, context: Tensor | None) -> Tensor | None:
    """The features that a module makes of a context; none without a module."""
    if module is None:
        return None
    if context is None:
        raise InvalidInput(
            "context",
            got="none",
            expected="one label or covariate vector for each datum",
            fix="pass a pair (x, context), or context= when generating",
        )
    return module(context)


def draw_latent(name: str, posterior: Any, density: Distribution) -> Tensor:
    """A latent's site in the guide, with what the posterior says about it.

    ``posterior.infer`` goes to Pyro, such as that its states are to be summed over.
    ``density.training_term`` (N,), in nats, is put beside it as a factor, which the log-weights
    leave out: a codebook's commitment.
    """
    infer: Any = dict(getattr(posterior, "infer", {}))
    z = pyro.sample(name, as_pyro(density), infer=infer)
    term = getattr(density, "training_term", None)
    if term is not None:
        pyro.factor(
            f"{name}_training_term", -term, has_rsample=True
        )  # a guide's log-probabilities count against the bound
    return z


def initialize(parts: Sequence[Any], x: Tensor, features: Tensor | None) -> None:
    """Calls ``initialize(x, features)`` on the parts that have it, such as VampPrior's pseudo-inputs."""
    for part in parts:
        if hasattr(part, "initialize"):
            part.initialize(x, features)


def flattened(z: Tensor, density: Distribution) -> Tensor:
    """A draw from a density with its event dimensions joined into one."""
    return flatten_event(z, len(density.event_shape))


def join_context(features: Tensor | None, latents: Sequence[Tensor]) -> Tensor | None:
    """A program's context features and latents (flattened) side by side; ``None`` if there are neither."""
    parts = [*([] if features is None else [features]), *latents]
    return torch.cat(broadcast_batch(*parts), dim=-1) if parts else None


def particles(fn: Callable[..., Any], num_particles: int, dim: int) -> Callable[..., Any]:
    """A model or guide run for ``num_particles`` particles at once, in a plate left of all of its own.

    Args:
        fn: the model or the guide.
        num_particles: number of particles K.
        dim: the particle plate's dimension, -1 - (number of plate dimensions of the program).
    """
    return pyro.plate("particles", num_particles, dim=dim)(fn)
