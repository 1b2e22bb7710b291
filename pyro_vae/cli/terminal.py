"""Where the commands print: names and paths as they are, brackets and colons too."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from pyro_vae.validation import printable

__all__ = ["console_of"]


class Plain(Console):
    """A terminal that obeys no text, whoever wrote it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def console_of(stderr: bool = False) -> Console:
    """The terminal, which takes no part of a text for a style or a picture."""
    return Plain(stderr=stderr, markup=False, emoji=False)
