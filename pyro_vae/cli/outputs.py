"""Files that a user names with ``--out``: written only where they replace nothing of anybody else.

A file that a command writes carries the command's name, as ``pyro-vae sample``, near its beginning
or its end. A later call of the same command replaces such a file and no other.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

from pyro_vae import checkpoint
from pyro_vae.files.reading import Kind, read_bytes

__all__ = ["check_replaceable", "marked_wav", "npz", "write_output"]

NEAR = 512  # bytes at either end in which the command's name is looked for


OUTPUTS = Kind("out", "a new file", "choose another name, or remove that file first", 2**32)


def write_output(path: Path, data: bytes, command: str) -> None:
    """Write what a command was asked for.

    Raises:
        InvalidInput: if that would replace a file that the command did not write.
        CheckpointError: if it cannot be written.
    """
    check_replaceable(path, command, data)
    checkpoint.write_bytes(path, data)


def check_replaceable(path: Path, command: str, data: bytes | None = None) -> None:
    """Raise `InvalidInput` on a file that was not written by this command and is not ``data``."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink():
        OUTPUTS.refuse(path, "a link")
    found = read_bytes(path, OUTPUTS)
    is_ours = any(command.encode() in end for end in (found[:NEAR], found[-NEAR:]))
    if not is_ours and found != data:
        OUTPUTS.refuse(path, f"a file that {command} did not write")


def npz(command: str, **arrays: np.ndarray) -> bytes:
    """Arrays as the content of an ``.npz`` file that carries the command's name."""
    whole = io.BytesIO()
    np.savez_compressed(whole, allow_pickle=False, **arrays)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.comment = command.encode()
    return whole.getvalue()


def marked_wav(command: str, sound: bytes) -> bytes:
    """A WAV file with the command's name in a chunk of its own at the end."""
    name = command.encode() + b"\0" * (1 + (len(command) + 1) % 2)  # of even length
    info = b"INFOISFT" + struct.pack("<I", len(name)) + name
    whole = sound + b"LIST" + struct.pack("<I", len(info)) + info
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
