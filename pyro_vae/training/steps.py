"""The gradient steps of a run: its batches, each eager or a captured graph, and on CUDA many of them in one launch.

Within an epoch nothing asks the device for a number. Everything random in it (order, binarisation,
latents, dropout) follows from the seed and the epoch's index, so that the steps of an epoch are the
same whatever came before.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae.compilation.capture import without_writes
from pyro_vae.compilation.cost import FEWEST_STEPS, is_worth_compiling
from pyro_vae.compilation.cuda_graph import Replay
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.optimizer import Update
from pyro_vae.contracts import ProgramLike, as_module
from pyro_vae.datasets.binarize import batch_keys
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.runtime.environment import evaluating, isolated_random, seed_generators
from pyro_vae.runtime.traces import find_plates
from pyro_vae.validation import InvalidInput

__all__ = ["AnyObjective", "Batch", "Optimizer", "Steps"]

AnyObjective = Any  # a Pyro ELBO: Pyro declares none of the methods that its own have


# Indices of data, the keys of their draw, the KL weight, a factor on the learning rate, and on CUDA
# the same on the device.
Batch = tuple[Tensor, Tensor, Tensor | None, float, Tensor | None]


Optimizer = Callable[..., torch.optim.Optimizer]


STEPS_AT_ONCE = 16  # in a CUDA graph


@dataclass
class Steps:
    """The steps by which a run of `fit` trains a program, which change the program and the optimiser's state.

    Args:
        program: what is trained, on the device of the data.
        data: on the device, of the program's dtype.
        objective: whose loss is minimised, per datum.
        epochs: of the whole run, which the schedule is stretched over.
        batch_size: data in a batch.
        learning_rate: before the schedule.
        make_optimizer: from parameters and ``lr=``.
        schedule: from the fraction of steps done to a factor on the learning rate.
        warmup: epochs over which the weight of the latents' terms rises to 1.
        clip_norm: upper limit of the gradient's global norm.
        seed: of everything random.
        autocast: whether layers compute in bfloat16.

    Raises:
        InvalidInput: for a program without parameters, or an optimiser that needs the loss several
            times in a step.
    """

    program: ProgramLike
    data: Dataset
    objective: AnyObjective
    epochs: int
    batch_size: int
    learning_rate: float
    make_optimizer: Optimizer
    schedule: Callable[[float], float]
    warmup: int
    clip_norm: float | None
    seed: int
    autocast: bool

    def __post_init__(self) -> None:
        self.parameters: list[nn.Parameter] = [
            p for p in self.program.parameters() if p.requires_grad
        ]
        if not self.parameters:
            raise InvalidInput(
                "program",
                got="no trainable parameters",
                expected="at least one nn.Parameter",
                fix="register the networks as modules of the program (Program(..., modules=...))",
            )
        self.optimizer = self.make_optimizer(self.parameters, lr=self.learning_rate)
        if _needs_closure(self.optimizer):
            raise InvalidInput(
                "optimizer",
                got=f"{type(self.optimizer).__name__}, which evaluates the loss several times in a step",
                expected="one that takes a step from gradients",
                fix="choose Adam, or another such class of torch.optim",
            )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.update = Update(self.optimizer, self.parameters, self.clip_norm)
        self.replay: Replay | None = None
        self.compiled_sizes: list[int] | None = None  # of batches, decided before the first step
        self.loss_and_gradients = LossAndGradients(
            self._loss,
            self.parameters,
            lambda n: n in (self.compiled_sizes or ()),
            as_module(self.program),
        )
        self.per_epoch = -(-len(self.data) // self.batch_size)

    @property
    def device(self) -> torch.device:
        return self.data.values.device

    # before the first

    def find_plates(self) -> None:
        """Checks the program's sites, and tells the objective where its particles go, so that it need not find out."""
        x, context = self.data.batch(*self._first_batch(min(2, len(self.data)))[:2])
        with evaluating(self.program, self.seed):
            where = find_plates(self.program, x, context, scored=False)
        if where.data_scale != 1:
            raise InvalidInput(
                "data plate",
                got=f"a full size that scales the loss by {where.data_scale:g}",
                expected="pyro.plate('data', len(x)): losses are per datum here",
                fix="leave its size out",
            )
        if getattr(self.objective, "max_plate_nesting", None) == math.inf:
            self.objective.max_plate_nesting = (
                -where.particle_dim
                - 1
                + (self.objective.vectorize_particles and self.objective.num_particles > 1)
            )

    def initialize(self) -> None:
        """Lets parts that start from data, such as pseudo-inputs, do so."""
        if hasattr(self.program, "initialize"):
            self.program.initialize(
                *self.data.batch(torch.arange(len(self.data), device=self.device))
            )

    def validate(self) -> None:
        """One look at the loss with all of Pyro's checks on; they wait for the device, so the steps run without."""
        batch = self._first_batch(min(self.batch_size, len(self.data)))
        self.program.train()
        with (
            isolated_random(self.device, self.seed),
            without_writes(as_module(self.program)),
            validation_enabled(True),
        ):
            loss = self._loss(*batch)
            reached = (
                torch.autograd.grad(loss, self.parameters, allow_unused=True)
                if loss.requires_grad
                else ()
            )
        if all(gradient is None for gradient in reached):
            raise InvalidInput(
                "program",
                got="a loss that depends on no parameter of the program",
                expected="model and guide that use its modules",
                fix="pass the networks that they call as Program(..., modules=...)",
            )

    def decide(self, compile: str) -> None:
        """Decides which sizes of batches are compiled: by counting operations and steps, never by a clock."""
        self.program.train()
        whole, last = divmod(len(self.data), self.batch_size)
        sizes = {
            size: steps * self.epochs
            for size, steps in ((self.batch_size, whole), (last, 1))
            if size and steps
        }
        if compile == "off" or (compile == "auto" and max(sizes.values()) < FEWEST_STEPS):
            self.compiled_sizes = []
        elif compile == "on":
            self.compiled_sizes = list(sizes)
        else:
            with isolated_random(self.device, self.seed):
                work = {
                    size: self.loss_and_gradients.work(*self._first_batch(size)) for size in sizes
                }
            self.compiled_sizes = [
                size
                for size, steps in sizes.items()
                if is_worth_compiling(work[size].operations, work[size].saved_by_compiling, steps)
            ]

    def compile(self) -> None:
        """Compiles what was decided to be: of a run that is resumed the same, so that it goes on to the bit."""
        self.program.train()
        graphs = [
            self.loss_and_gradients.captured(*self._first_batch(size))
            for size in self.compiled_sizes or ()
        ]
        if any(graph is not None and graph.is_compiled for graph in graphs):
            self.update.compile()

    # an epoch

    def run(self, epoch: int, stop: int | None = None) -> Tensor:
        """Trains on all batches of an epoch (or the first ``stop``); returns their losses, in nats per datum."""
        batches = self.batches(epoch)[:stop]
        self.program.train()
        losses: list[Tensor] = []
        with validation_enabled(False):
            done = 0
            while done < len(batches):
                few = batches[done : done + STEPS_AT_ONCE]
                if self._can_replay(few):
                    losses.append(self._replayed(few))
                    done += len(few)
                else:
                    losses.append(self._step(*batches[done]))
                    done += 1
        return torch.hstack(losses) if losses else torch.empty(0, device=self.device)

    def batches(self, epoch: int) -> list[Batch]:
        """This epoch's batches, the data in a new order; all that is random in the epoch is seeded here."""
        seed_generators(self.device, hash((self.seed, epoch)) % 2**63)
        order = torch.randperm(len(self.data), device=self.device)
        steps = range(epoch * self.per_epoch, (epoch + 1) * self.per_epoch)
        weights: Iterable[Tensor | None] = [None] * self.per_epoch
        # inputs of the captured graph, so that annealing recompiles nothing; none where there is
        # none
        if self.warmup:
            weights = torch.tensor([self.kl_weight(step) for step in steps], device=self.device)
        factors = [self.rate_factor(step) for step in steps]
        on_device: Iterable[Tensor | None] = [None] * self.per_epoch
        if self.device.type == "cuda":  # of the type that the fused update reads
            on_device = torch.tensor(factors, device=self.device, dtype=torch.float32)
        return list(
            zip(
                order.split(self.batch_size),
                batch_keys(self.per_epoch, self.device),
                weights,
                factors,
                on_device,
            )
        )

    def kl_weight(self, step: int) -> float:
        """The weight of the latents' terms at a step, counted from 0 over the whole run."""
        return min(1.0, (step + 1) / (self.warmup * self.per_epoch)) if self.warmup else 1.0

    def rate_factor(self, step: int) -> float:
        """The factor on the learning rate at a step, counted from 0 over the whole run."""
        return self.schedule(step / (self.epochs * self.per_epoch))

    def _step(
        self,
        index: Tensor,
        keys: Tensor,
        weight: Tensor | None,
        factor: float,
        on_device: Tensor | None,
    ) -> Tensor:
        """One step, its learning rate that of the run times a factor, which the fused update reads on the device if it is there."""
        if on_device is not None and self.update.is_ready:
            return self._step_on_device(index, keys, weight, on_device)
        loss, gradients = self.loss_and_gradients(index, keys, weight)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor
        self.update(gradients)
        return loss

    def _step_on_device(
        self, index: Tensor, keys: Tensor, weight: Tensor | None, factor: Tensor
    ) -> Tensor:
        loss, gradients = self.loss_and_gradients(index, keys, weight)
        self.update(gradients, self.rates[0] * factor)
        return loss

    def _can_replay(self, batches: list[Batch]) -> bool:
        """Whether these steps are one CUDA graph: whole batches all, whose compiled step has run, the update's kernel too."""
        if (
            self.device.type != "cuda"
            or len(batches) < STEPS_AT_ONCE
            or len(batches[-1][0]) < self.batch_size
        ):
            return False
        graph = self.loss_and_gradients.captured(*batches[0][:3])
        return (
            graph is not None
            and graph.fits_cuda_graph
            and self.update.is_ready
            and self.update.kernel_has_run
        )

    def _replayed(self, batches: list[Batch]) -> Tensor:
        index, keys, weights, _, factors = zip(*batches)
        stacked = [
            torch.stack(index),
            torch.stack(keys),
            None if weights[0] is None else torch.stack(weights),
            torch.stack(factors),
        ]
        if self.replay is None:
            self.replay = Replay(self._step_on_device, stacked)
        return self.replay(stacked)

    def _first_batch(self, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        weight = torch.tensor(self.kl_weight(0), device=self.device) if self.warmup else None
        return torch.arange(size, device=self.device), batch_keys(1, self.device)[0], weight

    def _loss(self, index: Tensor, keys: Tensor, weight: Tensor | None) -> Tensor:
        """Minus the objective, per datum, of a batch whose data are looked up and drawn here: a part of the captured graph."""
        x, context = self.data.batch(index, keys)
        model, guide = self.program.model, self.program.guide
        if weight is not None:
            model, guide = weigh_latents(model, weight), weigh_latents(guide, weight)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            return self.objective.differentiable_loss(model, guide, x, context) / len(x)

    # their state

    def parameters_are_finite(self) -> bool:
        """Whether no parameter is NaN or infinite."""
        return bool(torch.isfinite(torch.stack([p.detach().sum() for p in self.parameters])).all())

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that steps change: the program's and the optimiser's."""
        state = {f"program.{name}": value for name, value in self.program.state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            slots = self.optimizer.state.get(parameter, {})
            state |= {
                f"optimizer.{index}.{name}": value
                for name, value in slots.items()
                if isinstance(value, Tensor)
            }
        return {name: value.detach().clone() for name, value in state.items()}

    def scalars(self) -> dict[str, Any]:
        """What the optimiser keeps beside tensors, in its groups and for each parameter."""
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        slots = [
            {
                name: value
                for name, value in self.optimizer.state.get(p, {}).items()
                if not isinstance(value, Tensor)
            }
            for p in self.parameters
        ]
        return {"groups": groups, "slots": slots}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        self.replay = None  # it writes to the optimiser's state of before
        self.program.load_state_dict(
            {
                key.removeprefix("program."): value
                for key, value in state.items()
                if key.startswith("program.")
            }
        )
        # Kernels count steps on the device, other optimisers on the host.
        on_device = any(
            group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups
        )
        for index, parameter in enumerate(self.parameters):
            prefix = f"optimizer.{index}."
            # As they were: an optimiser's own load_state_dict would cast its counters to the
            # parameters' dtype.
            slots = {
                key.removeprefix(prefix): _like(value, parameter)
                for key, value in state.items()
                if key.startswith(prefix)
            }
            slots = {
                name: value.to(parameter.device) if on_device or name != "step" else value
                for name, value in slots.items()
            }
            if slots:
                self.optimizer.state[parameter] = {
                    **self.optimizer.state.get(parameter, {}),
                    **slots,
                }
            elif parameter in self.optimizer.state:
                del self.optimizer.state[parameter]

    def restore_scalars(self, scalars: dict[str, Any]) -> None:
        """Puts back what `scalars` gave."""
        for group, values in zip(self.optimizer.param_groups, scalars["groups"]):
            group.update(
                {
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in values.items()
                }
            )
        for parameter, values in zip(self.parameters, scalars["slots"]):
            if values:
                self.optimizer.state[parameter].update(values)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy, one of a parameter's shape laid out in memory as it is, which a file does not tell and a fused update relies on."""
    return (
        torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
        if value.shape == parameter.shape
        else value.clone()
    )


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
