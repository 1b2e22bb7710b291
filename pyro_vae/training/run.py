"""One training run: the loop over epochs, validation, checkpoints and early stopping."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.checkpoint.description import build, describe
from pyro_vae.contracts import ProgramLike, Trace, sites_of
from pyro_vae.files.reading import MEGABYTE, Kind, checked, parsing
from pyro_vae.ranks.group import speaks
from pyro_vae.runtime.checks import inside_supports
from pyro_vae.runtime.progress import is_interactive, progress_bar, say
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.training.callbacks import Best, Callback, Training
from pyro_vae.training.changed import changed, differs, fewer_epochs
from pyro_vae.training.convergence import how_it_ended, is_out_of_patience
from pyro_vae.training.history import History, Row, TrainingDiverged, curves_of, why_not_finite
from pyro_vae.training.left_out import count_left_out
from pyro_vae.training.optimizer_state import Scalars
from pyro_vae.training.steps import GradientSteps
from pyro_vae.training.validation import Validation
from pyro_vae.validation import InvalidInput

__all__ = ["Run"]

OVERFLOWED = (
    "its gradient overflowed: lower learning_rate, set clip_norm, "
    "or bound the scales of the likelihood"
)


STATE = Kind(
    "run",
    "the state of a training, as fit writes it",
    "restore it from a copy, or train again",
    32 * MEGABYTE,
    checkpoint.CheckpointError,
)


class Saved(TypedDict):
    """The JSON of a training's state; ``best`` is a score and its epoch."""

    settings: dict[str, object]
    compiled_sizes: list[int] | None
    compiled_validation: NotRequired[bool | None]
    optimizer: Scalars
    history: list[Row]
    best: tuple[float, int] | None
    logged: NotRequired[dict[str, list[tuple[int, float]]]]


@dataclass
class Run:
    """One run of `fit`: its steps, the measurements after each epoch, and its folder.

    Args:
        program: what is trained, scored and saved.
        steps: the gradient steps, which may hold a module with model and guide as a program.
        compile: whether to compile them.
        validation: what scores data after every epoch, if there are any.
        patience: stop after so many epochs without a better validation score.
        folder: where the run is kept, if anywhere.
        checkpoint_seconds: how often to save.
        settings: what a resumed run must have in common with the one in the folder.
        callbacks: what is called between epochs.
    """

    program: ProgramLike
    steps: GradientSteps
    compile: Literal["auto", "on", "off"]
    validation: Validation | None
    patience: int | None
    folder: Path | None
    checkpoint_seconds: float
    settings: dict[str, object]
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        self.writes = self.folder is not None and speaks()
        self.compiled_validation: bool | None = None  # decided in the first epoch
        self.seen = Training(
            self.program,
            self.steps.data,
            self.folder if self.writes else None,
            self.settings,
            self.callbacks,
            self.validation is not None,
        )

    @property
    def history(self) -> History:
        """The numbers of each epoch so far."""
        return self.seen.history

    # the loop

    def train(self, progress: bool) -> None:
        """Train until the last epoch, or until patience or a callback ends it.

        An interrupt goes back to the end of the last epoch, which is saved.
        """
        started = self.history["seconds"][-1] if self.history.rows else 0.0
        clock = time.monotonic() - started
        start, steps = len(self.history), self.steps
        with inside_supports():
            steps.find_plates()
            if start == 0:
                steps.initialize()
            steps.validate()
        if steps.compiled_sizes is None:
            steps.decide(self.compile)
        if start == 0:
            self._save()  # a folder that cannot be written to is found out now
        with self._told():
            try:
                self._train(start, clock, progress)
            except KeyboardInterrupt:
                self.seen.ended, self.history.interrupted = "interrupted", True
            self._save()
        if self.seen.best is not None:
            self.program.load_state_dict(self.seen.best.weights)
        elif steps.moving:
            steps.moving.put()
        if self.seen.ended == "interrupted":
            say(self._how_to_go_on())
            if not is_interactive():
                raise KeyboardInterrupt
        elif progress and (words := how_it_ended(self.seen, steps.epochs)):
            say(words)

    def _train(self, start: int, clock: float, progress: bool) -> None:
        steps, saved = self.steps, time.monotonic()
        with progress_bar("epochs", total=steps.epochs, shown=progress, start=start) as advance:
            for epoch in range(start, steps.epochs):
                if self._is_out_of_patience() or self.seen.reason:
                    break
                if epoch == start:
                    advance(0, note="compiling the step ..." if steps.compiled_sizes else "")
                    self._compile()
                row = self._epoch(epoch, clock)
                if time.monotonic() - saved >= self.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                validated = row["validation_elbo"]
                name, score = "objective", row["objective"]
                if validated is not None:
                    name, score = "validation", validated
                advance(1, note=f"{name} {score:.2f}")

    def _compile(self) -> None:
        """Compile what was decided; only where a step is, so may be the validation score."""
        self.steps.compile()
        if self.validation is not None and self.steps.is_compiled:
            decided = {None: self.compile, True: "on", False: "off"}
            self.validation.compile = decided[self.compiled_validation]

    def _epoch(self, epoch: int, clock: float) -> Row:
        """Train for one epoch and measure it; an interrupt leaves nothing of it."""
        before, best = self.steps.state(), self.seen.best
        skipped = self.steps.update.skipped
        try:
            losses = self._run_epoch(epoch, before)
            with self.steps.averaged():
                row = self._measure(epoch, losses, time.monotonic() - clock)
                self.seen.tell(curves_of(row))
                if self.steps.skip_norm is not None:
                    left_out = count_left_out(self.steps.update, skipped, self.steps.per_epoch)
                    self.seen.log(skipped_steps=left_out)
                for callback in self.callbacks:
                    callback.epoch(self.seen)
        except KeyboardInterrupt:
            self.steps.restore(before)
            self.seen.best, self.seen.reason = best, ""
            self.history.forget(after=epoch)
            raise
        return row

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell the callbacks of the start and of the end of the training."""
        for callback in self.callbacks:
            callback.start(self.seen)
        try:
            yield
        except BaseException:
            self.seen.ended = "failed"
            raise
        finally:
            self.seen.ended = self.seen.ended or ("stopped" if self.seen.reason else "finished")
            with self.steps.averaged():
                for callback in self.callbacks:
                    callback.end(self.seen)

    def _how_to_go_on(self) -> str:
        """What an interrupted training has left, and how it can be continued."""
        best, done = self.seen.best, len(self.history)
        has = f"the weights of epoch {best.epoch if best else done}"
        has += ", the best so far" if best else ""
        goes_on = (
            "train with out= (--out) to be able to continue a run"
            if self.folder is None
            else f"resume=True (--resume) continues the run in {self.folder}"
        )
        has = has if done else "its first weights"
        total = self.steps.epochs
        return f"interrupted after {done} of {total} epochs: the program has {has}; {goes_on}"

    def _run_epoch(self, epoch: int, before: dict[str, Tensor]) -> Tensor:
        """Train for one epoch; go back to its start if the loss or a parameter diverges."""
        steps = self.steps
        try:
            losses = steps.run(epoch)
        except BaseException as error:
            broken = self._first_parameter_that_is_not_finite()
            steps.restore(before)
            if isinstance(error, KeyboardInterrupt):
                raise
            if broken is not None:  # and a distribution refused what came of it
                where = f"parameter {broken!r}, in the epoch that starts there"
                step = epoch * steps.per_epoch
                raise TrainingDiverged(step, where, OVERFLOWED, self.folder) from error
            raise
        if torch.isfinite(losses).all() and steps.parameters_are_finite():
            return losses
        steps.restore(before)
        diagnosis = self._diagnosis(epoch, losses)
        steps.restore(before)  # the diagnosis went on to the step at fault
        raise diagnosis

    def _measure(self, epoch: int, losses: Tensor, seconds: float) -> Row:
        # The last batch may be smaller: the epoch's mean is over data.
        steps, number = self.steps, len(self.steps.data)
        sizes = torch.full_like(losses, steps.batch_size)
        sizes[-1] = number - steps.batch_size * (len(losses) - 1)
        last = (epoch + 1) * steps.per_epoch - 1
        score = None
        if self.validation is not None:
            score = self.validation.score(looked_at=len(self.history) > 0)
        row: Row = {
            "epoch": epoch + 1,
            "step": last + 1,
            "seconds": round(seconds, 3),
            "objective": -(losses * sizes).sum().item() / number,
            "validation_elbo": score,
            "learning_rate": steps.learning_rate * steps.rate_factor(last),
            "kl_weight": steps.kl_weight(last),
        }
        self.history.rows.append(row)
        if score is not None:
            self.seen.judge(score)
        return row

    def _is_out_of_patience(self) -> bool:
        best = self.seen.best.epoch if self.seen.best else None
        return is_out_of_patience(len(self.history), best, self.steps.warmup, self.patience)

    def _diagnosis(self, epoch: int, losses: Tensor) -> TrainingDiverged:
        """Rerun the epoch up to its first bad loss, and examine the sites there.

        The seed makes the epoch the same.
        """
        steps = self.steps
        bad = (~torch.isfinite(losses)).nonzero()
        first = int(bad[0]) if len(bad) else len(losses)
        x, context = steps.batch_at(epoch, min(first, steps.per_epoch - 1))
        steps.run(epoch, stop=first)
        step = epoch * steps.per_epoch + first
        broken = self._first_parameter_that_is_not_finite()
        if broken is not None:
            return TrainingDiverged(step - 1, f"parameter {broken!r}", OVERFLOWED, self.folder)
        with torch.no_grad(), validation_enabled(False):
            guide, model = importance_traces(steps.program, x, context)
        for part, trace in (("guide", guide), ("model", model)):
            name = _first_site_that_is_not_finite(trace)
            if name is not None:
                where = f"site {name!r} of the {part}"
                with torch.no_grad(), validation_enabled(False):
                    site = sites_of(trace)[name]
                    cause = why_not_finite(site["fn"], site["value"])
                return TrainingDiverged(step, where, cause, self.folder)
        cause = "running the epoch again gave finite terms: lower learning_rate or set clip_norm"
        return TrainingDiverged(step, "no single site", cause, self.folder)

    def _first_parameter_that_is_not_finite(self) -> str | None:
        parameters = self.program.named_parameters()
        return next((name for name, p in parameters if not torch.isfinite(p).all()), None)

    # on disk

    def _save(self) -> None:
        if self.folder is None or not self.writes:
            return
        kept, state = self.seen.best, self.steps.state()
        with self.steps.averaged():
            self._write(self.folder, kept, state)
            for callback in self.callbacks:
                callback.checkpoint(self.seen)

    def _write(self, folder: Path, kept: Best | None, state: dict[str, Tensor]) -> None:
        best = self.program.state_dict() if kept is None else kept.weights
        compiled = self.validation.is_compiled if self.validation else None
        compiled = self.compiled_validation if compiled is None else compiled
        described = checkpoint.description_of(self.program)
        with checkpoint.committing(folder) as add:
            checkpoint.add_state(add, "program", best, described)
            add("metrics.csv", self.history.to_csv().encode())
            checkpoint.add_state(
                add,
                "training",
                state,
                {
                    "settings": self.settings,
                    "compiled_sizes": self.steps.compiled_sizes,
                    "compiled_validation": compiled,
                    "optimizer": self.steps.optimizer_state.scalars(),
                    "history": self.history.rows,
                    "best": kept and [kept.score, kept.epoch],
                    "logged": self.history.logged,
                },
            )

    def _is_same(self, saved: object, ours: object) -> bool:
        """Whether two descriptions are of one program, whatever arguments its classes got since."""
        if saved == ours:
            return True
        trust = [type(module).__module__ for module in self.program.modules()]
        try:
            with torch.random.fork_rng(devices=[]):
                return describe(build(saved, trust=trust)) == ours
        except InvalidInput:
            return False

    def restore(self) -> None:
        """Restore the state of the run in the folder."""
        assert self.folder is not None
        state, found = checkpoint.read_state(self.folder, "training")
        with parsing(self.folder / "training.json", STATE):
            meta = checked(found, Saved)
        saved = checkpoint.with_current_paths(meta["settings"])
        for name, value in self.settings.items():
            if name == "program" and self._is_same(saved.get(name), value):
                continue
            if name == "program":
                raise InvalidInput(
                    "program",
                    got=f"other components or arguments than the run in {self.folder} has",
                    expected="those of its recipe.yaml or program.json",
                    fix="resume with those it was started with",
                )
            if differs(value, saved.get(name)):
                raise changed(name, value, saved.get(name), self.folder, self.steps.schedule)
        if (trained := len(meta["history"])) > self.steps.epochs:
            raise fewer_epochs(self.steps.epochs, trained, self.folder)
        try:
            self.steps.restore(state)
            self.steps.optimizer_state.restore_scalars(meta["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                "program",
                got=f"another structure than the run in {self.folder} has "
                f"({str(error).splitlines()[-1]})",
                expected="the same components",
                fix="resume with those it was started with",
            ) from None
        self.seen.history = History(meta["history"], _pairs(meta.get("logged", {})))
        self.steps.compiled_sizes = meta["compiled_sizes"]
        if self.history.rows:
            self.compiled_validation = meta.get("compiled_validation")
        if meta["best"] is not None:
            weights, _ = checkpoint.read_state(self.folder, "program")
            on_device = {name: value.to(self.steps.device) for name, value in weights.items()}
            score, epoch = meta["best"]
            self.seen.best = Best(score, epoch, on_device)


def _pairs(logged: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """What was logged, its pairs as tuples, where JSON has lists."""
    return {name: [(epoch, value) for epoch, value in curve] for name, curve in logged.items()}


def _first_site_that_is_not_finite(trace: Trace) -> str | None:
    for name, site in sites_of(trace).items():
        if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
            return name
    return None
