"""Commands whose work several processes share: the options that start these, and how they start."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from pyro_vae.cli.options import as_written, scan
from pyro_vae.files.elsewhere import environment_elsewhere
from pyro_vae.report.commands import without_flags
from pyro_vae.sweeps.engines import Ray
from pyro_vae.validation import InvalidInput, check_count

__all__ = [
    "FLAGS",
    "RAY_FLAGS",
    "add_process_arguments",
    "add_ray_arguments",
    "in_processes",
    "ray_of",
]

FLAGS = ("--processes", "--max_restarts")
RAY_FLAGS = ("--engine", "--address", "--cpus", "--gpus", "--retries")


def add_process_arguments(parser: ArgumentParser) -> None:
    """Add the options that say how many processes share the work."""
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="processes of this machine that share the work; for several machines see torchrun",
    )
    parser.add_argument(
        "--max_restarts",
        type=int,
        default=0,
        help="how often all start again after one was killed, from the last checkpoint",
    )


def add_ray_arguments(parser: ArgumentParser, each: str) -> None:
    """Add the options of a Ray cluster, and of each trial or process on it."""
    parser.add_argument("--engine", type=str, default="local", help="local, or ray for a cluster")
    parser.add_argument(
        "--address", type=str, default=None, help="the Ray cluster's; else $RAY_ADDRESS, else here"
    )
    parser.add_argument("--cpus", type=int, default=1, help=f"processors of each {each} on Ray")
    parser.add_argument("--gpus", type=float, default=0.0, help=f"GPUs of each {each} on Ray")
    parser.add_argument(
        "--retries", type=int, default=2, help=f"how often a {each} that is lost is run again"
    )


def ray_of(options: Namespace, jobs: int | None = None) -> Ray:
    """The cluster that options name."""
    return Ray(options.address, options.cpus, options.gpus, options.retries, jobs)


def in_processes(command: str, argv: Sequence[str]) -> bool:
    """Run a command in as many processes as its options ask for; False if that is this one alone.

    Raises:
        InvalidInput: if there are several already, or one of them was killed.
        SystemExit: if the command fails in them.
    """
    given = scan(argv, {name: 1 for name in FLAGS} | {"--resume": 0})
    numbers = [_number(name, given.get(name)) for name in FLAGS]
    processes, restarts = numbers
    check_count("processes", processes)
    check_count("max_restarts", restarts, minimum=0)
    if processes == 1:
        return False
    if "WORLD_SIZE" in os.environ:
        raise InvalidInput(
            "processes",
            got=f"{processes} in each process of torchrun",
            expected="one of the two",
            fix="leave --processes out, or torchrun",
        )
    from pyro_vae.ranks.torchrun import launch

    options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    sys.stdout.flush()
    words = as_written(without_flags(argv, FLAGS))
    own = os.environ.copy()
    os.environ.update(environment_elsewhere())  # which they inherit
    try:
        code = launch([*options, "-m", "pyro_vae", command, *words])
    finally:
        os.environ.clear()
        os.environ.update(own)
    if code:
        raise SystemExit(code)
    return True


def _number(name: str, text: str | None) -> int:
    default = 1 if name == "--processes" else 0
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(
            name[2:], got=repr(text), expected="an integer", fix=f"pass {name} 2"
        ) from None
