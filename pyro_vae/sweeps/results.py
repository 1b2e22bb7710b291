"""What a sweep's trials found: scores over seeds, and each setting against the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pyro_vae.evaluation.comparison import Spread, load_scores, spread
from pyro_vae.evaluation.importance_score import ImportanceScore, share_of_bounds
from pyro_vae.evaluation.over_seeds import SeedDifference, against_best, best_over_seeds
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.evaluation.scores import Score, versions
from pyro_vae.files.reading import parsing
from pyro_vae.report.run_files import FILES, read_file
from pyro_vae.sweeps.grid import Setting
from pyro_vae.sweeps.trial import Outcome, Trial
from pyro_vae.validation import InvalidInput

__all__ = ["Finished", "ParetoShapes", "Results", "Row", "mean_validation", "read_results"]

LEVEL = 0.05  # of the corrected p-values


@dataclass(frozen=True)
class Finished:
    """A trial that ended well: its scores by name, the seconds and ELBO of its training."""

    trial: Trial
    scores: Mapping[str, Score]
    seconds: float
    validation_elbo: float | None


@dataclass(frozen=True)
class ParetoShapes:
    """Pareto k over the data of all seeds; ``None`` where K is too small for one."""

    median: float
    largest: float
    above: int | None
    num_data: int
    threshold: float


@dataclass(frozen=True)
class Row:
    """A setting: its trials, their scores over seeds, and its difference from the best.

    The difference of the best itself is ``None``, and of one that shares no seed with it. The seeds
    that it lost are those whose trials failed or were stopped.
    """

    setting: Setting
    trials: tuple[Finished, ...]
    spread: Spread
    sign: str
    difference: SeedDifference | None
    lost: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its setting as people read it."""
        return self.setting.name or "the recipe"

    @property
    def seeds(self) -> str:
        """How many seeds it has, and of how many where it lost some."""
        found = len(self.trials)
        return f"{found} of {found + len(self.lost)}" if self.lost else f"{found}"

    @property
    def seconds(self) -> float:
        """The mean seconds of its trainings."""
        return sum(each.seconds for each in self.trials) / len(self.trials)

    @property
    def is_worse(self) -> bool:
        """Whether it lies below the best by more than chance explains, at a level of 5%."""
        found = self.difference
        return found is not None and found.mean < 0 and found.adjusted < LEVEL

    def spread_of(self, name: str) -> Spread | None:
        """Another score over seeds; ``None`` where its trials do not have it."""
        found = [each.scores[name] for each in self.trials if name in each.scores]
        return spread(found) if found else None

    @cached_property
    def pareto_k(self) -> ParetoShapes | None:
        """Pareto k of its log-likelihoods."""
        found = [each.scores.get("log_likelihood") for each in self.trials]
        scores = [score for score in found if isinstance(score, ImportanceScore)]
        if not scores:
            return None
        shapes = [score.pareto_k[~score.pareto_k.isnan()] for score in scores]
        above = [score.above_threshold for score in scores]
        known = [value for shape in shapes for value in shape.tolist()]
        return ParetoShapes(
            sorted(known)[(len(known) - 1) // 2] if known else float("nan"),
            max(known, default=float("nan")),
            None if None in above else sum(count or 0 for count in above),
            sum(len(score.values) for score in scores),
            pareto_k_threshold(scores[0].num_samples),
        )


@dataclass(frozen=True)
class Results:
    """The rows of a sweep, best first, and what is not among them.

    Args:
        score: the score that ranks them.
        rows: those of the settings that have a score.
        chosen: whether other data than the scored chose the first row.
        refused: reasons by setting, known before anything ran.
        failed: outcomes of trials that ended badly or were stopped.
    """

    score: str
    rows: tuple[Row, ...]
    chosen: bool = False
    refused: Mapping[Setting, str] = field(default_factory=dict)
    failed: tuple[Outcome, ...] = ()

    @property
    def num_data(self) -> int:
        """How many data were scored."""
        return len(self.rows[0].trials[0].scores[self.score].values)

    @property
    def num_seeds(self) -> int:
        """The most seeds that a row has."""
        return max(len(row.trials) for row in self.rows)

    @property
    def has_lost(self) -> bool:
        """Whether a row lacks a seed."""
        return any(row.lost for row in self.rows)

    def to_json(self) -> dict[str, object]:
        """All of it as JSON."""
        first = self.rows[0].trials[0].scores[self.score]
        return {
            "score": self.score,
            "num_samples": first.num_samples,
            "num_data": self.num_data,
            "sha256": first.sha256,
            "best": self.rows[0].setting.name,
            "best_was_chosen_by": "validation_elbo" if self.chosen else self.score,
            "versions": versions(),
            "rows": [self._row_to_json(row) for row in self.rows],
            "refused": [
                {"options": dict(setting.values), "reason": reason}
                for setting, reason in self.refused.items()
            ],
            "failed": [
                {
                    "options": dict(outcome.trial.setting.values),
                    "seed": outcome.trial.seed,
                    "reason": outcome.problem,
                }
                for outcome in self.failed
            ],
        }

    def _row_to_json(self, row: Row) -> dict[str, object]:
        difference = row.difference
        elbo = row.spread_of("elbo")
        return {
            "name": row.setting.name,
            "options": dict(row.setting.values),
            "mean": row.spread.mean,
            "sd": row.spread.sd,
            "sign": row.sign,
            "elbo": None if elbo is None else {"mean": elbo.mean, "sd": elbo.sd},
            "difference": None if difference is None else {**vars(difference), "se": difference.se},
            "pareto_k": None if row.pareto_k is None else vars(row.pareto_k),
            "seconds": row.seconds,
            "lost_seeds": list(row.lost),
            "seeds": [
                {
                    "seed": each.trial.seed,
                    "mean": each.scores[self.score].mean,
                    "se": each.scores[self.score].se,
                    "mc_se": each.scores[self.score].mean_mc_se,
                    "share_of_bounds": share_of_bounds(each.scores[self.score]),
                    "validation_elbo": each.validation_elbo,
                    "seconds": each.seconds,
                    "folder": each.trial.folder.name,
                }
                for each in row.trials
            ],
        }


def read_results(
    trials: Sequence[Trial],
    score: str,
    refused: Mapping[Setting, str],
    failed: Sequence[Outcome],
    by_validation: bool = False,
) -> Results:
    """The results of trials, read from their folders.

    Args:
        trials: those that ended well.
        score: the name of the score that ranks the settings.
        refused: reasons by setting.
        failed: what became of the other trials.
        by_validation: compare with the setting whose validation ELBO is the best over seeds.

    Raises:
        InvalidInput: if no trial ended well, a trial does not have that score, or they are of
            different data.
    """
    groups: dict[Setting, list[Finished]] = {}
    for trial in trials:
        groups.setdefault(trial.setting, []).append(_finished(trial))
    if not groups:
        raise InvalidInput(
            "sweep",
            got=f"no trial that ended well; the first says: {failed[0].problem}"
            if failed
            else "no trial",
            expected="one at least",
            fix="run one of its commands by itself, or see the folder logs",
        )
    _check_score([each for found in groups.values() for each in found], score)
    named = {
        setting: {each.trial.seed: each.scores[score] for each in found}
        for setting, found in groups.items()
    }
    best, differences = against_best(named, _chosen(groups) if by_validation else None)
    lost: dict[Setting, list[int]] = {}
    for outcome in failed:
        lost.setdefault(outcome.trial.setting, []).append(outcome.trial.seed)
    rows = [
        Row(
            setting,
            tuple(found),
            spread(list(named[setting].values())),
            ">=" * any(each.sign == ">=" for each in named[setting].values()),
            differences.get(setting),
            tuple(sorted(lost.get(setting, ()))),
        )
        for setting, found in groups.items()
    ]
    rows.sort(key=lambda row: (row.setting != best, *_place(row)))
    return Results(score, tuple(rows), by_validation, refused, tuple(failed))


def _place(row: Row) -> tuple[int, bool, float]:
    """Where a row belongs: by its seeds, then by what it is compared by."""
    found = row.difference
    return -len(row.trials), found is None, -(row.spread if found is None else found).mean


def _finished(trial: Trial) -> Finished:
    scores = load_scores(trial.folder / "evaluation.npz")
    return Finished(trial, scores, *_trained(trial.folder))


def _check_score(found: Sequence[Finished], score: str) -> None:
    shared = [name for name in found[0].scores if all(name in each.scores for each in found)]
    for each in found:
        if score not in each.scores:
            raise InvalidInput(
                "score",
                got=f"{score!r}, which {each.trial.name} does not have",
                expected=f"one of {', '.join(each.scores)}",
                fix=f"add --score {shared[0]}"
                if shared
                else "sweep settings whose guide is a point into a folder of their own, with "
                "--score log_joint",
            )


def _trained(folder: Path) -> tuple[float, float | None]:
    """The seconds of a training, and the validation ELBO of the weights that it kept."""
    found = read_file(folder, "training.json")
    with parsing(folder / "training.json", FILES):
        rows, best = found.get("history", []), found.get("best")
        return float(rows[-1]["seconds"]) if rows else 0.0, best and float(best[0])


def mean_validation(outcomes: Sequence[Outcome]) -> float | None:
    """The mean validation ELBO of a setting's seeds; ``None`` if one of them lacks it or failed."""
    values = [_trained(each.trial.folder)[1] for each in outcomes if not each.problem]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(outcomes) else None


def _chosen(groups: Mapping[Setting, Sequence[Finished]]) -> Setting:
    """The setting of the best validation ELBO; one that lost a seed only where all of them did."""
    return best_over_seeds(
        {
            setting: {
                each.trial.seed: each.validation_elbo
                for each in found
                if each.validation_elbo is not None
            }
            for setting, found in groups.items()
        }
    )
