"""Whether the data of a recipe hold the known quantities that its likelihood takes."""

from __future__ import annotations

import shlex

from pyro_vae.contracts import ProgramLike, known_by
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.recipes.own import takes_parts
from pyro_vae.recipes.recipe import Recipe
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["check_known"]

# The likelihoods that take each quantity.
TAKEN_BY = {
    "censored": "--likelihood Censored",
    "upper": "--likelihood Censored --likelihood.interval true",
    "scale": "--likelihood NormalWithNoise",
    "inverse_variance": "--likelihood NormalWithNoise --likelihood.noise inverse_variance",
    "size_factor": "--likelihood NegativeBinomial --likelihood.size_factor total",
    "trials": "--likelihood Binomial --likelihood.trials true",
}


def check_known(program: ProgramLike, recipe: Recipe, data: Dataset) -> None:
    """Raise `InvalidInput` unless a recipe names what its likelihood must be told, and no more."""
    wanted = known_by(program)
    # A program of the user's own may look at them without stating so.
    for name in (recipe.known or {}) if takes_parts(recipe.program) else {}:
        if name not in wanted:
            raise InvalidInput(
                f"known {name}",
                got="a quantity that the likelihood does not take",
                expected=f"one that it takes, {', '.join(wanted)}" if wanted else "none",
                fix=f"leave it out; {TAKEN_BY[name]} takes it"
                if name in TAKEN_BY
                else nearest_name(name, wanted or TAKEN_BY),
            )
    given = data.context if isinstance(data.context, dict) else {}
    missing = [name for name in wanted if name not in given]
    if missing and data.columns is not None:  # of other data, `check_context` says it
        columns = {name: _column_for(name, data) for name in missing}
        flags = " ".join(f"--known.{n} {shlex.quote(column)}" for n, column in columns.items())
        raise InvalidInput(
            f"known {missing[0]}",
            got="none",
            expected=f"the column that holds {missing[0]}: {wanted[missing[0]].expected}",
            fix=f"say which, {flags}, or in Python load(..., known={columns})",
        )


def _column_for(name: str, data: Dataset) -> str:
    """The column that is named as a quantity is, if there is one."""
    known = [column.name for each in (data.columns, data.context_columns) for column in each or ()]
    return next((each for each in known if each.lower() == name.lower()), "COLUMN")
