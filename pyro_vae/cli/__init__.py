"""The command line: one module for each command, which reads arguments and prints results.

Nothing is computed here. A mistake of the user ends in one line and exit code 2.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from pyro_vae.cli import compare, evaluate, impute, inspect, report, sample, train
from pyro_vae.cli.options import as_options, one_line_warning
from pyro_vae.evaluation.scores import versions
from pyro_vae.ranks.group import Group
from pyro_vae.ranks.launch import joined
from pyro_vae.runtime.memory import enough_memory
from pyro_vae.training.history import TrainingDiverged
from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["main"]

SMALLER = "lower the sizes that it was given, of the data, the draws or the networks"

COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (train, evaluate, compare, sample, impute, inspect, report)
}

SHARED = ("train", "evaluate")  # among the processes that torchrun starts


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for a user's mistake, or 130 if interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = one_line_warning
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with joined() as group:
            _run(argv, group)
            sys.stdout.flush()
        return 0
    except (InvalidInput, TrainingDiverged) as error:
        print(f"pyro-vae: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _close_output()
        return 0
    except OSError as error:  # a full disk behind the output, a name that is too long
        _close_output()
        place = "output" if error.filename is None else str(error.filename)
        failed = InvalidInput(
            f"{place[:200]}",
            got=error.strerror or str(error),
            expected="a file that can be read or written",
            fix="check the path, the permissions and the space that is left",
        )
        print(f"pyro-vae: {failed}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        said = "interrupted; what was saved is whole, and --resume continues from it"
        print(f"pyro-vae: {said}", file=sys.stderr)
        return 130


def _run(argv: list[str], group: Group | None) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
    elif argv[0] == "--version":
        print(versions()["pyro-vae"])
    else:
        check_choice("command", argv[0], COMMANDS)
        if group is not None and argv[0] not in SHARED:
            raise InvalidInput(
                "torchrun",
                got=f"{argv[0]} in {group.size} processes",
                expected=f"{' or '.join(SHARED)}, which share their work",
                fix=f"run pyro-vae {argv[0]} in one process",
            )
        with enough_memory(f"pyro-vae {argv[0]}", SMALLER):
            COMMANDS[argv[0]].run(as_options(argv[1:]))


def _close_output() -> None:
    """Send what is left of the output nowhere, so that Python does not fail on it at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def usage() -> str:
    """The commands, each with the first line of its module."""
    docs = [(module.__doc__ or "").strip().rstrip(".") for module in COMMANDS.values()]
    lines = [f"  {call:<21} {purpose}" for call, purpose in (doc.split(": ", 1) for doc in docs)]
    end = "pyro-vae COMMAND --help lists a command's options."
    return "\n".join(["usage: pyro-vae COMMAND ...", "", *lines, "", end])
