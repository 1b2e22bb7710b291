"""The parts of a ladder: a prior and a posterior for each level, and the path between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from pyro_vae import networks
from pyro_vae.networks import Shape, as_shape, out_shape_of
from pyro_vae.recipes.factories import (
    call_factory,
    call_level_prior,
    given_to,
    settings_of,
    target_of,
)
from pyro_vae.recipes.recipe import Level, Recipe
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["ladder_parts", "levels_of"]

CELLS_OF_A_POSTERIOR = 1  # that mix the features of x with the state


def levels_of(recipe: Recipe) -> list[Level]:
    """The levels of a recipe one by one, the lowest first; none for a program without them.

    Raises:
        InvalidInput: if there are fewer than two for a ladder, or any for another program.
    """
    name, takes_path = target_of(recipe.program).__name__, "path" in settings_of(recipe.program)
    if not takes_path and recipe.levels:
        raise InvalidInput(
            "levels",
            got=f"levels for {name}",
            expected="a program that has a path between its levels",
            fix="pass --program LadderVAE",
        )
    if not takes_path:
        return []
    for level in recipe.levels or []:
        check_count("levels.times", level.times)
        check_count("levels.cells", level.cells, 0)
        for length in level.shape:
            check_count("levels.shape", length)
    levels = [replace(each, times=1) for each in recipe.levels or [] for _ in range(each.times)]
    if len(levels) < 2:
        raise InvalidInput(
            "levels",
            got=f"{len(levels)} for {name}",
            expected="two or more, the lowest first",
            fix="pass --levels '[{shape: [8, 14, 14]}, {shape: [8, 7, 7], cells: 2}]'",
        )
    if len(set(recipe.context_to)) < 3:
        raise InvalidInput(
            "context_to",
            got=f"{recipe.context_to} for {name}",
            expected="all parts: model and guide share the path that takes it",
            fix="leave it out",
        )
    return levels


def ladder_parts(
    recipe: Recipe,
    levels: list[Level],
    encoder: nn.Module,
    likelihood: Callable[[Shape, int], nn.Module],
    features: int,
) -> tuple[list[nn.Module], nn.Module, list[nn.Module], nn.Module]:
    """Priors, likelihood, posteriors and path of a ladder, each sized for its inputs.

    Args:
        recipe: what to build.
        levels: its levels.
        encoder: from x to a grid.
        likelihood: makes p(x | h_0) for a state of some shape and a number of context features.
        features: how many features the context has; 0 without a context.
    """
    latents = [as_shape(level.shape) for level in levels]
    made = out_shape_of(encoder)
    if len(made) != 3:
        raise InvalidInput(
            "encoder",
            got=f"{target_of(recipe.encoder).__name__}, which makes features {made}",
            expected="a network that makes a grid (channels, height, width)",
            fix="pass --encoder Cells --encoder.width 32 --decoder Cells",
        )
    grids = [_grid_of(latent) for latent in latents]
    between = _network_of_grids(recipe)
    factories = [level.level_network or between for level in levels]
    widths = [settings_of(factory).get("width") or made[0] for factory in factories]

    def network(level: int, in_shape: Shape, cells: int, context: int = 0) -> nn.Module:
        return call_factory(
            "level_network", factories[level], in_shape,
            size=grids[level], width=widths[level], cells=cells,
            **({"context": context} if context else {}),
        )  # fmt: skip

    ups: list[nn.Module] = []
    for index, level in enumerate(levels):
        ups.append(network(index, out_shape_of(ups[-1]) if ups else made, level.cells))
    state = out_shape_of(ups[-1])
    top, downs = state, list[nn.Module]()
    for index in reversed(range(len(levels) - 1)):
        downs.insert(0, network(index, state, levels[index].cells, features))
        state = out_shape_of(downs[0])
    path = networks.Ladder(encoder, ups, downs, latents, top, features)
    priors = [
        call_level_prior(
            level.level_prior or recipe.level_prior,
            latents[index],
            network(index, path.states[index], 0),
            features,
        )
        for index, level in enumerate(levels[:-1])
    ]
    posteriors = [
        call_factory(
            "posterior", level.posterior or recipe.posterior, latents[index],
            network(index, path.merged[index], CELLS_OF_A_POSTERIOR),
        )
        for index, level in enumerate(levels)
    ]  # fmt: skip
    top_prior = call_factory("prior", recipe.prior, latents[-1], context=features)
    return [*priors, top_prior], likelihood(path.states[0], features), posteriors, path


def _network_of_grids(recipe: Recipe) -> Callable[..., nn.Module]:
    """The network between the levels of a ladder; Cells in the place of a recipe's default.

    Raises:
        InvalidInput: if options were given to that default, which makes no grids.
    """
    if target_of(recipe.level_network) is not networks.MLP:
        return recipe.level_network
    settings = settings_of(recipe.level_network)
    # A recipe's lists stand for tuples.
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    if given != settings_of(networks.MLP):
        raise InvalidInput(
            "level_network",
            got=f"MLP with {', '.join(given_to(recipe.level_network))}",
            expected="a network that makes grids",
            fix="pass --level_network Cells with options of its own",
        )
    return networks.Cells


def _grid_of(latent: Shape) -> Shape:
    """(height, width) of a latent; a vector's is one place."""
    if len(latent) not in (1, 3):
        raise InvalidInput(
            "levels.shape",
            got=str(latent),
            expected="(channels, height, width), or (D,)",
            fix="write shape: [8, 7, 7]",
        )
    return latent[1:] or (1, 1)
