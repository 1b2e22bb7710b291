"""Compare imputations of a run's removed test entries with their true values.

    python experiments/impute.py RUN [DRAWS]

RUN is a run on a table of `pyro_vae.datasets` with ``missing_fraction``. Prints the root mean
square error of the draws' mean and, for comparison, of the column mean (columns are standardised),
the share of entries within the draws' 90% interval and, where the last column is a class, how often
the most frequent draw is right.
"""

import sys
from pathlib import Path

import torch
import yaml

import pyro_vae as pv


def main(run: str, num: int = 500) -> None:
    recipe = yaml.safe_load((Path(run) / "recipe.yaml").read_text())
    truth = pv.datasets.load(recipe["data"])[1].x
    data = pv.datasets.load(recipe["data"], missing_fraction=recipe["missing_fraction"])[1]
    program = pv.load(run)
    draws = torch.stack([pv.reconstruct(program, data, seed=seed) for seed in range(num)])
    columns = truth.shape[1] - (recipe["data"] == "wine_and_class")
    hidden = data.x.isnan()[:, :columns]
    real, drawn = truth[:, :columns][hidden], draws[:, :, :columns][:, hidden]
    low, high = drawn.quantile(0.05, 0), drawn.quantile(0.95, 0)
    error, baseline = (drawn.mean(0) - real).square().mean().sqrt(), real.square().mean().sqrt()
    print(
        f"{len(real)} removed measurements: root mean square error {error:.3f}, of the column "
        f"mean {baseline:.3f}"
    )
    print(
        "within the 90% interval of the draws: "
        f"{((real >= low) & (real <= high)).float().mean():.1%}"
    )
    if columns < truth.shape[1]:
        lost = data.x[:, -1].isnan()
        hits = (draws[:, lost, -1].mode(0).values == truth[lost, -1]).sum().item()
        print(f"classes removed: {int(lost.sum())}, the most frequent draw right: {hits}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
