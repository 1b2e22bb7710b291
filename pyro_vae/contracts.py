"""The contracts between the parts of the library, as types that need no inheritance.

A component is a `torch.nn.Module` whose ``forward`` returns a distribution. A program is a module
with a Pyro ``model`` and ``guide``. Everything that trains, scores or inspects takes a program.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypedDict, cast, overload, runtime_checkable

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.score_parts import ScoreParts
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import InferDict
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = [
    "Bindable",
    "EventShape",
    "Initializable",
    "Likelihood",
    "MadeAtFirstRun",
    "ModuleLike",
    "Network",
    "PLATE_OF_DRAWS",
    "Posterior",
    "Prior",
    "ProgramLike",
    "ProgramOfParts",
    "Place",
    "Preparable",
    "PyroPair",
    "Quantity",
    "Site",
    "StatesClasses",
    "StatesEvent",
    "StatesEntries",
    "StatesInfer",
    "StatesKnown",
    "StatesMeasure",
    "StatesShape",
    "StatesTrainingTerm",
    "StochasticFunction",
    "SumsLatents",
    "TakesMissingParts",
    "TakesOneDraw",
    "Tensors",
    "Trace",
    "alone",
    "as_module",
    "as_program_like",
    "joint_of",
    "context_of",
    "known_by",
    "num_classes_of",
    "sites_of",
]

StochasticFunction = Callable[..., object]  # a Pyro model or guide

PLATE_OF_DRAWS = "_draws"  # a name that no author gives a plate

# Data or contexts: one tensor (N, ...), or one for each name, all of one length N.
Tensors = Tensor | dict[str, Tensor]
EventShape = tuple[int, ...] | dict[str, tuple[int, ...]]  # of one datum, or of each of its parts


class ModuleLike(Protocol):
    """The part of `torch.nn.Module` that the library uses; a protocol cannot inherit from it."""

    training: bool

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def named_children(self) -> Iterator[tuple[str, nn.Module]]: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object: ...
    def train(self, mode: bool = True) -> nn.Module: ...
    def eval(self) -> nn.Module: ...
    def double(self) -> nn.Module: ...
    @overload
    def to(self, device: torch.device, /) -> nn.Module: ...
    @overload
    def to(self, dtype: torch.dtype, /) -> nn.Module: ...


class Prior(ModuleLike, Protocol):
    """p(z | c): a distribution over latents, of batch shape () or that of the context."""

    def __call__(self, *, context: Tensor | None = None) -> Distribution: ...


class Likelihood(ModuleLike, Protocol):
    """p(x | z, c): a distribution over data of one event shape, for latents (*batch, *latent)."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...
    def __call__(
        self, *latents: Tensor, context: Tensor | None = None, **known: Tensor
    ) -> Distribution: ...


class Posterior(ModuleLike, Protocol):
    """q(z | x, c): a distribution over latents, for data (*batch, *event)."""

    def __call__(self, x: Tensor, *, context: Tensor | None = None) -> Distribution: ...


class Network(ModuleLike, Protocol):
    """A map from (*batch, *in_shape), and a context, to features (*batch, *out_shape)."""

    @property
    def out_shape(self) -> tuple[int, ...]: ...
    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor: ...


class ProgramLike(ModuleLike, Protocol):
    """A Pyro model and guide as one module, whose parameters are its own ``nn.Parameter``s."""

    @property
    def event_shape(self) -> EventShape | None: ...

    # x and context are `Tensors`: a program says which of the two forms it takes.
    @property
    def model(self) -> StochasticFunction: ...
    @property
    def guide(self) -> StochasticFunction: ...


@runtime_checkable
class Preparable(Protocol):
    """A program that is run once before its parameters are read, which some of it is made by."""

    def prepare(self, x: Tensors, context: Tensors | None = None) -> None: ...


@runtime_checkable
class MadeAtFirstRun(Protocol):
    """A program of which some modules are made at its first run."""

    def run_once(self) -> None: ...


@runtime_checkable
class TakesOneDraw(Protocol):
    """A program that may be run for one draw at a time, and is where ``one_draw`` says so."""

    one_draw: bool


@runtime_checkable
class SumsLatents(Protocol):
    """A program whose model may sum over latents that its ``joint`` draws."""

    @property
    def summed(self) -> tuple[str, ...]: ...

    def joint(self, x: Tensors, context: Tensors | None = None) -> object: ...


@runtime_checkable
class PyroPair(Protocol):
    """A module with a Pyro model and guide, whatever their arguments and names."""

    @property
    def model(self) -> StochasticFunction: ...
    @property
    def guide(self) -> StochasticFunction: ...


@runtime_checkable
class StatesEvent(ProgramLike, Protocol):
    """A program that states the shape of one datum, or ``None`` until it has seen data."""


class ProgramOfParts(Protocol):
    """What a component is bound to: a program, or one level of it, whose posterior it may share."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...
    @property
    def posterior(self) -> Posterior: ...


def as_module(part: ModuleLike) -> nn.Module:
    """Tell the type checker that a protocol's object is a module."""
    return cast(nn.Module, part)


def as_program_like(module: nn.Module) -> ProgramLike:
    """Tell the type checker that a module has a model and a guide."""
    return cast(ProgramLike, module)


def joint_of(program: ProgramLike) -> StochasticFunction:
    """A program's model with every latent drawn."""
    return program.joint if isinstance(program, SumsLatents) else program.model


def context_of(program: object) -> nn.Module | None:
    """The module that turns a program's context into features; ``None`` if it takes no context."""
    return getattr(program, "context", None)


def known_by(part: object) -> Mapping[str, Quantity]:
    """The known quantities that a likelihood or a program takes, by name."""
    return part.known if isinstance(part, StatesKnown) else {}


def num_classes_of(program: ModuleLike) -> int | None:
    """The number of labels that a program conditions on; ``None`` for any other context."""
    embed = context_of(program)
    return embed.num_classes if isinstance(embed, StatesClasses) else None


@runtime_checkable
class Bindable(Protocol):
    """A component that uses another of its program, as VampPrior uses the posterior.

    It is bound when the program is built and when a part is replaced: to it, or to its own level.
    """

    def bind(self, program: ProgramOfParts) -> None: ...


@runtime_checkable
class Initializable(Protocol):
    """A component initialised from data, once, before a new run's first step."""

    def initialize(self, x: Tensors, context: Tensors | None = None) -> None: ...


@runtime_checkable
class StatesClasses(Protocol):
    """A context module that takes labels and states how many classes there are."""

    num_classes: int


@runtime_checkable
class StatesEntries(Protocol):
    """A context module that takes a dictionary, and states the names of its entries.

    Any other takes a tensor: the one entry of the context that is not a known quantity.
    """

    entries: tuple[str, ...]  # none for a module that takes a tensor


@runtime_checkable
class StatesInfer(Protocol):
    """A posterior that tells Pyro how to treat its site, such as to sum over its states."""

    infer: InferDict


@dataclass(frozen=True)
class Quantity:
    """What is known of each datum beside x and is not modelled, such as its size factor.

    Args:
        expected: the values that it may have, in words.
        holds: from the quantity (N, ...) and x (N, ...) to whether each entry is such a value; the
            quantity's trailing dimensions are as many as those of x, or none.
        has_units: whether it is in the units of x, so that it changes when they do.
        drawn: its value where x is a draw of the model; ``None`` where that is any.
        tells_x: whether it is part of what was seen of x, as the end of an interval is.
        used: where it is looked at: another quantity and its value there. Elsewhere it may be NaN.
    """

    expected: str
    holds: Callable[[Tensor, Tensor], Tensor]
    has_units: bool = True
    drawn: float | None = None
    tells_x: bool = False
    used: tuple[str, float] | None = None


@runtime_checkable
class StatesKnown(Protocol):
    """A likelihood that takes known quantities of each datum by keyword, and names them.

    They are entries of the context dictionary. A program passes them on to its likelihood, and
    states them too; its context module gets the other entries.
    """

    @property
    def known(self) -> Mapping[str, Quantity]: ...


@runtime_checkable
class StatesMeasure(Protocol):
    """A support that states the measure of its densities, such as that on the simplex."""

    measure: str


@runtime_checkable
class StatesTrainingTerm(Protocol):
    """A posterior's density with a term (N,), in nats, that is used only in training."""

    training_term: Tensor


@runtime_checkable
class TakesMissingParts(Protocol):
    """A program of several observed sites that takes an x without some of them."""

    takes_missing_parts: bool


@runtime_checkable
class StatesShape(Protocol):
    """A module that states the shape of its outputs."""

    out_shape: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Which part of x a site observes; a program leaves it with the site, ``infer["x"]``.

    Args:
        event: the shape of one datum of x.
        axis: the axis of x, counted with the data's, that the part is a slice of; ``None`` for all.
        start, count: the first index of the slice, and the number of indices.
    """

    event: tuple[int, ...]
    axis: int | None = None
    start: int = 0
    count: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the part of one datum."""
        if self.axis is None:
            return self.event
        return (*self.event[: self.axis - 1], self.count, *self.event[self.axis :])


class Site(TypedDict):
    """A sample site of a Pyro trace, after its message has been processed."""

    name: str
    type: str
    fn: TorchDistribution
    args: tuple[object, ...]
    kwargs: dict[str, object]
    value: Tensor
    is_observed: bool
    infer: dict[str, object]
    scale: Tensor | float
    mask: Tensor | bool | None
    cond_indep_stack: tuple[CondIndepStackFrame, ...]
    log_prob: Tensor
    unscaled_log_prob: Tensor
    score_parts: ScoreParts
    packed: dict[str, Tensor]


def sites_of(trace: Trace) -> dict[str, Site]:
    """Sample sites of a trace by name, in the order in which they were drawn.

    ``log_prob`` and ``unscaled_log_prob`` are there once ``trace.compute_log_prob()`` was called.
    """
    sites: dict[str, Site] = trace.nodes  # type: ignore[assignment]  # Pyro's type allows unhandled messages
    return {name: site for name, site in sites.items() if site["type"] == "sample"}


_alone = threading.RLock()  # torch's random numbers and Pyro's handlers exist once in a process
SOON = 10.0  # seconds of waiting that need no word


@contextmanager
def alone() -> Iterator[None]:
    """Keep other threads of the process from running a program meanwhile; they wait.

    Two programs that run at once would draw one another's numbers and see one another's sites.
    """
    if not _alone.acquire(timeout=SOON):
        why = "Pyro's handlers and torch's random numbers belong to the process; use several"
        warnings.warn(f"waiting for another thread that trains or scores: {why}", stacklevel=3)
        _alone.acquire()
    try:
        yield
    finally:
        _alone.release()
