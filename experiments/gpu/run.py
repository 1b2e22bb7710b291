"""The GPU run: tests, benchmark table, and published results that fit, each part given its share of ten minutes.

    python experiments/gpu/run.py FOLDER

A part that fails or runs out of time is written down as such, and the next one starts. `run.sh` sets the paths.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SHORT = not torch.cuda.is_available()  # a dry run of the same parts


def part(name: str, seconds: int, arguments: list[str]) -> dict:
    """Runs a part as a process of its own; what it printed, and how it ended."""
    start = time.perf_counter()
    try:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=seconds, cwd=HERE.parent.parent)
        status, text = "done" if done.returncode == 0 else f"failed ({done.returncode})", done.stdout + done.stderr[-2000:]
    except subprocess.TimeoutExpired as error:
        status, text = "out of time", (error.stdout or b"").decode()
    print(f"{name}: {status}, {time.perf_counter() - start:.0f} s\n{text[-3000:]}", flush=True)
    return {"status": status, "seconds": round(time.perf_counter() - start, 1), "output": text}


def published(out: Path) -> None:
    """The IWAE recipe, 784-200-200-50 with tanh at batch 20, as far as its time goes, with the seconds for an epoch."""
    import pyro_vae as pv

    train, test = pv.datasets.load("mnist")
    if SHORT:
        train, test = train[:2000], test[:20]
    tanh = {"activation": torch.nn.Tanh}
    program = pv.VAE(pv.priors.StandardNormal(50), pv.likelihoods.Bernoulli((1, 28, 28), pv.networks.MLP(50, [200, 200], **tanh)),
                     pv.posteriors.DiagonalNormal(50, pv.networks.MLP((1, 28, 28), [200, 200], **tanh)))
    epochs, rows = (1 if SHORT else 40), {}
    history = pv.fit(program, train, objective=pv.objectives.IWAE(num_particles=5), epochs=epochs, batch_size=20, progress=False,
                     compile="auto" if SHORT else "on")
    seconds = history["seconds"]
    rows["IWAE recipe, k = 5"] = {"epochs": epochs, "seconds of the last epoch": seconds[-1] - (seconds[-2] if epochs > 1 else 0)}
    samples = 100 if SHORT else 5000
    weights = pv.evaluation.importance_weights(program, test[:1000], samples).double()  # Pareto k would need ArviZ
    scores = weights.logsumexp(0) - math.log(samples)
    rows["IWAE recipe, k = 5"] |= {"log p(x)": scores.mean().item(), "standard error": scores.std().item() / len(scores)**0.5,
                                   "num_samples": samples, "reference after 3,280 epochs": -85.54}
    (out / "published.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    cases = ["digits"] if SHORT else ["digits", "mlp-128", "mlp-1024", "convolutional", "VampPrior", "IWAE-50", "importance sampling"]
    found: dict = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
                   "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "cores": os.cpu_count()}
    found["parts"] = {
        "tests": part("tests", 150, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "tests/test_cuda.py"]),
        "benchmarks": part("benchmarks", 210, ["experiments/benchmarks/steps.py", "--out", str(out), "--rounds", "3" if SHORT else "10",
                                               "--cases", *cases]),
        "published": part("published", 200, [str(HERE / "run.py"), str(out), "--published"]),
    }
    for name in ("steps", "published"):
        if (out / f"{name}.json").exists():
            found[name] = json.loads((out / f"{name}.json").read_text())
    (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [f"{found['gpu'] or 'no GPU: a dry run'}, torch {found['torch']}, CUDA {found['cuda']}, Python {found['python']}", "",
             "| part | status | seconds |", "|---|---|---|"]
    lines += [f"| {name} | {row['status']} | {row['seconds']} |" for name, row in found["parts"].items()]
    for table in (out / "steps.md",):
        lines += ["", table.read_text()] if table.exists() else []
    for name, row in found.get("published", {}).items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    (out / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    published(Path(sys.argv[1])) if "--published" in sys.argv else main(Path(sys.argv[1]))
