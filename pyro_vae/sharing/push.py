"""A run's folder put on the Hugging Face hub, with its model card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from pyro_vae import checkpoint
from pyro_vae.checkpoint.hub import failures, read_shared, reason_of, run_files
from pyro_vae.files.optional import optional
from pyro_vae.files.writing import write_bytes, write_text
from pyro_vae.sharing.card import card
from pyro_vae.validation import InvalidInput

__all__ = ["Hub", "push", "shared_files"]


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object: ...
    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> object: ...


def shared_files(folder: str | Path) -> list[str]:
    """The files of a run that `push` puts on the hub, by their names, but for the card.

    Raises:
        CheckpointError: if the folder holds no run.
    """
    names = run_files(Path(folder))
    if "program.json" not in names or not names[-1].endswith(".safetensors"):
        raise checkpoint.CheckpointError(
            "run",
            got=f"{folder} without program.json and its weights",
            expected="the folder of a run",
            fix="check the path, or train first",
        )
    return names


def push(
    folder: str | Path, name: str, *, private: bool = True, hub: Hub | None = None
) -> list[str]:
    """Put a run on the Hugging Face hub: its program, recipe, scores, figures and a model card.

    The recipe and the card name the data and their SHA-256; the data themselves stay here. Of a
    table, the names, units and categories of its columns go along.

    Args:
        folder: the run.
        name: ``user/name`` on the hub; made if it does not exist.
        private: who may see a new repository: you alone, or everybody.
        hub: what uploads; by default `huggingface_hub.HfApi`, with the token that you logged in
            with.

    Returns:
        The names of the files.

    Raises:
        CheckpointError: if the folder holds no run that can be loaded.
        InvalidInput: on a name of another form, a missing extra ``hub``, or a hub that refuses or
            cannot be reached.
    """
    folder = Path(folder)
    checkpoint.check_name(name)
    names = shared_files(folder)
    library = optional("huggingface_hub", "hub", "name", "one of the hub, without huggingface_hub")
    api: Hub = library.HfApi() if hub is None else hub
    with tempfile.TemporaryDirectory() as staged:
        for each in names:
            write_bytes(Path(staged) / each, read_shared(folder, each))
        write_text(Path(staged) / "README.md", card(folder, name))
        try:
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=staged, commit_message="A run of pyro_vae with its scores"
            )
        except failures(library) as error:
            raise InvalidInput(
                "name",
                got=f"{name}, which cannot be pushed to ({reason_of(error)})",
                expected="a repository of yours, a login, and a way to reach the hub",
                fix="check the name, log in with hf auth login, and try again",
            ) from None
    return ["README.md", *names]
