"""Write files so that a reader sees the old content or the new, never a part.

Everything that the library writes is written here: to a temporary file beside the target, under a
name that nobody can guess, which is flushed to the disk and then renamed. No link is followed: a
target that is a link is itself replaced, and a folder of a run that is a link is refused. A log,
which grows by whole records, is the exception to the renaming.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from pyro_vae.validation import InvalidInput

__all__ = [
    "CannotWrite",
    "CheckpointError",
    "append_bytes",
    "check_writable",
    "new_folder",
    "new_log",
    "remove",
    "remove_leftovers",
    "replace_file",
    "subfolder",
    "write_bytes",
    "write_text",
    "writing_to",
]

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # not on Windows

NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe without a reader is then refused at once

PROBE = 2**16  # bytes that a disk with room for what a command writes has left

# Our temporary files; the latter those of version 0.1.0, which had the number of their process.
TEMPORARY = re.compile(
    r"\..+\.[0-9a-f]{16}\.tmp"
    r"|\.(?:program|training|metrics|recipe|evaluation|posterior|report|samples|vocabulary)"
    r"[\w.-]*\.\d+\.tmp"
)


class CheckpointError(InvalidInput):
    """A state that cannot be written or read back."""


class CannotWrite(CheckpointError):
    """A place that takes no file: it is read-only, or the disk is full."""


class writing_to:
    """Turn the operating system's errors into one line that says what survives."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise CannotWrite(
                "out",
                got=f"{self.folder}, which cannot be written ({error.strerror or error})",
                expected="a folder with space left and permission to write",
                fix="free some space or choose another folder; what was there before is whole",
            ) from error


def check_writable(folder: Path) -> None:
    """Find out before the work whether a folder, or the one that it is made in, takes a file.

    Raises:
        CannotWrite: if it does not.
    """
    with writing_to(folder):
        place = folder.absolute()
        while not os.path.lexists(place):
            place = place.parent
        probe = temporary_of(place / "probe", secrets.token_hex(8))
        try:
            write_new(probe, bytes(PROBE))
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; a name of a file that is no text comes in its own bytes."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: the old content stays whole if the disk is full."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, then rename it; raise `OSError` if it fails."""
    temporary = temporary_of(path, secrets.token_hex(8))
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def temporary_of(path: Path, token: str) -> Path:
    """The temporary file beside ``path`` that a token stands for; names have 255 bytes at most."""
    stem = path.name.encode()[:200].decode(errors="ignore")
    return path.with_name(f".{stem}.{token}.tmp")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, and flush it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_bytes(path: Path, data: bytes) -> None:
    """Append a record to a log, all of it or, if the disk is full, nothing.

    Raises:
        OSError: if it cannot be written, or is a link.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINK | NO_WAIT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def new_log(path: Path) -> IO[bytes]:
    """An empty log, in place of what was there, for another process to write to.

    Raises:
        OSError: if it cannot be written, or is a link or a pipe.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK | NO_WAIT
    file = os.fdopen(os.open(path, flags, 0o666), "wb")
    os.set_blocking(file.fileno(), True)
    return file


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def flush_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power failure, where the system can."""
    with suppress(OSError):  # not on Windows, nor on every network's file system
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def subfolder(folder: Path, name: str) -> Path:
    """A folder within a run's folder, made if need be.

    Raises:
        CheckpointError: if a link stands in its place, which would lead out of the run.
    """
    inner = folder / name
    if inner.is_symlink():
        raise CheckpointError(
            "run",
            got=f"{inner}, a symbolic link",
            expected="a folder of the run's own",
            fix="replace the link by the folder that it leads to",
        )
    with writing_to(folder):
        inner.mkdir(parents=True, exist_ok=True)
    return inner


def new_folder(path: Path) -> Path:
    """A folder, made with those above it if need be."""
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """Remove a file of ours, and the folder that it leaves empty."""
    path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder.

    Only who holds the folder's lock may do so: the files of a living process look the same.
    """
    for name in os.listdir(folder):
        if TEMPORARY.fullmatch(name) and stat.S_ISREG((folder / name).lstat().st_mode):
            (folder / name).unlink(missing_ok=True)
