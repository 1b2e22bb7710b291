"""Signals that end a command as one line: Ctrl-C, and what supervisors send."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["SAID", "Terminated", "code_of", "ended_by_signals"]


SAID = (
    "interrupted; what was saved is whole: train --resume or the same sweep goes on, "
    "any other command starts anew"
)


class Terminated(KeyboardInterrupt):
    """The process was told to end, by SIGTERM."""


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal has ended: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise at the first signal, end at once at a second, ignore those that come at the end.

    Files are whole at every moment, so that ending at once loses none. Processes of torchrun leave
    SIGTERM alone: torchrun sends it to all of them when one has failed, which has said why.
    """
    ends = [signal.SIGINT]
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        ends.append(signal.SIGTERM)
    for number in ends:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets it for its jobs
            signal.signal(number, _raise)
    sys.unraisablehook = _raise_again
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is _raise:
            signal.signal(each, _end)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _end(number: int, frame: FrameType | None = None) -> None:
    os._exit(128 + number)


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """End where an interrupt came while an object was deleted, which no caller hears of."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        print(f"pyro-vae: {SAID}", file=sys.stderr, flush=True)
        os._exit(code_of(lost.exc_value))
    sys.__unraisablehook__(lost)
