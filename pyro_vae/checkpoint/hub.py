"""Runs of the Hugging Face hub: their files, never their code.

An address is ``hf://user/name``, or ``hf://user/name@revision`` for a branch, a tag or a commit.
What is fetched is read under the same rules as any folder from a stranger: docs/threat-model.md.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pyro_vae.datasets.optional import optional
from pyro_vae.files.writing import CheckpointError
from pyro_vae.validation import InvalidInput

__all__ = ["RUN_FILES", "check_name", "is_address", "pull"]

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
        folder: where to put them; by default a folder of your cache, one for each address.

    Returns:
        The folder.

    Raises:
        InvalidInput: on an address of another form, or a missing extra ``hub``.
        CheckpointError: if the hub has no such run, or cannot be reached.
    """
    name, _, revision = address.removeprefix(SCHEME).partition("@")
    check_name(name)
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise InvalidInput(
            "revision", got=repr(revision), expected="a branch, a tag or a commit", fix="use @main"
        )
    hub = optional("huggingface_hub", "hub", "address", "one of the hub, without huggingface_hub")
    target = Path(folder) if folder is not None else _cache() / f"{name}@{revision or 'main'}"
    try:
        hub.snapshot_download(
            name, revision=revision or None, local_dir=target, allow_patterns=WANTED
        )
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        reason, *_ = [*str(error).strip().splitlines(), type(error).__name__]
        raise CheckpointError(
            "address",
            got=f"{address}, which cannot be fetched ({reason[:200]})",
            expected="a run on the hub, and a way to reach it",
            fix="check the name, log in with hf auth login if it is private, and try again",
        ) from None
    if not (target / "program.json").exists():
        raise CheckpointError(
            "address",
            got=f"{address} without program.json",
            expected="a run that pyro-vae push put there",
            fix="check the name",
        )
    return target


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pyro_vae" / "hub"
