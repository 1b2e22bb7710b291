"""Callbacks: what else happens during training, between epochs.

A callback is any object with the methods of `Callback`, and one that inherits from it writes only
those that it needs. It sees the run as a `Training`, can log numbers and can stop the run. It
changes no random number of the training: those of an epoch follow from the run's seed and the
epoch alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, Dataset
from pyro_vae.evaluation.importance import log_likelihood
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.training.history import History
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Best", "Callback", "EarlyStopping", "LogLikelihood", "Training", "check_callbacks"]


@runtime_checkable
class Callback(Protocol):
    """What `fit` calls during training.

    A callback that raises an error ends the training; the last checkpoint is kept. The epoch in
    which it was raised, or in which an interrupt came, is trained again by a resumed run, and its
    callbacks are called again.

    Example:
        >>> class Say(Callback):
        ...     def epoch(self, training):
        ...         print("epoch", training.epoch)
        >>> x = torch.zeros(10, 1, 8, 8)
        >>> history = pv.fit(vae, x, epochs=2, callbacks=[Say()], progress=False)
        epoch 1
        epoch 2
    """

    def start(self, training: Training) -> None:
        """Before the first epoch, or the first of a resumed run."""
        return

    def epoch(self, training: Training) -> None:
        """After an epoch, when it was measured: the last row of ``training.history`` is its."""
        return

    def log(self, training: Training, scalars: Mapping[str, float], step: int) -> None:
        """Numbers by name, once an epoch from `fit` and whenever a callback logs some."""
        return

    def checkpoint(self, training: Training) -> None:
        """After a checkpoint was written to ``training.folder``."""
        return

    def end(self, training: Training) -> None:
        """After training, however it ended: ``training.ended`` tells."""
        return


@dataclass(frozen=True)
class Best:
    """The best score so far, its epoch, and the weights then."""

    score: float
    epoch: int
    weights: dict[str, Tensor]


@dataclass
class Training:
    """A run of `fit` as its callbacks see it.

    Args:
        program: what is trained.
        data: the training data, on the program's device.
        folder: the run's folder, if it has one.
        settings: what the run was started with, by name.
        callbacks: all callbacks of the run.
        is_validated: whether validation data judge the weights.
        history: the numbers of each epoch so far.
        best: the best weights so far, if anything judges them.
        reason: why the run is to stop after this epoch; empty if it is to go on.
        ended: how it ended; empty while it runs.
    """

    program: ProgramLike
    data: Dataset
    folder: Path | None
    settings: Mapping[str, object]
    callbacks: Sequence[Callback]
    is_validated: bool
    history: History = field(default_factory=History)
    best: Best | None = None
    reason: str = ""
    ended: Literal["", "finished", "stopped", "interrupted", "failed"] = ""

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(self.history)

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        return self.history["step"][-1] if self.epoch else 0

    def log(self, **scalars: float) -> None:
        """Log numbers of this epoch: they go to `History.logged` and to all callbacks."""
        for name, value in scalars.items():
            self.history.logged.setdefault(name, []).append((self.epoch, float(value)))
        self.tell(scalars)

    def tell(self, scalars: Mapping[str, float]) -> None:
        """Pass numbers of this epoch on to all callbacks."""
        for callback in self.callbacks:
            callback.log(self, scalars, self.step)

    def stop(self, reason: str) -> None:
        """End the training after this epoch.

        Args:
            reason: why, for the user.
        """
        self.reason = reason

    def judge(self, score: float) -> None:
        """Score the weights of this epoch: `fit` ends with those of the highest score.

        They are kept in the checkpoint, so that a resumed run knows them.
        """
        if self.best is None or score > self.best.score:
            state = self.program.state_dict()
            weights = {name: value.detach().clone() for name, value in state.items()}
            self.best = Best(score, self.epoch, weights)


class LogLikelihood(Callback):
    r"""Logs log p(x) of held-out data during training, by importance sampling.

    Its curve is ``history.logged["log_likelihood"]``, pairs of an epoch and nats per datum, and is
    drawn by ``history.plot()``. The draws are the same every time, so that two epochs differ by
    their weights alone.

    Args:
        data: held-out data.
        every: epochs between two scores.
        num_samples: draws K for each datum. Few make log p(x) too low, though the curve may still
            tell where it bends.
        seed: of the draws.

    Example:
        >>> callbacks = [LogLikelihood(torch.zeros(5, 1, 8, 8), every=2, num_samples=10)]
        >>> x = torch.zeros(10, 1, 8, 8)
        >>> history = pv.fit(vae, x, epochs=4, callbacks=callbacks, progress=False)
        >>> [epoch for epoch, score in history.logged["log_likelihood"]]
        [2, 4]
    """

    def __init__(self, data: Data, every: int = 1, num_samples: int = 100, seed: int = 0):
        check_count("every", every)
        check_count("num_samples", num_samples)
        self.data, self.every, self.num_samples, self.seed = data, every, num_samples, seed

    def epoch(self, training: Training) -> None:
        if training.epoch % self.every == 0:
            training.log(log_likelihood=self.score(training.program))

    def score(self, program: ProgramLike) -> float:
        """The mean log p(x), in nats per datum."""
        with warnings.catch_warnings():  # which would be said again at every epoch
            warnings.simplefilter("ignore", UnreliableEstimate)
            return log_likelihood(program, self.data, self.num_samples, seed=self.seed).mean


class EarlyStopping(LogLikelihood):
    """Stops when log p(x) of held-out data gets no better, and keeps the best weights.

    `fit` then ends with the weights of the epoch whose log p(x) was highest. ``patience=`` of `fit`
    does the same by the ELBO, which is cheaper; a guide may still fall behind where log p(x) rises.

    Args:
        data: held-out data.
        patience: stop after so many epochs without a better log p(x).
        every: epochs between two scores.
        num_samples: draws K for each datum.
        seed: of the draws.

    Raises:
        InvalidInput: at the start of a training with ``validation=``, which judges by the ELBO.

    Example:
        >>> stop = EarlyStopping(torch.zeros(5, 1, 8, 8), patience=1, num_samples=10)
        >>> x = (torch.rand(10, 1, 8, 8) > 0.5).float()
        >>> history = pv.fit(
        ...     vae, x, epochs=500, learning_rate=0.1, callbacks=[stop], progress=False
        ... )
        >>> len(history) < 500
        True
    """

    def __init__(
        self,
        data: Data,
        patience: int = 5,
        every: int = 1,
        num_samples: int = 100,
        seed: int = 0,
    ):
        super().__init__(data, every, num_samples, seed)
        check_count("patience", patience)
        self.patience = patience

    def start(self, training: Training) -> None:
        if training.is_validated:
            raise InvalidInput(
                "callbacks",
                got="EarlyStopping with validation=, and only one of them can judge the weights",
                expected="one of the two",
                fix="leave validation= out, or use patience= and LogLikelihood instead",
            )
        self._look(training)

    def epoch(self, training: Training) -> None:
        if training.epoch % self.every == 0:
            score = self.score(training.program)
            training.log(log_likelihood=score)
            training.judge(score)
        self._look(training)

    def _look(self, training: Training) -> None:
        best = training.best
        if best is not None and training.epoch - best.epoch >= self.patience:
            training.stop(
                f"log p(x) has not risen since epoch {best.epoch}, where it was {best.score:.2f}"
            )


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise `InvalidInput` for a callback that lacks a method."""
    for callback in callbacks:
        if isinstance(callback, type) or not isinstance(callback, Callback):
            raise InvalidInput(
                "callbacks",
                got=f"{callback.__name__}, a class"
                if isinstance(callback, type)
                else f"a {type(callback).__name__}",
                expected="objects with the methods start, epoch, log, checkpoint and end",
                fix="pass an object"
                if isinstance(callback, type)
                else "inherit from pv.training.Callback, which has all of them",
            )
