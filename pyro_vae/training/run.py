"""One training run: the loop over epochs, validation, checkpoints and early stopping."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.importance import elbo, log_joint
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.traces import NoBound, importance_traces
from pyro_vae.training.history import History, TrainingDiverged
from pyro_vae.training.steps import Steps
from pyro_vae.training.tensorboard import EventFile
from pyro_vae.validation import InvalidInput

__all__ = ["Run"]

CURVES = ("objective", "validation_elbo", "learning_rate", "kl_weight")


OVERFLOWED = "its gradient overflowed: lower learning_rate, set clip_norm, or bound the scales of the likelihood"


@dataclass
class Run:
    """One run of `fit`: its steps, what is measured after each epoch, and the folder that it is kept in."""

    steps: Steps
    compile: str
    validation: Dataset | None
    patience: int | None
    folder: Path | None
    checkpoint_seconds: float
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self.program = self.steps.program
        self.history = History()
        self.best: tuple[float, int, dict[str, Tensor]] | None = (
            None  # validation ELBO, epoch, weights
        )

    # the loop

    def train(self, progress: bool) -> None:
        started = self.history["seconds"][-1] if self.history.rows else 0.0
        clock, saved = time.monotonic() - started, time.monotonic()
        events = self._open_events()
        start, steps = len(self.history), self.steps
        steps.find_plates()
        if start == 0:
            steps.initialize()
            steps.validate()
        if steps.compiled_sizes is None:
            steps.decide(self.compile)
        if start == 0:
            # what cannot be written is found out now, and the folder is taken from here on
            self._save()
        with progress_bar("epochs", total=steps.epochs, shown=progress, start=start) as advance:
            for epoch in range(start, steps.epochs):
                if self._is_out_of_patience():
                    break
                if epoch == start:
                    steps.compile()
                before = steps.state()
                try:
                    losses = steps.run(epoch)
                except BaseException as error:
                    broken = [
                        name
                        for name, p in self.program.named_parameters()
                        if not torch.isfinite(p).all()
                    ]
                    steps.restore(before)
                    if isinstance(error, KeyboardInterrupt):
                        self._save()
                    elif broken:  # and a distribution refused what came of it
                        raise TrainingDiverged(
                            epoch * steps.per_epoch,
                            f"parameter {broken[0]!r}, in the epoch that starts there",
                            OVERFLOWED,
                            self.folder,
                        ) from error
                    raise
                if not (torch.isfinite(losses).all() and steps.parameters_are_finite()):
                    steps.restore(before)
                    diagnosis = self._diagnosis(epoch, losses)
                    steps.restore(before)  # the diagnosis went back to the step at fault
                    raise diagnosis
                row = self._measure(epoch, losses, time.monotonic() - clock)
                if self.folder is not None and events is not None:
                    with checkpoint.writing_to(self.folder):
                        events.add(
                            {name: row[name] for name in CURVES if row[name] is not None},
                            row["step"],
                        )
                if time.monotonic() - saved >= self.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                validated = row["validation_elbo"]
                advance(
                    1,
                    note=f"objective {row['objective']:.2f}"
                    if validated is None
                    else f"validation {validated:.2f}",
                )
        self._save()
        if self.best is not None:
            self.program.load_state_dict(self.best[2])

    def _measure(self, epoch: int, losses: Tensor, seconds: float) -> dict[str, Any]:
        # The last batch may be smaller: the epoch's mean is over data.
        steps, number = self.steps, len(self.steps.data)
        sizes = torch.full_like(losses, steps.batch_size)
        sizes[-1] = number - steps.batch_size * (len(losses) - 1)
        last = (epoch + 1) * steps.per_epoch - 1
        score = None
        if self.validation is not None:
            score = self._validation_score()
            if self.best is None or score > self.best[0]:
                weights = {
                    name: value.detach().clone()
                    for name, value in self.program.state_dict().items()
                }
                self.best = (score, epoch + 1, weights)
        row = {
            "epoch": epoch + 1,
            "step": last + 1,
            "seconds": round(seconds, 3),
            "objective": -(losses * sizes).sum().item() / number,
            "validation_elbo": score,
            "learning_rate": steps.learning_rate * steps.rate_factor(last),
            "kl_weight": steps.kl_weight(last),
        }
        self.history.rows.append(row)
        return row

    def _validation_score(self) -> float:
        assert self.validation is not None
        try:
            # One draw for each datum, the same numbers every time: differences between epochs are
            # the weights'.
            return elbo(self.program, self.validation, num_samples=1, seed=self.steps.seed).mean
        except NoBound:
            return log_joint(self.program, self.validation, seed=self.steps.seed).mean

    def _is_out_of_patience(self) -> bool:
        if self.patience is None or self.best is None:
            return False
        return len(self.history) - max(self.best[1], self.steps.warmup) >= self.patience

    def _diagnosis(self, epoch: int, losses: Tensor) -> TrainingDiverged:
        """Runs the epoch again up to the first bad loss, which the seed makes the same, and looks at its sites."""
        steps = self.steps
        bad = (~torch.isfinite(losses)).nonzero()
        first = int(bad[0]) if len(bad) else len(losses)
        batches = steps.batches(epoch)
        batch = batches[min(first, len(batches) - 1)]
        steps.run(epoch, stop=first)
        step = epoch * steps.per_epoch + first
        for name, parameter in self.program.named_parameters():
            if not torch.isfinite(parameter).all():
                return TrainingDiverged(step - 1, f"parameter {name!r}", OVERFLOWED, self.folder)
        x, context = steps.data.batch(*batch[:2])
        with torch.no_grad(), validation_enabled(False):
            guide, model = importance_traces(self.program, x, context)
        for part, trace in (("guide", guide), ("model", model)):
            for name, message in trace.nodes.items():
                site: Any = message
                if (
                    site["type"] == "sample"
                    and not torch.isfinite(site["fn"].log_prob(site["value"])).all()
                ):
                    return TrainingDiverged(
                        step,
                        f"site {name!r} of the {part}",
                        "its log-probability overflowed: bound its "
                        "scale, rescale x, or lower learning_rate",
                        self.folder,
                    )
        return TrainingDiverged(
            step,
            "no single site",
            "running the epoch again gave finite terms: lower learning_rate or set clip_norm",
            self.folder,
        )

    # on disk

    def _save(self) -> None:
        if self.folder is None:
            return
        best = self.best[2] if self.best is not None else self.program.state_dict()
        checkpoint.write_state(
            self.folder, "program", best, checkpoint.description_of(self.program)
        )
        checkpoint.write_text(self.folder / "metrics.csv", self.history.to_csv())
        checkpoint.write_state(
            self.folder,
            "training",
            self.steps.state(),
            {
                "settings": self.settings,
                "compiled_sizes": self.steps.compiled_sizes,
                "optimizer": self.steps.scalars(),
                "history": self.history.rows,
                "best": self.best and list(self.best[:2]),
            },
        )

    def restore(self) -> None:
        """Goes back to where the run in the folder is."""
        assert self.folder is not None
        if not checkpoint.exists(self.folder, "training"):
            raise InvalidInput(
                "resume",
                got=f"{self.folder}, which holds no training to continue",
                expected="a run's folder",
                fix="check the path, or train without resume",
            )
        state, meta = checkpoint.read_state(self.folder, "training")
        saved = checkpoint.with_current_paths(meta["settings"])
        for name, value in self.settings.items():
            if name == "program" and saved.get(name) != value:
                raise InvalidInput(
                    "program",
                    got=f"other components or arguments than the run in {self.folder} has",
                    expected="those of its recipe.yaml or program.json",
                    fix="resume with those it was started with",
                )
            if saved.get(name) != value:
                raise InvalidInput(
                    name,
                    got=f"{value!r}",
                    expected=f"{saved.get(name)!r}, as in the run in {self.folder}",
                    fix="resume with the settings it was started with, or train in a new folder",
                )
        try:
            self.steps.restore(state)
            self.steps.restore_scalars(meta["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidInput(
                "program",
                got=f"another structure than the run in {self.folder} has ({str(error).splitlines()[-1]})",
                expected="the same components",
                fix="resume with those it was started with",
            ) from None
        self.history = History(meta["history"])
        self.steps.compiled_sizes = meta["compiled_sizes"]
        if meta["best"] is not None:
            weights, _ = checkpoint.read_state(self.folder, "program")
            self.best = (
                *meta["best"],
                {name: value.to(self.steps.device) for name, value in weights.items()},
            )

    def _open_events(self) -> EventFile | None:
        if self.folder is None:
            return None
        with checkpoint.writing_to(self.folder):
            return EventFile(
                self.folder / "tensorboard", purge_step=len(self.history) * self.steps.per_epoch + 1
            )
