"""Settings in a form that runs can compare, and what is said of one that a run had otherwise."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType

from pyro_vae.validation import InvalidInput

__all__ = ["anew_from", "changed", "differs", "fewer_epochs", "settings_of"]

# What an objective finds out about a program, which no user sets.
FOUND = {"max_plate_nesting", "way", "has_looked"}


def settings_of(thing: object) -> object:
    """A setting in a form that runs can compare: a class's name, its numbers and lists of them."""
    if isinstance(thing, partial):
        return [settings_of(part) for part in (thing.func, list(thing.args), thing.keywords)]
    if isinstance(thing, dict):
        return {str(key): settings_of(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [settings_of(item) for item in thing]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, type | FunctionType | BuiltinFunctionType | MethodType):
        return thing.__qualname__
    numbers = {
        key: settings_of(value)
        for key, value in vars(thing).items()
        if _is_plain(value) and key not in FOUND
    }
    return {"class": type(thing).__qualname__, **numbers}


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a word, or lists of these."""
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str)


def differs(setting: object, saved: object) -> bool:
    """Whether a setting differs from the saved one, in what an older run saved of it.

    Example:
        >>> differs({"class": "Steps", "factor": 0.1, "milestones": [0.5]}, {"class": "Steps"})
        False
    """
    if isinstance(setting, dict) and isinstance(saved, dict):
        return any(key not in setting or setting[key] != saved[key] for key in saved)
    return setting != saved


def changed(
    name: str, value: object, saved: object, folder: Path, schedule: object
) -> InvalidInput:
    """The refusal of a setting; the number of epochs is one where the schedule depends on it.

    Args:
        name: of the setting.
        value: what it is to be.
        saved: what it was.
        folder: of the run.
        schedule: of the learning rate.
    """
    if name != "epochs":
        return InvalidInput(
            name,
            got=f"{value!r}",
            expected=f"{saved!r}, as in the run in {folder}",
            fix="resume with the settings it was started with, or train in a new folder",
        )
    return InvalidInput(
        "epochs",
        got=f"{value!r}",
        expected=f"{saved!r}, over which the schedule {type(schedule).__name__} spread the "
        f"learning rate of the run in {folder}",
        fix=f"start a new run from its weights: {anew_from(folder, value)}",
    )


def fewer_epochs(epochs: int, trained: int, folder: Path) -> InvalidInput:
    """The refusal of fewer epochs than a run has been trained for."""
    return InvalidInput(
        "epochs",
        got=str(epochs),
        expected=f"{trained} or more, for which the run in {folder} has been trained",
        fix=f"resume with epochs={trained} (--epochs {trained}), or train in a new folder",
    )


def anew_from(folder: Path, epochs: object) -> str:
    """How a new run starts from the weights of one whose schedule is at its end."""
    if not (folder / "recipe.yaml").exists():
        return f"fit the trained program again with epochs={epochs} and another folder, out="
    names = (f"{folder}-{number}" for number in range(2, 10**6))
    new = next(name for name in names if not Path(name).exists())
    recipe, start, out = (shlex.quote(str(path)) for path in (folder / "recipe.yaml", folder, new))
    return f"pyro-vae train {recipe} --start {start} --out {out} --epochs {epochs}"
