"""Run tests, benchmarks and published results on a GPU, all within ten minutes.

    python experiments/gpu/run.py FOLDER [ROW ...]

Each part has a share of the time. A part that fails or runs out of time is written down as such,
and the next one starts. With names of rows of ``experiments/results/rows.json``, all the time goes
to those rows: an unfinished run is packed into FOLDER, and the next call continues from that
archive if it is carried along. `run.sh` sets the paths.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch

from pyro_vae import checkpoint

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE.parent / "results"
SHORT = not torch.cuda.is_available()  # a dry run of the same parts
SECONDS, TO_FINISH = 540, 60  # of the whole, of which this much is for scoring and packing
CASES = (
    ["digits"]
    if SHORT
    else [
        "mlp-128",
        "digits",
        "IWAE-50",
        "VampPrior",
        "convolutional",
        "mlp-1024",
        "importance sampling",
    ]
)


class Clock:
    """What is left of the ten minutes."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def left(self, most: float = SECONDS, keep: float = 0.0) -> float:
        """Seconds for a part that may take ``most`` and has to leave ``keep``, at least one."""
        return max(1.0, min(most, SECONDS - keep - (time.monotonic() - self.start)))


def part(name: str, seconds: float, arguments: list[str]) -> dict:
    """Run a part as a process of its own; return what it printed and how it ended.

    Whatever the part started ends with it.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=seconds)
        status = "done" if process.returncode == 0 else f"failed ({process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        status, (text, _) = "out of time", process.communicate()
    print(f"{name}: {status}, {time.monotonic() - start:.0f} s\n{text[-3000:]}", flush=True)
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "output": text}


def published(out: Path, runs: Path, names: list[str], clock: Clock) -> dict[str, dict]:
    """Continue the runs of published rows as far as the time goes; score and pack them."""
    rows = {row["name"]: row for row in json.loads((RESULTS / "rows.json").read_text())}
    found = {}
    for name in names:
        row, folder = rows[name], runs / f"{name}-{rows[name]['seeds'][0]}"
        trained = part(
            name,
            clock.left(150 if SHORT else SECONDS, keep=TO_FINISH),
            [str(RESULTS / "run.py"), str(runs), name],
        )
        history = (
            list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
            if (folder / "metrics.csv").exists()
            else []
        )
        if not history:
            found[name] = {
                "what": row["what"],
                "status": trained["status"],
                "output": trained["output"][-500:],
            }
            continue
        part(
            f"{name}, scored",
            clock.left(),
            [
                "-m",
                "pyro_vae",
                "evaluate",
                str(folder),
                "--num-samples",
                "100" if SHORT else "5000",
                "--limit",
                "20" if SHORT else "1000",
            ],
        )
        evaluation = folder / "evaluation.json"
        scores = json.loads(evaluation.read_text()) if evaluation.exists() else {}
        if trained["status"] != "done":
            evaluation.unlink(missing_ok=True)  # by which a run that is done is known
        log_p = scores.get("log_likelihood", {})
        seconds = [float(line["seconds"]) for line in history]
        found[name] = {
            "what": row["what"],
            "status": trained["status"],
            "epochs": len(history),
            "seconds": seconds[-1],
            "seconds of the last epoch": round(
                seconds[-1] - (seconds[-2] if len(seconds) > 1 else 0.0), 3
            ),
            "log p(x)": log_p.get("mean"),
            "s.e. over data": log_p.get("se"),
            "K": log_p.get("num_samples"),
            "data": scores.get("num_data"),
            "published": row["published"],
        }
        with tarfile.open(out / f"{folder.name}.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
    return found


def table(rows: list[dict]) -> list[str]:
    """A Markdown table of dictionaries, whose keys are its columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "output"))
    shown = [
        [
            f"{row.get(key):.5g}" if isinstance(row.get(key), float) else str(row.get(key, ""))
            for key in columns
        ]
        for row in rows
    ]
    return [
        "",
        *(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *shown)),
    ]


def main(out: Path, names: list[str]) -> None:
    clock, runs = Clock(), Path(os.environ.get("RUNS", out / "runs"))
    out.mkdir(parents=True, exist_ok=True)
    found: dict = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: a dry run",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "parts": {},
    }
    if not names:
        found["parts"]["tests"] = part(
            "tests",
            clock.left(180),
            [
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-o",
                "addopts=",
                "-n",
                "6",
                "tests/training/test_cuda.py",
            ],
        )
        found["parts"]["benchmarks"] = part(
            "benchmarks",
            clock.left(300 if SHORT else 230),
            [
                "experiments/benchmarks/steps.py",
                "--out",
                str(out),
                "--rounds",
                "3" if SHORT else "10",
                "--cases",
                *CASES,
            ],
        )
        if (out / "steps.json").exists():
            found["steps"] = json.loads((out / "steps.json").read_text())
    if RESULTS.exists():
        found["published"] = published(out, runs, names or ["iwae_5"], clock)
    checkpoint.write_text(out / "gpu.json", json.dumps(found, indent=1) + "\n")
    lines = [
        f"{found['gpu']}, torch {found['torch']}, CUDA {found['cuda']}, Python "
        f"{found['python']}, {found['cores']} cores"
    ]
    if found["parts"]:
        lines += table([{"part": name, **row} for name, row in found["parts"].items()])
    lines += ["", (out / "steps.md").read_text()] if (out / "steps.md").exists() else []
    if found.get("published"):
        lines += table([{"row": name, **row} for name, row in found["published"].items()])
    (out / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
