"""The data that a recipe describes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyro_vae.recipes.recipe import Values

__all__ = ["GREY_DIGITS", "LABELS", "reading_of", "suited_to"]

# What the embedded digits are trained with where nothing is said: their seventeen grey levels.
# Images of 8 by 8 pixels drawn as black or white are hardly digits any more.
GREY_DIGITS: Values = {
    "binarize": "none",
    "likelihood": {
        "class_path": "pyro_vae.likelihoods.DiscretizedLogistic",
        "init_args": {"levels": 17, "learn_scale": "per_feature"},
    },
}

LABELS = ("labels", "covariates")  # contexts that are whatever context the data have
READING = (
    "in_memory", "key", "scale", "resize", "channels", "target", "columns", "known", "standardize",
)  # fmt: skip


def suited_to(data: str, given: Iterable[str]) -> Values:
    """Settings that suit a data set, where the user gave none of them.

    Args:
        data: the name of the data set.
        given: the keys of a recipe that the user gave.

    Example:
        >>> sorted(suited_to("digits", ["prior"])), suited_to("digits", ["likelihood"])
        (['binarize', 'likelihood'], {})
    """
    is_open = data == "digits" and not GREY_DIGITS.keys() & set(given)
    return GREY_DIGITS if is_open else {}


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
