"""Programs: Pyro models and guides as modules. The only place of the library with `pyro.sample` and `pyro.plate`.

The contract of a program: an `nn.Module` with ``model(x, context=None)``, ``guide(x, context=None)`` and
``event_shape``; one plate named ``"data"``, the local latents inside it, the observed site named ``"x"``. Its
parameters are ordinary ``nn.Parameter``s, never in Pyro's global store, so two programs in one process never touch
each other. Everything that trains, evaluates, draws or inspects takes a program and nothing more special.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to

from pyro_vae.distributions import TorchToPyro, as_pyro
from pyro_vae.networks import Size, as_shape, broadcast_batch, flatten_event
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["VAE", "HierarchicalVAE", "Program", "Refined"]

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
            return pyro.sample("z", as_pyro(self.posterior(x, context=features)), infer=infer_of(self.posterior))

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


class HierarchicalVAE(nn.Module):
    r"""A variational autoencoder with L levels of latents, drawn from the top one down; each level's parts are its own.

    .. math:: z_L \sim p(z_L), \quad z_l \sim p(z_l \mid z_{l+1}), \quad x \sim p(x \mid z_1)

    and as the guide, by ``inference``,

    .. math:: \text{bottom up:} \quad q(z_1 \mid x) \prod_{l > 1} q(z_l \mid z_{l-1}), \qquad
              \text{top down:} \quad q(z_L \mid x) \prod_{l < L} q(z_l \mid x, z_{l+1})

    A conditional prior is any component that turns what it is given into a distribution, a posterior or a likelihood:
    p(z_1 | z_2) may be ``posteriors.DiagonalNormal(latent_1, MLP(latent_2))``. Bottom up, a posterior above the first is
    built for the latent below it. Top down all are built for x, and those below the top take the flattened latent
    above as context features (after the program's own), so that x is encoded once for all draws. With ``skip`` every
    component takes as context all the latents above that it is not given otherwise: p(x | z_1, ..., z_L), and so on.

    Args:
        priors: p(z_1 | z_2), ..., p(z_L), the lowest level first.
        likelihood: p(x | z_1); it states ``event_shape``.
        posteriors: of z_1, ..., z_L, in the same order.
        context: a module from labels or covariates to features, as for `VAE`; every component takes them.
        inference: ``"bottom_up"`` or ``"top_down"``.
        skip: every component sees all the latents above it.

    Raises:
        InvalidInput: unless there are two or more levels, a prior and a posterior for each.

    Source: Burda, Grosse and Salakhutdinov (2016) for the bottom-up guide; Sonderby et al. (2016), Ladder Variational
    Autoencoders, and Tomczak and Welling (2018), VAE with a VampPrior, for the top-down one.

    Example:
        >>> q, net = pv.posteriors.DiagonalNormal, pv.networks.MLP
        >>> program = pv.HierarchicalVAE(
        ...     priors=[q(5, net(2, [16])), pv.priors.StandardNormal(2)],                          # p(z1 | z2), p(z2)
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net(5, [16])),                      # p(x | z1)
        ...     posteriors=[q(5, net((1, 8, 8), [16])), q(2, net(5, [16]))],                       # q(z1 | x), q(z2 | z1)
        ... )
        >>> {name: tuple(z.shape) for name, z in pv.encode(program, torch.zeros(3, 1, 8, 8)).items()}
        {'z1': (3, 5), 'z2': (3, 2)}
    """

    def __init__(self, priors: Sequence[nn.Module], likelihood: nn.Module, posteriors: Sequence[nn.Module],
                 context: nn.Module | None = None, inference: Literal["bottom_up", "top_down"] = "bottom_up",
                 skip: bool = False):
        super().__init__()
        if not len(priors) == len(posteriors) >= 2:
            raise InvalidInput("priors", got=f"{len(priors)} with {len(posteriors)} posteriors",
                               expected="a prior and a posterior for each of two levels or more",
                               fix="add the missing ones, or use VAE for a single level")
        check_choice("inference", inference, ["bottom_up", "top_down"])
        check_parts(priors[-1], likelihood, posteriors[0])
        self.priors, self.posteriors = nn.ModuleList(priors), nn.ModuleList(posteriors)
        self.likelihood: Any = likelihood
        self.context, self.inference, self.skip = context, inference, skip
        part: Any
        for part in (*priors, likelihood, *posteriors):
            if hasattr(part, "bind"):
                if inference == "bottom_up":
                    raise InvalidInput("inference", got=f"'bottom_up' with {type(part).__name__}, which needs q(z | x) of the top level",
                                       expected="a guide that has it", fix="pass inference='top_down'")
                part.bind(self)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    @property
    def posterior(self) -> nn.Module:
        """Top down, the posterior of the top level, which a prior such as VampPrior shares."""
        return self.posteriors[-1]

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        features = embed(self.context, context)
        above: list[Tensor] = []
        with pyro.plate("data", len(x), dim=-1):
            density = self.priors[-1](context=features)
            for level in reversed(range(len(self.priors))):
                z = pyro.sample(f"z{level + 1}", as_pyro(density))
                component = self.priors[level - 1] if level else self.likelihood
                above_z = [flattened(z, density), *above]
                density = component(z, context=join_context(features, above))
                above = above_z if self.skip else []
            return pyro.sample("x", as_pyro(density), obs=x)

    def guide(self, x: Tensor, context: Tensor | None = None) -> None:
        features = embed(self.context, context)
        with pyro.plate("data", len(x), dim=-1):
            if self.inference == "bottom_up":
                self._infer_bottom_up(x, features)
            else:
                self._infer_top_down(x, features)

    def _infer_bottom_up(self, given: Tensor, features: Tensor | None) -> None:
        for level, posterior in enumerate(self.posteriors, start=1):
            given = pyro.sample(f"z{level}", as_pyro(posterior(given, context=features)), infer=infer_of(posterior))

    def _infer_top_down(self, x: Tensor, features: Tensor | None) -> None:
        above: list[Tensor] = []
        for level, posterior in reversed(list(enumerate(self.posteriors, start=1))):
            density = posterior(x, context=join_context(features, above))
            z = pyro.sample(f"z{level}", as_pyro(density), infer=infer_of(posterior))
            above = [flattened(z, density), *(above if self.skip else [])]

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        initialize((*self.priors, self.likelihood, *self.posteriors), x, embed(self.context, context))


def infer_of(posterior: Any) -> Any:
    """What a posterior says about its site, such as that Pyro is to sum over its states."""
    return dict(getattr(posterior, "infer", {}))


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


class Refined(nn.Module):
    r"""A program whose guide is improved for each datum by a few gradient steps: semi-amortised inference.

    .. math:: \lambda_0 = \mathrm{encoder}(x), \quad
              \lambda_{t+1} = \lambda_t + \eta\, \nabla_\lambda \widehat{\mathrm{ELBO}}(x; \lambda_t), \quad z \sim q(z; \lambda_T)

    :math:`\lambda` are the parameters of the wrapped program's own posterior, one set for each datum, on an unconstrained
    scale (a scale's logarithm, for one), and each step's ELBO is that of one draw. All that takes a program takes this one: it
    trains, scores and reconstructs with the refined guide. In training the steps are differentiated through, so
    the encoder learns where to start from. Their number is fixed, so the whole is one static graph. Each step runs
    encoder and decoder once, forwards and backwards, whatever the number of draws K that follow.

    Refined is every latent whose distribution is reparametrised and made of its parameters, such as the normals;
    a latent given another one is moved by the same amount for all values of that other. Flows and mixtures are
    left as the encoder has them.

    Args:
        program: any program, such as a `VAE`.
        steps: number of steps T.
        step_size: :math:`\eta`.

    Raises:
        InvalidInput: if no latent of the program can be refined (when it first runs), or on steps < 1.

    Source: Kim et al. (2018), Semi-Amortized Variational Autoencoders; Cremer, Li and Duvenaud (2018), Inference
    Suboptimality in Variational Autoencoders, for the gap that it narrows.

    Example:
        >>> refined = pv.Refined(vae, steps=2, step_size=0.05)
        >>> pv.elbo(refined, torch.zeros(3, 1, 8, 8), num_samples=10).values.shape
        torch.Size([3])
    """

    def __init__(self, program: AnyProgram, steps: int = 5, step_size: float = 0.05):
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
        # Blocked, so that the steps are taken once for each datum, outside the plate of particles and of any weight.
        with poutine.block(), torch.enable_grad():
            shift = ShiftParameters({})
            for _ in range(self.steps):
                guide = poutine.trace(shift(self.program.guide)).get_trace(x, context)
                model = poutine.trace(poutine.replay(self.program.model, trace=guide)).get_trace(x, context)
                if not shift.offsets:
                    raise InvalidInput("program", got="no latent whose posterior can be refined",
                                       expected="a reparametrised one made of its parameters",
                                       fix="choose DiagonalNormal or another normal, or leave Refined out")
                elbo = model.log_prob_sum() - guide.log_prob_sum(lambda _, site: not site["is_observed"])
                gradients = torch.autograd.grad(elbo, list(shift.offsets.values()), create_graph=training)
                moved = [offset + self.step_size * gradient for offset, gradient in zip(shift.offsets.values(), gradients)]
                shift.offsets = dict(zip(shift.offsets, moved if training else [m.detach().requires_grad_() for m in moved]))
        return shift.offsets


class ShiftParameters(Messenger):
    """Moves the parameters of latent sites by offsets on an unconstrained scale.

    Args:
        offsets: by the names of site and parameter; where a site is met for the first time, zeros are put there.
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
            parameters[name] = transform(free + self.offsets.setdefault((msg["name"], name), torch.zeros_like(free, requires_grad=True)))
        if parameters:
            moved = type(base)(**parameters)
            msg["fn"] = as_pyro(torch.distributions.Independent(moved, fn.reinterpreted_batch_ndims) if base is not fn else moved)


def parameters_of(distribution: Any) -> dict[str, Tensor]:
    """The tensors that a reparametrised distribution can be built anew from; none if there are other things in it."""
    if not getattr(distribution, "has_rsample", False) or isinstance(distribution, pyro.distributions.Delta):
        return {}
    found = {}
    for name, argument in inspect.signature(type(distribution)).parameters.items():
        required = argument.default is argument.empty
        if required and name not in distribution.arg_constraints:
            return {}
        if name in distribution.arg_constraints and (required or name in vars(distribution)):
            found[name] = getattr(distribution, name)
    per_datum = all(value.shape[: len(distribution.batch_shape)] == distribution.batch_shape for value in found.values())
    return found if per_datum else {}


class Program(nn.Module):
    """A researcher's own pair of Pyro functions as a program.

    The pair keeps the contract at the head of this module. Its networks are given as ``modules``, which is what
    makes them trainable, movable and saveable: `pyro.param` and `pyro.module` register in a store that all
    programs of a process share, and are refused. Where the two are methods of a module, the program is copied and
    loaded like any other; plain functions refer to the modules that they were written with, so such a program cannot
    be copied, and is loaded into itself, ``pv.load(folder, program=program)``.

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

    def init_args(self) -> dict[str, Any] | None:
        """The constructor's arguments, for saving; none for plain functions, which are tied to their modules."""
        if not self._is_of_methods():
            return None
        used = self.modules_used
        modules = dict(used.items()) if isinstance(used, nn.ModuleDict) else list(used)
        return {"model": self.model_fn, "guide": self.guide_fn, "modules": modules, "event_shape": self.event_shape}

    def model(self, x: Tensor, context: Tensor | None = None) -> Any:
        return self._run(self.model_fn, x, context)

    def guide(self, x: Tensor, context: Tensor | None = None) -> Any:
        return self._run(self.guide_fn, x, context)

    def _is_of_methods(self) -> bool:
        return all(isinstance(getattr(fn, "__self__", None), nn.Module) for fn in (self.model_fn, self.guide_fn))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        if not self._is_of_methods():
            raise InvalidInput("program", got="a copy of a Program of plain functions",
                               expected="functions that can follow their modules",
                               fix="make model and guide methods of one nn.Module that holds the networks")
        copied = object.__new__(Program)
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def _run(self, fn: Callable[..., Any], x: Tensor, context: Tensor | None) -> Any:
        if self.event_shape is None:
            self.event_shape = tuple(x.shape[1:])
        parameters = list(inspect.signature(fn).parameters.values())
        # A second parameter that has a default and another name is an option of the pair, not its context.
        takes_context = any(p.name == "context" or (i == 1 and p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty)
                            for i, p in enumerate(parameters))
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
