"""What became of every prior x likelihood x posterior, from the log of the tests that try them all, as Markdown.

    pytest -m triples -rP tests/test_contracts.py > triples.log
    python experiments/swap/triples.py triples.log
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

TRAINED = "trained and scored"


def outcomes(log: str) -> dict[tuple[str, str], dict[str, str]]:
    """By prior and posterior: what each likelihood gave."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for prior, likelihood, posterior, outcome in re.findall(r"^(\w+) x (\w+) x (\w+): (.*)$", log, re.M):
        found[prior, posterior][likelihood] = outcome
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = outcomes(Path(sys.argv[1]).read_text())
    posteriors = list(dict.fromkeys(posterior for _, posterior in found))
    print("| p(z) | " + " | ".join(f"`{name}`" for name in posteriors) + " |")
    print("|---|" + "---|" * len(posteriors))
    for prior in dict.fromkeys(prior for prior, _ in found):
        cells = [sum(outcome == TRAINED for outcome in found[prior, posterior].values()) for posterior in posteriors]
        print(f"| `{prior}` | " + " | ".join(str(count or "") for count in cells) + " |")
    everything = [outcome for pair in found.values() for outcome in pair.values()]
    print(f"\n{len(everything):,} triples: {sum(o == TRAINED for o in everything):,} trained and scored, "
          f"{sum(o != TRAINED for o in everything):,} refused before training. The reasons, each with one example:\n")
    examples: dict[str, str] = {}
    for (prior, posterior), pair in found.items():
        for outcome in pair.values():
            if outcome != TRAINED:
                examples.setdefault(re.sub(r"'[^']*'|\([^)]*\)|\b[A-Z]\w+", "_", outcome), f"`{prior}`, `{posterior}`: {outcome}")
    print("\n".join(f"- {example}" for example in examples.values()))
