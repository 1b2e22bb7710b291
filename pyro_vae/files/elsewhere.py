"""Importing libraries without what lies in the working folder, which may be a stranger's."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["elsewhere", "environment_elsewhere"]


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


def environment_elsewhere() -> dict[str, str]:
    """What a Python that this one starts has in its environment, to look nowhere in its own folder.

    ``python -m`` and ``python -c`` look for modules in the working folder first, and so does an
    empty entry of PYTHONPATH. This package is found where it was found here.

    Example:
        >>> environment_elsewhere()["PYTHONSAFEPATH"]
        '1'
    """
    ours, paths = str(Path(__file__).resolve().parents[2]), sysconfig.get_paths()
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if ours not in (*given, paths["purelib"], paths["platlib"]):
        given.append(ours)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(given)}
