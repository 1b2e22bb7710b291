"""Early stopping of the trials that fall behind, by Ray Tune's ASHA."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

from pyro_vae.files.optional import optional
from pyro_vae.files.reading import MEGABYTE, Kind, parsing, read_text
from pyro_vae.files.writing import new_folder, subfolder
from pyro_vae.sweeps.engines import Ray
from pyro_vae.sweeps.trial import Outcome, Trial, run_trial

__all__ = ["Racing"]

METRIC = "validation_elbo"
METRICS = Kind("out", "the metrics of a trial", "remove the trial's folder", 256 * MEGABYTE)
POLL = 0.5  # seconds between two looks at what a training has logged


@dataclass(frozen=True)
class Racing(Ray):
    """Trials on a Ray cluster, of which those with the lower validation ELBO are stopped early.

    At epochs that grow by a factor of three from ``grace`` on, the better third of what was seen so
    far goes on. A trial that is stopped keeps its checkpoint and has no score. One that is trained
    to the end before it could be stopped is scored: it counts in the race and cannot lose it. Given
    again, all trials race again, from what they have logged. All are asked for at once, so a search
    draws its settings without knowing what any of them reached.

    Args:
        epochs: those of a whole training.
        grace: the epochs that every trial is given.

    Source: Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning.
    """

    takes_finished: ClassVar[bool] = True
    epochs: int = 100
    grace: int = 1

    def run(self, trials: Iterable[Trial]) -> Iterator[Outcome]:
        missing = "Ray Tune, which is not installed"
        tune = optional("ray.tune", "sweep", "early_stopping", missing)
        schedulers = optional("ray.tune.schedulers", "sweep", "early_stopping", missing)
        with self.connected():
            listed, threads, epochs = list(trials), self.cpus, self.epochs
            if not listed:
                return
            kept = subfolder(new_folder(listed[0].log.parent), "tune").resolve()

            def race(config: dict[str, int]) -> None:
                _race(tune.report, listed[config["number"]], threads, epochs)

            tuner = tune.Tuner(
                tune.with_resources(race, {"cpu": self.cpus, "gpu": self.gpus}),
                param_space={"number": tune.grid_search(list(range(len(listed))))},
                tune_config=tune.TuneConfig(
                    metric=METRIC,
                    mode="max",
                    max_concurrent_trials=self.jobs,
                    scheduler=schedulers.ASHAScheduler(
                        time_attr="epoch",
                        max_t=max(self.epochs, self.grace),
                        grace_period=self.grace,
                        reduction_factor=3,
                        stop_last_trials=False,  # they are still to be scored
                    ),
                ),
                run_config=tune.RunConfig(
                    storage_path=str(kept),
                    failure_config=tune.FailureConfig(max_failures=self.retries),
                    verbose=0,
                ),
            )
            with redirect_stdout(io.StringIO()):  # what Tune says of its own files
                results = tuner.fit()
        # Connected no more: on a cluster of its own, what was stopped trains no longer.
        for result in results:
            yield _outcome(listed[result.config["number"]], result)


def _race(report: Any, trial: Trial, threads: int, epochs: int) -> None:
    """Run a trial and report each epoch's validation ELBO as it is logged.

    Tune stops it by an exception from a report, which ends the trial's process. A trial that was
    trained to the end is reported once it is scored.
    """
    seen, last, given_up = 0, {"epoch": 0, METRIC: -math.inf}, Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            lambda: Outcome(trial) if trial.is_done else run_trial(trial, threads, given_up)
        )
        try:
            while True:
                ended = future.done()
                said = {"ended": ended, "problem": future.result().problem if ended else ""}
                rows = _logged(trial.folder)
                is_trained = bool(rows) and rows[-1]["epoch"] >= epochs
                if ended or not is_trained:
                    for last in rows[seen:]:
                        report({**last, **said})
                    seen = len(rows)
                if ended:
                    report({**last, **said})
                    return
                time.sleep(POLL)
        finally:
            given_up.set()


def _logged(folder: Path) -> list[dict[str, float]]:
    """The epochs of a training that have a validation ELBO."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    lines = read_text(path, METRICS, inside=folder).splitlines()
    with parsing(path, METRICS):
        found = [(row["epoch"], row[METRIC]) for row in csv.DictReader(lines) if row[METRIC]]
        return [{"epoch": int(epoch), METRIC: float(elbo)} for epoch, elbo in found]


def _outcome(trial: Trial, result: Any) -> Outcome:
    """What became of a trial, from what Tune kept of it."""
    if result.error is not None:
        return Outcome(trial, " ".join(str(result.error).split())[-300:])
    if result.metrics["ended"]:
        return Outcome(trial, result.metrics["problem"])
    if trial.is_done:  # it ended while it was judged
        return Outcome(trial)
    epoch, elbo = result.metrics["epoch"], result.metrics[METRIC]
    reached = max([row["epoch"] for row in _logged(trial.folder)], default=epoch)
    when = "" if reached == epoch else f" at epoch {epoch}"
    why = f"stopped by ASHA after epoch {reached}, for a validation ELBO of {elbo:.2f}{when}"
    return Outcome(trial, why, was_stopped=True)
