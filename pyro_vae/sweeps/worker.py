"""A process for commands, which ends at once when the one that started it does, however that was.

``python -m pyro_vae.sweeps.worker COMMANDS``, which are JSON, is that process: the pipe between the
two closes when either is gone.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pyro_vae.files.elsewhere import environment_elsewhere

__all__ = ["main", "run_commands"]

ABANDONED = 75  # the exit code; nobody is left to see it


def run_commands(
    commands: Sequence[Sequence[str]],
    output: IO[bytes],
    folder: Path,
    environment: Mapping[str, str],
    given_up: threading.Event | None = None,
) -> int:
    """Run commands of the command line in a process of their own, until one fails.

    Args:
        commands: what follows ``pyro-vae``, one after another.
        output: the file to which they print.
        folder: where they run.
        environment: what the process has in its environment besides this one's.
        given_up: set where it is to be ended.

    Returns:
        The exit code, or minus the signal that killed it.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_vae.sweeps.worker", json.dumps(commands)],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, **environment_elsewhere(), **environment},
    )
    try:
        while given_up is None or not given_up.is_set():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(None if given_up is None else 0.5)
        return -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Run commands until one fails."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    for command in json.loads(sys.argv[1]):
        sys.argv = ["pyro-vae", *command]
        try:
            runpy.run_module("pyro_vae", run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise


def _end_with_the_parent() -> None:
    while os.read(0, 1):  # nothing is written to the pipe: this waits for its end
        pass
    os._exit(ABANDONED)


if __name__ == "__main__":
    main()
