"""The command line: one module for each command, which reads arguments and prints results.

Nothing is computed here. A mistake of the user ends in one line and exit code 2. Help, the version
and a wrong command are answered before torch is imported.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import pyro_vae
from pyro_vae.cli.address_space import check_address_space, too_little_memory
from pyro_vae.cli.help import COMMANDS, HELP, stored, usage
from pyro_vae.cli.interrupts import SAID, code_of
from pyro_vae.files.elsewhere import elsewhere
from pyro_vae.validation import InvalidInput, check_choice, printable

__all__ = ["main"]

SMALLER = "lower the sizes that it was given, of the data, the draws or the networks"


NO_MEMORY = re.compile("failed to map segment|annot allocate memory")  # for a library

SHARED = ("train", "evaluate")  # among the processes that torchrun starts
TRAINING = ("train", "sweep")  # all others take a program as it was trained
ELSEWHERE = (*TRAINING, "pull", "compare", "export")  # these write to another place than a RUN


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for a user's mistake, 130 if interrupted, 143 if terminated."""
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = one_line_warning
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _run(argv)
        sys.stdout.flush()
        return 0
    except InvalidInput as error:
        _say(error)
        return 2
    except BrokenPipeError:
        _close(sys.stdout)
        return 0
    except OSError as error:  # a full disk behind the output, a name that is too long
        _close(sys.stdout)
        place = "output" if error.filename is None else str(error.filename)
        failed = InvalidInput(
            f"{place[:200]}",
            got=error.strerror or str(error),
            expected="a file that can be read or written",
            fix="check the path, the permissions and the space that is left",
        )
        _say(failed)
        return 2
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and not NO_MEMORY.search(str(error)):
            raise
        command = " ".join(["pyro-vae", *argv[:1]])
        _say(too_little_memory(f"less than the libraries of {command} take"))
        return 2
    except KeyboardInterrupt as error:
        _say(SAID)
        return code_of(error)


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in HELP:
        print(usage())
    elif argv[0] == "--version":
        print(pyro_vae.__version__)
    else:
        check_choice("command", argv[0], COMMANDS)
        text = stored(argv)
        if text is None:
            _run_command(*argv)
        else:
            print(text)


def _run_command(name: str, *argv: str) -> None:
    """Run a command; only now is what it needs imported."""
    say_if_slow()
    check_address_space(f"pyro-vae {name}")
    with elsewhere():
        module = importlib.import_module(f"pyro_vae.cli.{name}")
        from pyro_vae.checkpoint import CannotWrite
        from pyro_vae.cli.options import as_options
        from pyro_vae.ranks.launch import joined
        from pyro_vae.runtime.fitting import OutsideSupport
        from pyro_vae.runtime.memory import enough_memory
        from pyro_vae.training.history import TrainingDiverged

    try:
        with enough_memory(f"pyro-vae {name}", SMALLER), joined() as group:
            if group is not None and name not in SHARED:
                raise InvalidInput(
                    "torchrun",
                    got=f"{name} in {group.size} processes",
                    expected=f"{' or '.join(SHARED)}, which share their work",
                    fix=f"run pyro-vae {name} in one process",
                )
            module.run(as_options(argv))
            sys.stdout.flush()
    except TrainingDiverged as error:
        raise InvalidInput(str(error)) from error
    except CannotWrite as error:
        raise _unwritable(name, argv, error) from error
    except OutsideSupport as error:
        if name in TRAINING:
            raise
        raise InvalidInput(
            error.argument,
            got=error.got,
            expected=f"{error.expected}, as the run's data are",
            fix="bring the data to such values, or train a run on them (pyro-vae train)",
        ) from None


def _unwritable(name: str, argv: Sequence[str], error: InvalidInput) -> InvalidInput:
    """What is said where a command cannot write: the advice that its own options allow."""
    is_in_run = name not in ELSEWHERE and all(word.partition("=")[0] != "--out" for word in argv)
    if is_in_run:
        argument, fix = "run", "free some space, or copy the run to where you may write"
        fix += " and name that copy"
        fix += ", or pass --out" if name in ("sample", "impute") else ""
        fix += "; what was there before is whole"
    else:
        argument, fix = error.argument, error.fix or ""
        fix += ", and --resume goes on from it" if name == "train" else ""
    return InvalidInput(argument, got=error.got, expected=error.expected, fix=fix)


def say_if_slow() -> None:
    """Say at a terminal why a start is slow, where Python may not keep what it compiles."""
    found = importlib.util.find_spec("torch")
    kept = found is None or found.cached is None or os.path.exists(found.cached)
    if sys.dont_write_bytecode and not kept and sys.stderr.isatty():
        print(
            "pyro-vae: PYTHONDONTWRITEBYTECODE is set, so Python compiles torch anew at every "
            "start; without it starts take a third of the time",
            file=sys.stderr,
        )


def _say(words: object) -> None:
    """Print why a command ends, where there is room for it."""
    try:
        print(f"pyro-vae: {words}", file=sys.stderr, flush=True)
    except OSError:
        _close(sys.stderr)


def _close(stream: TextIO) -> None:
    """Send what is left in a stream nowhere, so that Python does not fail on it at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning as one line, but hide deprecations inside libraries."""
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"pyro-vae: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)
