"""Joining the processes that torchrun has started, and failing with one voice."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist

from pyro_vae.ranks.group import Group, PeerLost
from pyro_vae.validation import InvalidInput

__all__ = ["TIMEOUT", "is_restarted", "joined", "leave"]

TIMEOUT = "PYRO_VAE_TIMEOUT"  # environment variable: seconds to wait for another process


def is_restarted() -> bool:
    """Whether torchrun has started this process again, after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined() -> Iterator[Group | None]:
    """Join the group of processes that torchrun started, ``None`` for a process that is alone.

    The first process speaks for all. Where one fails, one of them says why, and all end.

    Raises:
        InvalidInput: where another process ended, or did not answer in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield None
        return
    seconds = float(os.environ.get(TIMEOUT, "300"))
    found, rank, size = next(dist.rendezvous("env://"))
    # Of each attempt its own: what is left of an earlier one in the store would be taken for new.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), found)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds)
    )
    group, voice = Group(rank, size), dist.PrefixStore("pyro_vae", store)
    try:
        with ExitStack() as quiet:
            if not group.is_first:
                nowhere = quiet.enter_context(os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
                quiet.enter_context(redirect_stdout(nowhere))
                quiet.enter_context(redirect_stderr(nowhere))
            yield group
    except PeerLost:
        time.sleep(2.0)  # the one that failed speaks first
        if not _may_speak(voice):
            sys.exit(2)
        raise InvalidInput(
            "torchrun",
            got=f"another process that ended, or gave no answer for {seconds:.0f} s",
            expected=f"all {size} processes of the group",
            fix="run it again with --resume, or start it with torchrun --max-restarts: it goes on "
            f"from its last checkpoint; {TIMEOUT} sets how long to wait",
        ) from None
    except Exception:
        if not _may_speak(voice):
            sys.exit(2)
        raise
    leave()


def leave() -> None:
    """Leave the group, once there is nothing left to share."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _may_speak(voice: dist.Store) -> bool:
    """Whether no other process has said why it failed."""
    try:
        return voice.add("spoken", 1) == 1
    except RuntimeError:  # the process that kept the store has ended
        return True
