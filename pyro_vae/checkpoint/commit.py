"""Replace several files of a run folder at one moment, and claim a folder for a process.

A commit writes all of its files under temporary names, then a journal that lists them, and then
renames them. The journal's own rename is the moment: killed before it, the folder is as it was;
killed after it, readers (`current`) find the new files under their temporary names, and the next
commit finishes the renames. Whatever else a killed process left is removed under the folder's lock.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict, TypeVar

from filelock import FileLock, Timeout

from pyro_vae.files.reading import MEGABYTE, Kind, read_json
from pyro_vae.files.writing import (
    flush_folder,
    remove_leftovers,
    replace_file,
    temporary_of,
    write_new,
    writing_to,
)
from pyro_vae.validation import InvalidInput

__all__ = ["claimed", "commit", "committing", "current", "read_current"]

Value = TypeVar("Value")

JOURNAL = ".commit.json"

WRITTEN = Kind("run", "JSON as this package writes it", "remove it", 64 * MEGABYTE)

PATIENCE = 60.0  # seconds that a commit waits for another one

Add = Callable[[str, bytes], None]  # a file of a commit, by its name within the folder

WEIGHTS = re.compile(r"(\w+)-[0-9a-f]{12}\.safetensors")


def commit(folder: Path, files: dict[str, bytes]) -> None:
    """Replace files of a folder, by their names within it, at one moment.

    Raises:
        CheckpointError: if they cannot be written; all of the old ones are then still there.
    """
    with committing(folder) as add:
        for name, data in files.items():
            add(name, data)


@contextmanager
def committing(folder: Path) -> Iterator[Add]:
    """As `commit`, file by file, so that no more than one need be in memory.

    Weights are named by their content, and nothing refers to them before the commit: they get their
    names at once.
    """
    token, names, weights = secrets.token_hex(8), list[str](), list[Path]()

    def add(name: str, data: bytes) -> None:
        if WEIGHTS.fullmatch(name):
            weights.extend([] if (folder / name).exists() else [folder / name])
            replace_file(folder / name, data)
        else:
            names.append(name)
            write_new(temporary_of(folder / name, token), data)

    with _writing_alone(folder):
        try:
            yield add
            if len(names) > 1:
                journal = {"token": token, "files": names}
                replace_file(folder / JOURNAL, json.dumps(journal).encode())
            else:
                _rename(folder, token, names)
        except BaseException:
            staged = [temporary_of(folder / name, token) for name in names]
            for path in (folder / JOURNAL, *staged, *weights):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        _finish(folder)


@contextmanager
def _writing_alone(folder: Path) -> Iterator[None]:
    """Hold a folder for one commit, after what a killed one left has been finished or removed."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".commit.lock", timeout=PATIENCE)
        try:
            lock.acquire()
        except Timeout:
            raise _in_use(folder, "writing", "wait for it to end") from None
        try:
            _finish(folder)
            yield
        finally:
            lock.release()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for one training; the system lets go of it even if the process is killed.

    Raises:
        InvalidInput: if another process or thread holds it.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Of one thread, the lock is one object: who holds the folder may claim it again.
        lock = FileLock(folder.resolve() / ".lock", timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise _in_use(folder, "training", "wait for that run to end") from None
    try:
        yield
    finally:
        lock.release()


def _in_use(folder: Path, doing: str, fix: str) -> InvalidInput:
    return InvalidInput(
        "out",
        got=f"{folder}, in which another process or thread is {doing}",
        expected="a folder of its own",
        fix=f"choose another folder, or {fix}",
    )


def current(folder: Path, name: str) -> Path:
    """Where a file of a folder is, also between a commit and the end of its renames."""
    token, names = _journal(folder)
    temporary = temporary_of(folder / name, token)
    return temporary if name in names and temporary.is_file() else folder / name


def read_current(folder: Path, name: str, read: Callable[[Path], Value]) -> Value:
    """What ``read`` makes of a file of a folder, once more if a commit renames it meanwhile."""
    while True:
        path = current(folder, name)
        try:
            return read(path)
        except InvalidInput:
            if path == current(folder, name) or path == folder / name:
                raise


def _finish(folder: Path) -> None:
    """Do what a killed commit left to do, and remove what killed processes left behind."""
    _rename(folder, *_journal(folder))
    (folder / JOURNAL).unlink(missing_ok=True)
    remove_leftovers(folder)
    _remove_old_weights(folder)


def _rename(folder: Path, token: str, names: list[str]) -> None:
    """Give the files of a commit their names; those renamed before a kill have them."""
    for name in names:
        with suppress(FileNotFoundError):
            os.replace(temporary_of(folder / name, token), folder / name)
    if names:
        flush_folder(folder)


class Journal(TypedDict):
    """A commit under way: what its temporary files are named by, and the names to give them."""

    token: str
    files: list[str]


def _journal(folder: Path) -> tuple[str, list[str]]:
    """The token and the names of a commit under way; a file that is no journal names nothing."""
    with suppress(InvalidInput):
        found = read_json(folder / JOURNAL, WRITTEN, Journal)
        if re.fullmatch("[0-9a-f]{16}", found["token"]) and all(map(_is_plain, found["files"])):
            return found["token"], found["files"]
    return "", []


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file right inside a folder."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _remove_old_weights(folder: Path) -> None:
    """Remove the weights that no state of the folder names any more."""
    kept: dict[str, str | None] = {}
    for path in folder.glob("*-*.safetensors"):
        if match := WEIGHTS.fullmatch(path.name):
            state = match[1]
            if state not in kept:
                kept[state] = weights_named_by(folder / f"{state}.json")
            if kept[state] not in (None, path.name):
                path.unlink(missing_ok=True)


class Named(TypedDict):
    """What a state's JSON says of its weights."""

    weights: str


def weights_named_by(index: Path) -> str | None:
    """The name of the weights' file that a state's JSON names, if it can be read."""
    with suppress(InvalidInput):
        return Path(read_json(index, WRITTEN, Named)["weights"]).name
    return None
