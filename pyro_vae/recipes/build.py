"""Build a program and an optimiser from a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from pyro_vae import likelihoods, networks
from pyro_vae.contracts import ProgramLike, PyroPair, alone, as_program
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.networks.context import Covariates
from pyro_vae.programs import Program
from pyro_vae.recipes.recipe import Recipe, Shape
from pyro_vae.runtime.memory import enough_memory, is_out_of_memory
from pyro_vae.validation import InvalidInput, tensors_of

__all__ = ["build_optimizer", "build_program"]

Modules = nn.Module | list[nn.Module]  # one for each level of a hierarchy
Factory = Callable[..., nn.Module]

PARTS = ("prior", "likelihood", "posterior")
LEVEL_PARTS = ("priors", "likelihood", "posteriors")

# The options that say what a program's parts are.
OF_PARTS = (
    *PARTS, "encoder", "decoder", "corruption", "level_prior", "level_network", "context_to"
)  # fmt: skip

NARROWER = "lower latent or the widths of the networks (--encoder.hidden, --decoder.hidden)"


def build_program(recipe: Recipe, data: Dataset) -> ProgramLike:
    """Build the program that a recipe describes, sized for the data.

    Its weights are drawn from the recipe's seed.
    """
    with alone(), enough_memory("the program", NARROWER), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if not _takes_parts(recipe):
            return _program_without_parts(recipe, data)
        embed, features = _context_module(recipe, data)
        has_levels = _takes_levels(recipe)
        builder = _Builder(recipe, data, features)
        parts = builder.level_parts() if has_levels else builder.parts()
        names = LEVEL_PARTS if has_levels else PARTS
        given = dict(zip(names, parts, strict=True))
        return as_program(recipe.program(**given, context=embed))


def _takes_parts(recipe: Recipe) -> bool:
    """Whether the program is built from a prior, a likelihood and a posterior, or has no parts."""
    parameters = inspect.signature(target_of(recipe.program)).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return takes_any or not parameters.keys().isdisjoint([*PARTS, *LEVEL_PARTS])


def _program_without_parts(recipe: Recipe, data: Dataset) -> ProgramLike:
    """A module with model and guide; `InvalidInput` if the recipe chooses parts that it lacks."""
    program = target_of(recipe.program)
    takes_latent = "latent" in inspect.signature(program).parameters
    unused = OF_PARTS if takes_latent else (*OF_PARTS, "latent")
    default = {field.name: getattr(Recipe(), field.name) for field in fields(Recipe)}
    for name in unused:
        if not _is_default(getattr(recipe, name), default[name]):
            raise InvalidInput(
                name,
                got=f"it together with {program.__name__}, which takes no {name}",
                expected="options of the program itself",
                fix=f"leave --{name.replace('_', '-')} out, or see --program.help",
            )
    offers = {"event_shape": data.datum_shape, "latent": recipe.latent}
    pair = _call("program", recipe.program, **offers)
    if not isinstance(pair, PyroPair):
        raise InvalidInput(
            "program",
            got=program.__name__,
            expected="a module with model and guide, or one built from parts",
            fix="see docs/pyro-programs.md",
        )
    # Also one that keeps its event_shape as an attribute may name its sites as it likes.
    return Program.of(pair)


def _is_default(value: object, default: object) -> bool:
    """Whether a recipe's value, a factory or not, is the default one."""
    if value is None or not callable(default):
        return value == default
    if not callable(value) or target_of(value) is not default:
        return False
    return _as_lists(settings_of(value)) == _as_lists(settings_of(default))


def _as_lists(values: Mapping[str, object]) -> dict[str, object]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _takes_levels(recipe: Recipe) -> bool:
    """Whether the program is a hierarchy; `InvalidInput` unless the rest of the recipe suits it."""
    program = target_of(recipe.program)
    has_levels = "priors" in inspect.signature(program).parameters
    levels = len(recipe.latent) if isinstance(recipe.latent, list) else 1
    if has_levels and levels == 1:
        raise InvalidInput(
            "latent",
            got=f"{recipe.latent} for {program.__name__}",
            expected="a list, the lowest level first",
            fix="pass --latent '[40, 20]'",
        )
    if levels > 1 and not has_levels:
        raise InvalidInput(
            "latent",
            got=f"{recipe.latent} for {program.__name__}",
            expected="one number, because this program has one level",
            fix="pass --program HierarchicalVAE for several levels",
        )
    if has_levels and len(set(recipe.context_to)) < 3:
        raise InvalidInput(
            "context_to",
            got=f"{recipe.context_to} for {program.__name__}",
            expected="all parts: each takes the context together with the levels above it",
            fix="leave it out",
        )
    return has_levels


@dataclass(frozen=True)
class _Builder:
    """Builds the parts of a program.

    Args:
        recipe: what to build.
        data: what to size it for.
        features: how many features the context has; 0 without a context.
    """

    recipe: Recipe
    data: Dataset
    features: int

    def parts(self) -> tuple[Modules, nn.Module, Modules]:
        """Prior, likelihood and posterior of a program with one latent."""
        recipe, features = self.recipe, self.features
        latent = networks.as_shape(
            recipe.latent[0] if isinstance(recipe.latent, list) else recipe.latent
        )
        prior_features = features if "prior" in recipe.context_to else 0
        prior = _call("prior", recipe.prior, latent, context=prior_features)
        likelihood = self.likelihood(latent, features)
        return prior, likelihood, _call("posterior", recipe.posterior, latent, self.encoder())

    def level_parts(self) -> tuple[Modules, nn.Module, Modules]:
        """Priors, likelihood and posteriors of a hierarchy, each sized for its inputs."""
        recipe, features = self.recipe, self.features
        latents = self._levels()
        options = settings_of(recipe.program)
        seen_above = [
            features + (sum(latents[level + 1 :]) if options["skip"] else 0)
            for level in range(len(latents))
        ]
        lower_priors = [
            self._link(recipe.level_prior, above, latent, context=seen_above[level + 1])
            for level, (latent, above) in enumerate(pairwise(latents))
        ]
        if options["inference"] == "top_down":
            top_down = [*map(sum, zip(latents[1:], seen_above[1:])), features]
            q = [
                _call("posterior", recipe.posterior, (latent,), self.encoder(context))
                for latent, context in zip(latents, top_down)
            ]
        else:
            lowest = _call("posterior", recipe.posterior, (latents[0],), self.encoder())
            q = [lowest] + [
                self._link(recipe.posterior, below, latent, context=features)
                for below, latent in pairwise(latents)
            ]
        top_prior = _call("prior", recipe.prior, (latents[-1],), context=features)
        return [*lower_priors, top_prior], self.likelihood((latents[0],), seen_above[0]), q

    def encoder(self, features: int | None = None) -> nn.Module:
        """The posterior's network, for the context's features or another number of features."""
        recipe, data = self.recipe, self.data
        seen = networks.WithMask.doubled(data.datum_shape) if data.missing else data.datum_shape
        given = self.features if features is None else features
        network = self._network("encoder", seen, given, **_categories(data))
        if data.missing:
            network = networks.WithMask(data.datum_shape, network)
        if recipe.corruption is None:
            return network
        return networks.Corrupted(network, recipe.corruption)

    def likelihood(self, latent: Shape, features: int) -> nn.Module:
        """p(x | z) with its decoder, for missing entries where the data have some."""
        event_shape = self.data.datum_shape
        decoder = self._network("decoder", latent, features, size=event_shape)
        factory = self.recipe.likelihood or _default_likelihood(self.data)
        offers: dict[str, object] = {**_categories(self.data)}
        if self.data.columns is not None and not _given(factory).get("groups"):
            offers["groups"] = self.data.columns.groups()
        likelihood = _call("likelihood", factory, event_shape, decoder, **offers)
        return likelihoods.Missing(likelihood) if self.data.missing else likelihood

    def _network(
        self,
        argument: Literal["encoder", "decoder"],
        in_shape: Shape,
        features: int,
        **offers: object,
    ) -> nn.Module:
        """A network that takes the context, or one that ignores it, as the recipe says."""
        factory = self.recipe.encoder if argument == "encoder" else self.recipe.decoder
        if argument in self.recipe.context_to:
            return _call(argument, factory, in_shape, context=features, **offers)
        return networks.WithoutContext(_call(argument, factory, in_shape, **offers))

    def _levels(self) -> list[int]:
        latent = self.recipe.latent
        levels = (
            [size for size in latent if isinstance(size, int)] if isinstance(latent, list) else []
        )
        if levels != latent:
            raise InvalidInput(
                "latent",
                got=str(latent),
                expected="a number for each level of a hierarchy",
                fix="pass --latent '[40, 20]'",
            )
        return levels

    def _link(self, component: Factory, given: int, to: int, context: int) -> nn.Module:
        """A density of ``to`` latents given ``given`` others and a context."""
        network = _call("level_network", self.recipe.level_network, (given,), context=context)
        return _call("level_prior", component, (to,), network)


def _default_likelihood(data: Dataset) -> Factory:
    """A likelihood for each column of a table; else that of 0 and 1."""
    return likelihoods.Bernoulli if data.columns is None else likelihoods.Mixed


def _categories(data: Dataset) -> dict[str, int]:
    """The number of categories of a text's entries."""
    return {} if data.vocabulary is None else {"categories": len(data.vocabulary)}


def _context_module(recipe: Recipe, data: Dataset) -> tuple[nn.Module | None, int]:
    """The module that embeds the context, and how many features it makes."""
    if recipe.context is None:
        return None, 0
    if data.context is None:
        raise InvalidInput(
            "context",
            got=f"{recipe.context!r} with data {data.name!r}, which has none",
            expected="data with labels or covariates",
            fix="add y to the .npz, or leave --context out",
        )
    covariates, columns = tensors_of(data.context), data.context_columns
    if recipe.context not in ("labels", "covariates") and data.num_classes is None and columns:
        embed = networks.ColumnFeatures([len(column.categories) for column in columns])
        return embed, embed.out_shape[0]
    if recipe.context == "covariates" and list(covariates) == [""]:
        values = covariates[""]
        return Covariates(), 1 if values.dim() == 1 else values.shape[-1]
    if data.num_classes is None:
        raise InvalidInput(
            "context",
            got=f"{recipe.context!r} with y of "
            + ", ".join(f"{y.dtype}, shape {tuple(y.shape)}" for y in covariates.values()),
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
    classes = max(data.num_classes, len(columns[0].categories) if columns else 0)
    return networks.OneHot(classes), classes


def _call(argument: str, factory: Factory, *sizes: object, **offers: object) -> nn.Module:
    """Build a component from its sizes and those offered arguments that it accepts."""
    target = target_of(factory)
    parameters = inspect.signature(target).parameters
    wanted = {name: value for name, value in offers.items() if name in parameters}
    for name, value in wanted.items():
        _check_not_contradicted(argument, factory, name, value)
    if offers.get("context") and argument != "prior" and "context" not in wanted:
        raise InvalidInput(
            argument,
            got="a network that takes no context",
            expected="context= in its signature",
            fix="choose MLP, or add that argument",
        )
    try:
        return factory(*sizes, **wanted)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidInput(
            argument,
            got=f"{target.__name__} with arguments that it cannot be built with ({error})",
            expected="arguments as its docstring says",
            fix=f"see --{argument}.help {target.__name__}",
        ) from error


def _check_not_contradicted(argument: str, factory: Factory, name: str, value: object) -> None:
    """Raise `InvalidInput` if a user's value contradicts the one that the data imply."""
    own = _given(factory).get(name)
    is_default = own == inspect.signature(target_of(factory)).parameters[name].default
    if own and not is_default and (tuple(own) if isinstance(own, list) else own) != value:
        about_context = "; --context says whether there is a context" if name == "context" else ""
        raise InvalidInput(
            f"{argument}.{name}",
            got=repr(own),
            expected=f"{value!r}, which follows from the data",
            fix=f"leave it out{about_context}",
        )


def target_of(factory: Callable[..., object]) -> Callable[..., object]:
    """The class behind a factory, which jsonargparse wraps as a partial's last argument."""
    return factory.args[-1] if isinstance(factory, partial) and factory.args else factory


def settings_of(factory: Callable[..., object]) -> dict[str, object]:
    """The arguments that a factory's class will be built with, defaults included."""
    parameters = inspect.signature(target_of(factory)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {**defaults, **_given(factory)}


def _given(factory: Callable[..., object]) -> Mapping[str, object]:
    """The arguments that the user gave to a factory."""
    return factory.keywords if isinstance(factory, partial) else {}


def build_optimizer(recipe: Recipe) -> Callable[..., torch.optim.Optimizer]:
    """The recipe's optimiser, fused where torch can, unless the recipe says otherwise."""
    factory: Callable[..., torch.optim.Optimizer] = recipe.optimizer
    parameters, given = inspect.signature(target_of(factory)).parameters, _given(factory)
    default = parameters["lr"].default
    if given.get("lr", default) != default:
        raise InvalidInput(
            "optimizer.lr",
            got=str(given["lr"]),
            expected="the learning rate in one place",
            fix=f"pass --learning-rate {given['lr']}",
        )
    if "fused" in parameters and given.get("fused") is None:
        return partial(factory, fused=True)
    return factory
