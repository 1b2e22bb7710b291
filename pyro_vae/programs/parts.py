"""Building blocks of the models and guides of several programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast, overload

import pyro
import torch
from pyro.poutine.runtime import InferDict, Message
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.contracts import (
    PLATE_OF_DRAWS,
    Likelihood,
    Posterior,
    Prior,
    StatesInfer,
    StatesTrainingTerm,
    StochasticFunction,
    Tensors,
    as_module,
)
from pyro_vae.distributions import as_pyro
from pyro_vae.networks import broadcast_batch, flatten_event, tell_event_dim
from pyro_vae.programs.contexts import context_for
from pyro_vae.validation import InvalidInput

__all__ = [
    "density_of",
    "draw_latent",
    "features_of_context",
    "flattened",
    "join_context",
    "particles",
    "prior_given",
    "takes_input",
]


@overload
def features_of_context(
    module: nn.Module, context: Tensors | None, known: Iterable[str] = ()
) -> Tensor: ...
@overload
def features_of_context(
    module: nn.Module | None, context: Tensors | None, known: Iterable[str] = ()
) -> Tensor | None: ...
def features_of_context(
    module: nn.Module | None, context: Tensors | None, known: Iterable[str] = ()
) -> Tensor | None:
    """A module's features of a context, of which some entries are known quantities.

    There are none without a module.
    """
    if module is None:
        return None
    given = context_for(module, context, known)
    if given is None:
        raise InvalidInput(
            "context",
            got="none",
            expected="one label or covariate vector for each datum",
            fix="pass a pair (x, context), or context= when generating",
        )
    return module(given)


def density_of(
    component: Likelihood | Posterior,
    given: Tensor,
    event_dim: int,
    context: Tensor | None,
    known: Mapping[str, Tensor] | None = None,
) -> Distribution:
    """A component's distribution given data or a latent, of ``event_dim`` event dimensions."""
    tell_event_dim(as_module(component), event_dim)
    density: Callable[..., Distribution] = component
    return density(given, context=context, **(known or {}))


def prior_given(
    prior: Prior, given: Tensor, event_dim: int, context: Tensor | None, features: Tensor | None
) -> Distribution:
    """A level's prior given what is above it, or p(z_l) if it takes no input.

    Args:
        prior: the component.
        given: what it is given, such as the latent above.
        event_dim: the event dimensions of that.
        context: what a prior with an input gets beside it.
        features: the context's features, for a prior without.
    """
    if takes_input(type(as_module(prior))):
        return density_of(cast(Posterior, prior), given, event_dim, context)
    return prior(context=features)


def takes_input(kind: type[nn.Module]) -> bool:
    """Whether components of a class are given an input, as p(x | z) and q(z | x) are, not p(z)."""
    given = list(inspect.signature(kind.forward).parameters.values())[1:]
    positional = {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    }
    return any(one.kind in positional and one.name != "context" for one in given)


def draw_latent(
    name: str,
    posterior: object,
    density: Distribution,
    kept: Mapping[str, object] | None = None,
) -> Tensor:
    """Draw a latent in the guide, with the options that the posterior states for its site.

    ``posterior.infer`` goes to Pyro, such as that its states are to be summed over. What is to be
    ``kept`` with the site is found in its ``infer``.
    ``density.training_term`` (N,), in nats, is put beside it as a factor, which the log-weights
    leave out: a codebook's commitment.
    """
    infer: InferDict = {**posterior.infer} if isinstance(posterior, StatesInfer) else {}
    infer.update(kept or {})  # type: ignore[typeddict-item]  # Pyro hands on what it knows not
    z = pyro.sample(name, as_pyro(density), infer=infer)
    if isinstance(density, StatesTrainingTerm):
        # Minus, for a guide's log-probabilities count against the bound.
        pyro.factor(f"{name}_training_term", -density.training_term, has_rsample=True)
    return z


def flattened(z: Tensor, density: Distribution) -> Tensor:
    """A draw from a density with its event dimensions joined into one."""
    return flatten_event(z, len(density.event_shape))


def join_context(features: Tensor | None, latents: Sequence[Tensor]) -> Tensor | None:
    """Context features and flattened latents side by side; ``None`` if there are neither."""
    parts = [*([] if features is None else [features]), *latents]
    return torch.cat(broadcast_batch(*parts), dim=-1) if parts else None


def particles(
    fn: StochasticFunction, num_particles: int, dim: int, outside: Collection[str] = ()
) -> StochasticFunction:
    """Run a model or guide for several particles at once, in a new outermost plate.

    Args:
        fn: the model or the guide.
        num_particles: number of particles K.
        dim: the particle plate's dimension, -1 - (number of plate dimensions of the program).
        outside: sites that are drawn once for all particles, such as global latents.
    """
    return ParticlePlate(num_particles, dim, outside)(fn)


class ParticlePlate(pyro.plate):
    """A plate of particles that some sites stay outside of."""

    def __init__(self, num_particles: int, dim: int, outside: Collection[str]):
        super().__init__(PLATE_OF_DRAWS, num_particles, dim=dim)
        self.outside = frozenset(outside)

    def _process_message(self, msg: Message) -> None:
        if msg["name"] not in self.outside:
            super()._process_message(msg)
