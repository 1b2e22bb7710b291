"""Imputation of a mixed table against column means and scikit-learn's IterativeImputer.

``python experiments/tables/imputation.py`` writes ``imputation.md`` beside it. The table is
scikit-learn's wines: 13 measurements and the cultivar, 20% of the entries removed at random. Errors
are in units of a column's standard deviation, the share of wrong cultivars, and the coverage of 90%
intervals, each over the removed entries alone, for five ways to remove them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

import pyro_vae as pv

FRACTION, REPEATS = 0.2, 5


def wines() -> pd.DataFrame:
    data = load_wine(as_frame=True)
    table = data.data.rename(columns=lambda name: name.replace("/", "_"))
    return table.assign(cultivar=pd.Categorical.from_codes(data.target, ["A", "B", "C"]))


def with_gaps(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    removed = np.random.default_rng(seed).random(table.shape) < FRACTION
    return table.mask(removed)


def filled_by_vae(gaps: pd.DataFrame, seed: int) -> pv.datasets.Dataset:
    columns = {name: "real" for name in gaps.columns if name != "cultivar"}
    data = pv.datasets.load_whole(gaps, columns=columns, standardize=True)
    size, MLP = len(data.columns), pv.networks.MLP
    vae = pv.VAE(
        pv.priors.StandardNormal(4),
        pv.likelihoods.Missing(
            pv.likelihoods.Mixed(size, MLP(4, [32]), groups=data.columns.groups())
        ),
        pv.posteriors.DiagonalNormal(4, pv.networks.WithMask(size, MLP(2 * size, [32]))),
    )
    objective = pv.objectives.IWAE(num_particles=5)
    pv.fit(vae, data, objective=objective, epochs=400, batch_size=32, seed=seed, progress=False)
    return pv.impute(vae, data, num_draws=200, seed=seed)


def main() -> None:
    rows = []
    for seed in range(REPEATS):
        truth = wines()
        gaps = with_gaps(truth, seed)
        numbers = [name for name in truth if name != "cultivar"]
        missing, scale = gaps[numbers].isna(), truth[numbers].std()
        filled = filled_by_vae(gaps, seed)
        entries = filled.entries()
        iterative = IterativeImputer(random_state=seed, max_iter=20).fit_transform(gaps[numbers])
        guesses = {
            "column means": gaps[numbers].fillna(gaps[numbers].mean()),
            "IterativeImputer": pd.DataFrame(iterative, columns=numbers),
            "VAE": filled.frame()[numbers],
        }
        of_numbers = entries[entries["column"] != "cultivar"]
        real = np.array([truth.loc[r, c] for r, c in zip(of_numbers["row"], of_numbers["column"])])
        low, high = (of_numbers[name].astype(float).to_numpy() for name in ("low", "high"))
        coverage = ((real >= low) & (real <= high)).mean()
        unknown = gaps["cultivar"].isna()
        most = gaps["cultivar"].mode()[0]
        for name, guess in guesses.items():
            error = ((guess - truth[numbers]) / scale).to_numpy()[missing.to_numpy()]
            classes = {
                "column means": (truth["cultivar"][unknown] != most).mean(),
                "VAE": (filled.frame()["cultivar"][unknown] != truth["cultivar"][unknown]).mean(),
            }
            rows.append(
                {
                    "method": name,
                    "rmse": np.sqrt((error**2).mean()),
                    "wrong cultivars": classes.get(name, np.nan),
                    "coverage of 90%": coverage if name == "VAE" else np.nan,
                }
            )
    table = pd.DataFrame(rows).groupby("method", sort=False).agg(["mean", "sem"])
    lines = [
        f"# Imputation of {FRACTION:.0%} removed entries of a table of wines",
        "",
        f"Means over {REPEATS} ways to remove entries, and their standard errors.",
        "",
        "| | error, in standard deviations | wrong cultivars | coverage of 90% intervals |",
        "|---|---|---|---|",
    ]
    for method, row in table.iterrows():
        found = [row[name] for name in ("rmse", "wrong cultivars", "coverage of 90%")]
        cells = [
            "" if np.isnan(each["mean"]) else f"{each['mean']:.3f} ± {each['sem']:.3f}"
            for each in found
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
