"""Importing libraries without what lies in the working folder, which may be a stranger's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["elsewhere"]


@contextmanager
def elsewhere() -> Iterator[None]:
    """Be in the root folder for as long as libraries are imported.

    Some look into the working folder then: Matplotlib for ``matplotlibrc``, ArviZ for ``arvizrc``,
    and the CUDA builds of torch for a ``libcuda.so.1``, whose code would run.

    Example:
        >>> import os
        >>> with elsewhere():
        ...     os.getcwd() == os.path.abspath(os.sep)
        True
    """
    try:
        here = os.getcwd()
    except OSError:  # a folder that was removed holds nothing
        yield
        return
    os.chdir(os.path.abspath(os.sep))
    try:
        yield
    finally:
        os.chdir(here)
