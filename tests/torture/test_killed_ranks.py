"""Processes of torchrun that are killed, mistaken or silent: all end with one line, or go on.

The long form: ``pytest -n 0 -s -m torture tests/torture/test_killed_ranks.py``.
"""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.torture

SIZES = ["--latent", "2", "--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]
TRAIN = ["train", *SIZES, "--compile", "off", "--limit", "5", "--num-samples", "5"]
KILLS = 10


def torchrun(*command: str, restarts: int = 0, seconds: int = 60) -> subprocess.Popen[str]:
    engine = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    processes = ["--nproc-per-node", "2", "--max-restarts", str(restarts), "-m", "pyro_vae"]
    return subprocess.Popen(
        [*engine, *processes, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYRO_VAE_TIMEOUT": str(seconds), "OMP_NUM_THREADS": "1"},
    )


def ranks_of(engine: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children")
    return [int(child) for child in children.read_text().split()]


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.2)


def lines_of_ours(said: str) -> list[str]:
    return re.findall(r"^pyro-vae: .*", said, re.MULTILINE)


def objectives(folder: Path) -> list[str]:
    with open(folder / "metrics.csv") as file:
        return [row["objective"] for row in csv.DictReader(file)]


def test_a_killed_process_is_started_again_and_all_go_on_to_the_same_numbers(tmp_path):
    command = [*TRAIN, "--epochs", "60"]
    whole = torchrun(*command, "--out", str(tmp_path / "whole"))
    whole.communicate()
    assert whole.returncode == 0
    random.seed(0)
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        engine = torchrun(*command, "--out", str(folder), restarts=2)
        wait_for(folder / "metrics.csv")
        time.sleep(random.uniform(0, 8))
        if engine.poll() is None and (ranks := ranks_of(engine)):
            os.kill(random.choice(ranks), signal.SIGKILL)
        said, _ = engine.communicate()
        assert engine.returncode == 0, said
        assert objectives(folder) == objectives(tmp_path / "whole")


def test_a_mistake_is_said_once(tmp_path):
    engine = torchrun(*TRAIN, "--prior", "Nothing", "--out", str(tmp_path / "run"))
    said, _ = engine.communicate()
    assert engine.returncode != 0
    (line,) = lines_of_ours(said)
    assert line.startswith("pyro-vae: prior: got 'Nothing'")


def test_a_process_that_hangs_ends_all_within_the_time_allowed(tmp_path):
    engine = torchrun(*TRAIN, "--epochs", "500", "--out", str(tmp_path / "run"), seconds=15)
    wait_for(tmp_path / "run" / "metrics.csv")
    time.sleep(5)
    os.kill(ranks_of(engine)[1], signal.SIGSTOP)
    start = time.monotonic()
    said, _ = engine.communicate(timeout=120)
    assert engine.returncode != 0 and time.monotonic() - start < 60
    (line,) = lines_of_ours(said)
    assert "gave no answer for 15 s" in line


@pytest.mark.parametrize("command", ["report", "inspect"])
def test_what_cannot_be_shared_is_refused(command, tmp_path):
    said, _ = torchrun(command, str(tmp_path)).communicate()
    (line,) = lines_of_ours(said)
    assert f"got {command} in 2 processes" in line


def ours(*command: str, processes: int = 2) -> subprocess.Popen[str]:
    """Processes that the command itself starts."""
    words = [sys.executable, "-m", "pyro_vae", *command, "--processes", str(processes)]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_mistake_in_processes_that_the_command_starts_is_one_line_and_nothing_else(tmp_path):
    said, _ = ours(*TRAIN, "--prior", "Nothing", "--out", str(tmp_path / "run")).communicate()
    (line,) = said.splitlines()
    assert line.startswith("pyro-vae: prior: got 'Nothing'")


def test_a_process_of_ours_that_is_killed_is_one_line_and_the_run_goes_on(tmp_path):
    command = [*TRAIN, "--epochs", "60", "--out", str(tmp_path / "run")]
    engine = ours(*command)
    wait_for(tmp_path / "run" / "metrics.csv")
    os.kill(ranks_of(engine)[1], signal.SIGKILL)
    said, _ = engine.communicate()
    (line,) = lines_of_ours(said)
    assert engine.returncode == 2 and "process 1, which was killed by SIGKILL" in line
    assert said.rstrip().endswith(line) and "Traceback" not in said
    again = ours(*command, "--resume")
    again.communicate()
    assert again.returncode == 0 and len(objectives(tmp_path / "run")) == 60
