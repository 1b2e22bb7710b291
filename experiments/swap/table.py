"""Train and score every prior with every posterior on MNIST, all with one recipe and budget.

    python experiments/swap/table.py RUNS

Prints the table. Finished runs are not run again, so the command can be interrupted and repeated.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.report.run_files import is_bound

RECIPE = Path(__file__).with_name("swap.yaml")
PRIORS = {
    "StandardNormal": [],
    "Laplace": [],
    "StudentT": [],
    "GaussianMixture": ["--prior.components", "100"],
    "VampPrior": ["--prior.components", "100"],
    "Flow": [],
}
POSTERIORS = ["DiagonalNormal", "LowRankNormal", "FullRankNormal"]


def run(folder: Path, prior: str, posterior: str) -> dict:
    """Scores of one run, which is trained first if it was not yet."""
    if not (folder / "evaluation.json").exists():
        resume = ["--resume"] if (folder / "training.json").exists() else []
        code = main(
            [
                "train",
                str(RECIPE),
                "--prior",
                prior,
                *PRIORS[prior],
                "--posterior",
                posterior,
                "--out",
                str(folder),
                "--num-samples",
                "500",
                "--limit",
                "1000",
                *resume,
            ]
        )
        if code:
            raise SystemExit(code)
    scores = json.loads((folder / "evaluation.json").read_text())
    units = pv.evaluation.active_units(
        pv.load(folder), pv.datasets.load("mnist", binarize="dynamic")[1][:1000]
    )
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return scores | {"seconds": float(rows[-1]["seconds"]), "active_units": units.active}


def rows(runs: Path) -> Iterator[str]:
    """Lines of the table in Markdown, each as soon as its run is finished."""
    yield (
        "| p(z) | q(z \\| x) | ELBO | log p(x) | Monte Carlo s.e. | median k | active units | "
        "seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for prior in PRIORS:
        for posterior in POSTERIORS:
            scores = run(runs / f"{prior}-{posterior}", prior, posterior)
            elbo, ll = scores["elbo"], scores["log_likelihood"]
            mean, mc_se = f"{ll['mean']:.2f}", f"{ll['mc_se']:.3f}"
            if is_bound(scores):  # the Monte Carlo error would be too short
                mean, mc_se = f">= {mean}", "unknown"
            yield (
                f"| `{prior}` | `{posterior}` | {elbo['mean']:.2f} +- {elbo['se']:.2f} | "
                f"{mean} +- {ll['se']:.2f} "
                f"| {mc_se} | {scores['pareto_k']['median']:.2f} | "
                f"{scores['active_units']} | {scores['seconds']:.0f} |"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for row in rows(Path(sys.argv[1])):
        print(row, flush=True)
