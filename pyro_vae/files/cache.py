"""The folder for what can be had again: downloads, and what was found out about data."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path | None:
    """This user's cache of pyro_vae; ``None`` for a user without a home.

    It lies in ``XDG_CACHE_HOME``, which counts if it is absolute, or else in ``~/.cache``.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "pyro_vae"
    with suppress(RuntimeError):  # of a user whom neither HOME nor the system's list gives one
        home = Path.home()
        return home / ".cache" / "pyro_vae" if home.is_absolute() else None
    return None
