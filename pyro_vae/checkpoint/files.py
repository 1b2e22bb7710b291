"""Write files so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pyro_vae.validation import InvalidInput

__all__ = ["CheckpointError", "replace_file", "write_bytes", "write_text", "writing_to"]


class CheckpointError(InvalidInput):
    """A state that cannot be written or read back."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: the old content stays whole if the disk is full."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


class writing_to:
    """Turn the operating system's errors into one line that says what survives."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise CheckpointError(
                "out",
                got=f"{self.folder}, which cannot be written ({error.strerror or error})",
                expected="a folder with space left and permission to write",
                fix="free some space or choose another folder; the last good checkpoint is whole, "
                "and --resume continues from it",
            ) from error


def replace_file(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
