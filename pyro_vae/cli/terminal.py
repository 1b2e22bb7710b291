"""Where the commands print: names and paths as they are, brackets and colons too."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console_of"]


def console_of(stderr: bool = False) -> Console:
    """The terminal, which takes no part of a text for a style or a picture."""
    return Console(stderr=stderr, markup=False, emoji=False)
