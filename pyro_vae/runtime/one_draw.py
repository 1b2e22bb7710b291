"""Programs that take one draw of their latents at a time: run K times, and put together.

A network that normalises dimension 1, or a BatchNorm of (N, D), gives draws in front of the data
another meaning or fails. Such a program is run once for each draw, and its traces are joined as if
it had been run in a plate of draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.contracts import (
    PLATE_OF_DRAWS,
    ProgramLike,
    Site,
    StochasticFunction,
    TakesOneDraw,
    Trace,
    sites_of,
)
from pyro_vae.distributions import (
    given_datum,
    remembered,
    representative_of,
    stated_support,
)
from pyro_vae.programs import AtGlobals
from pyro_vae.runtime.latents import Values
from pyro_vae.runtime.traces import paired_traces
from pyro_vae.validation import InvalidInput

__all__ = ["joined_traces", "run_by_draw", "take_one_draw", "trace_by_draw"]


def take_one_draw(program: ProgramLike, refusal: InvalidInput) -> None:
    """Have a program run for one draw at a time from here on, and say so once.

    Raises:
        InvalidInput: the refusal, if the program cannot be run so.
    """
    if isinstance(program, AtGlobals):
        program = program.program
    if not isinstance(program, TakesOneDraw):
        raise refusal
    warnings.warn(
        f"{refusal.argument}: {refusal.got}; it is run one draw at a time, eagerly", stacklevel=3
    )
    program.one_draw = True


def run_by_draw(
    model: StochasticFunction,
    guide: StochasticFunction,
    args: tuple[object, ...],
    num_samples: int,
    particle_dim: int,
) -> tuple[Trace, Trace]:
    """Traces (guide, model) of K runs, as if they had been one in a plate of draws."""
    guides, models = [], []
    for _ in range(num_samples):
        own, replayed = paired_traces(model, guide, *args)
        for site in sites_of(own).values():
            site["fn"] = remembered(site["fn"], site["value"])
        guides.append(own)
        models.append(replayed)
    return joined_traces(guides, particle_dim), joined_traces(models, particle_dim)


def trace_by_draw(
    fn: StochasticFunction,
    args: tuple[object, ...],
    num_samples: int,
    values: Values | None,
    particle_dim: int,
) -> Trace:
    """The trace of K runs of a model or a guide, its latents at given values."""
    traces = []
    like = sites_of(poutine.trace(fn).get_trace(*args)) if values else {}
    for k in range(num_samples):
        here = fn
        if values is not None:
            one = {name: one_of(value, k, like[name]) for name, value in values.items()}
            here = poutine.condition(fn, data=one)
        traces.append(prune_subsample_sites(poutine.trace(here).get_trace(*args)))
    return joined_traces(traces, particle_dim)


def joined_traces(traces: Sequence[Trace], particle_dim: int) -> Trace:
    """K traces of one draw as one trace, as a plate of draws in ``particle_dim`` would give it."""
    joined = Trace()
    frame = CondIndepStackFrame(PLATE_OF_DRAWS, particle_dim, len(traces), 0, len(traces))
    for name, first in sites_of(traces[0]).items():
        sites = [sites_of(trace)[name] for trace in traces]
        site = first.copy()
        site["fn"] = draws = _Draws([s["fn"] for s in sites], -particle_dim - 1)
        site["value"] = draws.remember([s["value"] for s in sites])
        site["mask"] = _mask(sites, -particle_dim - 1)
        site["cond_indep_stack"] = (*first["cond_indep_stack"], frame)
        joined.add_node(name, **site)
    return joined


def one_of(value: Tensor, draw: int, like: Site) -> Tensor:
    """One of K draws of a site in the shape that it has in a run of one draw."""
    value = value[draw]
    while value.dim() > like["value"].dim() and value.shape[0] == 1:
        value = value[0]
    return value


def _mask(sites: Sequence[Site], rank: int) -> Tensor | bool | None:
    masks = [site["mask"] for site in sites]
    if all(mask is masks[0] for mask in masks):
        return masks[0]
    return torch.stack([_padded(torch.as_tensor(mask), rank) for mask in masks])


def _padded(value: Tensor, rank: int) -> Tensor:
    """A tensor with at least ``rank`` dimensions, new ones in front."""
    return value.reshape((1,) * (rank - value.dim()) + value.shape)


class _Draws(TorchDistribution):
    """The distributions of a site in K runs of one draw, K in front of their batch.

    Args:
        parts: one for each run.
        rank: the number of dimensions of the program's plates, between K and the event.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, parts: Sequence[TorchDistribution], rank: int):
        self.parts, self.rank = parts, rank
        batch = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        padded = (len(parts), *(1,) * (rank - len(batch)), *batch)
        self.values, self.joined = list[Tensor](), torch.empty(0)
        super().__init__(torch.Size(padded), parts[0].event_shape, validate_args=False)

    def remember(self, values: Sequence[Tensor]) -> Tensor:
        """Values of the runs as one, each of which is scored as the run's own tensor.

        A flow that runs one way has a density at the very tensor that it drew.
        """
        self.values, self.joined = list(values), self.in_front(values)
        return self.joined

    def in_front(self, values: Sequence[Tensor], event_dim: int | None = None) -> Tensor:
        """Values of the runs as one, K in front of the dimensions of all plates."""
        event_dim = len(self.event_shape) if event_dim is None else event_dim
        return torch.stack([_padded(value, self.rank + event_dim) for value in values])

    def _each(self, value: Callable[[TorchDistribution], Tensor]) -> Tensor:
        return self.in_front([value(part) for part in self.parts])

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return stated_support(self.parts[0])

    @property
    def mean(self) -> Tensor:
        return self._each(lambda part: part.mean)

    @property
    def representative(self) -> Tensor:
        return self._each(representative_of)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        draws = [self._each(lambda part: part.sample()) for _ in range(_count(sample_shape))]
        return torch.stack(draws).reshape(*sample_shape, *draws[0].shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if value is self.joined:
            return self.in_front([part.log_prob(v) for part, v in zip(self.parts, self.values)], 0)
        event_dim = len(self.event_shape)
        value = _padded(value, self.rank + event_dim)
        shared = value.dim() == self.rank + event_dim  # an observed value is one for all draws
        values = [value if shared else value[k] for k in range(len(self.parts))]
        return self.in_front([part.log_prob(v) for part, v in zip(self.parts, values)], 0)

    def at_datum(self, x: Tensor) -> TorchDistribution:
        """The same with what a datum fixes of each."""
        values = x if x.dim() > self.rank + len(self.event_shape) else [x] * len(self.parts)
        parts = [given_datum(part, value) for part, value in zip(self.parts, values)]
        return _Draws(parts, self.rank)


def _count(sample_shape: Sequence[int]) -> int:
    return torch.Size(sample_shape).numel()
