"""torchrun, with one line where it would print seventy.

``python -m pyro_vae.ranks.torchrun`` takes torchrun's own options. What fails says so itself, in
one line; the engine's log and traceback, which repeat it, are left out. Only of a process that was
killed, and so said nothing, is there a line here.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from pyro_vae.validation import InvalidInput

__all__ = ["launch", "main"]


def launch(options: Sequence[str]) -> int:
    """Start processes as torchrun does and wait for their end; return its exit code.

    Args:
        options: torchrun's, and then what each process runs.

    Raises:
        InvalidInput: where a process was killed more often than ``--max-restarts`` allows.
    """
    quiet_before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        run(parse_args(list(options)))
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if first.exitcode >= 0:
            return first.exitcode  # it has said why
        raise InvalidInput(
            "torchrun",
            got=f"process {first.local_rank}, which was killed by {_signal(-first.exitcode)}",
            expected="processes that run to their end",
            fix="run it again with --resume, or with --max-restarts 3: it goes on from its last "
            "checkpoint",
        ) from None
    except SignalException as interrupt:
        return 128 + int(interrupt.sigval)
    finally:
        logging.disable(quiet_before)
    return 0


def _signal(number: int) -> str:
    return signal.Signals(number).name


def main() -> int:
    """Run torchrun's command line."""
    try:
        return launch(sys.argv[1:])
    except InvalidInput as error:
        print(f"pyro-vae: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
