"""The data that a recipe describes."""

from __future__ import annotations

from typing import Any

from pyro_vae.recipes.recipe import Values

__all__ = ["LABELS", "reading_of"]

LABELS = ("labels", "covariates")  # contexts that are whatever context the data have
READING = ("key", "scale", "resize", "channels", "target", "columns", "standardize")


def reading_of(values: Values) -> dict[str, Any]:
    """The arguments of `pyro_vae.datasets.load` that say how the data are to be read.

    Example:
        >>> reading_of({"target": "species", "context": "labels", "epochs": 3})
        {'target': 'species'}
        >>> reading_of({"context": "island,year"})
        {'context': ['island', 'year']}
    """
    options = {name: values[name] for name in READING if values.get(name)}
    context = values.get("context")
    if context and context not in LABELS:
        options["context"] = [name.strip() for name in context.split(",")]
    return options
