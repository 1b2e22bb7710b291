"""Fit any program by stochastic variational inference, and resume it bit for bit.

Everything random in an epoch follows from the run's seed and the epoch's index
(`pyro_vae.training.steps`), so a checkpoint needs no random state, and a run that was killed and
resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyro.infer
import torch

from pyro_vae import checkpoint
from pyro_vae.contracts import ProgramLike, SumsLatents, as_module
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.files.reading import MEGABYTE, Kind, read_bytes
from pyro_vae.objectives import ELBO, EnumeratedELBO
from pyro_vae.objectives.base import ObjectiveLike
from pyro_vae.objectives.kl_weight import check_warmup
from pyro_vae.programs import as_program
from pyro_vae.ranks.group import Group, of_this_process, speaks
from pyro_vae.runtime.before_training import check_batches, warn_of_scales
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.environment import (
    as_by_default,
    choose_device,
    isolated_random,
    modes_put_back,
    reference_parameter,
)
from pyro_vae.runtime.memory import enough_memory
from pyro_vae.runtime.progress import say
from pyro_vae.runtime.settings import COMPILE, Compile
from pyro_vae.training.callbacks import Callback, check_callbacks
from pyro_vae.training.changed import settings_of
from pyro_vae.training.feed import chunk_rows
from pyro_vae.training.history import History
from pyro_vae.training.optimizer_state import MakeOptimizer
from pyro_vae.training.run import Run
from pyro_vae.training.schedules import Constant, check_schedule
from pyro_vae.training.steps import GradientSteps
from pyro_vae.training.validation import Validation
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    check_count,
    check_path,
    check_positive,
    check_probability,
    check_seed,
    check_weight,
)

__all__ = ["check_settings", "continues", "fit"]

METRICS = Kind("out", "metrics.csv, as training writes it", "choose another folder", 64 * MEGABYTE)

SMALLER = "lower batch_size (--batch-size), latent or the widths of the networks"


def fit(
    program: ProgramLike,
    data: Data,
    *,
    objective: ObjectiveLike | pyro.infer.ELBO | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    optimizer: MakeOptimizer | None = None,
    schedule: Callable[[float], float] = Constant(),
    warmup: int = 0,
    clip_norm: float | None = None,
    skip_norm: float | None = None,
    average: float | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    compile: Compile = "auto",
    autocast: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 10.0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> History:
    r"""Fit a program to data by stochastic variational inference.

    An interrupt saves the last whole epoch and says how to go on. In a notebook, or at a prompt,
    `fit` then returns what was learnt, with ``history.interrupted`` set; a script is interrupted.

    The loss of a batch is minus the objective per datum. One fused optimiser holds all parameters
    of the program, and the loss may reach no others: what is trained is what is saved and scored.
    Nothing is registered in Pyro's global store. `pyro.infer.SVI` looks for parameters there, and
    would move nothing.

    Within a process group of `torch.distributed`, all processes call it with the same arguments.
    They share each batch and train what one process would; the first one writes and speaks.

    Args:
        program: any program. It is moved to ``device`` and left there, with its last weights, or
            with those of the best validation ELBO if there are validation data.
        data: training data, a data set, a tensor x (N, \*event), or a pair (x, context).
        objective: a Pyro ELBO; by default `pyro_vae.objectives.ELBO`, or `EnumeratedELBO` for a
            model that sums over latents.
        epochs: passes over the data in total; a resumed run does those that are left.
        batch_size: data in a batch; the last of an epoch may be smaller.
        learning_rate: the optimiser's, before the schedule.
        optimizer: from parameters and ``lr=`` to a torch optimiser; by default fused Adam.
        schedule: from the fraction of steps done to a factor on the learning rate.
        warmup: epochs over which the weight of the latents' terms rises from 0 to 1 (KL annealing).
        clip_norm: upper limit of the gradient's global norm.
        skip_norm: leave out each step whose gradient has a larger global norm. How many were left
            out in an epoch is logged as ``history.logged["skipped_steps"]``. Many steps in one call
            are not possible then.
        average: decay of a moving average of the weights, such as 0.999, by which the program is
            validated, saved and scored, and with which it is left. The running statistics of
            batch normalisation are estimated for it, from at most 16,384 of the data. A resumed run
            goes on with the weights themselves.
        validation: data whose ELBO is taken after every epoch, or minus the loss of a program that
            has no ELBO because its guide is a point.
        patience: stop after so many epochs without a better validation ELBO, counted from the end
            of the warm-up.
        seed: of everything random in training; the caller's random state is left as it was. The
            program's first weights were drawn when it was built: call ``torch.manual_seed(0)``
            before that, and two runs of a script give the same numbers.
        device: ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"`` or a torch
            device.
        out: run folder for checkpoints and ``metrics.csv``.
        resume: continue the run in ``out``, or start it, and say so, if there is none yet.
        compile: ``"auto"`` captures and compiles the step where that pays over the planned number
            of steps. Counts decide, so that the decision is the same every time; it is recorded
            and kept when resuming.
        autocast: compute layers in bfloat16; densities stay in the parameters' own precision.
        checkpoint_seconds: how often to save, at the end of an epoch, and at the end of training.
        callbacks: what else happens between epochs: `pyro_vae.training.TensorBoard`, `MLflow` and
            `WeightsAndBiases` track the run, `LogLikelihood` and `EarlyStopping` follow log p(x),
            `pyro_vae.plotting.FiguresDuringTraining` draws. The numbers of the training are the
            same with and without them.
        progress: show a bar with the epoch, the objective (or its value on validation data) and the
            time left; say if ``resume`` found nothing to continue.

    Raises:
        InvalidInput: on unusable data or settings, a run folder that is in use, or a program whose
            loss depends on parameters that it does not own.
        TrainingDiverged: if the loss or a parameter becomes NaN or infinite.

    Source: Kingma and Welling (2014); Hoffman et al. (2013), Stochastic Variational Inference.

    Example:
        >>> train, test = pv.datasets.load("digits")
        >>> history = pv.fit(vae, train, epochs=3, progress=False)
        >>> history["objective"][-1] > history["objective"][0]
        True
    """
    check_settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        clip_norm=clip_norm,
        skip_norm=skip_norm,
        average=average,
        patience=patience,
        has_validation=validation is not None,
        seed=seed,
        compile=compile,
    )
    check_weight("checkpoint_seconds", checkpoint_seconds)
    check_callbacks(callbacks)
    if resume and out is None:
        raise InvalidInput(
            "resume",
            got="True without a run folder",
            expected="out=",
            fix="pass the folder of the run",
        )
    if out is not None:
        check_path("out", out)
    if optimizer is not None and not callable(optimizer):
        raise InvalidInput(
            "optimizer",
            got=repr(optimizer),
            expected="a class or a function",
            fix="pass torch.optim.Adam",
        )
    check_schedule(schedule, epochs)
    owner, program = program, as_program(program)  # a module's folder holds the module
    train = as_dataset(data)
    check_data(program, train)
    check_batches(program, train, batch_size)
    warn_of_scales(program, train)
    target = choose_device(device)
    program.to(target)
    dtype = reference_parameter(program).dtype
    held = None if validation is None else as_dataset(validation)
    if held is not None:
        check_data(program, held)
        held = held.to(target, dtype)
    if objective is not None and not isinstance(objective, ObjectiveLike):
        raise InvalidInput(
            "objective",
            got=type(objective).__name__,
            expected="an ELBO with a differentiable loss",
            fix="choose one of pyro_vae.objectives",
        )
    if objective is None:
        sums = isinstance(program, SumsLatents) and program.summed
        objective = EnumeratedELBO() if sums else ELBO()
    check_warmup(objective, warmup)
    trainable = [name for name, p in program.named_parameters() if p.requires_grad]
    settings: dict[str, object] = {
        "data": train.sha256,
        "binarize": train.binarize,
        "in_memory": f"off, by {chunk_rows(train)} rows" if train.is_on_disk else None,
        "objective": settings_of(objective),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": settings_of(optimizer),
        "schedule": settings_of(schedule),
        "warmup": warmup,
        "clip_norm": clip_norm,
        "skip_norm": skip_norm,
        "average": average,
        "validation": held and held.sha256,
        "patience": patience,
        "seed": seed,
        "autocast": autocast,
        "program": None if out is None else checkpoint.described_or_named(as_module(owner)),
        "epochs": None if isinstance(schedule, Constant) else epochs,
        "trainable": trainable,
    }
    group = of_this_process()
    steps = GradientSteps(
        program,
        train.to(target, dtype),
        copy.copy(objective),
        epochs,
        batch_size,
        learning_rate,
        optimizer or partial(torch.optim.Adam, fused=True),
        schedule,
        warmup,
        clip_norm,
        seed,
        autocast,
        group,
        skip_norm,
        average,
    )
    folder = None if out is None else Path(out)
    if folder is not None and not (folder / "recipe.yaml").exists():  # which tells how it is built
        checkpoint.warn_unless_rebuilt(owner)
    scored = None if held is None else Validation(owner, held, seed, epochs)
    run = Run(
        owner, steps, compile, scored, patience, folder, checkpoint_seconds, settings, callbacks
    )
    progress = progress and speaks()
    with ExitStack() as stack:

        def goes_on() -> bool:
            if folder is None:
                return False
            stack.enter_context(checkpoint.claimed(folder))
            return continues(folder, resume)

        if goes_on() if group is None else group.told(goes_on):
            run.restore()
        elif resume and progress:
            say(f"resume: {folder} holds no training yet, so it starts from the beginning")
        if group is not None:
            _check_shared(group, steps, settings)
        if out is not None and "<lambda>" in str(settings):
            raise InvalidInput(
                "schedule or optimizer",
                got="a lambda",
                expected="a function with a name, which a resumed run can compare",
                fix="define it with def",
            )
        with (
            enough_memory("training", SMALLER),
            isolated_random(target, seed),
            modes_put_back(program),
            as_by_default(target),
        ):
            run.train(progress)
    return run.history


def _check_shared(group: Group, steps: GradientSteps, settings: dict[str, object]) -> None:
    """Refuse processes that would not train one model; wait until all have read their folder."""
    if not group.equal(f"{settings} {steps.device.type}"):
        raise InvalidInput(
            "data",
            got="other data or settings in another process of the group",
            expected="the same call in each process",
            fix="give all of them the same data, program and arguments",
        )


def check_settings(
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    warmup: int,
    clip_norm: float | None,
    skip_norm: float | None,
    average: float | None,
    patience: int | None,
    has_validation: bool,
    seed: int,
    compile: str,
) -> None:
    """Raise `InvalidInput` on numbers that `fit` cannot train with."""
    for name, count, least in (
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("warmup", warmup, 0),
    ):
        check_count(name, count, least)
    check_seed(seed)
    check_positive("learning_rate", learning_rate)
    for name, norm in (("clip_norm", clip_norm), ("skip_norm", skip_norm)):
        if norm is not None:
            check_positive(name, norm)
    if average is not None:
        check_probability("average", average)
    if patience is not None:
        check_count("patience", patience)
        if not has_validation:
            raise InvalidInput(
                "patience",
                got=f"{patience} without validation data",
                expected="validation data to stop by",
                fix="pass validation= (--validation 1000)",
            )
    check_choice("compile", compile, COMPILE)


def continues(folder: Path, resume: bool) -> bool:
    """Whether training continues the run in a folder; if not, it starts one there.

    A training that was killed before its first checkpoint was whole has left nothing to continue,
    and its folder is taken over.

    Raises:
        InvalidInput: if that would replace a run, or a program that no training wrote.
    """
    if checkpoint.exists(folder, "training"):
        if resume:
            return True
        raise InvalidInput(
            "out",
            got=f"{folder}, which holds a run already",
            expected="a new folder",
            fix="choose another folder, or continue that run with resume=True (--resume)",
        )
    holds = checkpoint.exists(folder, "program") or (folder / "metrics.csv").exists()
    if holds and not _holds_half_a_checkpoint(folder):
        raise InvalidInput(
            "out",
            got=f"{folder}, which holds a program or metrics but no training to continue",
            expected="a new folder, or a run's",
            fix="choose another folder",
        )
    return False


def _holds_half_a_checkpoint(folder: Path) -> bool:
    """Whether version 0.1.0 was killed within its first checkpoint: curves begun, no epoch done."""
    metrics = folder / "metrics.csv"
    is_empty = not metrics.exists() or len(read_bytes(metrics, METRICS).splitlines()) < 2
    return (folder / "tensorboard").is_dir() and is_empty
