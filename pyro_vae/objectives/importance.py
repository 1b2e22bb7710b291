"""Bounds that are a function of the log-weights of K draws for each datum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.contracts import Site, StochasticFunction, Trace, sites_of
from pyro_vae.objectives.base import Objective, is_same
from pyro_vae.programs import particles
from pyro_vae.runtime.latent_pairs import is_local, latent_sites
from pyro_vae.runtime.traces import Plates, paired_traces, plates_of, terms_of
from pyro_vae.validation import InvalidInput

__all__ = ["IWAE", "LogWeights", "OfLogWeights", "log_mean_exp"]


@dataclass(frozen=True)
class LogWeights:
    r"""The log-weights of K draws for each datum, each site with a weight of its own.

    .. math:: \log w_k = \sum_i a_i \log p_i(z_k) - \sum_j b_j \log q_j(z_k), \qquad
              \mathcal{L} = s\, \mathbb{E}\, f(\log w_1, \dots, \log w_K)

    The bound's scale s is that of the site ``"x"`` but for subsampled plates of x inside the data
    plate. It multiplies each datum's bound as a whole, as that of a subsampled data plate must. The
    weights a_i and b_j are the sites' own scales over s, so that KL annealing, or a scale on one
    site alone, weighs that site within the bound; where a site is masked its weight is 0.

    Args:
        model: the model's trace.
        guide: the guide's trace.
        num_particles: number of draws K.

    Raises:
        InvalidInput: if s differs within a datum.
    """

    model: Trace
    guide: Trace
    num_particles: int

    @cached_property
    def plates(self) -> Plates:
        """Where the plates are."""
        return plates_of(self.guide, self.model, has_particles=self.num_particles > 1)

    @cached_property
    def latents(self) -> list[Site]:
        """The sites that the guide draws for each datum, in its order."""
        sites = latent_sites(self.guide).items()
        return [site for name, site in sites if name not in self.plates.globals]

    @cached_property
    def of_globals(self) -> Tensor:
        """The part of the bound that is of the one draw of global latents, scaled."""
        total = torch.zeros(())
        for sign, trace in ((1, self.model), (-1, self.guide)):
            for name, site in sites_of(trace).items():
                if name in self.plates.globals:
                    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
                    total = total + sign * scale_and_mask(value, site["scale"], site["mask"]).sum()
        return total

    def of_choices(self, value: Tensor) -> Tensor:
        """Zero, with the score function's gradient of global latents without a path."""
        total = torch.zeros(())
        for name, site in latent_sites(self.guide).items():
            if name in self.plates.globals and not site["fn"].has_rsample:
                score = _drawn_from(site).log_prob(site["value"]).sum()
                total = total + value.detach() * (score - score.detach())
        return total

    @cached_property
    def observed(self) -> Site:
        """The site of x, or the first one that observes a part of it."""
        sites = sites_of(self.model)
        local = (site for site in sites.values() if site["is_observed"] and is_local(site))
        return sites["x"] if "x" in sites else next(local)

    @cached_property
    def scale(self) -> float | Tensor:
        """The scale s of each datum's bound: a number, or one for each datum (N,)."""
        x = self.observed
        inner = math.prod(
            frame.full_size / frame.size
            for frame in x["cond_indep_stack"]
            if frame.vectorized and frame.name != "data" and frame.full_size
        )
        scale = x["scale"] if inner == 1 else x["scale"] / inner
        if not isinstance(scale, Tensor) or scale.dim() == 0:
            return scale
        dim = scale.dim() + self.plates.data_dim
        if scale.numel() != (scale.shape[dim] if dim >= 0 else 1):
            raise InvalidInput(
                "x",
                got=f"a scale of shape {tuple(scale.shape)}",
                expected="one scale for each datum",
                fix="scale other plates' entries by weights in the likelihood",
            )
        return scale.reshape(-1)

    def weight(self, site: Site) -> float | Tensor:
        """The weight of a site's log-probability, relative to s, before masks."""
        if is_same(site["scale"], self.scale):
            return 1.0
        scale = self.scale
        if is_same(scale, 1):
            return site["scale"]
        if isinstance(scale, Tensor) and scale.dim():  # along the data's dimension
            scale = scale.reshape(-1, *(1,) * (-self.plates.data_dim - 1))
        return site["scale"] / scale

    def log_prob(self, site: Site) -> Tensor:
        """A site's weighted log-probability (K, N), summed over its other plates."""
        value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        return self.per_datum(scale_and_mask(value, self.weight(site), site["mask"]))

    def per_datum(self, value: Tensor) -> Tensor:
        """The sum (K, N) of a tensor over all plates but those of the draws and the data."""
        plates, rank = self.plates, -self.plates.particle_dim
        value = value.reshape((1,) * (rank - value.dim()) + value.shape)
        others = [d for d in range(-rank, 0) if d not in (plates.particle_dim, plates.data_dim)]
        value = value.sum(others) if others else value
        return value.expand(self.num_particles, plates.num_data)

    def total(self, sites: Iterable[Site]) -> Tensor:
        """The sum (K, N) of the weighted log-probabilities of some sites."""
        start = self.observed["value"].new_zeros(self.num_particles, self.plates.num_data)
        local = (site for site in sites if site["name"] not in self.plates.globals)
        return sum((self.log_prob(site) for site in local), start=start)

    @cached_property
    def log_p(self) -> Tensor:
        """The model's part (K, N)."""
        if self.plates.summed:
            for name, site in sites_of(self.model).items():
                if not is_same(self.weight(site), 1.0):
                    raise InvalidInput(
                        name,
                        got="a weight of its own beside latents that the model sums over",
                        expected="one scale for all sites",
                        fix="train without warmup, or with EnumeratedELBO",
                    )
            shape = (self.num_particles, self.plates.num_data)
            terms = terms_of(self.model, self.plates, shape)
            return torch.stack(list(terms.values())).sum(0)
        return self.total(sites_of(self.model).values())

    @cached_property
    def log_q(self) -> Tensor:
        """The guide's part (K, N), of its latents."""
        return self.total(self.latents)

    @cached_property
    def penalties(self) -> Tensor | None:
        """The guide's factors (K, N), which are training terms: a mean over draws, outside s."""
        factors = [
            site
            for name, site in sites_of(self.guide).items()
            if site["is_observed"] and name not in self.plates.globals
        ]
        if not factors:
            return None
        values = [s["fn"].log_prob(s["value"], *s["args"], **s["kwargs"]) for s in factors]
        scaled = [scale_and_mask(v, s["scale"], s["mask"]) for v, s in zip(values, factors)]
        return torch.stack([self.per_datum(value) for value in scaled]).sum(0) / self.num_particles

    def value(self, bound: Tensor) -> Tensor:
        """The scaled sum over data of each datum's bound (N,), and what is of no datum."""
        total = (self.scale * bound).sum() + self.of_globals
        return total if self.penalties is None else total - self.penalties.sum()


class OfLogWeights(Objective):
    r"""A bound that is a function of the log-weights (K, N), summed over data.

    Global latents are drawn once for all K draws of the local ones:

    .. math:: \sum_n f(\log w_{1n}(\theta), \ldots, \log w_{Kn}(\theta)) + \log p(\theta)
              - \log q(\theta), \quad \theta \sim q

    A draw of them for each k would put the expectation over :math:`\theta` inside each datum's
    logarithm, which bounds the sum of marginals and not the evidence of all data together.
    """

    takes_ways = False

    def _vectorized_num_particles(self, fn: StochasticFunction) -> StochasticFunction:
        if self.num_particles == 1:
            return fn
        return particles(fn, self.num_particles, -int(self.max_plate_nesting), self.globals)

    def _get_trace(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[Trace, Trace]:
        guide_trace, model_trace = paired_traces(model, guide, *args, **kwargs)
        return model_trace, guide_trace

    def weights(self, model: Trace, guide: Trace) -> LogWeights:
        """The log-weights of two traces."""
        weights = LogWeights(model, guide, self.num_particles)
        if weights.plates.globals != self.globals:
            raise InvalidInput(
                "objective",
                got="a program with other global latents than it was first used with",
                expected="one program for each objective",
                fix="make a new objective for it",
            )
        return weights


class IWAE(OfLogWeights):
    r"""The importance-weighted bound, the log of the mean of K importance weights.

    .. math:: \mathcal{L}_K = \log \frac1K \sum_k w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k \mid x)},
              \quad z_k \sim q(z \mid x)

    A lower bound on :math:`\log p(x)` that tightens with K; the ELBO at K = 1. The logarithm is
    taken for each datum, of unscaled weights, so it stays this bound where a plate is subsampled.
    A latent's own weight, as of KL annealing, is the power of its density within :math:`w_k`.
    The gradient is pathwise. The part that is due to latents that cannot be reparametrised is the
    score function's, with the other K - 1 draws as its baseline.

    Args:
        num_particles: number of draws K for each datum.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders; Mnih and
    Rezende (2016), VIMCO, for the baseline.

    Example:
        >>> loss = pv.objectives.IWAE(num_particles=5)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 5):
        super().__init__(num_particles)

    def bound(self, model: Trace, guide: Trace) -> Tensor:
        weights = self.weights(model, guide)
        log_w = weights.log_p - weights.log_q
        bound = log_mean_exp(log_w)
        value = weights.value(bound)
        value = value + weights.of_choices(value)
        drawn = [site for site in weights.latents if not site["fn"].has_rsample]
        if drawn:
            # Of the density that was drawn from: no scale or mask changes how often a draw comes.
            scores = [weights.per_datum(_drawn_from(s).log_prob(s["value"])) for s in drawn]
            score = torch.stack(scores).sum(0)
            signal = weights.scale * (bound - _without_each(log_w))
            if weights.penalties is not None:
                signal = signal - weights.penalties
            return value + (signal.detach() * (score - score.detach())).sum()
        return value


def _drawn_from(site: Site) -> Distribution:
    """The distribution of a site's draws, without a mask."""
    fn = site["fn"]
    return fn.base_dist if isinstance(fn, MaskedDistribution) else fn


def log_mean_exp(log_w: Tensor) -> Tensor:
    """The log of the mean of K weights (N,), from their logs (K, N)."""
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def _without_each(log_w: Tensor) -> Tensor:
    """The bound (K, N) with each log-weight in turn replaced by the mean of the others.

    It is zero for a single log-weight.
    """
    num = len(log_w)
    if num == 1:
        return torch.zeros_like(log_w)
    others = (log_w.sum(0) - log_w) / (num - 1)
    own = torch.eye(num, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    return torch.logsumexp(torch.where(own, others, log_w.unsqueeze(1)), 0) - math.log(num)
