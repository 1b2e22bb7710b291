"""Programs of the user's own that are not built from parts: modules with a Pyro model and guide."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from pyro_vae import programs
from pyro_vae.contracts import EventShape, ProgramLike, PyroPair, as_program_like
from pyro_vae.recipes.factories import Factory, call_factory, settings_of, target_of
from pyro_vae.recipes.recipe import Recipe
from pyro_vae.validation import InvalidInput

__all__ = ["LADDER_PARTS", "LEVEL_PARTS", "PARTS", "SITE_PARTS", "own_program", "takes_parts"]

PARTS = ("prior", "likelihood", "posterior")
LEVEL_PARTS = ("priors", "likelihood", "posteriors")
LADDER_PARTS = (*LEVEL_PARTS, "path")
SITE_PARTS = ("prior", "likelihoods", "posterior")

PLAIN = (bool, int, float, str, tuple, list)  # arguments that a file can hold as they are

# The options that say what a program's parts are.
OF_PARTS = (
    *PARTS, "encoder", "decoder", "sites", "corruption", "level_prior", "level_network",
    "context_to", "latent", "levels",
)  # fmt: skip


def takes_parts(program: Factory) -> bool:
    """Whether a program is built from a prior, a likelihood and a posterior."""
    target = target_of(program)
    ours = tuple(vars(programs)[name] for name in programs.__all__ if name != "Program")
    if inspect.isclass(target) and issubclass(target, ours):
        return True
    return (
        not inspect.signature(target)
        .parameters.keys()
        .isdisjoint([*PARTS, *LEVEL_PARTS, *SITE_PARTS])
    )


def own_program(recipe: Recipe, event_shape: EventShape) -> ProgramLike:
    """The program of a recipe whose program is not built from parts.

    Raises:
        InvalidInput: if the recipe chooses parts, which it lacks, or it is no program.
    """
    target = target_of(recipe.program)
    name_of_target = target.__qualname__
    default = vars(Recipe())
    for name in OF_PARTS:
        if not _is_default(vars(recipe)[name], default[name]):
            takes_it = name in inspect.signature(target).parameters
            flag = name.replace("_", "-")
            raise InvalidInput(
                name,
                got=f"an option of the parts of a program, and {name_of_target} has none",
                expected=f"options of {name_of_target} itself",
                fix=f"write --program.{name} instead of --{flag}"
                if takes_it
                else f"leave --{flag} out; --program.help {target.__module__}.{name_of_target} "
                "lists its options",
            )
    pair = call_factory("program", recipe.program, event_shape=event_shape)
    _keep_arguments(pair, {**settings_of(recipe.program), "event_shape": event_shape})
    if not isinstance(pair, PyroPair):
        raise InvalidInput(
            "program",
            got=f"{name_of_target}, which makes no model and guide",
            expected="a module with the methods model and guide, or a class built from parts",
            fix="see docs/pyro-programs.md",
        )
    return as_program_like(pair)  # what takes a program takes it


def _keep_arguments(pair: object, values: Mapping[str, object]) -> None:
    """Keep plain arguments of a class that does not itself, for `pyro_vae.load` to build it by."""
    for name in inspect.signature(type(pair)).parameters:
        if isinstance(values.get(name), PLAIN) and name not in dir(pair):
            setattr(pair, name, values[name])


def _is_default(value: object, default: object) -> bool:
    """Whether a recipe's value, a factory or not, is the default one."""
    if value is None or not callable(default):
        return value == default
    if not callable(value) or target_of(value) is not default:
        return False
    return _as_lists(settings_of(value)) == _as_lists(settings_of(default))


def _as_lists(values: Mapping[str, object]) -> dict[str, object]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
