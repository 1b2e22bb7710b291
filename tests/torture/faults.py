"""Processes that are killed, or find the disk full, at a given file operation.

A fault is installed in a forked child, so that nothing is imported again. Every operation of ``os``
that the writer, the locks and `pathlib` use counts, if it concerns a folder; so does every opening
of a file for writing anywhere else in Python.
"""

import builtins
import errno
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ON_PATHS = ("open", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "truncate")
ON_FILES = ("write", "fsync", "ftruncate")
FILL = {"open", "write", "fsync", "mkdir", "link", "opened"}  # what fails where a disk is full


@dataclass
class Fault:
    """What the n-th operation under a folder meets: ``kill``, ``full``, ``readonly`` or nothing."""

    folder: Path
    kind: str = "count"
    at: int = -1
    done: int = 0

    def install(self):
        for name in ON_PATHS:
            setattr(os, name, self._counted(name, getattr(os, name), self._is_under))
        for name in ON_FILES:
            setattr(os, name, self._counted(name, getattr(os, name), self._is_open_under))
        opened = self._counted("opened", io.open, self._is_written_under)
        io.open = builtins.open = opened

    def _counted(self, name, real, concerns):
        def call(*args, **options):
            if not concerns(*args, **options):
                return real(*args, **options)
            if name == "open" and not (args[1] if len(args) > 1 else 0) & (os.O_WRONLY | os.O_RDWR):
                return real(*args, **options)
            at, self.done = self.done, self.done + 1
            if self.kind == "kill" and at == self.at:
                if name == "write":  # half of it is there
                    real(args[0], bytes(args[1])[: max(1, len(args[1]) // 2)])
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "full" and at >= self.at and name in FILL:
                if name == "write" and at == self.at:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.kind == "readonly":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(*args, **options)

        return call

    def _is_under(self, path, *args, **options):
        return not isinstance(path, int) and str(self.folder) in os.path.abspath(os.fsdecode(path))

    def _is_open_under(self, descriptor, *args, **options):
        try:
            return str(self.folder) in os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return False

    def _is_written_under(self, path, mode="r", *args, **options):
        return set(mode) & set("wax+") and self._is_under(path)


@dataclass
class Ended:
    """How a child ended: its exit code, minus the signal that killed it, and what it printed."""

    code: int
    words: str
    operations: int

    def check(self, *codes):
        assert "Traceback" not in self.words and self.code in codes, (self.code, self.words)


def forked(work, fault, scratch, after=None, by=signal.SIGKILL):
    """Run ``work()`` in a forked child under a fault; ``after`` seconds it gets a signal."""
    out, count = scratch / "child.out", scratch / "child.count"
    count.write_text("-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside other threads
        child = os.fork()
    if child == 0:
        _child(work, fault, out, count)
    if after is not None:
        _kill_after(child, after, by)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, out.read_text(errors="replace"), int(count.read_text() or -1))


def _kill_after(child, seconds, by):
    def kill():
        with suppress(ProcessLookupError):
            os.kill(child, by)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()


def _child(work, fault, out, count):
    code = 70
    try:
        signal.alarm(120)
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        counter, write = os.open(count, os.O_WRONLY | os.O_TRUNC), os.write
        fault.install()
        code = work()
        write(counter, str(fault.done).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
