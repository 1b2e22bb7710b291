"""What a run with ``--start`` takes over: weights for the same parts, and the words of text."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import Namespace

from pyro_vae import checkpoint
from pyro_vae.cli.run_data import RunData, read_data
from pyro_vae.cli.runs import check_vocabulary, program_of, trusted, vocabulary_of
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.columns import Columns, said_as
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.programs import as_program
from pyro_vae.ranks.group import speaks
from pyro_vae.recipes.recipe import read_settings
from pyro_vae.validation import InvalidInput, short

__all__ = ["start_from", "words_of_start"]

RECIPE = "recipe.yaml"
OTHER = "start from a run on data of the same kind, or leave --start out"


def start_from(owner: ProgramLike, data: Dataset, namespace: Namespace) -> None:
    """Give a new run's program the weights that it starts from; a resumed run has its own.

    Raises:
        InvalidInput: if a resumed run did not start from there; if the weights are of other parts
            or of other columns, whatever their sizes.
    """
    if namespace.resume and namespace.out and checkpoint.exists(namespace.out, "training"):
        _check_same_start(namespace)
        return
    folder, trust = _folder_of(namespace.start), trusted(namespace.trust)
    _say_if_read_otherwise(folder, namespace)
    known = read_data(folder)
    if known != RunData():  # as of a program that was saved by itself
        check_vocabulary(folder, data)
        for began, now in (
            (known.columns, data.columns),
            (known.context_columns, data.context_columns),
        ):
            _check_columns(began, now)
            _check_units(began, now)
    checkpoint.load(folder, owner, trust=trust)
    _check_parts(as_program(owner), folder, trust)


def words_of_start(start: str | None) -> Vocabulary | None:
    """The words in which a run reads its text, those of the run that it starts from.

    A resumed run may have outlived that one.
    """
    folder = None if start is None else _folder_of(start)
    return vocabulary_of(folder) if folder is not None and folder.exists() else None


def _folder_of(start: str) -> Path:
    return checkpoint.pull(start) if checkpoint.is_address(start) else Path(start)


def _check_same_start(namespace: Namespace) -> None:
    began = read_settings(Path(namespace.out) / RECIPE, inside=namespace.out).get("start")
    if began != namespace.start:
        raise InvalidInput(
            "start",
            got=f"{namespace.start} for a run that started from {began or 'its seed'}",
            expected="what the run started from, which does not change",
            fix="leave --start out, or start another run: choose another folder for --out",
        )


def _check_parts(program: ProgramLike, folder: Path, trust: list[str]) -> None:
    """Raise `InvalidInput` if weights are of a part of another class, such as a Normal's.

    A program that only its own code can build has no classes to compare.
    """
    try:
        began = dict(program_of(folder, trust).named_modules())
    except InvalidInput:
        return
    for name, part in program.named_modules():
        other = began.get(name, part)
        if type(other) is not type(part) and part.state_dict():
            raise InvalidInput(
                "start",
                got=f"weights of {type(other).__name__} for {type(part).__name__}, at {name}",
                expected="those of parts of the same classes",
                fix=f"take the parts of {folder / RECIPE}, or leave --start out",
            )


def _say_if_read_otherwise(folder: Path, namespace: Namespace) -> None:
    """Say if a run reads the same data as the run that it starts from, but to other values."""
    path = folder / RECIPE
    began = read_settings(path, inside=folder) if path.exists() else {}
    if began.get("data") != namespace.data or not speaks():
        return
    names = {name: (began.get(name), namespace.get(name)) for name in ("binarize", "scale")}
    others = [
        f"--{name} {now or 'none'}, which was {before or 'none'} there"
        for name, (before, now) in names.items()
        if (before or "none") != (now or "none")
    ]
    if others:
        print(
            "pyro-vae: warning: the data are read to other values than in the run that this one "
            f"starts from: {'; '.join(others)}",
            file=sys.stderr,
        )


def _check_columns(began: Columns | None, now: Columns | None) -> None:
    """Raise `InvalidInput` unless two runs' columns have one order, one kind and one numbering."""
    if began is None or now is None:
        return
    if began.names != now.names:
        raise _other_columns(_listed(now.names), _listed(began.names), OTHER)
    for old, new in zip(began, now):
        if old.kind != new.kind:
            raise _other_columns(
                f"{new.kind} numbers in {short(new.name)}", old.kind,
                f"say {said_as(new.name, old.kind)}, or leave --start out",
            )  # fmt: skip
        if old.categories != new.categories:
            raise _other_columns(
                f"categories {_listed(new.categories)} in {short(new.name)}",
                _listed(old.categories),
                OTHER,
            )


def _check_units(began: Columns | None, now: Columns | None) -> None:
    """Raise `InvalidInput` if one run is in standardised units alone; say if they are others."""
    before, after = (columns is not None and columns.is_standardized for columns in (began, now))
    if before != after:
        names = {False: "the columns' own units", True: "standardised units"}
        raise _other_columns(
            names[after],
            names[before],
            f"say --standardize {str(before).lower()}, as that run does, or leave --start out",
        )
    if began is None or now is None or not speaks():
        return
    moved = [
        f"{short(new.name)} has center {new.center:.4g} and scale {new.scale:.4g}, which had "
        f"{old.center:.4g} and {old.scale:.4g}"
        for old, new in zip(began, now)
        if (old.center, old.scale) != (new.center, new.scale)
    ]
    if moved:
        print(
            "pyro-vae: warning: these data are standardised by their own rows, not as those of the "
            f"run that this one starts from: {'; '.join(moved[:3])}"
            + (f"; and {len(moved) - 3} more" if len(moved) > 3 else ""),
            file=sys.stderr,
        )


def _other_columns(got: str, expected: str, fix: str) -> InvalidInput:
    return InvalidInput(
        "start", got=f"data with {got}", expected=f"{expected}, as in the run started from", fix=fix
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(short, names[:10])) + (", ..." if len(names) > 10 else "")
