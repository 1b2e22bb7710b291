r"""Traces of a program: checks of its sites, and the log-weights of bounds and scores.

For K draws of the latents from the guide, datum n has the log-weights

.. math:: \log w_{kn} = \log p(x_n, z_{kn}) - \log q(z_{kn} \mid x_n),

the sum of the unscaled, masked log-probabilities of all sites of the model less those of the guide.
A plate inside the data plate must be run as a whole: some of its entries, scaled, would give noisy
weights, and the log of a mean of such weights is too high. Factors in the model count; factors in
the guide are training terms (a commitment loss, a penalty) and do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.contracts import (
    Preparable,
    ProgramLike,
    Site,
    StochasticFunction,
    TakesOneDraw,
    Tensors,
    Trace,
    sites_of,
)
from pyro_vae.distributions import is_point_mass, log_prob_inside
from pyro_vae.programs import particles
from pyro_vae.runtime.latent_pairs import (
    check_latents,
    check_whole,
    chooses,
    has_states,
    is_local,
    latent_sites,
    subsampled,
)
from pyro_vae.runtime.summed import is_summed, marginal_terms
from pyro_vae.validation import InvalidInput, count_of, rows_of, tensors_of

__all__ = [
    "NonFiniteLogWeight",
    "Plates",
    "culprit",
    "find_plates",
    "importance_traces",
    "is_no_weight",
    "paired_traces",
    "plates_of",
    "site_log_prob",
    "terms_of",
    "weights_of",
]


@dataclass(frozen=True)
class Plates:
    """Where the plates of a program are.

    Args:
        data_dim: the data plate's dimension, negative.
        num_data: number of data in the run that this was read off.
        particle_dim: the first dimension left of every plate of the program, negative.
        is_deterministic: whether every latent of the guide is a point, as the code that an encoder
            chooses: all draws are one.
        chooses: whether a latent of the guide is one point among the values of a discrete latent:
            its draws never reach the others.
        has_states: whether the guide draws a discrete latent.
        is_whole: whether no plate inside the data plate is subsampled.
        globals: the names of the sites outside the data plate, which belong to all data together.
        one_draw: whether the program is run for one draw at a time.
        summed: the names of the model's discrete latents that it sums over.
    """

    data_dim: int
    num_data: int
    particle_dim: int
    is_deterministic: bool = False
    chooses: bool = False
    has_states: bool = False
    is_whole: bool = True
    globals: frozenset[str] = frozenset()
    one_draw: bool = False
    summed: frozenset[str] = frozenset()

    @property
    def data_axis(self) -> int:
        """The axis of the data in a site's value that has the draws first."""
        return self.data_dim - self.particle_dim


def find_plates(
    program: ProgramLike,
    x: Tensors,
    context: Tensors | None = None,
    *,
    scored: bool = True,
    whole: bool = False,
) -> Plates:
    r"""Find the plates of a program by running it once on two data.

    It is checked first that the program's weights exist.

    Args:
        program: any program.
        x: data (N, \*event).
        context: context (N, ...) or ``None``.
        scored: whether it must have a density; training alone can do with a point mass.
        whole: whether its local plates must be run as wholes, as those of a scored program must;
            training alone can do with some of their entries.

    Raises:
        InvalidInput: if the model has no data plate or no observed site, model and guide differ in
            their latent sites, a local plate is subsampled, or (a `NoBound`) the guide puts a point
            mass on a continuous latent of a datum.
    """
    few = slice(0, 2)
    guide, model = importance_traces(program, rows_of(x, few), rows_of(context, few))
    for name, site in [*model.nodes.items(), *guide.nodes.items()]:
        if site["type"] == "param":
            raise InvalidInput(
                name,
                got="pyro.param or pyro.module inside a program",
                expected="parameters in modules",
                fix="make it an nn.Parameter of the program, which is what is trained and saved",
            )
    plates = plates_of(guide, model, scored=scored)
    observed = {name: site for name, site in sites_of(model).items() if site["is_observed"]}
    # A pair of Pyro's functions may observe pieces of x, or what it makes of x.
    is_pair = isinstance(program, Preparable) and bool(observed)
    has_pieces = any("x" in site["infer"] for site in observed.values())
    for name in () if is_pair or has_pieces else [part or "x" for part in tensors_of(x)]:
        if name not in observed:
            raise InvalidInput(
                "model",
                got=f"no observed site named {name!r}",
                expected=f"pyro.sample({name!r}, ..., obs=...)",
                fix="name the observed site as the data are: 'x', or the keys of a dictionary x",
            )
    if whole:
        check_whole(model, guide)
    expected = min(2, count_of(x))
    if plates.num_data != expected:
        raise InvalidInput(
            "data plate",
            got=f"size {plates.num_data} for {expected} data",
            expected="one entry for each datum",
            fix="write pyro.plate('data', len(x))",
        )
    one_draw = isinstance(program, TakesOneDraw) and program.one_draw
    return replace(plates, one_draw=one_draw)


def plates_of(
    guide: Trace, model: Trace, *, scored: bool = True, has_particles: bool = False
) -> Plates:
    """Read the plates of a program off its traces, after the checks of `find_plates`.

    Args:
        guide: the guide's trace.
        model: the model's trace.
        scored: whether the program must have a density.
        has_particles: whether they were run in a plate of particles, left of all others.
    """
    sites = [*sites_of(model).items(), *sites_of(guide).items()]
    frames = {
        frame.name: (frame, frame.dim)
        for _, site in sites
        for frame in site["cond_indep_stack"]
        if frame.dim is not None
    }
    if "data" not in frames:
        raise InvalidInput(
            "model",
            got="no plate named 'data'",
            expected="all sites inside pyro.plate('data', len(x))",
            fix="wrap the local latents and x in that plate",
        )
    plate, data_dim = frames["data"]
    outside = frozenset(name for name, site in sites if not is_local(site))
    check_latents(model, guide, scored, outside)
    if scored:
        check_whole(model, guide)
    leftmost = min(dim for _, dim in frames.values())
    return Plates(
        data_dim=data_dim,
        num_data=plate.size,
        particle_dim=leftmost if has_particles else leftmost - 1,
        is_deterministic=all(
            is_point_mass(site["fn"])
            for name, site in latent_sites(guide).items()
            if name not in outside
        ),
        chooses=chooses(model, guide),
        has_states=has_states(guide),
        is_whole=not any(True for _ in subsampled(model, guide)),
        globals=outside,
        summed=frozenset(n for n, site in sites_of(model).items() if is_summed(site)),
    )


def importance_traces(
    program: ProgramLike,
    x: Tensors,
    context: Tensors | None = None,
    num_samples: int | None = None,
    particle_dim: int = -2,
    guide: StochasticFunction | None = None,
) -> tuple[Trace, Trace]:
    r"""Traces (guide, model) of a program, the model replayed on the guide's draws.

    Args:
        program: any program.
        x: data (N, \*event).
        context: context (N, ...) or ``None``.
        num_samples: number of draws K, each site then having K in front; ``None`` for a single draw
            without.
        particle_dim: where the plate of the K draws goes, `Plates.particle_dim`.
        guide: what draws the latents; the program's own guide if not given.
    """
    model, guide = program.model, guide or program.guide
    if num_samples is not None:
        model, guide = (particles(fn, num_samples, particle_dim) for fn in (model, guide))
    return paired_traces(model, guide, x, context)


def paired_traces(
    model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
) -> tuple[Trace, Trace]:
    """Traces (guide, model) of two Pyro functions, the model replayed on the guide's draws."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)


def weights_of(guide: Trace, model: Trace, plates: Plates, shape: tuple[int, int]) -> Tensor:
    """Log-weights (K, N) of two traces, as they come: nothing here depends on their values.

    They are those of the data, given the global latents.
    """
    total = next(iter(sites_of(model).values()))["value"].new_zeros(())
    for sign, terms in ((1, terms_of(model, plates, shape)), (-1, terms_of(guide, plates, shape))):
        for name, term in terms.items():
            if sign == 1 or not sites_of(guide)[name]["is_observed"]:
                total = total + sign * term
    return total


def terms_of(trace: Trace, plates: Plates, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The terms (K, N) of a trace by site; what depends on summed latents is one term each."""
    sums = marginal_terms(trace, plates.particle_dim - 1) if plates.summed else {}
    found = {name: _per_datum(value, plates, shape) for name, value in sums.items()}
    for name, site in sites_of(trace).items():
        if name in plates.globals:
            continue
        if not sums:
            found[name] = site_log_prob(site, plates, shape)
        elif (value := _log_prob(site)).dim() <= -plates.particle_dim:
            found[name] = _per_datum(value, plates, shape)
    return found


def is_no_weight(log_weights: Tensor) -> Tensor:
    """Where log-weights are what no log-weight can be: NaN or +inf."""
    return torch.isnan(log_weights) | (log_weights == torch.inf)


class NonFiniteLogWeight(InvalidInput):
    """A log-weight that is NaN or +inf.

    Args:
        datum: the index of the first datum that has one.
        site: where it comes from.
    """

    def __init__(self, datum: int, site: str):
        self.datum, self.site = datum, site
        super().__init__(
            "log-weights",
            got=f"NaN or +inf in datum {datum}, {site}",
            expected="log-probabilities",
            fix="check that datum and the scales that the networks return for it",
        )

    def within(self, few: slice) -> NonFiniteLogWeight:
        """The same error, its datum counted among all data; padding repeats the last of a few."""
        return NonFiniteLogWeight(min(few.start + self.datum, few.stop - 1), self.site)


def site_log_prob(site: Site, plates: Plates, shape: tuple[int, int]) -> Tensor:
    """One site's unscaled, masked log-probability, summed over its local plates: (K, N)."""
    return _per_datum(_log_prob(site), plates, shape)


def _log_prob(site: Site) -> Tensor:
    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if site["is_observed"]:
        value = log_prob_inside(site["fn"], site["value"], value)
    return scale_and_mask(value, mask=site["mask"])


def _per_datum(value: Tensor, plates: Plates, shape: tuple[int, int]) -> Tensor:
    """The sum (K, N) of a tensor over all plates but those of the draws and the data."""
    rank = -plates.particle_dim
    value = value.reshape((1,) * (rank - value.dim()) + value.shape)
    others = [d for d in range(-rank, 0) if d not in (plates.particle_dim, plates.data_dim)]
    return (value.sum(others) if others else value).expand(shape)


def culprit(
    traces: tuple[Trace, Trace], plates: Plates, shape: tuple[int, int], bad: Tensor
) -> str:
    """Which site the log-weights marked as bad (K, N) come from, in words."""
    for name, term in [item for t in traces for item in terms_of(t, plates, shape).items()]:
        if not torch.isfinite(term[bad]).all():
            return f"first at site {name!r}"
    return "at no single site"
