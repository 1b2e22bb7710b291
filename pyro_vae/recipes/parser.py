"""The command-line parser of recipes: components by name, their arguments as typed options."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from itertools import islice

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_vae.checkpoint import current_path, import_of_the_users
from pyro_vae.checkpoint.description import resolve
from pyro_vae.recipes.components import (
    FAMILIES,
    LEVELS,
    SITES,
    component_names,
    resolve_component,
    with_import_path,
    with_import_paths,
)
from pyro_vae.recipes.factories import calling
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
        namespace, made = namespace.clone(), None
        if inspect.isroutine(target := _target(namespace.program)):
            # Called when the program is built, from its seed, and not when options are read.
            given = namespace.program.get("init_args", Namespace())
            made = partial(calling, target, **vars(given))
            namespace.program = self.parser.get_default("program")
        built = self.parser.instantiate(namespace)
        values = {field.name: built[field.name] for field in fields(Recipe)}
        return Recipe(**values if made is None else {**values, "program": made})

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
        elif flag.startswith("--") and family.partition(".")[0] in FAMILIES:
            given = [value] if equals else list(islice(tokens, 1))
            component, _, argument = family.partition(".")
            rest += [flag, *(_with_paths(component, argument, each) for each in given)]
        elif family in (SITES, LEVELS):
            texts = [value] * bool(equals) or islice(tokens, 1)
            rest += [flag, *(_described(family, each) for each in texts)]
        else:
            rest.append(token)
    if "latent" in _options_of(values.get("program")):  # then it is the program's own
        rest = [re.sub(r"^--latent(?=$|=)", "--program.latent", token) for token in rest]
    if LEVELS in values:  # as a default, the components in a list would be taken for right
        rest.insert(0, f"--{LEVELS}={json.dumps(values.pop(LEVELS))}")
    _check_texts(parser, values)
    parser.set_defaults(values)
    return parser.parse_args(rest)


def _check_texts(parser: ArgumentParser, values: Values) -> None:
    """Raise on a text where something else is wanted: as a default it would be taken for right."""
    texts = {name: v for name, v in values.items() if isinstance(v, str) and name not in FAMILIES}
    if texts:
        parser.parse_object(texts, defaults=False)


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


def _target(component: object) -> object:
    """The class or function that a component of a recipe names."""
    path = (
        component.get("class_path") if isinstance(component, Namespace) else _class_path(component)
    )
    return resolve(path) if isinstance(path, str) else path


def _options_of(program: object) -> Collection[str]:
    """The names of the arguments of a program; none of the default one."""
    target = _target(program)
    return inspect.signature(target).parameters if callable(target) else ()


def _with_paths(family: str, argument: str, given: str) -> str:
    """The text of a component's argument, in which components of its family have their paths."""
    # What a proposal is `of` is a proposal; what a likelihood is `of` is a name that it resolves.
    names_one = argument.endswith(".class_path") or family == "proposal"
    if names_one and given in component_names(family):
        return resolve_component(family, given)
    if not given.startswith("{"):
        return given
    try:
        described = yaml.safe_load(given)
    except yaml.YAMLError:  # which the parser of the argument explains
        return given
    return json.dumps(with_import_paths(family, described))


def _described(key: str, given: str) -> str:
    """The text of observed sites or of levels, in which their components have their paths."""
    try:
        return json.dumps(with_import_path(key, yaml.safe_load(given)))
    except yaml.YAMLError:  # which the parser of the argument explains
        return given


def _class_path(component: object) -> object:
    return component.get("class_path") if isinstance(component, Mapping) else component
