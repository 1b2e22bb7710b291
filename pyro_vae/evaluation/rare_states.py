r"""States of a discrete latent that few draws reach, summed over instead of waited for.

A guide that gives a state y the probability 1e-4 is not drawn there in a thousand draws, though the
posterior may give it a hundred times as much; the weights of all that was drawn look perfect. Where
the states are few, the rare ones are a stratum of their own:

.. math:: \hat p(x) = \frac{q(y \notin R)}{|\{k : y_k \notin R\}|} \sum_{y_k \notin R} w_k
          + \sum_{y \in R} \frac1J \sum_j \frac{p(x, y, z_{jy})}{q(z_{jy} \mid x, y)}, \quad
          R = \{y : K\, q(y \mid x) < M\}

with M the draws of the tail that Pareto k is fitted to. The set R does not depend on the draws, so
the mean stays :math:`p(x)`, but for a chance of :math:`e^{-M}` at most that no draw lies outside of
R. The first sum is written as K weights: draws in R are replaced by the others in turn. Beside
global latents, each draw of which has few of the local ones, R is all states and the first sum is
empty.

Source: Owen (2013), Monte Carlo Theory, Methods and Examples, chapter 8, for stratification.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.contracts import Site, StochasticFunction, Trace, sites_of
from pyro_vae.distributions import stated_support
from pyro_vae.evaluation.pareto import tail_size
from pyro_vae.evaluation.proposals import GuideProposal, Proposal
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values, in_rows, out_of_rows
from pyro_vae.runtime.traces import site_log_prob, weights_of

__all__ = ["StatesOfGuide", "WithRareStates"]

SHARE = 4  # of the draws, one in so many more are spent on rare states
MOST = 1024  # states
FEWEST = 5  # draws of the other latents at each state
SAME = 1e-4  # relative difference of log q(y) between draws, by rounding


@dataclass(frozen=True)
class StatesOfGuide:
    """The joint states of a guide's finite latents.

    Args:
        values: by site, the value of each state (S, *others), as in a row of the site's values.
        has_others: whether the guide has other latents.
    """

    values: dict[str, Tensor]
    has_others: bool

    @classmethod
    def of(cls, given: Conditioned, most: int) -> StatesOfGuide | None:
        """The states, where there are no more than so many; ``None`` for any other guide."""
        plates = given.plates
        is_other = plates.chooses or plates.one_draw or plates.globals
        if most < 2 or is_other or given.noise is not None or not plates.has_states:
            return None
        found: dict[str, Tensor] = {}
        sites = latent_sites(given[:1].trace(given.guide, 1))
        for name, site in sites.items():
            states, row = _states_of(site["fn"], most), in_rows(site["value"], plates)[0, 0]
            if states is not None and states[0].numel() == row.numel():
                found[name] = states.reshape(len(states), *row.shape).to(row)
        if not found or math.prod(map(len, found.values())) > most:
            return None
        sizes = [torch.arange(len(states)) for states in found.values()]
        places = torch.cartesian_prod(*sizes).reshape(-1, len(sizes))
        joint = {name: own[places[:, i]] for i, (name, own) in enumerate(found.items())}
        return cls(joint, has_others=len(found) < len(sites))

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def repeated(self, times: int, given: Conditioned) -> Values:
        """Each state so many times as draws of the sites, the states inside (times S, N, ...)."""
        made = {}
        for name, states in self.values.items():
            rows = states.repeat(times, *[1] * (states.dim() - 1)).unsqueeze(1)
            rows = rows.expand(-1, len(given), *states.shape[1:])
            made[name] = out_of_rows(rows, given.plates)
        return made

    def places_of(self, drawn: Values, given: Conditioned) -> Tensor:
        """Which state each draw has: (K, N)."""
        same: Tensor | None = None
        for name, states in self.values.items():
            rows = in_rows(drawn[name], given.plates)
            rows = rows.reshape(*rows.shape[:2], 1, -1)
            is_it = (rows == states.reshape(len(states), -1)).all(-1)
            same = is_it if same is None else same & is_it
        assert same is not None
        return same.double().argmax(-1)


@dataclass(frozen=True)
class _Stratum:
    """The rare states of some data.

    Args:
        is_rare: which they are (S, N).
        log_others: log q of all other states (N,).
        log_sum: the log of what they add to p(x) (N,).
        log_error: the log of its standard error (N,).
    """

    is_rare: Tensor
    log_others: Tensor
    log_sum: Tensor
    log_error: Tensor


class WithRareStates:
    """A guide's log-weights as they are, with the rare states summed over, and the sum's error.

    They are (3, K, n), the last the log of the standard error of what the rare states add.

    Args:
        proposal: the guide, or what is made of it, which draws discrete sites as the guide does.
        states: of the guide.
        times: how often the other latents are drawn at each state.
        below: the probability under the guide below which a state is summed over.
    """

    def __init__(
        self, proposal: GuideProposal, states: StatesOfGuide, times: int, below: float = math.inf
    ):
        self.proposal, self.states, self.below = proposal, states, below
        self.times = times if states.has_others else 1

    @classmethod
    def of(cls, proposal: Proposal, given: Conditioned, num_samples: int) -> WithRareStates | None:
        """The rare states for K draws, where there are few; ``None`` where there are no such."""
        most = min(MOST, num_samples // SHARE)
        states = StatesOfGuide.of(given, most)
        if states is None or not isinstance(proposal, GuideProposal):
            return None
        if states.has_others and len(states) * FEWEST > most:
            return None
        times = num_samples // (SHARE * len(states))
        return cls(proposal, states, times, tail_size(num_samples) / num_samples)

    @classmethod
    def all_of(
        cls, proposal: Proposal, given: Conditioned, num_samples: int
    ) -> WithRareStates | None:
        """All states, where they are no more than the draws, which may be too few for a tail."""
        states = StatesOfGuide.of(given, min(MOST, num_samples))
        if states is None or not isinstance(proposal, GuideProposal):
            return None
        return cls(proposal, states, num_samples // len(states))

    def __call__(self, given: Conditioned) -> Callable[[int], Tensor]:
        proposal = self.proposal.guide(given)
        found = self._stratum(given, proposal)

        def draw(num_samples: int) -> Tensor:
            shape = (num_samples, len(given))
            guide, model = given.traces(num_samples, proposal)
            weights = weights_of(guide, model, given.plates, shape)
            if found is None:
                return torch.stack((weights, weights, _none_like(weights)))
            drawn = {name: sites_of(guide)[name]["value"] for name in self.states.values}
            places = self.states.places_of(drawn, given)
            others = _repeated(weights, found.is_rare.gather(0, places)) + found.log_others
            both = torch.logaddexp(others, found.log_sum)
            return torch.stack((weights, both, found.log_error.expand(shape)))

        return draw

    def _stratum(self, given: Conditioned, proposal: StochasticFunction) -> _Stratum | None:
        """``None`` where no state is rare, or q(y) differs by draw, as after other latents."""
        size, shape = len(self.states), (self.times * len(self.states), len(given))
        values = self.states.repeated(self.times, given)
        sites = latent_sites(_at(given, proposal, values, shape[0]))
        log_q, log_z = given.zeros(shape), given.zeros(shape)
        for name, site in sites.items():
            log_site = site_log_prob(site, given.plates, shape)
            log_q, log_z = (
                (log_q + log_site, log_z) if name in values else (log_q, log_z + log_site)
            )
        by_draw = log_q.reshape(self.times, size, -1)
        own = by_draw[0]
        spread = (by_draw - own).nan_to_num(0.0).abs()
        is_rare = own < math.log(self.below)
        if not is_rare.any() or (spread > SAME * (1 + own.nan_to_num(0.0).abs())).any():
            return None
        drawn = {name: site["value"] for name, site in sites.items()}
        log_prior, log_x = given.log_density(given.model, drawn)
        terms = (log_prior + log_x - log_z).reshape(self.times, size, -1)
        sums = terms.masked_fill(~is_rare, -math.inf).logsumexp(1)
        mean = sums.logsumexp(0) - math.log(self.times)
        error = _none_like(mean)
        if self.times > 1:
            relative = (sums - mean.nan_to_num(neginf=0.0)).exp().std(0) / math.sqrt(self.times)
            error = torch.maximum(mean + relative.log(), error)
        others = own.masked_fill(is_rare, -math.inf).logsumexp(0)
        return _Stratum(is_rare, others, mean, error)


def _none_like(weights: Tensor) -> Tensor:
    """The log of no error, as a number."""
    return torch.full_like(weights, torch.finfo(weights.dtype).min)


def _repeated(weights: Tensor, is_left_out: Tensor) -> Tensor:
    """Log-weights (K, N) with those that are left out replaced by others in turn; -inf for none."""
    order = is_left_out.long().argsort(dim=0, stable=True)
    count = (~is_left_out).sum(0)
    turns = torch.arange(len(weights), device=weights.device)[:, None] % count.clamp_min(1)
    return weights.gather(0, order.gather(0, turns)).masked_fill(count == 0, -math.inf)


class _Chosen(Messenger):
    """Give sites values in place of draws; they stay latent."""

    def __init__(self, values: Values):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True  # type: ignore[typeddict-unknown-key]


def _at(given: Conditioned, guide: StochasticFunction, values: Values, num_samples: int) -> Trace:
    """The trace of a guide at states of its finite latents, all others drawn given them."""
    with _Chosen(values):
        return given.trace(guide, num_samples)


def _states_of(fn: TorchDistribution, most: int) -> Tensor | None:
    """All values (S, *event) of a finite distribution, if there are no more than ``most``."""
    base, event = fn, fn.event_shape
    while isinstance(base, Independent):
        base = base.base_dist
    if not stated_support(base).is_discrete or not base.has_enumerate_support:
        return None
    single = base.enumerate_support(expand=False)
    single = single.reshape(len(single), *base.event_shape)
    entries = math.prod(event) // max(1, math.prod(base.event_shape))
    if entries * math.log(len(single)) > math.log(most):
        return None
    places = torch.cartesian_prod(*[torch.arange(len(single))] * entries)
    return single[places.reshape(-1, entries)].reshape(-1, *event)
