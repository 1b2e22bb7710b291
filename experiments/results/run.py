"""Train and score rows of `rows.json`, each seed in a folder of its own.

    python experiments/results/run.py RUNS NAME [NAME ...]

What is finished is not done again and what was interrupted is continued, so the command can be
repeated. A run's folder gets ``scores-I.json`` for each entry I of its row's ``scores``, and
``cost.json``: CPU seconds (user and system, all attempts together), wall-clock seconds and the
largest memory of training and of each score.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from pyro_vae import checkpoint

HERE = Path(__file__).resolve().parent
ROWS = {row["name"]: row for row in json.loads((HERE / "rows.json").read_text())}


def flags(values: dict) -> list[str]:
    """Write ``{"num_samples": 5}`` as ``--num_samples 5``; a true flag stands alone."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def trust(row: dict) -> list[str]:
    """Say that the row's parts of this folder may be imported."""
    return ["--trust", row["trust"]] if "trust" in row else []


def command(row: dict, seed: int, folder: str) -> list[str]:
    """Arguments of `pyro-vae` that train a row's run, as in the table.

    A row with a ``start`` goes on from the run of that row with the same seed, beside its own.
    """
    start = Path(folder).with_name(f"{row['start']}-{seed}") if "start" in row else None
    return [
        "train",
        f"experiments/results/{row['recipe']}",
        *row["options"],
        *(["--start", str(start)] if start else []),
        *trust(row),
        "--seed",
        str(seed),
        "--out",
        folder,
    ]


def spend(folder: Path, part: str, arguments: list[str]) -> None:
    """Run `pyro-vae` and add its cost to the part's earlier cost."""
    path = folder / "cost.json"
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_vae", *arguments], cwd=HERE.parent.parent
    )
    _, status, used = os.wait4(process.pid, 0)  # the usage of that process and its own children
    costs = json.loads(path.read_text()) if path.exists() else {}
    past = costs.get(part, {"cpu_seconds": 0.0, "seconds": 0.0, "memory_mb": 0.0})
    costs[part] = {
        "cpu_seconds": round(past["cpu_seconds"] + used.ru_utime + used.ru_stime, 1),
        "seconds": round(past["seconds"] + time.monotonic() - start, 1),
        "memory_mb": round(max(past["memory_mb"], used.ru_maxrss / 1024)),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(path, json.dumps(costs, indent=1) + "\n")
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))


def train(row: dict, seed: int, runs: Path) -> Path:
    """Do what is left to do of the training of a row's run with one seed; its folder."""
    folder = (runs / f"{row['name']}-{seed}").resolve()
    if "start" in row:
        train(ROWS[row["start"]], seed, runs)
    if not (folder / "evaluation.json").exists():
        resume = ["--resume"] if (folder / "training.json").exists() else []
        spend(
            folder,
            "training",
            [*command(row, seed, str(folder)), "--num_samples", "1", "--limit", "1", *resume],
        )
    return folder


def run(row: dict, seed: int, runs: Path) -> None:
    """Do what is left to do of a row's run with one seed."""
    folder = train(row, seed, runs)
    for index, score in enumerate(row["scores"]):
        target = folder / f"scores-{index}.json"
        if not target.exists():
            spend(folder, f"score {index}", ["evaluate", str(folder), *flags(score), *trust(row)])
            shutil.copy(folder / "evaluation.json", target)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not set(sys.argv[2:]) <= {*ROWS}:
        raise SystemExit(f"{__doc__}\nThe rows: {', '.join(ROWS)}")
    for name in sys.argv[2:]:
        for seed in ROWS[name]["seeds"]:
            run(ROWS[name], seed, Path(sys.argv[1]))
