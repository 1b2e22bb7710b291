"""The command-line parser of recipes: components by name, their arguments as typed options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_vae.checkpoint import current_path, import_of_the_users
from pyro_vae.recipes.components import FAMILIES, component_names, resolve_component
from pyro_vae.recipes.recipe import Recipe, Values

__all__ = ["RecipeParser", "modules_of_flags", "parse_components"]


class RecipeParser:
    """Recipes from layers: a file, then flags over it.

    A component named in a later layer drops the arguments that an earlier one gave it.

    Args:
        parser: the command's parser; the recipe's flags are added to it.
    """

    def __init__(self, parser: ArgumentParser):
        self.parser = parser
        parser.add_class_arguments(Recipe)
        # YAML can hold the path of a class as a default, but no instance of it.
        parser.set_defaults({"schedule": {"class_path": resolve_component("schedule", "Constant")}})

    def parse(self, argv: Sequence[str], recipe: Values) -> Namespace:
        """Parse flags over a recipe (see `read_recipe`) over the defaults."""
        return parse_components(self.parser, argv, recipe)

    def recipe(self, namespace: Namespace) -> Recipe:
        """The recipe that parsed arguments describe, with its components as factories."""
        built = self.parser.instantiate(namespace)
        return Recipe(**{field.name: built[field.name] for field in fields(Recipe)})

    def dump(self, namespace: Namespace) -> str:
        """The recipe as YAML that `read_recipe` reads."""
        whole = yaml.safe_load(self.parser.dump(namespace))
        return yaml.safe_dump(
            {field.name: whole[field.name] for field in fields(Recipe) if field.name in whole},
            sort_keys=False,
        )


def parse_components(parser: ArgumentParser, argv: Sequence[str], values: Values) -> Namespace:
    """Parse flags over given values; flags name components as `resolve_component` reads them."""
    values = dict(values)
    for module in modules_of_flags(argv):
        with suppress(ImportError):  # which is explained where the component is looked up
            import_of_the_users(module)
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        flag, equals, value = token.partition("=")
        family = flag.removeprefix("--")
        if family.endswith(".help") and family[:-5] in FAMILIES:
            name = value if equals else next(tokens, "")
            rest += [flag, resolve_component(family[:-5], name or component_names(family[:-5])[0])]
        elif flag.startswith("--") and family in FAMILIES:
            path = resolve_component(family, value if equals else next(tokens, ""))
            if _class_path(values.get(family)) != path:
                values[family] = {"class_path": path}
        else:
            rest.append(token)
    parser.set_defaults(values)
    return parser.parse_args(rest)


def modules_of_flags(argv: Sequence[str]) -> list[str]:
    """The modules of the import paths that the user typed as components or in their options.

    Example:
        >>> modules_of_flags(["--prior", "mylab.Gumbel", "--encoder.activation=torch.nn.Tanh"])
        ['mylab', 'torch.nn']
    """
    found = []
    for token, following in zip(argv, [*argv[1:], ""]):
        flag, equals, value = token.partition("=")
        path = value if equals else following
        is_component = flag.startswith("--") and flag[2:].partition(".")[0] in FAMILIES
        if is_component and re.fullmatch(r"([^\W\d]\w*\.)+[^\W\d]\w*", path):
            found.append(current_path(path).rpartition(".")[0])
    return found


def _class_path(component: object) -> object:
    return component.get("class_path") if isinstance(component, Mapping) else component
