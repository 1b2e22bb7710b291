"""Training: stochastic variational inference of any program, resumable to the bit.

Everything random in an epoch follows from the run's seed and the epoch's index (`pyro_vae.stepping`), so a checkpoint needs no
random state, and a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import copy
import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from pyro import validation_enabled
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.datasets import Data, Dataset, as_dataset
from pyro_vae.evaluation import elbo, log_joint
from pyro_vae.events import EventFile
from pyro_vae.execution import check_data, choose_device, isolated_random, reference_parameter
from pyro_vae.objectives import ELBO
from pyro_vae.programs import AnyProgram
from pyro_vae.progress import progress_bar
from pyro_vae.schedules import Constant
from pyro_vae.stepping import AnyObjective, Optimizer, Steps
from pyro_vae.traces import NoBound, importance_traces
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_positive, check_seed

__all__ = ["History", "TrainingDiverged", "fit"]

COLUMNS = ("epoch", "step", "seconds", "objective", "validation_elbo", "learning_rate", "kl_weight")
CURVES = ("objective", "validation_elbo", "learning_rate", "kl_weight")
OVERFLOWED = "its gradient overflowed: lower learning_rate, set clip_norm, or bound the scales of the likelihood"


class TrainingDiverged(ArithmeticError):
    """A loss or a parameter that became NaN or infinite.

    Args:
        step: the step, counted from 0 over the whole run.
        site: the site, or the parameter, where it was first seen.
        cause: what makes this likely and what to change.
        folder: where the last good checkpoint was kept, if anywhere.
    """

    def __init__(self, step: int, site: str, cause: str, folder: Path | None = None):
        self.step, self.site, self.cause, self.folder = step, site, cause, folder
        kept = "the program has the weights of the last good epoch" if folder is None else f"the last good checkpoint is kept in {folder}"
        super().__init__(f"training diverged: the loss or a parameter became NaN or infinite at step {step}, first at "
                         f"{site}; {cause}; {kept}")


@dataclass
class History:
    """What was measured, a row for each epoch, in nats per datum where it is a score.

    Example:
        >>> history = pv.fit(vae, torch.zeros(10, 1, 8, 8), epochs=2, progress=False)
        >>> history["epoch"], len(history["objective"])
        ([1, 2], 2)
    """

    rows: list[dict[str, float | int | None]] = field(default_factory=list)

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        last = ", ".join(f"{name}={value:.6g}" for name, value in self.rows[-1].items() if value is not None)
        return f"History({len(self)} epochs, the last: {last})"

    def __getitem__(self, column: str) -> list:
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def to_csv(self) -> str:
        """The rows as CSV, a header first; an empty field where nothing was measured."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()


def fit(program: AnyProgram, data: Data, *, objective: AnyObjective | None = None, epochs: int = 50,
        batch_size: int = 128, learning_rate: float = 1e-3, optimizer: Optimizer | None = None,
        schedule: Callable[[float], float] = Constant(), warmup: int = 0, clip_norm: float | None = None,
        validation: Data | None = None, patience: int | None = None, seed: int = 0,
        device: str | torch.device = "auto", compile: Literal["auto", "on", "off"] = "auto", autocast: bool = False,
        out: str | Path | None = None, resume: bool = False, checkpoint_seconds: float = 10.0,
        progress: bool = True) -> History:
    """Fits a program to data by stochastic variational inference.

    The loss of a batch is minus the objective per datum. One fused optimiser holds all parameters of the program,
    which are its own: nothing is registered in Pyro's global store, which is why `pyro.infer.SVI`, looking for
    parameters there, would run and move nothing.

    Args:
        program: any program; moved to ``device`` and left there, with its last weights, or with those of the best
            validation ELBO if there are validation data.
        data: training data, a data set, a tensor x (N, *event), or a pair (x, context).
        objective: a Pyro ELBO; by default `pyro_vae.objectives.ELBO`.
        epochs: passes over the data, in total: a resumed run does those that are left.
        batch_size: data in a batch; the last of an epoch may be smaller.
        learning_rate: the optimiser's, before the schedule.
        optimizer: from parameters and ``lr=`` to a torch optimiser; by default fused Adam.
        schedule: from the fraction of steps done to a factor on the learning rate.
        warmup: epochs over which the weight of the latents' terms rises from 0 to 1 (KL annealing).
        clip_norm: upper limit of the gradient's global norm.
        validation: data whose ELBO is taken after every epoch; of a program without one, its guide a point, minus the loss.
        patience: stop after so many epochs without a better validation ELBO, counted from the end of the warm-up.
        seed: of everything random; the caller's random state is left as it was.
        device: ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"`` or a torch device.
        out: run folder for checkpoints, ``metrics.csv`` and TensorBoard events.
        resume: continue the run in ``out``.
        compile: ``"auto"`` captures and compiles the step where that pays over the planned number of steps, which is
            decided by counting and so is the same every time, recorded, and kept when resuming.
        autocast: compute layers in bfloat16; densities stay in the parameters' own precision.
        checkpoint_seconds: how often to save, at the end of an epoch; the end of training is always saved.
        progress: show a bar with the epoch, the objective (or its value on validation data) and the time left.

    Raises:
        InvalidInput: on unusable data or settings, or a run folder that is in use.
        TrainingDiverged: if the loss or a parameter becomes NaN or infinite.

    Source: Kingma and Welling (2014); Hoffman et al. (2013), Stochastic Variational Inference.

    Example:
        >>> train, test = pv.datasets.load("digits")
        >>> history = pv.fit(vae, train, epochs=3, progress=False)
        >>> history["objective"][-1] > history["objective"][0]
        True
    """
    check_settings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup, clip_norm=clip_norm,
                   patience=patience, has_validation=validation is not None, seed=seed, compile=compile)
    if resume and out is None:
        raise InvalidInput("resume", got="True without a run folder", expected="out=", fix="pass the folder of the run")
    for name, factory in (("optimizer", optimizer), ("schedule", schedule)):
        if factory is not None and not callable(factory):
            raise InvalidInput(name, got=repr(factory), expected="a class or a function",
                               fix="pass torch.optim.Adam" if name == "optimizer" else "pass schedules.Cosine()")
    train = as_dataset(data)
    check_data(program, train)
    target = choose_device(device)
    program.to(target)
    dtype = reference_parameter(program).dtype
    held = None if validation is None else as_dataset(validation)
    if held is not None:
        check_data(program, held)
        held = held.to(target, dtype)
    if not hasattr(objective or ELBO, "differentiable_loss"):
        raise InvalidInput("objective", got=type(objective).__name__, expected="an ELBO with a differentiable loss",
                           fix="choose one of pyro_vae.objectives")
    settings = {
        "data": train.sha256, "binarize": train.binarize, "objective": _settings_of(objective or ELBO()), "batch_size": batch_size,
        "learning_rate": learning_rate, "optimizer": _settings_of(optimizer), "schedule": _settings_of(schedule),
        "warmup": warmup, "clip_norm": clip_norm, "validation": held and held.sha256, "patience": patience, "seed": seed,
        "autocast": autocast, "program": None if out is None else checkpoint.describe(program), "epochs": None if isinstance(schedule, Constant) else epochs,
        "trainable": [name for name, parameter in program.named_parameters() if parameter.requires_grad],
    }
    steps = Steps(program, train.to(target, dtype), copy.copy(objective) if objective is not None else ELBO(), epochs, batch_size,
                  learning_rate, optimizer or partial(torch.optim.Adam, fused=True), schedule, warmup, clip_norm, seed, autocast)
    run = _Run(steps, compile, held, patience, None if out is None else Path(out), checkpoint_seconds, settings)
    with _claimed(run.folder):
        if resume:
            run.restore()
        elif run.folder is not None and checkpoint.exists(run.folder, "program"):
            raise InvalidInput("out", got=f"{run.folder}, which holds a run already", expected="a new folder",
                               fix="choose another folder, or continue that run with resume=True (--resume)")
        if out is not None and "<lambda>" in str(settings):
            raise InvalidInput("schedule or optimizer", got="a lambda", expected="a function with a name, which a resumed "
                               "run can compare", fix="define it with def")
        with isolated_random(target, seed), _modes_put_back(program):
            run.train(progress)
    return run.history


def check_settings(*, epochs: int, batch_size: int, learning_rate: float, warmup: int, clip_norm: float | None,
                   patience: int | None, has_validation: bool, seed: int, compile: str) -> None:
    """Raises `InvalidInput` on numbers that `fit` cannot train with."""
    for name, count, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("warmup", warmup, 0)):
        check_count(name, count, least)
    check_seed(seed)
    check_positive("learning_rate", learning_rate)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    if patience is not None:
        check_count("patience", patience)
        if not has_validation:
            raise InvalidInput("patience", got=f"{patience} without validation data", expected="validation data to stop by",
                               fix="pass validation= (--validation 1000)")
    check_choice("compile", compile, ["auto", "on", "off"])


@contextmanager
def _modes_put_back(program: AnyProgram) -> Iterator[None]:
    modes = {module: module.training for module in program.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _claimed(folder: Path | None) -> Iterator[None]:
    """Holds a lock on the run folder; the system releases it even if the process is killed."""
    if folder is None:
        yield
        return
    with checkpoint.writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InvalidInput("out", got=f"{folder}, in which another process is training", expected="a folder of its own",
                               fix="choose another folder, or wait for that run to end") from None
    try:
        yield
    finally:
        lock.release()


def _settings_of(thing: Any) -> Any:
    """A setting in the form in which two runs are compared: a class's name and its numbers."""
    if isinstance(thing, partial):
        return [_settings_of(thing.func), _settings_of(list(thing.args)), _settings_of(thing.keywords)]
    if isinstance(thing, dict):
        return {str(key): _settings_of(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_settings_of(item) for item in thing]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, type) or (callable(thing) and hasattr(thing, "__qualname__")):
        return thing.__qualname__
    values = asdict(thing) if is_dataclass(thing) and not isinstance(thing, type) else vars(thing)
    return {"class": type(thing).__qualname__,
            **{key: value for key, value in values.items()
               if isinstance(value, bool | int | float | str) and key != "max_plate_nesting"}}  # found, not set


@dataclass
class _Run:
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
        self.best: tuple[float, int, dict[str, Tensor]] | None = None  # validation ELBO, epoch, weights

    # ------------------------------------------------------------------------------------------------ the loop

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
            self._save()  # what cannot be written is found out now, and the folder is taken from here on
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
                    broken = [name for name, p in self.program.named_parameters() if not torch.isfinite(p).all()]
                    steps.restore(before)
                    if isinstance(error, KeyboardInterrupt):
                        self._save()
                    elif broken:  # and a distribution refused what came of it
                        raise TrainingDiverged(epoch * steps.per_epoch, f"parameter {broken[0]!r}, in the epoch that starts there",
                                               OVERFLOWED, self.folder) from error
                    raise
                if not (torch.isfinite(losses).all() and steps.parameters_are_finite()):
                    steps.restore(before)
                    diagnosis = self._diagnosis(epoch, losses)
                    steps.restore(before)  # the diagnosis went back to the step at fault
                    raise diagnosis
                row = self._measure(epoch, losses, time.monotonic() - clock)
                if self.folder is not None and events is not None:
                    with checkpoint.writing_to(self.folder):
                        events.add({name: row[name] for name in CURVES if row[name] is not None}, row["step"])
                if time.monotonic() - saved >= self.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                validated = row["validation_elbo"]
                advance(1, note=f"objective {row['objective']:.2f}" if validated is None else f"validation {validated:.2f}")
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
                weights = {name: value.detach().clone() for name, value in self.program.state_dict().items()}
                self.best = (score, epoch + 1, weights)
        row = {"epoch": epoch + 1, "step": last + 1, "seconds": round(seconds, 3),
               "objective": -(losses * sizes).sum().item() / number, "validation_elbo": score,
               "learning_rate": steps.learning_rate * steps.rate_factor(last), "kl_weight": steps.kl_weight(last)}
        self.history.rows.append(row)
        return row

    def _validation_score(self) -> float:
        assert self.validation is not None
        try:
            # One draw for each datum, the same numbers every time: differences between epochs are the weights'.
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
                if site["type"] == "sample" and not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                    return TrainingDiverged(step, f"site {name!r} of the {part}", "its log-probability overflowed: bound its "
                                            "scale, rescale x, or lower learning_rate", self.folder)
        return TrainingDiverged(step, "no single site", "running the epoch again gave finite terms: lower learning_rate or "
                                "set clip_norm", self.folder)

    # ------------------------------------------------------------------------------------------------- on disk

    def _save(self) -> None:
        if self.folder is None:
            return
        best = self.best[2] if self.best is not None else self.program.state_dict()
        checkpoint.write_state(self.folder, "program", best, checkpoint.description_of(self.program))
        checkpoint.write_text(self.folder / "metrics.csv", self.history.to_csv())
        checkpoint.write_state(self.folder, "training", self.steps.state(), {
            "settings": self.settings, "compiled_sizes": self.steps.compiled_sizes, "optimizer": self.steps.scalars(),
            "history": self.history.rows, "best": self.best and list(self.best[:2])})

    def restore(self) -> None:
        """Goes back to where the run in the folder is."""
        assert self.folder is not None
        if not checkpoint.exists(self.folder, "training"):
            raise InvalidInput("resume", got=f"{self.folder}, which holds no training to continue", expected="a run's folder",
                               fix="check the path, or train without resume")
        state, meta = checkpoint.read_state(self.folder, "training")
        for name, value in self.settings.items():
            if name == "program" and meta["settings"].get(name) != value:
                raise InvalidInput("program", got=f"other components or arguments than the run in {self.folder} has",
                                   expected="those of its recipe.yaml or program.json", fix="resume with those it was started with")
            if meta["settings"].get(name) != value:
                raise InvalidInput(name, got=f"{value!r}", expected=f"{meta['settings'].get(name)!r}, as in the run in {self.folder}",
                                   fix="resume with the settings it was started with, or train in a new folder")
        try:
            self.steps.restore(state)
            self.steps.restore_scalars(meta["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidInput("program", got=f"another structure than the run in {self.folder} has ({str(error).splitlines()[-1]})",
                               expected="the same components", fix="resume with those it was started with") from None
        self.history = History(meta["history"])
        self.steps.compiled_sizes = meta["compiled_sizes"]
        if meta["best"] is not None:
            weights, _ = checkpoint.read_state(self.folder, "program")
            self.best = (*meta["best"], {name: value.to(self.steps.device) for name, value in weights.items()})

    def _open_events(self) -> EventFile | None:
        if self.folder is None:
            return None
        with checkpoint.writing_to(self.folder):
            return EventFile(self.folder / "tensorboard", purge_step=len(self.history) * self.steps.per_epoch + 1)
