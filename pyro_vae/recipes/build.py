"""Build a program and an optimiser from a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pyro_vae import likelihoods, networks
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.networks.context import Covariates
from pyro_vae.recipes.recipe import Recipe, Shape
from pyro_vae.validation import InvalidInput

__all__ = ["build_optimizer", "build_program"]


def build_program(recipe: Recipe, data: Dataset) -> ProgramLike:
    """The program that a recipe describes, sized for the data, its weights drawn from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        embed, features = _context_module(recipe, data)
        has_levels = "priors" in inspect.signature(target_of(recipe.program)).parameters
        levels = len(recipe.latent) if isinstance(recipe.latent, list) else 1
        if has_levels != (levels > 1):
            raise InvalidInput(
                "latent",
                got=f"{recipe.latent} for {target_of(recipe.program).__name__}",
                expected="a list, the lowest level first"
                if has_levels
                else "one number, as it has one level",
                fix="pass --latent '[40, 20]'"
                if has_levels
                else "pass --program HierarchicalVAE for several",
            )
        if has_levels and len(set(recipe.context_to)) < 3:
            raise InvalidInput(
                "context_to",
                got=f"{recipe.context_to} for {target_of(recipe.program).__name__}",
                expected="all parts, which take the levels above them in the same way",
                fix="leave it out",
            )
        parts = (
            _level_parts(recipe, data, features) if has_levels else _parts(recipe, data, features)
        )
        return recipe.program(*parts, embed)


Parts = tuple[Any, nn.Module, Any]


def _parts(recipe: Recipe, data: Dataset, features: int) -> Parts:
    """Prior, likelihood and posterior of a program with one latent."""
    latent = networks.as_shape(
        recipe.latent[0] if isinstance(recipe.latent, list) else recipe.latent
    )
    return (
        _call(
            "prior", recipe.prior, latent, context=features if "prior" in recipe.context_to else 0
        ),
        _likelihood(recipe, data, latent, features),
        _call("posterior", recipe.posterior, latent, _encoder(recipe, data, features)),
    )


def _level_parts(recipe: Recipe, data: Dataset, features: int) -> Parts:
    """Priors, likelihood and posteriors of a hierarchy, each sized for the latents that it is given and those it sees."""
    latents: Any = recipe.latent
    if not all(isinstance(latent, int) for latent in latents):
        raise InvalidInput(
            "latent",
            got=str(latents),
            expected="a number for each level of a hierarchy",
            fix="pass --latent '[40, 20]'",
        )
    options = settings_of(recipe.program)
    seen_above = [
        features + (sum(latents[level + 1 :]) if options["skip"] else 0)
        for level in range(len(latents))
    ]

    def link(to: int, given: int, context: int, component: Callable[..., nn.Module]) -> nn.Module:
        return _call(
            "level_prior",
            component,
            (to,),
            _call("level_network", recipe.level_network, (given,), context=context),
        )

    lower_priors = [
        link(latent, above, seen_above[level + 1], recipe.level_prior)
        for level, (latent, above) in enumerate(pairwise(latents))
    ]
    if options["inference"] == "top_down":
        top_down = [*(above + seen for above, seen in zip(latents[1:], seen_above[1:])), features]
        q = [
            _call("posterior", recipe.posterior, (latent,), _encoder(recipe, data, context))
            for latent, context in zip(latents, top_down)
        ]
    else:
        q = [
            _call("posterior", recipe.posterior, (latents[0],), _encoder(recipe, data, features)),
            *(
                link(latent, below, features, recipe.posterior)
                for below, latent in pairwise(latents)
            ),
        ]
    return (
        [*lower_priors, _call("prior", recipe.prior, (latents[-1],), context=features)],
        _likelihood(recipe, data, (latents[0],), seen_above[0]),
        q,
    )


def _encoder(recipe: Recipe, data: Dataset, features: int) -> nn.Module:
    seen = networks.WithMask.doubled(data.event_shape) if data.missing else data.event_shape
    network = _given_context("encoder", recipe, recipe.encoder, seen, features, **_categories(data))
    if data.missing:
        network = networks.WithMask(data.event_shape, network)
    return network if recipe.corruption is None else networks.Corrupted(network, recipe.corruption)


def _likelihood(recipe: Recipe, data: Dataset, latent: Shape, features: int) -> nn.Module:
    decoder = _given_context(
        "decoder", recipe, recipe.decoder, latent, features, size=data.event_shape
    )
    likelihood = _call(
        "likelihood", recipe.likelihood, data.event_shape, decoder, **_categories(data)
    )
    return likelihoods.Missing(likelihood) if data.missing else likelihood


def _categories(data: Dataset) -> dict[str, int]:
    """How many categories the entries of text are."""
    return {} if data.vocabulary is None else {"categories": len(data.vocabulary)}


def _given_context(
    argument: str,
    recipe: Recipe,
    factory: Callable[..., nn.Module],
    in_shape: Shape,
    features: int,
    **offers: Any,
) -> nn.Module:
    """A network with the context's features, or one that does not see them, as the recipe says."""
    if argument in recipe.context_to:
        return _call(argument, factory, in_shape, context=features, **offers)
    return networks.WithoutContext(_call(argument, factory, in_shape, **offers))


def _context_module(recipe: Recipe, data: Dataset) -> tuple[nn.Module | None, int]:
    if recipe.context is None:
        return None, 0
    if data.context is None:
        raise InvalidInput(
            "context",
            got=f"{recipe.context!r} with data {data.name!r}, which has none",
            expected="data with labels or covariates",
            fix="add y to the .npz, or leave --context out",
        )
    if recipe.context == "covariates":
        return Covariates(), 1 if data.context.dim() == 1 else data.context.shape[-1]
    if data.num_classes is None:
        raise InvalidInput(
            "context",
            got=f"'labels' with y of {data.context.dtype}, shape {tuple(data.context.shape)}",
            expected="integer labels (N,)",
            fix="pass --context covariates, or make y integers",
        )
    if data.num_classes > max(1000, len(data)):
        raise InvalidInput(
            "context",
            got=f"labels up to {data.num_classes - 1} for {len(data)} data",
            expected="labels 0, 1, 2, ...",
            fix="number them anew, for instance by numpy.unique(y, return_inverse=True)",
        )
    return networks.OneHot(data.num_classes), data.num_classes


def _call(
    argument: str, factory: Callable[..., nn.Module], *sizes: Any, **offers: Any
) -> nn.Module:
    """Builds a component from its sizes and what it asks for by name: a context's features, an image's size."""
    target = target_of(factory)
    parameters = inspect.signature(target).parameters
    wanted = {name: value for name, value in offers.items() if name in parameters}
    given = factory.keywords if isinstance(factory, partial) else {}
    for name, value in wanted.items():
        own = given.get(name)
        is_default = name not in given or own == parameters[name].default
        if not is_default and own and (tuple(own) if isinstance(own, list) else own) != value:
            raise InvalidInput(
                f"{argument}.{name}",
                got=repr(own),
                expected=f"{value!r}, which follows from the data",
                fix="leave it out; --context says whether there is a context"
                if name == "context"
                else "leave it out",
            )
    if offers.get("context") and argument != "prior" and "context" not in wanted:
        raise InvalidInput(
            argument,
            got="a network that takes no context",
            expected="context= in its signature",
            fix="choose MLP, or add that argument",
        )
    try:
        return factory(*sizes, **wanted)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            argument,
            got=f"{target.__name__} with arguments that it cannot be built with ({error})",
            expected="arguments as its docstring says",
            fix=f"see --{argument}.help {target.__name__}",
        ) from error


def target_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The class behind a factory: jsonargparse hands over a partial call whose last argument is the class."""
    return factory.args[-1] if isinstance(factory, partial) and factory.args else factory


def settings_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a factory's class will be built with, its defaults among them, apart from those still to come."""
    given = factory.keywords if isinstance(factory, partial) else {}
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(target_of(factory)).parameters.items()
    }
    return defaults | given


def build_optimizer(recipe: Recipe) -> Callable[..., torch.optim.Optimizer]:
    """The recipe's optimiser, fused where it can be and nothing else was said."""
    factory: Any = recipe.optimizer
    default = inspect.signature(target_of(factory)).parameters["lr"].default
    if isinstance(factory, partial) and factory.keywords.get("lr", default) != default:
        raise InvalidInput(
            "optimizer.lr",
            got=str(factory.keywords["lr"]),
            expected="the learning rate in one place",
            fix=f"pass --learning-rate {factory.keywords['lr']}",
        )
    chosen = factory.keywords.get("fused") if isinstance(factory, partial) else None
    can_be = "fused" in inspect.signature(target_of(factory)).parameters
    return partial(factory, fused=True) if can_be and chosen is None else factory
