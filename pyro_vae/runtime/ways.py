r"""How several draws of a program with global latents are made.

Under the plate of draws a global matrix W has the shape (K, 1, Z, D), and ``z @ W`` pairs each draw
of one with each draw of the other. So there are three ways. The plate of draws serves programs that
broadcast, and is the fastest. Otherwise latents are drawn one draw after another and all draws are
scored at once by `torch.func.vmap`, under which W has its own shape again. What neither serves is
run draw by draw. A program is run in each way at the same latents, and the first way that gives the
log-probabilities of single runs is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pyro import poutine, validation_enabled
from torch import Tensor

from pyro_vae.contracts import StochasticFunction, Trace, sites_of
from pyro_vae.distributions import is_point_mass
from pyro_vae.programs import particles
from pyro_vae.runtime.global_latents import global_log_probs
from pyro_vae.runtime.independence import ROUNDING_OF_ONE, Given
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values
from pyro_vae.runtime.traces import Plates, paired_traces, plates_of, weights_of

__all__ = ["Way", "scored_by_vmap", "tell", "way_of"]

Way = Literal["plate", "vmap", "scan"]

DRAWS = 2

logger = logging.getLogger(__name__)


def way_of(
    model: StochasticFunction,
    guide: StochasticFunction,
    args: tuple[object, ...],
    plates: Plates,
) -> Way:
    """The first way of making several draws that gives what single draws give."""
    with poutine.block(), torch.no_grad(), torch.random.fork_rng([]):
        here = plates_of(*paired_traces(model, guide, *args), scored=False)
        pair = _Pair(model, guide, args, replace(plates, num_data=here.num_data))
        attempts: dict[Way, Callable[[], bool]] = {
            "plate": pair.agrees_in_plate,
            "vmap": pair.agrees_by_vmap,
        }
        for way, agrees in attempts.items():
            try:
                if agrees():
                    return way
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
                continue
    return "scan"


@dataclass(frozen=True)
class _Pair:
    """A model and a guide, looked at without knowing the program that they belong to."""

    model: StochasticFunction
    guide: StochasticFunction
    args: tuple[object, ...]
    plates: Plates

    def single(self, values: Values | None = None) -> tuple[Trace, Trace]:
        """Traces (guide, model) of one draw, at given latents or new ones."""
        guide = self.guide if values is None else Given(values)(self.guide)
        return paired_traces(self.model, guide, *self.args)

    def weights(self, traces: tuple[Trace, Trace], draws: int = 1) -> Tensor:
        """Log-weights (K, N + 1): of each datum, and of the global latents."""
        local = weights_of(*traces, self.plates, (draws, self.plates.num_data))
        log_p, log_q = global_log_probs(*traces, self.plates, draws)
        return torch.cat([local, (log_p - log_q).unsqueeze(-1).to(local)], dim=-1)

    def agrees_in_plate(self) -> bool:
        dim, shapes = self.plates.particle_dim, latent_sites(self.single()[0])
        both = (particles(fn, DRAWS, dim) for fn in (self.model, self.guide))
        many = paired_traces(*both, *self.args)
        singles = []
        for k in range(DRAWS):
            values = {
                name: site["value"].select(dim - len(site["fn"].event_shape), k)
                for name, site in latent_sites(many[0]).items()
                if not is_point_mass(site["fn"])
            }
            like = {n: value.reshape(shapes[n]["value"].shape) for n, value in values.items()}
            singles.append(self.single(like))
        return self._agree(self.weights(many, DRAWS), singles)

    def agrees_by_vmap(self) -> bool:
        singles = [self.single() for _ in range(DRAWS)]
        found = scored_by_vmap(
            lambda values: self.weights(self.single(values))[0], [guide for guide, _ in singles]
        )
        return self._agree(found, singles)

    def _agree(self, found: Tensor, singles: list[tuple[Trace, Trace]]) -> bool:
        expected = torch.cat([self.weights(traces) for traces in singles])
        size = max(
            site["fn"].log_prob(site["value"]).nan_to_num(0, 0, 0).double().abs().sum().item()
            for trace in singles[0]
            for site in sites_of(trace).values()
        )
        tolerance = ROUNDING_OF_ONE * torch.finfo(expected.dtype).eps * max(1.0, size)
        return found.shape == expected.shape and (found - expected).abs().max().item() <= tolerance


def scored_by_vmap(score: Callable[[Values], Tensor], drawn: Sequence[Trace]) -> Tensor:
    """A function of a guide's draws at several of them at once, by `torch.func.vmap`.

    A point mass follows from its sources and is not among the draws.
    """
    values = [sources_of(trace) for trace in drawn]
    stacked = {name: torch.stack([each[name] for each in values]) for name in values[0]}
    with validation_enabled(False):  # Pyro's checks read values, which vmap does not have
        return torch.func.vmap(score, randomness="different")(stacked)


def sources_of(guide: Trace) -> Values:
    """The draws of a guide's trace, but for point masses."""
    sites = latent_sites(guide).items()
    return {name: site["value"] for name, site in sites if not is_point_mass(site["fn"])}


def tell(way: Way, what: str, names: frozenset[str]) -> None:
    """Log how several draws are made; a slower way is a warning that names the remedy."""
    latents = ", ".join(sorted(names)[:3])
    if way == "plate":
        logger.info("%s of global latents (%s) run at once in the plate of draws", what, latents)
    else:
        logger.warning(
            "%s of global latents (%s) run one after another%s: the model does not broadcast over "
            "draws in front. Products written as (z.unsqueeze(-1) * w).sum(-2) would run at once",
            what,
            latents,
            ", and are scored at once by vmap" if way == "vmap" else "",
        )
