"""Build a program, an objective and an optimiser from a recipe."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import pyro.infer
import torch
from torch import nn

from pyro_vae import likelihoods, networks
from pyro_vae.contracts import EventShape, ProgramLike, alone, as_program_like
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.known import rest_of
from pyro_vae.networks.context import Covariates
from pyro_vae.networks.shapes import Size
from pyro_vae.objectives import ELBO
from pyro_vae.posteriors.experts import Experts
from pyro_vae.programs import HierarchicalVAE
from pyro_vae.recipes.factories import (
    Factory,
    call_factory,
    call_level_prior,
    given_to,
    settings_of,
    target_of,
)
from pyro_vae.recipes.levels import ladder_parts, levels_of
from pyro_vae.recipes.own import (
    LADDER_PARTS,
    LEVEL_PARTS,
    PARTS,
    SITE_PARTS,
    own_program,
    takes_parts,
)
from pyro_vae.recipes.recipe import Recipe, Shape, Site
from pyro_vae.runtime.memory import enough_memory
from pyro_vae.validation import InvalidInput, flattened, nearest_name, tensors_of

__all__ = ["build_objective", "build_optimizer", "build_program", "rebuild_program"]

Modules = nn.Module | list[nn.Module]  # one for each level of a hierarchy

NARROWER = "lower latent or the widths of the networks (--encoder.hidden, --decoder.hidden)"


def build_program(recipe: Recipe, data: Dataset) -> ProgramLike:
    """Build the program that a recipe describes, sized for the data.

    Its weights are drawn from the recipe's seed.
    """
    with alone(), enough_memory("the program", NARROWER), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if not takes_parts(recipe.program):
            return own_program(recipe, data.event_shape)
        embed, features = _context_module(recipe, data)
        builder = _Builder(recipe, data, features)
        if _takes_sites(recipe, data):
            parts = dict(zip(SITE_PARTS, builder.site_parts(), strict=True))
        elif levels := levels_of(recipe):
            made = ladder_parts(recipe, levels, builder.encoder(), builder.likelihood, features)
            parts = dict(zip(LADDER_PARTS, made, strict=True))
        elif _takes_levels(recipe):
            parts = dict(zip(LEVEL_PARTS, builder.level_parts(), strict=True))
        else:
            parts = dict(zip(PARTS, builder.parts(), strict=True))
        return as_program_like(recipe.program(**parts, context=embed))


def rebuild_program(recipe: Recipe, event_shape: EventShape) -> ProgramLike:
    """A program of the user's own, as `build_program` makes it; its weights are loaded next."""
    with alone(), enough_memory("the program", NARROWER), torch.random.fork_rng():
        return own_program(recipe, event_shape)


def _takes_sites(recipe: Recipe, data: Dataset) -> bool:
    """Whether the program is of several sites; `InvalidInput` unless data and recipe suit it."""
    program, sites = target_of(recipe.program), recipe.sites or {}
    has_sites = "likelihoods" in inspect.signature(program).parameters
    if data.parts and not has_sites:
        raise InvalidInput(
            "program",
            got=f"{program.__name__} for data of several sites, {', '.join(data.parts)}",
            expected="a program of several observed sites",
            fix="pass --program MultimodalVAE --posterior ProductOfExperts, or one of your own",
        )
    if has_sites and not data.parts:
        raise InvalidInput(
            "key",
            got=f"data of a single site for {program.__name__}",
            expected="several arrays, each an observed site",
            fix="name them: --key image,text",
        )
    for name in sites:
        if name not in data.parts:
            raise InvalidInput(
                "sites",
                got=repr(name),
                expected=f"sites of the data, {', '.join(data.parts) or 'which have only one'}",
                fix=nearest_name(name, list(data.parts)) if data.parts else "leave --sites out",
            )
    if has_sites and not issubclass(_class_of(recipe.posterior), Experts):
        raise InvalidInput(
            "posterior",
            got=f"{target_of(recipe.posterior).__name__} for {program.__name__}",
            expected="ProductOfExperts or MixtureOfExperts, which combine an expert of each site",
            fix="pass --posterior ProductOfExperts; an expert of another class is named by --sites",
        )
    return has_sites


def _class_of(factory: Factory) -> type:
    target = target_of(factory)
    return target if inspect.isclass(target) else object


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

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Prior, likelihood and posterior of a program with one latent."""
        latent, prior = self._latent_and_prior()
        likelihood = self.likelihood(latent, self.features)
        posterior = call_factory("posterior", self.recipe.posterior, latent, self.encoder())
        return prior, likelihood, posterior

    def site_parts(self) -> tuple[nn.Module, dict[str, nn.Module], nn.Module]:
        """Prior, likelihoods and experts of a program with several observed sites."""
        latent, prior = self._latent_and_prior()
        decoders, experts = {}, {}
        for name in self.data.parts:
            site = (self.recipe.sites or {}).get(name, Site())
            builder = self._of_site(name, site)
            decoders[name] = builder.likelihood(latent, self.features)
            experts[name] = call_factory("posterior", site.posterior, latent, builder.encoder())
        return prior, decoders, call_factory("posterior", self.recipe.posterior, latent, experts)

    def _latent_and_prior(self) -> tuple[Shape, nn.Module]:
        recipe = self.recipe
        latent = networks.as_shape(
            recipe.latent[0] if isinstance(recipe.latent, list) else recipe.latent
        )
        features = self.features if "prior" in recipe.context_to else 0
        return latent, call_factory("prior", recipe.prior, latent, context=features)

    def _of_site(self, name: str, site: Site) -> _Builder:
        """A builder of one site's parts, which take single entries as missing where some are."""
        recipe, data = self.recipe, self.data.parts[name][:]
        gaps = flattened(torch.isnan(data.tensor))
        data.missing = bool((gaps.any(1) & ~gaps.all(1)).any())
        own = {part: value for part, value in vars(site).items() if value is not None}
        return replace(self, recipe=replace(recipe, **own), data=data)

    def level_parts(self) -> tuple[Modules, nn.Module, Modules]:
        """Priors, likelihood and posteriors of a hierarchy, each sized for its inputs."""
        recipe, features = self.recipe, self.features
        latents = [networks.as_shape(latent) for latent in _as_list(recipe.latent)]
        entries = [math.prod(latent) for latent in latents]
        # A hierarchy of the user's own may lack these options: then it is bottom up, without skips.
        options = {**settings_of(HierarchicalVAE), **settings_of(recipe.program)}
        seen_above = [
            features + (sum(entries[level + 1 :]) if options["skip"] else 0)
            for level in range(len(latents))
        ]
        lower_priors = [
            self._link(recipe.level_prior, above, latent, context=seen_above[level + 1])
            for level, (latent, above) in enumerate(pairwise(latents))
        ]
        if options["inference"] == "top_down":
            top_down = [*map(sum, zip(entries[1:], seen_above[1:])), features]
            q = [
                call_factory("posterior", recipe.posterior, latent, self.encoder(context))
                for latent, context in zip(latents, top_down)
            ]
        else:
            lowest = call_factory("posterior", recipe.posterior, latents[0], self.encoder())
            q = [lowest] + [
                self._link(recipe.posterior, below, latent, context=features)
                for below, latent in pairwise(latents)
            ]
        top_prior = call_factory("prior", recipe.prior, latents[-1], context=features)
        return [*lower_priors, top_prior], self.likelihood(latents[0], seen_above[0]), q

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
        if self.data.columns is not None and not given_to(factory).get("groups"):
            offers["groups"] = self.data.columns.groups()
        likelihood = call_factory("likelihood", factory, event_shape, decoder, **offers)
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
            return call_factory(argument, factory, in_shape, context=features, **offers)
        return networks.WithoutContext(call_factory(argument, factory, in_shape, **offers))

    def _link(self, component: Factory, given: Shape, to: Shape, context: int) -> nn.Module:
        """A density of a latent of shape ``to`` given another one and a context."""
        factory = self.recipe.level_network
        size = {"size": to} if len(to) > 1 else {}
        network = call_factory("level_network", factory, given, context=context, **size)
        return call_level_prior(component, to, network, self.features)


def _as_list(latent: int | Sequence[Size]) -> Sequence[Size]:
    """The latent of each level."""
    return [latent] if isinstance(latent, int) else latent


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
    rest = rest_of(data.context)
    if data.context is None or (data.known and rest is None):
        raise InvalidInput(
            "context",
            got=f"{recipe.context!r} with data {data.name!r}, which has none",
            expected="data with labels or covariates",
            fix="add y to the .npz, or leave --context out",
        )
    covariates, columns = tensors_of(data.context if rest is None else rest), data.context_columns
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


def build_objective(recipe: Recipe) -> pyro.infer.ELBO | None:
    """The recipe's objective; ``None`` for a plain ELBO, whose way with latents `fit` chooses."""
    objective = recipe.objective()
    is_plain = type(objective) is ELBO and vars(objective) == vars(ELBO())
    return None if is_plain else objective


def build_optimizer(recipe: Recipe) -> Callable[..., torch.optim.Optimizer]:
    """The recipe's optimiser, fused where torch can, unless the recipe says otherwise."""
    factory: Callable[..., torch.optim.Optimizer] = recipe.optimizer
    parameters, given = inspect.signature(target_of(factory)).parameters, given_to(factory)
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
