"""How often stated intervals cover, by the share of data whose value is only a bound.

    python experiments/evaluation/shares.py

Twelve models of `experiments/results/exact.py`, whose log p(x) is known exactly: 200 data each,
K = 1000, three seeds, by the guide, the guide widened by 1.3, and mixed with a tenth of the prior.
Then the curved decoders among them by more proposals.
"""

import sys
import warnings
from pathlib import Path

import torch

import pyro_vae as pv
from pyro_vae.evaluation import Defensive, Guide, UnreliableEstimate, Widened

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))
from exact import MODELS, model_of

PROPOSALS = [Guide(), Widened(1.3), Defensive(0.1)]
OF_CURVED = {
    "the guide": Guide(),
    "mixed with a tenth of the prior": Defensive(0.1),
    **{f"widened by {factor}": Widened(factor) for factor in (1.3, 1.6, 2.0)},
}
SEEDS = range(100, 103)
SHARES = [0.0, 0.02, 0.1, 0.25, 0.5, 1.0]


def scores(name, proposals):
    """Of each proposal and seed: the share of data that are bounds, coverage of the rest."""
    model = model_of(name)
    torch.manual_seed(1)
    data = model.data(*model.simulate(200))
    exact = model.log_p(data.x, data.context)
    for proposal in proposals if model.continuous else proposals[:1]:
        for seed in SEEDS:
            score = pv.log_likelihood(model.program, data, proposal=proposal, seed=seed)
            low, high = score.interval()
            covers = ((low <= exact) & (exact <= high))[~score.is_bound]
            yield score.is_bound.double().mean().item(), covers.double().mean().item()


def main() -> None:
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore", UnreliableEstimate)
    names = [name for name in MODELS if "Refined" not in name]  # whose draws are not independent
    found = [score for name in names for score in scores(name, PROPOSALS)]
    print("| data that are bounds | scores | coverage of the others | worst score |")
    print("|---|---|---|---|")
    for low, high in zip([-1.0, *SHARES], SHARES):
        rows = [covers for share, covers in found if low < share <= high]
        if rows:
            words = "none" if high == 0 else f"{100 * max(low, 0):.0f}% to {100 * high:.0f}%"
            mean = 100 * sum(rows) / len(rows)
            print(f"| {words} | {len(rows)} | {mean:.1f}% | {100 * min(rows):.1f}% |")
    print("\n| model | proposal | data that are bounds | coverage of the others |")
    print("|---|---|---|---|")
    for name in (name for name in names if "curved" in name):
        for words, proposal in OF_CURVED.items():
            shares, covers = zip(*scores(name, [proposal]))
            above, below = (100 * sum(part) / len(SEEDS) for part in (shares, covers))
            print(f"| {name} | {words} | {above:.0f}% | {below:.1f}% |")


if __name__ == "__main__":
    main()
