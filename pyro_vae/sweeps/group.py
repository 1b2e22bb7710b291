"""One command in several processes of a Ray cluster, which share its work as under torchrun."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pyro_vae.sweeps.engines import Ray
from pyro_vae.sweeps.trial import last_words
from pyro_vae.sweeps.worker import run_commands
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["run_in_group"]

Said = tuple[int, str]  # an exit code, and what was printed


def run_in_group(engine: Ray, command: Sequence[str], processes: int) -> str:
    """Run a command in processes that find one another; if one is lost, all start again.

    Args:
        engine: the cluster, and the processors and GPUs of each process.
        command: what follows ``pyro-vae``.
        processes: how many.

    Returns:
        What the first of them printed.

    Raises:
        InvalidInput: if the command fails, or has been lost too often.
    """
    check_count("processes", processes)
    with engine.connected() as ray:
        from ray.util import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        size = {"CPU": engine.cpus, **({"GPU": engine.gpus} if engine.gpus else {})}
        room = ray.cluster_resources()
        if any(room.get(name, 0) < processes * each for name, each in size.items()):
            raise InvalidInput(
                "processes",
                got=f"{processes} of {engine.cpus} CPUs and {engine.gpus:g} GPUs each, in a "
                f"cluster of {room.get('CPU', 0):.0f} CPUs and {room.get('GPU', 0):.0f} GPUs",
                expected="room for all of them at once",
                fix="lower --processes",
            )
        places = placement_group([size] * processes, strategy="PACK")
        try:
            ray.get(places.ready())

            def task(function, rank: int):
                where = PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=rank)
                return ray.remote(function).options(
                    num_cpus=engine.cpus,
                    num_gpus=engine.gpus,
                    max_retries=0,
                    scheduling_strategy=where,
                )

            for _ in range(engine.retries + 1):
                host, port = ray.get(task(_meeting_place, 0).remote())
                shared = {
                    "MASTER_ADDR": host,
                    "MASTER_PORT": str(port),
                    "LOCAL_RANK": "0",
                    "WORLD_SIZE": str(processes),
                    "OMP_NUM_THREADS": str(engine.cpus),
                }
                started = [
                    task(_run, rank).remote(
                        list(command), Path.cwd(), {**shared, "RANK": str(rank)}
                    )
                    for rank in range(processes)
                ]
                found = [_answer(ray, reference) for reference in started]
                if all(code == 0 for code, _ in found):
                    return found[0][1]
                if all(code in (0, 2) for code, _ in found):
                    break  # a mistake, which another attempt would repeat
        finally:
            remove_placement_group(places)
    lines = [line for line in (last_words(said) for _, said in found) if line]
    raise InvalidInput(lines[0] if lines else f"engine: the processes ended with {found}")


def _meeting_place() -> tuple[str, int]:
    """This machine's address and a port that is free on it."""
    import ray.util

    with socket.socket() as open_for_now:
        open_for_now.bind(("", 0))
        return ray.util.get_node_ip_address(), open_for_now.getsockname()[1]


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Said:
    with tempfile.TemporaryFile() as output:
        os.environ.pop("TORCHELASTIC_RESTART_COUNT", None)
        code = run_commands([command], output, folder, environment)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _answer(ray, reference) -> Said:
    """What a process came to; the code -1 where it or its machine was lost."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return -1, f"pyro-vae: engine: {' '.join(str(error).split())[:200]}"
