"""Runs of the Hugging Face hub: their files, never their code.

An address is ``hf://user/name``, or ``hf://user/name@revision`` for a branch, a tag or a commit.
What is fetched is read under the same rules as any folder from a stranger: docs/threat-model.md.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from pyro_vae.checkpoint.commit import commit, weights_named_by
from pyro_vae.files.cache import cache_folder
from pyro_vae.files.optional import optional
from pyro_vae.files.reading import Kind, read_bytes
from pyro_vae.files.writing import CheckpointError, subfolder
from pyro_vae.validation import InvalidInput

__all__ = [
    "check_name", "failures", "is_address", "pull", "read_shared", "reason_of", "run_files",
]  # fmt: skip

SHARED = Kind(
    "run", "a file of a run", "restore it from a copy, or evaluate the run again", 2**36,
    CheckpointError,
)  # fmt: skip
REPLACED = Kind("out", "a new folder", "choose another folder, or move that file elsewhere", 2**36)

SCHEME = "hf://"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"[\w][\w./-]*")

# What is shared of a run besides its weights: neither the optimiser's state nor the commands that
# were given, which name folders of the machine. No source code and no pickle is among them.
RUN_FILES = (
    "program.json", "recipe.yaml", "data.json", "vocabulary.txt", "metrics.csv", "evaluation.json",
    "evaluation.npz", "figures/*.png",
)  # fmt: skip
WANTED = ["program-*.safetensors", *RUN_FILES, "README.md"]


def is_address(folder: object) -> bool:
    """Whether a text is the address of a run on the hub.

    Example:
        >>> is_address("hf://user/name"), is_address("runs/mine")
        (True, False)
    """
    return isinstance(folder, str) and folder.startswith(SCHEME)


def check_name(name: str) -> None:
    """Raise `InvalidInput` unless a name on the hub is ``user/name``."""
    if not NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(
            "name",
            got=repr(name),
            expected="USER/NAME, as on the hub",
            fix="write it as ann/my-vae",
        )


def pull(address: str, folder: str | Path | None = None) -> Path:
    """Fetch the files of a run from the hub; nothing of it is run.

    Args:
        address: ``user/name`` or ``hf://user/name``, with ``@revision`` behind it if wanted.
        folder: where to put them, next to no other files of these names; by default a folder of
            your cache, one for each address.

    Returns:
        The folder.

    Raises:
        InvalidInput: on an address of another form, a missing extra ``hub``, or a folder with
            other files of these names.
        CheckpointError: if the hub has no such run, or cannot be reached.
    """
    name, _, revision = address.removeprefix(SCHEME).partition("@")
    check_name(name)
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise InvalidInput(
            "revision", got=repr(revision), expected="a branch, a tag or a commit", fix="use @main"
        )
    hub = optional("huggingface_hub", "hub", "address", "one of the hub, without huggingface_hub")
    kept = cache_folder()
    if kept is None and folder is None:
        raise InvalidInput(
            "address",
            got=f"{address} for a user without a home folder, where it would be kept",
            expected="a folder for it",
            fix="set XDG_CACHE_HOME, or run pyro-vae pull with --out",
        )
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory())) if kept is None else kept / "hub"
        fetched = place / f"{name}@{revision or 'main'}"
        try:
            hub.snapshot_download(
                name, revision=revision or None, local_dir=fetched, allow_patterns=WANTED
            )
        except failures(hub) as error:
            raise CheckpointError(
                "address",
                got=f"{address}, which cannot be fetched ({reason_of(error)})",
                expected="a run on the hub, and a way to reach it",
                fix="check the name, log in with hf auth login if it is private, and try again",
            ) from None
        if not (fetched / "program.json").exists():
            raise CheckpointError(
                "address",
                got=f"{address} without program.json",
                expected="a run that pyro-vae push put there",
                fix="check the name",
            )
        if folder is None:
            return fetched
        _copy(fetched, Path(folder))
    return Path(folder)


def failures(hub: ModuleType) -> tuple[type[Exception], ...]:
    """What `huggingface_hub` raises where the hub refuses, or cannot be reached."""
    return OSError, ValueError, hub.errors.HTTPError


def reason_of(error: Exception) -> str:
    """Why it failed, on one line."""
    reason, *_ = [*str(error).strip().splitlines(), type(error).__name__]
    return reason[:200]


def run_files(folder: Path) -> list[str]:
    """The files of a run that are shared, by their names within it: its weights are the last."""
    named = weights_named_by(folder / "program.json") or ""
    found = [path for each in RUN_FILES for path in sorted(folder.glob(each)) if path.is_file()]
    weights = [named] if fnmatch(named, WANTED[0]) and (folder / named).is_file() else []
    return [*(path.relative_to(folder).as_posix() for path in found), *weights]


def read_shared(folder: Path, name: str) -> bytes:
    """A file of a run that is shared, by its name within it; no link leads out of the run."""
    return read_bytes(folder / name, SHARED, inside=folder)


def _copy(source: Path, target: Path) -> None:
    """Write a run that was fetched to a folder, where it replaces nobody's files."""
    files = {name: read_shared(source, name) for name in [*run_files(source), "README.md"]
             if (source / name).exists()}  # fmt: skip
    for name, data in files.items():
        path = target / name
        if os.path.lexists(path) and (path.is_symlink() or read_bytes(path, REPLACED) != data):
            REPLACED.refuse(path, "which is not of this run and which pulling would replace")
    figures = [name for name in files if "/" in name]
    pictures = {Path(name).name: files.pop(name) for name in figures}
    if pictures:
        commit(subfolder(target, "figures"), pictures)
    commit(target, files)
