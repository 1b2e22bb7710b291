"""One call in a forked child, watched: what it runs, opens, sends, and how much memory it takes.

Python's audit events are kept, so that code which runs is seen whatever it does. A fork of a warmed
process takes milliseconds, and what one mutated file does to a process meets no other file.
"""

import json
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pyro_vae.validation import InvalidInput

# Events of programs that are started, of pickles and of the network.
FORBIDDEN = re.compile(
    r"os\.(system|exec|posix_spawn|spawn|fork|forkpty|startfile)|subprocess\.|pty\.|pickle\.find_class"
    r"|socket\.(connect|bind|getaddrinfo|gethostbyname|sendto)|urllib\.|ftplib\.|http\.|smtplib\."
    r"|webbrowser\.|ctypes\.dlopen"
)
# Events of names that are written, whose first argument is the path.
WRITES = re.compile(r"os\.(remove|rename|rmdir|mkdir|link|symlink|truncate|chmod|chown)|shutil\.")
ROOM = 6 * 2**30  # of addresses, so that a fault here does not end other work on the machine
SECONDS = 120


@dataclass
class Seen:
    """What a watched call did.

    ``words`` is the one line of an `InvalidInput`; ``failed`` any other error, with its place;
    ``events`` what it must not have done; ``peak`` its largest memory in bytes; ``code`` what its
    process ended with.
    """

    words: str = ""
    failed: str = ""
    events: list[str] = field(default_factory=list)
    peak: int = 0
    code: int = 0
    seconds: float = 0.0

    @property
    def wrong(self) -> str:
        """What is wrong with it; nothing if all is well."""
        if self.code:
            return f"the process ended with {self.code}"
        lines = f"several lines: {self.words}" if "\n" in self.words else ""
        much = f"{self.peak / 2**30:.1f} GB" if self.peak > 2 * 2**30 else ""
        return self.failed or lines or "; ".join(self.events) or much


KEYS = str(Path.home() / ".ssh")  # what a file must not make us read


def watched(work: Callable[[], object], folder: Path) -> Seen:
    """Call ``work`` in a child, which may write inside ``folder`` only."""
    start, (reader, writer) = time.monotonic(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside other threads
        child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _child(work, folder, writer)
        finally:
            os._exit(71)
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read()
    _, status = os.waitpid(child, 0)
    seen = Seen(**json.loads(said)) if said else Seen()
    seen.code, seen.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - start
    return seen


def _child(work, folder, writer):
    seen = Seen()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the parent is not the child's
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w")
    sys.addaudithook(_Watch(folder, seen.events))
    try:
        work()
    except InvalidInput as error:
        seen.words = str(error)
    except BaseException as error:
        seen.failed = f"{type(error).__name__}: {str(error)[:150]} at {_place(error)}"
    seen.peak = _status("VmHWM")
    seen.events = [*dict.fromkeys(seen.events)][:5]
    os.write(writer, json.dumps(vars(seen)).encode())
    os._exit(0)


def _status(name):
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024


def _place(error):
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "pyro_vae/" in f.filename]
    last = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename.rpartition('pyro_vae/')[2]}:{last.lineno}"


class _Watch:
    """An audit hook that notes what a reader must never do."""

    def __init__(self, folder, events):
        self.folder, self.events = str(folder), events
        self.thread = threading.get_ident()

    def __call__(self, event, args):
        if FORBIDDEN.match(event):
            self.events.append(f"{event} {str(args)[:120]}")
        elif event == "import" and str(args[0]).split(".")[0] in ("trap", "antigravity", "this"):
            self.events.append(f"import {args[0]}")
        elif event == "open" and isinstance(args[0], str | bytes):
            self._opened(*args)
        elif WRITES.match(event):
            self._written(event, args[0])

    def _opened(self, path, mode, flags):
        name = os.path.abspath(os.fsdecode(path))
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
            self._written("open to write", name)
        elif name in ("/etc/passwd", "/etc/shadow") or name.startswith(KEYS):
            self.events.append(f"read {name}")

    def _written(self, event, path):
        name = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes) else str(path)
        allowed = (self.folder, "/dev/null", "/dev/shm/", "/proc/self/")
        if not isinstance(path, int) and not name.startswith(allowed):
            self.events.append(f"{event} {name[:120]}")
