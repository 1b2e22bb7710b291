"""A program given data: the one place where a program is run on data.

Draws, densities and log-weights of a program at data are methods of `Conditioned`. What must hold
of every number is held here once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from pyro import poutine, validation_enabled
from pyro.distributions import TorchDistribution
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.contracts import (
    ProgramLike,
    StochasticFunction,
    Tensors,
    Trace,
    joint_of,
    sites_of,
)
from pyro_vae.datasets.dataset import Data
from pyro_vae.programs import AtGlobals, as_program, particles
from pyro_vae.programs.refined import FitsItsGuide
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.environment import (
    evaluating,
    in_single_precision,
    isolated_random,
    reference_parameter,
)
from pyro_vae.runtime.global_latents import (
    GlobalDraw,
    HasGlobals,
    check_globals,
    draw_globals,
    log_prior_of,
)
from pyro_vae.runtime.independence import MOST_DATA, DrawsMixed, Look, check_independence
from pyro_vae.runtime.latent_pairs import check_density, latent_sites
from pyro_vae.runtime.latents import Values, draws_in
from pyro_vae.runtime.memory import DEFAULT_MEMORY, chunks, rows_within
from pyro_vae.runtime.noise import FixedNoise, has_own_noise
from pyro_vae.runtime.observed import is_observed, observed_part
from pyro_vae.runtime.one_draw import run_by_draw, take_one_draw, trace_by_draw
from pyro_vae.runtime.summed import is_summed, latents_alone, with_drawn
from pyro_vae.runtime.traces import (
    NonFiniteLogWeight,
    Plates,
    culprit,
    find_plates,
    importance_traces,
    is_no_weight,
    site_log_prob,
    terms_of,
    weights_of,
)
from pyro_vae.validation import count_of, rows_of, tensors_of

__all__ = ["Conditioned", "conditioned"]


@contextmanager
def conditioned(
    program: ProgramLike,
    data: Data,
    seed: int,
    *,
    scored: bool = True,
    looked_at: bool = False,
    has_globals: bool = False,
) -> Iterator[Conditioned]:
    r"""A program given data, in evaluation mode, with random numbers from a seed.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        seed: seed of all that is drawn inside; the caller's random state is put back.
        scored: whether the program must have a density.
        looked_at: whether the program has been looked at before (`Conditioned.checked`), as between
            the epochs of a training run.
        has_globals: whether it may have latents outside the data plate.

    Raises:
        InvalidInput: on data or a program that cannot be scored.
        HasGlobals: for a program with global latents where none is expected.
    """
    program = in_single_precision(as_program(program))
    with evaluating(program, seed):
        x, context = checked_data(program, data)
        plates = find_plates(program, x, context, scored=scored, whole=True)
        if plates.globals and not has_globals:
            raise HasGlobals(plates.globals)
        given = Conditioned(program, x, context, plates)
        if not looked_at:
            given = given.checked()
        with validation_enabled(False):
            yield given


@dataclass(frozen=True)
class Conditioned:
    r"""A program given data, and what is asked of both together.

    Args:
        program: any program, in evaluation mode.
        x: data (N, \*event) on the program's device, or a dictionary of such.
        context: context (N, ...), a dictionary of such, or ``None``.
        plates: the program's plates.
        noise: seed of the random numbers that the guide draws beside its sites; ``None`` if it
            draws none.
    """

    program: ProgramLike
    x: Tensors
    context: Tensors | None
    plates: Plates
    noise: int | None = None

    @classmethod
    def of(
        cls,
        program: ProgramLike,
        x: Tensors,
        context: Tensors | None,
        *,
        scored: bool = True,
        globals_seed: int | None = None,
    ) -> Conditioned:
        """A program given tensors, its plates found and its laws checked by running it on a few.

        Global latents are put at one draw from the guide, of a seed, where one is given.

        Raises:
            InvalidInput: if a datum's log-weight depends on other data or on the number of draws.
            HasGlobals: for a program with global latents, without a seed.
        """
        program = as_program(program)
        plates = find_plates(program, x, context, scored=scored, whole=True)
        if plates.globals and globals_seed is None:
            raise HasGlobals(plates.globals)
        given = cls(program, x, context, plates).checked()
        if globals_seed is None:
            return given
        return given.at_one_draw(globals_seed)

    def checked(self) -> Conditioned:
        """The same, after a look at whether each datum's log-weight is its own.

        Raises:
            InvalidInput: if it depends on other data or on the number of draws.
        """
        if self.plates.globals:
            check_globals(self.program, self[:1].args, self[len(self) - 1 :].args, self.plates)
            one = self.at_one_draw(0).checked()
            plates = replace(self.plates, one_draw=one.plates.one_draw)
            return replace(self, noise=one.noise, plates=plates)
        with isolated_random(self.device, 0), validation_enabled(False), torch.no_grad():
            few = self[_spread(len(self))]
            noise = 0 if has_own_noise(self.program.guide, self.device, *few[:1].args) else None
            few = replace(few, noise=noise)
            look = Look(self.program, few.guide, *few.args, self.plates)
            try:
                check_independence(look, has_noise=noise is not None)
            except DrawsMixed as refusal:
                take_one_draw(self.program, refusal)
                return replace(self, noise=noise, plates=replace(self.plates, one_draw=True))
        return replace(self, noise=noise)

    def globals(self, num_samples: int, seed: int) -> Iterator[GlobalDraw]:
        """Draws of the global latents from the guide, the same for any data."""
        return draw_globals(self.program, self[:1].args, self.plates, num_samples, seed)

    def log_prior(self, values: Values) -> Tensor:
        """log p(theta) (1,) at given values of the global latents."""
        return log_prior_of(self.program, self[:1].args, self.plates, values)

    def at(self, values: Values) -> Conditioned:
        """The program at given values of its global latents, one of local latents alone."""
        program = AtGlobals(self.program, values, self.plates.globals)
        return replace(self, program=program, plates=replace(self.plates, globals=frozenset()))

    def at_one_draw(self, seed: int) -> Conditioned:
        """The program at one draw of its global latents; itself if it has none."""
        if not self.plates.globals:
            return self
        (draw,) = self.globals(1, seed)
        return self.at(draw.values)

    def __len__(self) -> int:
        return count_of(self.x)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Conditioned:
        """The same program given some of the data."""
        return replace(self, x=rows_of(self.x, rows), context=rows_of(self.context, rows))

    def in_chunks(self, size: int) -> Iterator[tuple[Conditioned, slice]]:
        """The program given ``size`` data at a time, in order, and which these are."""
        return ((self[few], few) for few in chunks(len(self), size))

    @property
    def device(self) -> torch.device:
        """The device of the data."""
        return self._reference.device

    @property
    def nbytes(self) -> int:
        """The size of the data in memory, without their context."""
        return sum(part.nbytes for part in tensors_of(self.x).values())

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type in which log-probabilities are added up."""
        like = self._reference
        return like.dtype if like.is_floating_point() else reference_parameter(self.program).dtype

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Zeros like the data."""
        return torch.zeros(*shape, dtype=self.dtype, device=self.device)

    @property
    def _reference(self) -> Tensor:
        parts = list(tensors_of(self.x).values())
        return next((part for part in parts if part.is_floating_point()), parts[0])

    @property
    def args(self) -> tuple[Tensors, Tensors | None]:
        """What model and guide are called with."""
        return self.x, self.context

    @property
    def model(self) -> StochasticFunction:
        return self.program.model

    @property
    def joint(self) -> StochasticFunction:
        """The model with every latent drawn, those that it sums over among them."""
        return joint_of(self.program)

    @property
    def guide(self) -> StochasticFunction:
        """The guide as one density: random numbers of its own are the same at every run."""
        if self.noise is None:
            return self.program.guide
        return FixedNoise(self.device, self.noise)(self.program.guide)

    def fitted(self) -> Conditioned:
        """The same, with a guide that is fitted to each datum fitted now, for all runs to come."""
        if not isinstance(self.program, FitsItsGuide) or self.noise is None:
            return self
        with torch.no_grad(), FixedNoise(self.device, self.noise):
            return replace(self, program=self.program.fitted(*self.args))

    def trace(
        self, fn: StochasticFunction, num_samples: int, values: Values | None = None
    ) -> Trace:
        """The trace of a model or a guide run for K draws, its latents at given values."""
        if self.plates.one_draw:
            return trace_by_draw(fn, self.args, num_samples, values, self.plates.particle_dim)
        fn = particles(fn, num_samples, self.plates.particle_dim)
        if values is not None:
            fn = poutine.condition(fn, data=values)
        return prune_subsample_sites(poutine.trace(fn).get_trace(*self.args))

    def traces(
        self, num_samples: int | None = None, guide: StochasticFunction | None = None
    ) -> tuple[Trace, Trace]:
        """Traces (guide, model) of K draws, or of a single one, from the guide or another one."""
        guide, dim = guide or self.program.guide, self.plates.particle_dim
        if num_samples is not None and self.plates.one_draw:
            return run_by_draw(self.model, guide, self.args, num_samples, dim)
        return importance_traces(self.program, *self.args, num_samples, dim, guide)

    def prior(self) -> Trace:
        """The trace of a single draw from the model's prior, the data as they are."""
        return prune_subsample_sites(poutine.trace(self.joint).get_trace(*self.args))

    def draw(self, fn: StochasticFunction, num_samples: int) -> Values:
        """K draws of every latent site from a guide, or from a model's prior."""
        if self.plates.summed and fn == self.model:
            fn = self.joint  # its states one by one, as the prior draws them
        sites = latent_sites(self.trace(fn, num_samples)).items()
        return {name: site["value"] for name, site in sites if name not in self.plates.summed}

    def log_density(self, fn: StochasticFunction, values: Values) -> tuple[Tensor, Tensor]:
        """The log-density of a model or a guide at K given latents: theirs and the rest.

        Both are (K, N).

        The rest is the observed sites' and the factors' of a model. Of a guide it is what training
        adds, and means nothing here.
        """
        num_samples = draws_in(values)
        shape = (num_samples, len(self))
        latents, rest = self.zeros(shape), self.zeros(shape)
        trace = self.trace(fn, num_samples, values)
        if any(is_summed(site) for site in sites_of(trace).values()):
            both = (latents_alone(trace, values), trace)
            latents, total = (sum(terms_of(t, self.plates, shape).values(), rest) for t in both)
            return latents, total - latents
        for name, site in sites_of(trace).items():
            value = site_log_prob(site, self.plates, shape)
            latents, rest = (latents + value, rest) if name in values else (latents, rest + value)
        return latents, rest

    def densities(
        self,
        values: Values,
        guide: StochasticFunction | None = None,
        *,
        memory_budget: int = DEFAULT_MEMORY,
    ) -> tuple[Tensor, ...]:
        """log p(z), log p(x | z) and, of a guide that is given, log q(z | x): each (K, N)."""

        def at(few: slice) -> Sequence[Tensor]:
            part = {name: value[few] for name, value in values.items()}
            q = [] if guide is None else [self.log_density(guide, part)[0]]
            return [*self.log_density(self.model, part), *q]

        num_samples = draws_in(values)
        if num_samples == 1:
            return tuple(at(slice(0, 1)))
        rows = rows_within(memory_budget, lambda count: at(slice(0, count)))
        parts = [at(few) for few in chunks(num_samples, rows)]
        return tuple(torch.cat(part) for part in zip(*parts))

    @property
    def observed_names(self) -> list[str]:
        """The names of the observed sites: "x", or those of the parts of x."""
        return [name or "x" for name in tensors_of(self.x)]

    @property
    def drawn_names(self) -> list[str]:
        """Those of the observed sites of which new data can be drawn."""
        model = self[:1].traces()[1]
        return [name for name in self.observed_names if is_observed(model, name)]

    def observation(self, values: Values, name: str = "x") -> TorchDistribution:
        r"""p(x | z) at K given latents of N data: a distribution of batch shape (K, N, ...)."""
        return observed_part(self.drawn_at(values), name)["fn"]

    def predictive(self, values: Values, name: str = "x") -> TorchDistribution:
        """As `observation`, with what each datum fixes of it, such as the total of its counts."""
        return observed_part(self.drawn_at(values), name, at_datum=True)["fn"]

    def drawn_at(self, values: Values) -> Trace:
        """The model's trace at K given latents, those that it sums over drawn given them and x."""
        dim = self.plates.particle_dim
        if not self.plates.summed:
            return self.trace(self.model, draws_in(values), values)
        fixed = poutine.condition(particles(self.joint, draws_in(values), dim), data=values)
        drawn = with_drawn(fixed, self.args, self.plates.summed, dim - 1)
        return prune_subsample_sites(poutine.trace(drawn).get_trace(*self.args))

    def log_weights(self, num_samples: int, guide: StochasticFunction | None = None) -> Tensor:
        """Log-weights (K, N) in nats of K draws from the guide, or from another one.

        Raises:
            InvalidInput: if one is NaN or +inf, naming the datum and the site.
        """
        traces = self.traces(num_samples, guide)
        shape = (num_samples, len(self))
        total = weights_of(*traces, self.plates, shape)
        bad = is_no_weight(total)
        if bad.any():
            first = int(bad.any(0).nonzero()[0])
            raise NonFiniteLogWeight(first, culprit(traces, self.plates, shape, bad))
        return total

    def check_no_auxiliary(self) -> None:
        """Raise `InvalidInput` if the guide has no density at latents of one's choice."""
        one = self[:1]
        check_density(*one.traces(guide=one.guide))


def _spread(num_data: int) -> list[int]:
    """A few data, the first and the last among them; one alone has copies for neighbours."""
    count = min(num_data, MOST_DATA) if num_data > 1 else MOST_DATA
    return [i * (num_data - 1) // (count - 1) for i in range(count)]
