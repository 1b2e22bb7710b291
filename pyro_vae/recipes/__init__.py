"""Recipes: a run as YAML or typed options, and its program, optimiser and objective.

Text becomes components here; commands and what they print belong in `pyro_vae.cli`.
"""

from pyro_vae.recipes.build import build_optimizer, build_program
from pyro_vae.recipes.components import FAMILIES, component_names, resolve_component
from pyro_vae.recipes.parser import RecipeParser, parse_components
from pyro_vae.recipes.recipe import Recipe, Shape, read_recipe, read_settings

__all__ = [
    "FAMILIES",
    "Recipe",
    "RecipeParser",
    "Shape",
    "build_optimizer",
    "build_program",
    "component_names",
    "parse_components",
    "read_recipe",
    "read_settings",
    "resolve_component",
]
