"""Hold every estimator of a bound or of log p(x) to its exact value: offsets and coverage.

    python experiments/results/ground_truth.py [--quick] [--only MODEL ...] [--parts FOLDER]
    python experiments/results/ground_truth.py --tabulate [--parts FOLDER]

Each estimator scores each model of `exact.py` in 20 repetitions of 200 data, in float64: some four
hours of one core. Each model and estimator leaves a part, FOLDER/*.json (runs/ground_truth by
default). Parts that are there are not computed again, so the command can be interrupted, and
several with different models can run side by side. Prints the table. Once all parts are there, they
become ``ground_truth.json`` and the table in README.md. With ``--tabulate``, the parts that are
there do, and the table names those that are missing. With ``--quick``, a few data and draws show
that all of it runs, and nothing but parts is written.
"""

import argparse
import json
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from exact import MODELS, Exact, model_of
from table import ground_truth_table, rendered
from torch import Tensor

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.evaluation.proposals import Defensive, Guide, Proposal, Refitted, Widened
from pyro_vae.evaluation.scores import Score

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Size:
    """How much of everything is drawn."""

    data: int = 200
    repetitions: int = 20
    samples: int = 1000
    chains: int = 16
    temperatures: int = 100
    steps: int = 100  # of a refitted proposal

    @property
    def annealing(self) -> dict[str, int]:
        return {"num_chains": self.chains, "num_temperatures": self.temperatures}


QUICK = Size(data=5, repetitions=2, samples=30, chains=2, temperatures=4, steps=3)


# what a score states


def interval_of(score: Score) -> tuple[Tensor, Tensor]:
    """The 95% interval (N,), (N,) that a score states for each datum."""
    if interval := getattr(score, "interval", None):
        return interval()
    return score.values - 1.96 * score.mc_se, score.values + 1.96 * score.mc_se


def says_bound(score: Score) -> bool:
    """Whether a score prints itself as a bound."""
    return bool(re.search("[<>]=|≤|≥", str(score)))


# one repetition


@dataclass(frozen=True)
class Given:
    """A model, data drawn from it, and their exact numbers (N,), each computed once."""

    model: Exact
    data: pv.datasets.Dataset
    size: Size

    @classmethod
    def simulated(cls, model: Exact, size: Size) -> "Given":
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return cls(model, model.data(*model.simulate(size.data)), size)

    @cached_property
    def log_p(self) -> Tensor:
        return self.model.log_p(self.data.x, self.data.context)

    @cached_property
    def elbo(self) -> Tensor:
        return self.model.elbo(self.data.x, self.data.context)


Found = tuple[str, Score, Tensor]  # the row's name, the score, and what it should be
Estimator = Callable[[Given, int], Iterator[Found]]


def bound(samples: int | None = None) -> Estimator:
    """`pv.elbo` by that many draws, against the exact bound."""

    def estimate(given: Given, seed: int) -> Iterator[Found]:
        k = samples or given.size.samples
        score = pv.elbo(given.model.program, given.data, k, seed=seed)
        yield f"`elbo`, K = {k}", score, given.elbo

    return estimate


def importance(proposal_of: Callable[[int], Proposal], name: str = "", samples: int | None = None):
    """`pv.log_likelihood` by a proposal, which is told how many steps a refitted one takes."""

    def estimate(given: Given, seed: int) -> Iterator[Found]:
        k, proposal = samples or given.size.samples, proposal_of(given.size.steps)
        score = pv.log_likelihood(given.model.program, given.data, k, proposal=proposal, seed=seed)
        yield f"`log_likelihood`{name}, K = {k}", score, given.log_p

    return estimate


def annealed(start: str) -> Estimator:
    """`pv.evaluation.ais` from the prior or the guide."""

    def estimate(given: Given, seed: int) -> Iterator[Found]:
        settings = {"start": start, "seed": seed, **given.size.annealing}
        score = pv.evaluation.ais(given.model.program, given.data, **settings)
        yield f"`ais` from the {start}", score, given.log_p

    return estimate


def both_bounds(given: Given, seed: int) -> Iterator[Found]:
    """`pv.evaluation.bdmc`, on data that it simulates anew each time."""
    settings = {"context": given.data.context, "seed": seed, **given.size.annealing}
    found = pv.evaluation.bdmc(given.model.program, given.size.data, **settings)
    truth = given.model.log_p(found.x, found.context)
    yield "`bdmc`, lower", found.lower, truth
    yield "`bdmc`, upper", found.upper, truth


ESTIMATORS: dict[str, Estimator] = {
    "elbo-2": bound(2),
    "elbo": bound(),
    "guide-5": importance(lambda _: Guide(), samples=5),
    "guide-20": importance(lambda _: Guide(), samples=20),
    "guide": importance(lambda _: Guide()),
    "defensive": importance(lambda _: Defensive(0.1), ", `Defensive(0.1)`"),
    "widened": importance(lambda _: Widened(1.3), ", `Widened(1.3)`"),
    "refitted": importance(Refitted, ", `Refitted()`"),
    "widened-refitted": importance(
        lambda steps: Widened(1.2, of=Refitted(steps)), ", `Widened(1.2, of=Refitted())`"
    ),
    "ais-prior": annealed("prior"),
    "ais-guide": annealed("guide"),
    "bdmc": both_bounds,
}
NEED_CONTINUOUS = ("widened", "refitted", "widened-refitted")
NEED_NO_DISCRETE = ("ais-prior", "ais-guide", "bdmc")


def estimators_of(model: Exact) -> list[str]:
    """The estimators that a model has."""
    left_out = (*NEED_CONTINUOUS * (not model.continuous), *NEED_NO_DISCRETE * model.discrete)
    return [name for name in ESTIMATORS if name not in left_out]


# rows


def part(name: str, given: Given, estimator: str) -> list[dict]:
    """The rows of one model and estimator, over all repetitions."""
    found: dict[str, list[tuple[Score, Tensor]]] = {}
    for seed in range(given.size.repetitions):
        for row, score, truth in ESTIMATORS[estimator](given, seed):
            found.setdefault(row, []).append((score, truth))
    return [row_of(name, row, repetitions) for row, repetitions in found.items()]


def row_of(case: str, estimator: str, repetitions: list[tuple[Score, Tensor]]) -> dict:
    """What a table says of an estimator: offset, errors, coverage and its own words.

    ``mc_se`` is the error that one repetition states for its mean over data, ``in_errors`` the mean
    offset over all repetitions in units of it, and ``z`` that offset in units of its own error, by
    the spread of the repetitions.
    """
    offsets = [score.mean - truth.mean().item() for score, truth in repetitions]
    stated = statistics.mean(score.mean_mc_se**2 for score, _ in repetitions) ** 0.5
    error = statistics.mean(offsets)
    spread = statistics.stdev(offsets) / len(offsets) ** 0.5
    covers = []
    for score, truth in repetitions:
        low, high = interval_of(score)
        covers.append(((low <= truth) & (truth <= high)).double().mean().item())
    k = [score.pareto_k.median().item() for score, _ in repetitions if hasattr(score, "pareto_k")]
    return {
        "case": case,
        "estimator": estimator,
        "exact": statistics.mean(truth.mean().item() for _, truth in repetitions),
        "error": error,
        "mc_se": stated,
        "in_errors": error / stated,
        "z": error / spread,
        "coverage": statistics.mean(covers),
        "bound": statistics.mean(says_bound(score) for score, _ in repetitions),
        "pareto_k": statistics.median(k) if k else None,
        "repetitions": len(repetitions),
    }


def path_of(name: str, estimator: str, folder: Path) -> Path:
    """Where the rows of a model and an estimator are."""
    slug = re.sub(r"\W+", "-", name).strip("-")
    return folder / f"{slug}--{estimator}.json"


def there(size: Size, folder: Path) -> tuple[list[dict], dict[str, list[str]]]:
    """The rows that were computed, and by model the estimators that were not."""
    rows, missing = [], {}
    for name in MODELS:
        for estimator in estimators_of(model_of(name)):
            path = path_of(name, estimator, folder)
            if path.exists() and (known := json.loads(path.read_text()))["size"] == asdict(size):
                rows += known["rows"]
            else:
                missing.setdefault(name, []).append(estimator)
    return rows, missing


def publish(rows: list[dict], missing: dict[str, list[str]], size: Size) -> None:
    """Write ``ground_truth.json`` and the table in README.md."""
    text = json.dumps(asdict(size) | {"missing": missing, "rows": rows}, indent=1) + "\n"
    (HERE / "ground_truth.json").write_text(text)
    (HERE / "README.md").write_text(rendered((HERE / "README.md").read_text()))


def parts_of(only: list[str], size: Size, folder: Path) -> list[dict]:
    """All rows of some models; what is not in the folder is computed and put there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in only:
        given = Given.simulated(model_of(name), size)
        for estimator in estimators_of(given.model):
            path = path_of(name, estimator, folder)
            if path.exists() and (known := json.loads(path.read_text()))["size"] == asdict(size):
                rows += known["rows"]
                continue
            start = time.process_time()
            found = part(name, given, estimator)
            seconds = round(time.process_time() - start, 1)
            text = {"size": asdict(size), "cpu_seconds": seconds, "rows": found}
            checkpoint.write_text(path, json.dumps(text, indent=1) + "\n")
            print(f"{name}: {estimator}, {seconds} s", flush=True)
            rows += found
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few data and draws")
    parser.add_argument("--tabulate", action="store_true", help="compute nothing")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--parts", type=Path, help="folder of the parts")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size()
    folder = options.parts or Path("runs") / ("quick" if options.quick else "ground_truth")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UnreliableEstimate)
    if options.tabulate:
        publish(*there(size, folder), size)
        return
    rows = parts_of(options.only, size, folder)
    print(ground_truth_table(rows))
    if not options.quick and len(options.only) == len(MODELS):
        publish(rows, {}, size)


if __name__ == "__main__":
    main()
