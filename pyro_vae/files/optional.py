"""Libraries that are installed as extras: those that read some kinds of files, trackers, others."""

from __future__ import annotations

import importlib
from types import ModuleType

from pyro_vae.files.elsewhere import elsewhere
from pyro_vae.validation import InvalidInput

__all__ = ["optional"]


def optional(
    library: str, extra: str, argument: str = "data", got: str | None = None
) -> ModuleType:
    """Import a library that an extra of this package installs.

    Args:
        library: its name, or that of a module in it.
        extra: the extra's.
        argument: what asked for it.
        got: the argument's value in words; by default a kind of data that the library reads.

    Raises:
        InvalidInput: if it is not installed; the error names the extra.

    Example:
        >>> optional("no_such_reader", "tables")
        Traceback (most recent call last):
        ...
        pyro_vae.validation.InvalidInput: data: got a kind that no_such_reader reads, which is not
        installed, expected no_such_reader; pip install "pyro-vae[tables]"
    """
    name = library.partition(".")[0]
    try:
        with elsewhere():
            return importlib.import_module(library)
    except ImportError:
        raise InvalidInput(
            argument,
            got=got or f"a kind that {name} reads, which is not installed",
            expected=name,
            fix=f'pip install "pyro-vae[{extra}]"',
        ) from None
