"""The gradient steps of a run: each eager or a captured graph, of which many run in one call.

Within an epoch nothing asks the device for a number. Everything random in it (order, binarisation,
latents, dropout) follows from the seed and the epoch's index, so that the steps of an epoch are the
same whatever came before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae.compilation.cost import FEWEST_STEPS, is_worth_compiling
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.optimizer import Update
from pyro_vae.compilation.writes import without_writes
from pyro_vae.contracts import Initializable, ProgramLike, Tensors, as_module
from pyro_vae.datasets.binarize import batch_keys
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.objectives.base import Objective, ObjectiveLike, look
from pyro_vae.objectives.data_scale import without_data_scale
from pyro_vae.objectives.elbo import run_draws_one_by_one
from pyro_vae.objectives.global_latents import weigh_globals
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.ranks.group import Group
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.constants import Constants
from pyro_vae.runtime.environment import evaluating, isolated_random, seed_generators
from pyro_vae.runtime.independence import MOST_DATA
from pyro_vae.runtime.traces import find_plates
from pyro_vae.training.averaging import MovingAverage, Statistics
from pyro_vae.training.feed import Batch, feed_of
from pyro_vae.training.optimizer_state import MakeOptimizer, OptimizerState, new_optimizer
from pyro_vae.training.ownership import hands_on, leaves_of, refuse_foreign
from pyro_vae.training.schedules import factor_at
from pyro_vae.training.several import STEPS_AT_ONCE, Several
from pyro_vae.training.sharing import SharedLossAndGradients
from pyro_vae.validation import InvalidInput

__all__ = ["GradientSteps"]


MOST_TO_INITIALIZE = 2**14  # data on disk that a part is initialised from

PREFIX = "program."  # of the names of the program's tensors in a state


@dataclass
class GradientSteps:
    """The gradient steps with which `fit` trains a program.

    They change the program and the optimiser's state.

    Args:
        program: the program to train, on the device of the data.
        data: on the device, of the program's dtype.
        objective: its loss per datum is minimised.
        epochs: of the whole run, which the schedule is stretched over.
        batch_size: data in a batch.
        learning_rate: before the schedule.
        make_optimizer: from parameters and ``lr=`` to a torch optimiser.
        schedule: from the fraction of steps done to a factor on the learning rate.
        warmup: epochs over which the weight of the latents' terms rises to 1.
        clip_norm: upper limit of the gradient's global norm.
        seed: of everything random.
        autocast: whether layers compute in bfloat16.
        group: the processes that share each batch, if there are several.
        skip_norm: of a gradient whose global norm is above it no step is taken.
        average: decay of the weights' moving average, if there is to be one.

    Raises:
        InvalidInput: for a program without parameters, or an optimiser that needs the loss several
            times in a step.
    """

    program: ProgramLike
    data: Dataset
    objective: ObjectiveLike
    epochs: int
    batch_size: int
    learning_rate: float
    make_optimizer: MakeOptimizer
    schedule: Callable[[float], float]
    warmup: int
    clip_norm: float | None
    seed: int
    autocast: bool
    group: Group | None = None
    skip_norm: float | None = None
    average: float | None = None

    def __post_init__(self) -> None:
        trainable = (p for p in self.program.parameters() if p.requires_grad)
        self.parameters: list[nn.Parameter] = list(trainable)
        if not self.parameters:
            raise InvalidInput(
                "program",
                got="no trainable parameters",
                expected="at least one nn.Parameter",
                fix="register the networks as modules of the program (Program(..., modules=...))",
            )
        self.optimizer = new_optimizer(self.make_optimizer, self.parameters, self.learning_rate)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer_state = OptimizerState(self.optimizer, self.parameters)
        self.update = Update(self.optimizer, self.parameters, self.clip_norm, self.skip_norm)
        self.moving: MovingAverage | None = None
        if self.average is not None:
            own = Statistics(self.program, self.data, self.batch_size, self.seed)
            self.moving = MovingAverage(self.parameters, self.average, own)
        self.several: Several | None = None
        self.compiled_sizes: list[int] | None = None  # of batches, decided before the first step
        self.is_compiled = False
        self.constants: Constants | None = None  # of the graphs
        module, compiled = as_module(self.program), lambda n: n in (self.compiled_sizes or ())
        self.loss_and_gradients: LossAndGradients | SharedLossAndGradients
        if self.group is None:
            alone = LossAndGradients(self._loss, self.parameters, compiled, module)
            self.loss_and_gradients = alone
            changed = [*module.buffers(), *(self.moving.tensors().values() if self.moving else ())]
            self.several = Several(self._step_at, alone, self.update, changed, self.batch_size)
        else:
            shared = SharedLossAndGradients(
                self.group, self._loss, module, self.parameters, compiled
            )
            self.loss_and_gradients = shared
        self.feed = feed_of(self.data, self.batch_size, STEPS_AT_ONCE, self.seed, self.group)
        self.globals: frozenset[str] = frozenset()  # the sites that belong to all data together
        self.per_epoch = -(-len(self.data) // self.batch_size)

    @property
    def device(self) -> torch.device:
        """The device of the data and the program."""
        return self.data.device

    def find_plates(self) -> None:
        """Check the program's sites, and tell the objective where its particles go."""
        x, context = self.feed.data.batch(*self._first_batch(min(MOST_DATA, len(self.data)))[:2])
        with evaluating(self.program, self.seed):
            plates = find_plates(self.program, x, context, scored=False)
            self.globals = plates.globals
            if plates.is_whole:
                plates = Conditioned(self.program, x, context, plates).checked().plates
        objective = self.objective
        with evaluating(self.program, self.seed):
            look(objective, self.program.model, self.program.guide, (x, context), plates)
        if plates.one_draw:
            run_draws_one_by_one(objective)

    def initialize(self) -> None:
        """Initialise from data the parts that need it, such as pseudo-inputs."""
        if not isinstance(self.program, Initializable) or hands_on(self.program):
            return
        data, keys = self.data, batch_keys(1, self.device)[0]
        apart = -(-len(data) // MOST_TO_INITIALIZE) if data.is_on_disk else 1
        rows = torch.arange(0, len(data), apart, device=self.device)  # from all over a file
        is_drawn = any(part.binarize == "dynamic" for part in (data, *data.parts.values()))
        if is_drawn or data.is_on_disk:
            self.program.initialize(*data.batch(rows, keys))
        else:  # without a copy
            self.program.initialize(data.values, data.context)

    def validate(self) -> None:
        """Check the loss once with all of Pyro's checks, and the parameters that it reaches.

        The checks wait for the device, so the steps run without them.

        Raises:
            InvalidInput: if the loss reaches no parameter of the program, or others than its own.
        """
        if isinstance(self.loss_and_gradients, SharedLossAndGradients):
            mixes = isinstance(self.objective, Objective) and self.objective.mixes_data
            self.loss_and_gradients.look(self._first_batch, self.device, self.seed, mixes)
        batch = self._first_batch(min(self.batch_size, len(self.data)))
        self.program.train()
        own = {id(parameter) for parameter in self.parameters}
        with (
            isolated_random(self.device, self.seed),
            without_writes(as_module(self.program)),
            validation_enabled(True),
        ):
            leaves = leaves_of(self._loss(*batch))
            if not leaves.keys() <= own:
                # What each run makes for itself, such as draws cut off as leaves, comes only once.
                again = leaves_of(self._loss(*batch))
                refuse_foreign(self.program, [x for key, x in leaves.items() if key in again])
        if not own & leaves.keys():
            raise InvalidInput(
                "program",
                got="a loss that depends on no parameter of the program",
                expected="model and guide that use its modules",
                fix="pass the networks that they call as Program(..., modules=...)",
            )

    def decide(self, compile: Literal["auto", "on", "off"]) -> None:
        """Decide which sizes of batches are compiled, by counting operations and steps.

        No clock decides, so that the decision is the same every time.
        """
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
        """Compile what was decided; a resumed run compiles the same, to match bit for bit."""
        if not self.compiled_sizes:
            return
        self.program.train()
        constants = Constants(as_module(self.program))
        graphs = [
            self.loss_and_gradients.captured(*self._first_batch(size))
            for size in self.compiled_sizes
        ]
        self.is_compiled = any(graph is not None and graph.is_compiled for graph in graphs)
        if self.is_compiled:
            self.update.compile()
        if any(graph is not None for graph in graphs):
            self.constants = constants
            if name := constants.number_changed():
                self._run_eagerly(f"{name} changes each time that it is run")

    # an epoch

    def run(self, epoch: int, stop: int | None = None) -> Tensor:
        """Train on all batches of an epoch, or the first ``stop``; return their losses.

        Losses are in nats per datum.
        """
        self.program.train()
        if self.constants and (name := self.constants.changed()):
            self._run_eagerly(f"{name} has changed since it was compiled")
        losses: list[Tensor] = []
        left = self.per_epoch if stop is None else stop
        with validation_enabled(False), closing(self.loads(epoch)) as loads:
            while left and (batches := next(loads, [])):
                losses += self._trained_on(batches[:left])
                left -= len(batches[:left])
        return torch.hstack(losses) if losses else torch.empty(0, device=self.device)

    def _run_eagerly(self, reason: str) -> None:
        """Do without graphs from here on, which compute with numbers as they were."""
        fix = "a buffer that is written in place can be compiled"
        warnings.warn(f"this program runs eagerly: {reason}; {fix}", stacklevel=2)
        self.loss_and_gradients.run_eagerly()
        self.compiled_sizes, self.several, self.constants = [], None, None
        self.is_compiled, self.update.compiled = False, None

    def _trained_on(self, batches: list[Batch]) -> Iterator[Tensor]:
        done = 0
        while done < len(batches):
            few = self.several.of(batches[done:]) if self.several else []
            if self.several and few:
                self._set_rates(few[-1].rate_factor)
                yield self.several(few)
                done += len(few)
            else:
                yield self._step(batches[done])
                done += 1

    def batch_at(self, epoch: int, step: int) -> tuple[Tensors, Tensors | None]:
        """The data of a step of an epoch, as they are drawn there."""
        with closing(self.loads(epoch)) as loads:
            for batches in loads:
                if step < len(batches):
                    return self.feed.data.batch(batches[step].places, batches[step].keys)
                step -= len(batches)
        raise IndexError(step)

    def loads(self, epoch: int) -> Generator[list[Batch], None, None]:
        """Shuffle the data into this epoch's batches, and seed everything random.

        Those of data on disk come a few at a time, each few over the memory of those before.
        """
        seed_generators(self.device, hash((self.seed, epoch)) % 2**63)
        places = self.feed.epoch(epoch)
        steps = range(epoch * self.per_epoch, (epoch + 1) * self.per_epoch)
        weights: Iterable[Tensor | None] = [None] * self.per_epoch
        if self.warmup:  # inputs of the captured graph, so that annealing recompiles nothing
            weights = torch.tensor([self.kl_weight(step) for step in steps], device=self.device)
        factors = [self.rate_factor(step) for step in steps]
        rates = [self.rates[0] * factor for factor in factors]
        # Of the type that the fused update reads.
        dtype = torch.float32 if self.device.type == "cuda" else torch.float64
        on_device = torch.tensor(rates, device=self.device, dtype=dtype)
        keys = batch_keys(self.per_epoch, self.device)
        rest = zip(keys, weights, factors, on_device)
        with closing(places):
            for few in places:
                yield [Batch(place, *next(rest)) for place in few]

    def kl_weight(self, step: int) -> float:
        """The weight of the latents' terms at a step, counted from 0 over the whole run."""
        return min(1.0, (step + 1) / (self.warmup * self.per_epoch)) if self.warmup else 1.0

    def rate_factor(self, step: int) -> float:
        """The factor on the learning rate at a step, counted from 0 over the whole run."""
        return factor_at(self.schedule, step / (self.epochs * self.per_epoch))

    def _step(self, batch: Batch) -> Tensor:
        """Take one step; on CUDA a fused update reads the learning rate there."""
        self._set_rates(batch.rate_factor)
        if self.device.type == "cuda" and self.update.is_ready:
            return self._step_at(*batch[:3], batch.rate_on_device)
        return self._step_at(*batch[:3], None)

    def _step_at(
        self, index: Tensor, keys: Tensor, weight: Tensor | None, rate: Tensor | None
    ) -> Tensor:
        loss, gradients = self.loss_and_gradients(index, keys, weight)
        self.update(gradients, rate)
        if self.moving:
            self.moving.update()
        return loss

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor

    def _first_batch(self, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        weight = torch.tensor(self.kl_weight(0), device=self.device) if self.warmup else None
        index = torch.arange(size, device=self.device) % len(self.data)
        return index, batch_keys(1, self.device)[0], weight

    def _loss(
        self, index: Tensor, keys: Tensor, weight: Tensor | None, rows: Tensor | None = None
    ) -> Tensor:
        """Minus the objective, per datum, of a batch, or the part of it that some rows make.

        Its data are looked up and drawn here, as a part of the captured graph.
        """
        x, context = self.feed.data.batch(index, keys, rows)
        share = len(index if rows is None else rows) / len(self.data)
        pair = map(without_data_scale, (self.program.model, self.program.guide))
        model, guide = (weigh_globals(fn, self.globals, share) for fn in pair)
        if weight is not None:
            model, guide = weigh_latents(model, weight), weigh_latents(guide, weight)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            return self.objective.differentiable_loss(model, guide, x, context) / len(index)

    # their state

    def parameters_are_finite(self) -> bool:
        """Whether no parameter is NaN or infinite."""
        return bool(torch.isfinite(torch.stack([p.detach().sum() for p in self.parameters])).all())

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that steps change: the program's and the optimiser's."""
        program = {f"{PREFIX}{name}": value for name, value in self.program.state_dict().items()}
        state = program | self.optimizer_state.tensors()
        if self.moving:
            state |= self.moving.tensors()
        return {name: value.detach().clone() for name, value in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        if self.several:
            self.several.replay = None  # it writes to the optimiser's state of before
        program = {key: value for key, value in state.items() if key.startswith(PREFIX)}
        self.program.load_state_dict(
            {key.removeprefix(PREFIX): value for key, value in program.items()}
        )
        self.optimizer_state.restore(state)
        if self.moving:
            self.moving.restore(state)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it, the program has the average of its weights, where one is kept."""
        return self.moving.in_place() if self.moving else nullcontext()
