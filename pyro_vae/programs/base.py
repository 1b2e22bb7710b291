"""A variational autoencoder of three components, and what all programs are made and run with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import as_shape, broadcast_batch, flatten_event
from pyro_vae.validation import InvalidInput

__all__ = ["VAE", "AnyProgram", "check_parts", "draw_latent", "embed", "flattened", "initialize", "join_context", "particles",
           "posterior_predictive", "prior_predictive"]

# What keeps the contract of a program; nothing needs to be inherited, so there is no class to name.
AnyProgram = Any


class VAE(nn.Module):
    r"""A variational autoencoder, or with a context a conditional one (CVAE): three components as a Pyro program.

    .. math:: z \sim p(z \mid c), \quad x \sim p(x \mid z, c), \quad q(z \mid x, c), \quad c = \mathrm{context}(y)

    Args:
        prior: p(z), or p(z | c) for a prior that uses its context.
        likelihood: p(x | z); it states ``event_shape``.
        posterior: q(z | x).
        context: a module from labels or covariates (N, ...) to features (N, C), `pyro_vae.networks.OneHot` or
            `torch.nn.Identity` for instance; ``None`` for a model without labels, which ignores those of the data.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes; Sohn, Lee and Yan (2015) for the CVAE.

    Example:
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [16], context=10)),
        ...     posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16], context=10)),
        ...     context=pv.networks.OneHot(10),
        ... )
        >>> pv.generate(vae, 4, context=7).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module,
                 context: nn.Module | None = None):
        super().__init__()
        check_parts(prior, likelihood, posterior)
        self.prior, self.posterior, self.context = prior, posterior, context
        self.likelihood: Any = likelihood
        part: Any
        for part in (prior, likelihood, posterior):
            if hasattr(part, "bind"):  # a part that needs another, as VampPrior needs the posterior
                part.bind(self)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        features = self.embed(context)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", as_pyro(self.prior(context=features)))
            return pyro.sample("x", as_pyro(self.likelihood(z, context=features)), obs=x)

    def guide(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        features = self.embed(context)
        with pyro.plate("data", len(x), dim=-1):
            return draw_latent("z", self.posterior, self.posterior(x, context=features))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        initialize((self.prior, self.likelihood, self.posterior), x, self.embed(context))

    def embed(self, context: Tensor | None) -> Tensor | None:
        """The features of a context; none where the program takes no context."""
        return embed(self.context, context)


def check_parts(prior: Any, likelihood: Any, posterior: Any) -> None:
    """Raises `InvalidInput` unless all are modules, and the likelihood states the shape of x."""
    for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
        if not isinstance(part, nn.Module) or (part is likelihood and not hasattr(part, "event_shape")):
            raise InvalidInput(name, got=type(part).__name__, expected="a module whose forward returns a distribution"
                               + (", with event_shape" if part is likelihood else ""),
                               fix="pass the parts by name: prior=, likelihood=, posterior=")


def embed(module: nn.Module | None, context: Tensor | None) -> Tensor | None:
    """The features that a module makes of a context; none without a module."""
    if module is None:
        return None
    if context is None:
        raise InvalidInput("context", got="none", expected="one label or covariate vector for each datum",
                           fix="pass a pair (x, context), or context= when generating")
    return module(context)


def draw_latent(name: str, posterior: Any, density: Distribution) -> Tensor:
    """A latent's site in the guide, with what the posterior says about it.

    ``posterior.infer`` goes to Pyro, such as that its states are to be summed over. ``density.training_term`` (N,), in nats, is
    put beside it as a factor, which the log-weights leave out: a codebook's commitment.
    """
    infer: Any = dict(getattr(posterior, "infer", {}))
    z = pyro.sample(name, as_pyro(density), infer=infer)
    term = getattr(density, "training_term", None)
    if term is not None:
        pyro.factor(f"{name}_training_term", -term, has_rsample=True)  # a guide's log-probabilities count against the bound
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


def prior_predictive(program: AnyProgram, num: int, context: Tensor | None = None) -> poutine.Trace:
    """A trace of the unconditioned model at ``num`` empty events: draws of every latent site and of x."""
    if program.event_shape is None:
        raise InvalidInput("event_shape", got="none", expected="the shape of one datum",
                           fix="pass event_shape= to Program, or run it on data first")
    reference = next(program.parameters(), torch.empty(()))
    empty = reference.new_zeros(num, *program.event_shape)
    return poutine.trace(poutine.uncondition(program.model)).get_trace(empty, context)


def posterior_predictive(program: AnyProgram, x: Tensor, context: Tensor | None = None) -> poutine.Trace:
    """A trace of the unconditioned model, its latents drawn from the guide at x."""
    guide = poutine.trace(program.guide).get_trace(x, context)
    return poutine.trace(poutine.uncondition(poutine.replay(program.model, trace=guide))).get_trace(x, context)
