"""Trackers: callbacks that hand the numbers of a training on to the programs that draw them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal

from pyro_vae import checkpoint
from pyro_vae.files.optional import optional
from pyro_vae.training.callbacks import Callback, Training
from pyro_vae.validation import InvalidInput, printable

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "WeightsAndBiases"]


class TensorBoard(Callback):
    """Writes the numbers of every epoch for TensorBoard.

    ``tensorboard --logdir runs`` shows all runs in a folder. A resumed run goes on with its curves.
    Needs the extra ``pyro-vae[tensorboard]``.

    Args:
        folder: where the events go; by default ``tensorboard`` in the run's folder.

    Raises:
        InvalidInput: if TensorBoard is not installed, or there is neither folder.
    """

    def __init__(self, folder: str | Path | None = None):
        _library("tensorboard.compat.proto.event_pb2", "tensorboard", "TensorBoard")
        self.folder = None if folder is None else Path(folder)

    def start(self, training: Training) -> None:
        from pyro_vae.training.tensorboard import EventFile

        folder = self.folder or training.folder
        if folder is None:
            raise _no_folder("TensorBoard()")
        place, name = (folder.parent, folder.name) if self.folder else (folder, "tensorboard")
        inner = checkpoint.subfolder(place, name)
        with checkpoint.writing_to(folder):
            self.events = EventFile(inner, purge_step=training.step + 1)

    def log(self, training: Training, scalars: Mapping[str, float], step: int) -> None:
        with checkpoint.writing_to(self.events.path.parent):
            self.events.add(scalars, step)


class MLflow(Callback):
    """Logs the settings and the numbers of a training to MLflow, by default in a local file.

    ``mlflow ui``, of the whole package mlflow, shows them. Without ``uri`` the environment's
    ``MLFLOW_TRACKING_URI`` decides, and without that the database ``mlflow.db`` in the working
    folder. A resumed run goes on in the same run of MLflow. Needs the extra ``pyro-vae[mlflow]``.

    Args:
        uri: the tracking URI, as MLflow takes it.
        experiment: the name of the experiment.

    Raises:
        InvalidInput: if MLflow is not installed.
    """

    def __init__(self, uri: str | None = None, experiment: str = "pyro_vae"):
        self.library = _library("mlflow.tracking", "mlflow", "MLflow")
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self.experiment = experiment

    def start(self, training: Training) -> None:
        self.client = self.library.MlflowClient(tracking_uri=self.uri)
        found = self.client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self.client.create_experiment(self.experiment)
        self.run = self._run_of(training, number)
        for name, value in training.settings.items():
            if name not in LONG:
                self.client.log_param(self.run, name, str(value)[:500])

    def _run_of(self, training: Training, experiment: str) -> str:
        """The run of a folder that is resumed, or else a new one."""
        tags, name = {}, None
        if training.folder is not None:
            folder, name = str(training.folder.resolve()), training.folder.name
            digest = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()
            tags = {"folder": printable(folder), "folder_id": digest}
        if training.epoch and tags:  # by a number: a path may hold the quotes of a query
            query = f"tags.folder_id = '{tags['folder_id']}'"
            earlier = self.client.search_runs([experiment], query, max_results=1)
            if earlier:
                return earlier[0].info.run_id
        return self.client.create_run(experiment, tags=tags, run_name=name).info.run_id

    def log(self, training: Training, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self.client.log_metric(self.run, name, value, step=step)

    def end(self, training: Training) -> None:
        states = {"failed": "FAILED", "interrupted": "KILLED"}
        self.client.set_terminated(self.run, states.get(training.ended, "FINISHED"))


class WeightsAndBiases(Callback):
    """Logs the settings and the numbers of a training to Weights & Biases.

    With ``mode="offline"`` nothing leaves the machine: the files lie in ``wandb`` in the run's
    folder, and ``wandb sync`` sends them later. A resumed run has the same id. Needs the extra
    ``pyro-vae[wandb]``.

    Args:
        project: the name of the project.
        mode: ``"online"`` or ``"offline"``; by default what the environment's ``WANDB_MODE`` says,
            or else online.

    Raises:
        InvalidInput: if wandb is not installed.
    """

    def __init__(self, project: str = "pyro_vae", mode: Literal["online", "offline"] | None = None):
        self.library = _library("wandb", "wandb", "Weights & Biases")
        self.project, self.mode = project, mode

    def start(self, training: Training) -> None:
        folder, run = training.folder, {}
        if folder is not None:
            place = str(folder.resolve()).encode()
            run = {"id": hashlib.sha256(place).hexdigest()[:16], "resume": "allow",
                   "dir": str(folder), "name": folder.name}  # fmt: skip
            checkpoint.subfolder(folder, "wandb")
        kept = {name: value for name, value in training.settings.items() if name not in LONG}
        quiet = self.library.Settings(silent=True, console="off")
        self.run = self.library.init(
            project=self.project, mode=self.mode, config=kept, settings=quiet, **run
        )

    def log(self, training: Training, scalars: Mapping[str, float], step: int) -> None:
        self.run.log(dict(scalars), step=step)

    def end(self, training: Training) -> None:
        self.run.finish(exit_code=1 if training.ended == "failed" else 0)


LONG = ("program", "trainable")  # settings that no tracker is told

# By the names that ``--log`` takes.
TRACKERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def _library(module: str, extra: str, name: str) -> ModuleType:
    """What a tracker hands its numbers to."""
    return optional(module, extra, "callbacks", f"a tracker for {name}, which is not installed")


def _no_folder(name: str) -> InvalidInput:
    return InvalidInput(
        "callbacks",
        got=f"{name} without a folder",
        expected="out=, the run's folder, or a folder of its own",
        fix="pass out= to fit",
    )
