"""``python -m pyro_vae`` is ``pyro-vae``; both start here, before anything heavy is imported."""

import io
import os
import sys
from pathlib import Path
from typing import Any


class Notes(io.FileIO):
    """A stream for notes and bars: it drops what has no room, so that nobody's work ends on one."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


SPINS = "10000"  # some tens of microseconds


def let_threads_sleep() -> None:
    """Let a thread that waits for the others sleep soon, unless the user says otherwise.

    GNU's OpenMP, which torch's threads are, spins thirty times as long. Beside other work it then
    spins on the very core that the thread it waits for needs, and a step takes fourteen times as
    long. It reads this when torch is imported.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def main() -> int:
    """Run a command; an interrupt while its libraries are imported is one line, too."""
    if type(sys.stderr) is io.TextIOWrapper:
        raw = io.BufferedWriter(Notes(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, line_buffering=True)
    for name in ("stdin", "stdout", "stderr"):
        if vars(sys)[name] is None:  # it was closed, and no file of ours must take its number
            nowhere = os.open(os.devnull, os.O_RDWR)
            vars(sys)[name] = os.fdopen(nowhere, "r" if name == "stdin" else "w")
    let_threads_sleep()
    try:
        from pyro_vae.cli import main as run
        from pyro_vae.cli.interrupts import ended_by_signals

        with ended_by_signals():
            return run()
    except KeyboardInterrupt:
        print("pyro-vae: interrupted before anything was done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    # Python looks in the working folder first. From here on, only for what the user names there.
    if sys.path[:1] == [os.getcwd()] and Path(__file__).parents[1] != Path(sys.path[0]):
        del sys.path[0]
    sys.exit(main())
