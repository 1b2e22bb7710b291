"""The commands that made a run: remembered beside it, and shown so that they can be pasted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from pyro_vae import checkpoint
from pyro_vae.files.reading import checked, parsing
from pyro_vae.recipes.components import FAMILIES, LEVELS, SITES, may_name, names_in
from pyro_vae.report.run_files import FILES, as_json, read_file

__all__ = ["command_that_scored", "given_commands", "remember", "without_flags", "words_given"]

NAME = "commands.json"
MOST = 50  # commands that are kept, the last
KNOWN = (
    "train", "evaluate", "inspect", "impute", "check", "anneal", "decompose", "calibrate", "gaps",
    "fidelity",
)  # fmt: skip
SCORING = (["train"], ["evaluate"])  # how the commands begin that write scores
UNSAFE = "--trust"  # what a file must not ask its reader to add


class Given(TypedDict):
    """A command as it was given: when, and its words after ``pyro-vae``."""

    date: str
    words: list[str]


class Commands(TypedDict):
    """The content of ``commands.json``."""

    commands: list[Given]


def remember(folder: Path, words: Sequence[str], *, anew: bool = False) -> None:
    """Write a command that has changed a run beside it.

    Args:
        folder: the run.
        words: the command and its arguments.
        anew: forget what was given before, of another run in that folder.
    """
    earlier = [] if anew else [each for each in _read(folder) if each["words"] != list(words)]
    now = datetime.now(UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
    found = [*earlier, {"date": f"{now} UTC", "words": list(words)}]
    checkpoint.write_bytes(folder / NAME, as_json({"commands": found[-MOST:]}))


def given_commands(folder: Path) -> Iterator[tuple[str, str]]:
    """The commands of a run, each with its date, as lines that are safe to paste into a shell.

    A reader may not know who wrote the file: every word is quoted, a command that is not one of
    ours, holds control characters or names a component of somebody else's is left out, and so is
    what it was told to trust.
    """
    for each in _read(folder):
        if words := _safe(each["words"]):
            yield each["date"], f"pyro-vae {shlex.join(words)}"


def command_that_scored(folder: Path) -> str | None:
    """The command that gave a run its scores, as a safe line; ``None`` if training did.

    The run goes by the name of its folder.
    """
    scored = [each["words"] for each in _read(folder) if each["words"][:1] in SCORING]
    words = _safe(scored[-1]) if scored else []
    if words[:1] != ["evaluate"]:
        return None
    run = os.path.realpath(folder)
    named = (os.path.basename(run) if os.path.realpath(word) == run else word for word in words)
    return f"pyro-vae {shlex.join(named)}"


def _safe(words: Sequence[str]) -> list[str]:
    """A command without what it was told to trust; nothing where a reader must not paste it."""
    kept = without_flags(words, [UNSAFE])
    is_ours = kept and kept[0] in KNOWN and all(word.isprintable() for word in kept)
    return kept if is_ours and not _names_a_stranger(kept) else []


def words_given(folder: Path) -> list[list[str]]:
    """The words of the commands that have changed a run, the last of them last."""
    return [each["words"] for each in _read(folder)]


def _read(folder: Path) -> list[Given]:
    with parsing(folder / NAME, FILES):
        found = read_file(folder, NAME)
        return checked(found, Commands)["commands"] if found else []


def _names_a_stranger(words: Sequence[str]) -> bool:
    """Whether a command names a component that no file may name, as ``--prior mylab.Gumbel``."""
    for word, following in zip(words, [*words[1:], ""]):
        flag, equals, value = word.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and key.partition(".")[0] in (*FAMILIES, LEVELS, SITES):
            is_class = key.rpartition(".")[2] in (*FAMILIES, "class_path")
            given = value if equals else following
            if not all(may_name(name) for name in names_in(given, is_class)):
                return True
    return False


def without_flags(argv: Sequence[str], flags: Iterable[str]) -> list[str]:
    """Arguments without some flags and their values.

    Example:
        >>> without_flags(["RUN", "--processes", "2", "--limit=9"], ["--processes"])
        ['RUN', '--limit=9']
    """
    left, tokens = [], iter(argv)
    for token in tokens:
        flag, equals, _ = token.partition("=")
        if flag not in flags:
            left.append(token)
        elif not equals:
            next(tokens, None)
    return left
