"""The limit on a process's addresses, `ulimit -v`: below it native libraries end without a word."""

from __future__ import annotations

import os
import sys

from pyro_vae.validation import InvalidInput

__all__ = ["check_address_space", "too_little_memory"]

# Bytes: what a command on two cores maps before its data, of which a fifth is used, and what each
# further thread of torch's adds, its stack and its own part of the heap.
NEEDED, FOR_EACH_THREAD = 5_000_000_000, 150_000_000


def check_address_space(command: str) -> None:
    """Refuse a limit that a command's libraries would exceed once they are imported.

    Raises:
        InvalidInput: with the limit, and what it should be.
    """
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    is_limited = limit != resource.RLIM_INFINITY and "torch" not in sys.modules
    if is_limited and limit < needed(threads()):
        found = f"a limit of {limit / 1e9:.1f} GB of address space"
        raise too_little_memory(f"{found} for the libraries of {command}")


def too_little_memory(got: str) -> InvalidInput:
    """What is said where a command's libraries do not fit."""
    return InvalidInput(
        "memory",
        got=got,
        expected=f"{needed(threads()) / 1e9:.1f} GB of address space, of which 1 GB is used",
        fix="raise the limit (ulimit -v), or end other programs",
    )


def needed(num_threads: int) -> int:
    """Bytes of address space that a command maps with so many threads."""
    return NEEDED + FOR_EACH_THREAD * max(0, num_threads - 2)


def threads() -> int:
    """How many threads torch's work is shared by."""
    cores, given = os.cpu_count() or 1, os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(given)) if given.isdecimal() else cores
