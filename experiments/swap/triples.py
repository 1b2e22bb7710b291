"""Tabulate every prior x likelihood x posterior from the log of the tests that try them.

pytest -m triples -rP tests/testing/test_contracts.py > triples.log
python experiments/swap/triples.py triples.log
"""

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyro_vae as pv

TRAINED = "trained and scored"


def outcomes(log: str) -> dict[tuple[str, str], dict[str, str]]:
    """The outcome of each likelihood, by prior and posterior."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for prior, likelihood, posterior, outcome in re.findall(
        r"^(\w+) x (\w+) x (\w+): (.*)$", log, re.M
    ):
        found[prior, posterior][likelihood] = outcome
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = outcomes(Path(sys.argv[1]).read_text())
    print("| p(z) | " + " | ".join(f"`{name}`" for name in pv.posteriors.__all__) + " |")
    print("|---|" + "---|" * len(pv.posteriors.__all__))
    for prior in pv.priors.__all__:
        cells = [
            sum(outcome == TRAINED for outcome in found[prior, posterior].values())
            for posterior in pv.posteriors.__all__
        ]
        print(f"| `{prior}` | " + " | ".join(str(count or "") for count in cells) + " |")
    outcomes_of_all = [outcome for pair in found.values() for outcome in pair.values()]
    reasons = Counter(
        outcome.split(", expected ", 1)[1] for outcome in outcomes_of_all if outcome != TRAINED
    )
    print(
        f"\n{len(outcomes_of_all):,} triples: {len(outcomes_of_all) - reasons.total():,} "
        f"trained, {reasons.total():,} refused before training. "
        "What those lacked, and what to do:\n"
    )
    for reason, count in reasons.most_common():
        print(f"- {count:,}: {reason}")
