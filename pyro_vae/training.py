"""Training: stochastic variational inference of any program, resumable to the bit.

The loop never asks the device for a number within an epoch. Everything random in an epoch (order, binarisation,
latents, dropout) follows from the run's seed and the epoch's index, so a checkpoint needs no random state, and a run
that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import copy
import csv
import inspect
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae import checkpoint
from pyro_vae.compilation import (
    FEWEST_STEPS,
    LossAndGradients,
    Replay,
    Update,
    is_worth_compiling,
    without_writes,
)
from pyro_vae.datasets import Data, Dataset, as_dataset, batch_keys
from pyro_vae.evaluation import elbo, log_joint
from pyro_vae.events import EventFile
from pyro_vae.execution import (
    check_data,
    choose_device,
    evaluating,
    isolated_random,
    reference_parameter,
    seed_generators,
)
from pyro_vae.objectives import ELBO
from pyro_vae.objectives.annealing import weigh_latents
from pyro_vae.programs import AnyProgram
from pyro_vae.progress import progress_bar
from pyro_vae.schedules import Constant
from pyro_vae.traces import NoBound, importance_traces, structure
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_positive, check_seed

__all__ = ["History", "TrainingDiverged", "fit"]

COLUMNS = ("epoch", "step", "seconds", "objective", "validation_elbo", "learning_rate", "kl_weight")
CURVES = ("objective", "validation_elbo", "learning_rate", "kl_weight")

AnyObjective = Any  # a Pyro ELBO: Pyro declares none of the methods that its own have
# Indices of data, the keys of their draw, the KL weight, a factor on the learning rate (on CUDA, tensors all).
Batch = tuple[Tensor, Tensor, Tensor | None, float | Tensor]
STEPS_AT_ONCE = 16  # in a CUDA graph
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


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
    held = None if validation is None else as_dataset(validation).to(target, dtype)
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
    run = _Run(program, train.to(target, dtype), copy.copy(objective) if objective is not None else ELBO(), epochs,
               batch_size, learning_rate, optimizer or partial(torch.optim.Adam, fused=True), schedule, warmup, clip_norm,
               held, patience, seed, None if out is None else Path(out), checkpoint_seconds, compile, autocast, settings)
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
    """One run of `fit`: what it was given, and what changes while it trains."""

    program: AnyProgram
    data: Dataset
    objective: AnyObjective
    epochs: int
    batch_size: int
    learning_rate: float
    make_optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[float], float]
    warmup: int
    clip_norm: float | None
    validation: Dataset | None
    patience: int | None
    seed: int
    folder: Path | None
    checkpoint_seconds: float
    compile: str
    autocast: bool
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.program.parameters() if p.requires_grad]
        if not self.parameters:
            raise InvalidInput("program", got="no trainable parameters", expected="at least one nn.Parameter",
                               fix="register the networks as modules of the program (Program(..., modules=...))")
        self.optimizer = self.make_optimizer(self.parameters, lr=self.learning_rate)
        if inspect.signature(self.optimizer.step).parameters["closure"].default is inspect.Parameter.empty:
            raise InvalidInput("optimizer", got=f"{type(self.optimizer).__name__}, which evaluates the loss several times in a step",
                               expected="one that takes a step from gradients", fix="choose Adam, or another such class of torch.optim")
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.update = Update(self.optimizer, self.parameters, self.clip_norm)
        self.replay: Replay | None = None
        self.compiled_sizes: list[int] | None = None  # of batches, decided before the first step
        self.loss_and_gradients = LossAndGradients(self._loss, self.parameters, lambda n: n in (self.compiled_sizes or ()))
        self.history = History()
        self.best: tuple[float, int, dict[str, Tensor]] | None = None  # validation ELBO, epoch, weights
        self.steps_per_epoch = -(-len(self.data) // self.batch_size)

    # ------------------------------------------------------------------------------------------------ the loop

    def train(self, progress: bool) -> None:
        started = self.history["seconds"][-1] if self.history.rows else 0.0
        clock, saved = time.monotonic() - started, time.monotonic()
        events = self._open_events()
        start = len(self.history)
        self._find_plates()
        if start == 0:
            if hasattr(self.program, "initialize"):  # parts that start from data, such as pseudo-inputs
                self.program.initialize(*self.data.batch(torch.arange(len(self.data), device=self.data.values.device)))
            self._validate()
        if self.compiled_sizes is None:
            self.compiled_sizes = self._sizes_worth_compiling()
        if start == 0:
            self._save()  # what cannot be written is found out now, and the folder is taken from here on
        with progress_bar("epochs", total=self.epochs, shown=progress, start=start) as advance:
            for epoch in range(start, self.epochs):
                if self._is_out_of_patience():
                    break
                before = self._state()
                try:
                    losses = self._run_epoch(epoch)
                except KeyboardInterrupt:
                    self._restore_state(before)
                    self._save()
                    raise
                if not (torch.isfinite(losses).all() and self._parameters_are_finite()):
                    self._restore_state(before)
                    diagnosis = self._diagnosis(epoch, losses)
                    self._restore_state(before)  # the diagnosis went back to the step at fault
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

    def _find_plates(self) -> None:
        """Checks the program's sites, and tells the objective where its particles go, so that it need not find out."""
        x, context = self.data.batch(*self._first_batch(min(2, len(self.data)))[:2])
        with evaluating(self.program, self.seed):
            where = structure(self.program, x, context, scored=False)
        if where.data_scale != 1:
            raise InvalidInput("data plate", got=f"a full size that scales the loss by {where.data_scale:g}",
                               expected="pyro.plate('data', len(x)): losses are per datum here", fix="leave its size out")
        if getattr(self.objective, "max_plate_nesting", None) == math.inf:
            self.objective.max_plate_nesting = -where.particle_dim - 1 + (
                self.objective.vectorize_particles and self.objective.num_particles > 1)

    def _validate(self) -> None:
        """One look at the loss with all of Pyro's checks on; they wait for the device, so the steps run without."""
        batch = self._first_batch(min(self.batch_size, len(self.data)))
        with isolated_random(self.data.values.device, self.seed), without_writes(), validation_enabled(True):
            loss = self._loss(*batch)
            reached = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        if all(gradient is None for gradient in reached):
            raise InvalidInput("program", got="a loss that depends on no parameter of the program",
                               expected="model and guide that use its modules",
                               fix="pass the networks that they call as Program(..., modules=...)")

    def _sizes_worth_compiling(self) -> list[int]:
        """The batch sizes whose steps are compiled: by counting operations and steps, never by a clock."""
        whole, last = divmod(len(self.data), self.batch_size)
        sizes = {size: steps * self.epochs for size, steps in ((self.batch_size, whole), (last, 1)) if size and steps}
        if self.compile == "on":
            return list(sizes)
        if self.compile == "off" or max(sizes.values()) < FEWEST_STEPS:
            return []
        with isolated_random(self.data.values.device, self.seed):
            work = {size: self.loss_and_gradients.work(*self._first_batch(size)) for size in sizes}
        return [size for size, steps in sizes.items()
                if is_worth_compiling(work[size].operations, work[size].saved_by_compiling, steps)]

    def _run_epoch(self, epoch: int, stop: int | None = None) -> Tensor:
        """Trains on all batches of an epoch (or the first ``stop``); returns their losses, in nats per datum."""
        batches = self._batches(epoch)[:stop]
        self.program.train()
        losses = torch.empty(len(batches), device=self.device, dtype=self.data.values.dtype)
        with validation_enabled(False):
            done = 0
            while done < len(batches):
                few = batches[done:done + STEPS_AT_ONCE]
                if self._can_replay(few):
                    losses[done:done + len(few)] = self._replayed(few)
                    done += len(few)
                else:
                    losses[done] = self._step(*batches[done])
                    done += 1
        return losses

    def _step(self, index: Tensor, keys: Tensor, weight: Tensor | None, factor: float | Tensor) -> Tensor:
        """One step, its learning rate that of the run times a factor, which the fused update reads on the device."""
        loss, gradients = self.loss_and_gradients(index, keys, weight)
        if isinstance(factor, Tensor) and self.update.is_ready:
            self.update(gradients, self.rates[0] * factor)
            return loss
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * float(factor)
        self.update(gradients)
        return loss

    def _can_replay(self, batches: list[Batch]) -> bool:
        """Whether these steps are one CUDA graph: whole batches all, whose compiled step has run, the update's kernel too."""
        if self.device.type != "cuda" or len(batches) < STEPS_AT_ONCE or len(batches[-1][0]) < self.batch_size:
            return False
        graph = self.loss_and_gradients.captured(*batches[0][:3])
        return graph is not None and not graph.waits_for_device and self.update.is_ready and self.update.kernel_has_run

    def _replayed(self, batches: list[Batch]) -> Tensor:
        index, keys, weights, factors = zip(*batches)
        stacked = [torch.stack(index), torch.stack(keys), None if weights[0] is None else torch.stack(weights), torch.stack(factors)]
        if self.replay is None:
            self.replay = Replay(self._step, stacked)
        return self.replay(stacked)

    @property
    def device(self) -> torch.device:
        return self.data.values.device

    def _batches(self, epoch: int) -> list[Batch]:
        """This epoch's batches, the data in a new order; all that is random in the epoch is seeded here."""
        seed_generators(self.device, hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(len(self.data), device=self.device)
        first = epoch * self.steps_per_epoch
        weights: Iterable[Tensor | None] = [None] * self.steps_per_epoch
        if self.warmup:  # inputs of the captured graph, so that annealing recompiles nothing; none where there is none
            weights = torch.tensor([self._kl_weight(first + i) for i in range(self.steps_per_epoch)], device=self.device)
        factors = [self.schedule(self._fraction_done(first + i)) for i in range(self.steps_per_epoch)]
        rates: Iterable[float | Tensor] = torch.tensor(factors, device=self.device) if self.device.type == "cuda" else factors
        return list(zip(order.split(self.batch_size), batch_keys(self.steps_per_epoch, self.device), weights, rates))

    def _first_batch(self, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        weight = torch.tensor(self._kl_weight(0), device=self.device) if self.warmup else None
        return torch.arange(size, device=self.device), batch_keys(1, self.device)[0], weight

    def _loss(self, index: Tensor, keys: Tensor, weight: Tensor | None) -> Tensor:
        """Minus the objective, per datum, of a batch whose data are looked up and drawn here: a part of the captured graph."""
        x, context = self.data.batch(index, keys)
        model, guide = self.program.model, self.program.guide
        if weight is not None:
            model, guide = weigh_latents(model, weight), weigh_latents(guide, weight)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            return self.objective.differentiable_loss(model, guide, x, context) / len(x)

    def _kl_weight(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.warmup * self.steps_per_epoch)) if self.warmup else 1.0

    def _fraction_done(self, step: int) -> float:
        return step / (self.epochs * self.steps_per_epoch)

    def _measure(self, epoch: int, losses: Tensor, seconds: float) -> dict[str, Any]:
        # The last batch may be smaller: the epoch's mean is over data.
        sizes = torch.full_like(losses, self.batch_size)
        sizes[-1] = len(self.data) - self.batch_size * (len(losses) - 1)
        last = (epoch + 1) * self.steps_per_epoch - 1
        score = None
        if self.validation is not None:
            score = self._validation_score()
            if self.best is None or score > self.best[0]:
                self.best = (score, epoch + 1, _clone(self.program.state_dict()))
        row = {"epoch": epoch + 1, "step": last + 1, "seconds": round(seconds, 3),
               "objective": -(losses * sizes).sum().item() / len(self.data), "validation_elbo": score,
               "learning_rate": self.learning_rate * self.schedule(self._fraction_done(last)), "kl_weight": self._kl_weight(last)}
        self.history.rows.append(row)
        return row

    def _validation_score(self) -> float:
        assert self.validation is not None
        try:
            # One draw for each datum, the same numbers every time: differences between epochs are the weights'.
            return elbo(self.program, self.validation, num_samples=1, seed=self.seed).mean
        except NoBound:
            return log_joint(self.program, self.validation, seed=self.seed).mean

    def _is_out_of_patience(self) -> bool:
        if self.patience is None or self.best is None:
            return False
        return len(self.history) - max(self.best[1], self.warmup) >= self.patience

    # --------------------------------------------------------------------------------------------- divergence

    def _parameters_are_finite(self) -> bool:
        return bool(torch.isfinite(torch.stack([p.detach().sum() for p in self.parameters])).all())

    def _diagnosis(self, epoch: int, losses: Tensor) -> TrainingDiverged:
        """Runs the epoch again up to the first bad loss, which the seed makes the same, and looks at its sites."""
        bad = (~torch.isfinite(losses)).nonzero()
        first = int(bad[0]) if len(bad) else len(losses)
        batches = self._batches(epoch)
        batch = batches[min(first, len(batches) - 1)]
        self._run_epoch(epoch, stop=first)
        step = epoch * self.steps_per_epoch + first
        for name, parameter in self.program.named_parameters():
            if not torch.isfinite(parameter).all():
                return TrainingDiverged(step - 1, f"parameter {name!r}", "its gradient overflowed: lower learning_rate, set "
                                        "clip_norm, or bound the scales of the likelihood", self.folder)
        x, context = self.data.batch(*batch[:2])
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

    def _state(self) -> dict[str, Tensor]:
        state = {f"program.{name}": value for name, value in self.program.state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            slots = self.optimizer.state.get(parameter, {})
            state |= {f"optimizer.{index}.{name}": value for name, value in slots.items() if isinstance(value, Tensor)}
        return _clone(state)

    def _scalars(self) -> dict[str, Any]:
        """What the optimiser keeps beside tensors, in its groups and for each parameter."""
        groups = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        slots = [{name: value for name, value in self.optimizer.state.get(p, {}).items() if not isinstance(value, Tensor)}
                 for p in self.parameters]
        return {"groups": groups, "slots": slots}

    def _restore_scalars(self, scalars: dict[str, Any]) -> None:
        for group, values in zip(self.optimizer.param_groups, scalars["groups"]):
            group.update({key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
        for parameter, values in zip(self.parameters, scalars["slots"]):
            if values:
                self.optimizer.state[parameter].update(values)

    def _restore_state(self, state: dict[str, Tensor]) -> None:
        self.replay = None  # it writes to the optimiser's state of before
        self.program.load_state_dict({key.removeprefix("program."): value for key, value in state.items()
                                      if key.startswith("program.")})
        # Kernels count steps on the device, other optimisers on the host.
        on_device = any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)
        for index, parameter in enumerate(self.parameters):
            prefix = f"optimizer.{index}."
            # As they were: an optimiser's own load_state_dict would cast its counters to the parameters' dtype.
            slots = {key.removeprefix(prefix): value.clone() for key, value in state.items() if key.startswith(prefix)}
            slots = {name: value.to(parameter.device) if on_device or name != "step" else value for name, value in slots.items()}
            if slots:
                self.optimizer.state[parameter] = {**self.optimizer.state.get(parameter, {}), **slots}
            elif parameter in self.optimizer.state:
                del self.optimizer.state[parameter]

    def _save(self) -> None:
        if self.folder is None:
            return
        best = self.best[2] if self.best is not None else self.program.state_dict()
        checkpoint.write_state(self.folder, "program", best, checkpoint.description_of(self.program))
        checkpoint.write_text(self.folder / "metrics.csv", self.history.to_csv())
        checkpoint.write_state(self.folder, "training", self._state(), {
            "settings": self.settings, "compiled_sizes": self.compiled_sizes, "optimizer": self._scalars(), "history": self.history.rows, "best": self.best and list(self.best[:2])})

    def restore(self) -> None:
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
            self._restore_state(state)
            self._restore_scalars(meta["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidInput("program", got=f"another structure than the run in {self.folder} has ({str(error).splitlines()[-1]})",
                               expected="the same components", fix="resume with those it was started with") from None
        self.history = History(meta["history"])
        self.compiled_sizes = meta["compiled_sizes"]
        if meta["best"] is not None:
            weights, _ = checkpoint.read_state(self.folder, "program")
            self.best = (*meta["best"], {name: value.to(reference_parameter(self.program).device) for name, value in weights.items()})

    def _open_events(self) -> EventFile | None:
        if self.folder is None:
            return None
        with checkpoint.writing_to(self.folder):
            return EventFile(self.folder / "tensorboard", purge_step=len(self.history) * self.steps_per_epoch + 1)


def _clone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
