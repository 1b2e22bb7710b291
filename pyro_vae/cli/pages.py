"""Write the pages of the commands' help: ``python -m pyro_vae.cli.pages``."""

from __future__ import annotations

import importlib
import json

from pyro_vae import checkpoint
from pyro_vae.cli.help import COMMANDS, PAGES, Page, key
from pyro_vae.cli.parsers import page_of

__all__ = ["pages", "write"]


def pages() -> dict[str, Page]:
    """The page of each command, from its options."""
    modules = {name: importlib.import_module(f"pyro_vae.cli.{name}") for name in COMMANDS}
    return {name: page_of(module.arguments()) for name, module in modules.items()}


def write() -> None:
    """Write the pages and what they follow from."""
    checkpoint.write_text(PAGES, json.dumps({"key": key(), "pages": pages()}, indent=1) + "\n")


if __name__ == "__main__":
    write()
