"""Libraries that read some kinds of files and are installed as extras."""

from __future__ import annotations

import importlib
from types import ModuleType

from pyro_vae.validation import InvalidInput

__all__ = ["optional"]


def optional(library: str, extra: str) -> ModuleType:
    """Import a library that an extra of this package installs.

    Raises:
        InvalidInput: if it is not installed; the error names the extra.

    Example:
        >>> optional("no_such_reader", "tables")
        Traceback (most recent call last):
        ...
        pyro_vae.validation.InvalidInput: data: got a kind that no_such_reader reads, which is not
        installed, expected no_such_reader; pip install "pyro-vae[tables]"
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise InvalidInput(
            "data",
            got=f"a kind that {library} reads, which is not installed",
            expected=library,
            fix=f'pip install "pyro-vae[{extra}]"',
        ) from None
