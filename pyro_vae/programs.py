"""Programs: Pyro models and guides as modules. The only place of the library with `pyro.sample` and `pyro.plate`.

The contract of a program: an `nn.Module` with ``model(x, context=None)``, ``guide(x, context=None)`` and
``event_shape``; one plate named ``"data"``, the local latents inside it, the observed site named ``"x"``. Its
parameters are ordinary ``nn.Parameter``s, never in Pyro's global store, so two programs in one process never touch
each other. Everything that trains, evaluates, draws or inspects takes a program and nothing more special.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import Size, as_shape
from pyro_vae.validation import InvalidInput

__all__ = ["VAE", "AnyProgram", "Program"]

# What keeps the contract above; nothing needs to be inherited, so there is no class to name.
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
            # What a posterior says about its site, such as that Pyro is to sum over its states.
            infer: Any = dict(getattr(self.posterior, "infer", {}))
            return pyro.sample("z", as_pyro(self.posterior(x, context=features)), infer=infer)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        part: Any
        for part in (self.prior, self.likelihood, self.posterior):
            if hasattr(part, "initialize"):
                part.initialize(x, self.embed(context))

    def embed(self, context: Tensor | None) -> Tensor | None:
        """The features of a context; none where the program takes no context."""
        if self.context is None:
            return None
        if context is None:
            raise InvalidInput("context", got="none", expected="one label or covariate vector for each datum",
                               fix="pass a pair (x, context), or context= when generating")
        return self.context(context)


class Program(nn.Module):
    """A researcher's own pair of Pyro functions as a program.

    The pair keeps the contract at the head of this module. Its networks are given as ``modules``, which is what
    makes them trainable, movable and saveable: `pyro.param` and `pyro.module` register in a store that all
    programs of a process share, and are refused.

    Args:
        model: a Pyro model, called as ``model(x)`` or, where there is one, ``model(x, context)``.
        guide: a Pyro guide, called likewise.
        modules: the modules whose parameters the two functions use: one, a list, or a dictionary of them.
        event_shape: the shape of one datum; learned from the first data seen if not given.

    Raises:
        InvalidInput: when the model or the guide runs into `pyro.param` or `pyro.module`, with the rewrite.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> encoder = torch.nn.Linear(3, 2)
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.).to_event(1))
        ...         pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.).to_event(1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(encoder(x), 1.).to_event(1))
        >>> pv.elbo(pv.Program(model, guide, modules=encoder), torch.randn(5, 3)).values.shape
        torch.Size([5])
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any],
                 modules: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module] = (),
                 event_shape: Size | None = None):
        super().__init__()
        self.model_fn, self.guide_fn = model, guide
        if isinstance(modules, nn.Module):
            modules = [modules]
        self.modules_used = nn.ModuleDict(modules) if isinstance(modules, Mapping) else nn.ModuleList(modules)
        self.event_shape = None if event_shape is None else as_shape(event_shape)

    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments, for saving."""
        used = self.modules_used
        modules = dict(used.items()) if isinstance(used, nn.ModuleDict) else list(used)
        return {"model": self.model_fn, "guide": self.guide_fn, "modules": modules, "event_shape": self.event_shape}

    def model(self, x: Tensor, context: Tensor | None = None) -> Any:
        return self._run(self.model_fn, x, context)

    def guide(self, x: Tensor, context: Tensor | None = None) -> Any:
        return self._run(self.guide_fn, x, context)

    def _run(self, fn: Callable[..., Any], x: Tensor, context: Tensor | None) -> Any:
        if self.event_shape is None:
            self.event_shape = tuple(x.shape[1:])
        positional = [p for p in inspect.signature(fn).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        takes_context = len(positional) > 1
        with RefuseGlobalParameters():
            return fn(x, context) if takes_context else fn(x)


class RefuseGlobalParameters(Messenger):
    """Stops a program that would register parameters in Pyro's global store."""

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        raise InvalidInput(
            str(msg["name"]), got="pyro.param or pyro.module inside a program",
            expected="parameters in modules of the program",
            fix="make it an nn.Parameter of a module, pass that module in Program(..., modules=...) and call it directly",
        )


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
