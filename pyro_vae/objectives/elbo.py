"""Bounds that are a sum over sites: the ELBO by Monte Carlo, in closed form, with free bits."""

from __future__ import annotations

from abc import abstractmethod

import pyro.infer
import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import MultiFrameTensor
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from pyro_vae.contracts import Site, StochasticFunction, Trace, sites_of
from pyro_vae.distributions import is_point_mass
from pyro_vae.distributions.adapters import TorchToPyro
from pyro_vae.objectives.base import Objective, ObjectiveLike, is_same
from pyro_vae.objectives.kl_weight import balance_levels
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.summed import is_summed
from pyro_vae.runtime.traces import paired_traces
from pyro_vae.validation import InvalidInput, check_weight

__all__ = [
    "AnalyticELBO",
    "ELBO",
    "FreeBits",
    "SumOverSites",
    "guide_log_prob",
    "run_draws_one_by_one",
    "unwrapped",
]


class SumOverSites(Objective):
    """A sum over sites: log-probabilities of observed ones, `latent_term` of latents."""

    def __init__(self, num_particles: int, balance: bool = False):
        super().__init__(num_particles)
        if balance:  # left out where not, so that runs from before there was a choice resume
            self.balance = self.mixes_data = True

    @abstractmethod
    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        """A latent's contribution, in the shape of its plates, scaled and masked.

        Args:
            p: the latent's site in the model.
            q: the latent's site in the guide.
            comes_first: whether p depends only on latents that the guide draws before this one.
        """

    def _get_trace(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[Trace, Trace]:
        try:
            return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        except ValueError as error:
            _, trace = paired_traces(model, guide, *args, **kwargs)
            summed = [name for name, site in sites_of(trace).items() if is_summed(site)]
            if not summed:
                raise
            raise InvalidInput(
                "objective",
                got=f"{type(self).__name__} for a model that sums over {summed[0]!r}",
                expected="a bound that sums over its states",
                fix="pass objective=pv.objectives.EnumeratedELBO() (--objective EnumeratedELBO)",
            ) from error

    def bound(self, model: Trace, guide: Trace) -> Tensor:
        drawn, guide_sites = latent_sites(guide), sites_of(guide)
        if self.vectorize_particles and self.num_particles > 1:
            for site in (*sites_of(model).values(), *guide_sites.values()):
                self._check_broadcasting(site)
        latents = self._latent_terms(model, guide)
        if self.balance:
            latents = balance_levels(latents, model)
        terms = [
            (site["cond_indep_stack"], latents.get(name, site["log_prob"]))
            for name, site in sites_of(model).items()
        ]
        # What else the guide has: auxiliary variables, and factors, which are training terms.
        terms += [
            (site["cond_indep_stack"], -guide_log_prob(site))
            for name, site in guide_sites.items()
            if name not in latents
        ]
        total: Tensor = sum(term.sum() for _, term in terms)  # type: ignore[assignment]
        returns = None
        for site in drawn.values():
            score = site["score_parts"].score_function
            if not is_identically_zero(score):
                returns = returns or MultiFrameTensor(
                    *((plates, term.detach()) for plates, term in terms)
                )
                surrogate = (returns.sum_to(site["cond_indep_stack"]) * score).sum()
                total = total + (surrogate - surrogate.detach())
        return total / self.num_particles

    def _latent_terms(self, model: Trace, guide: Trace) -> dict[str, Tensor]:
        guide_sites, order = sites_of(guide), list(latent_sites(guide))
        terms = dict[str, Tensor]()
        for name, site in latent_sites(model).items():
            if name not in order:
                raise InvalidInput(
                    name,
                    got="a latent site of the model that the guide does not have",
                    expected="a guide for every latent",
                    fix="sample it in the guide",
                )
            comes_first = terms.keys().isdisjoint(order[order.index(name) :])
            terms[name] = self.latent_term(site, guide_sites[name], comes_first)
        return terms

    def _check_broadcasting(self, site: Site) -> None:
        """Refuse a site with dimensions left of the draws, made by crossing draws with draws.

        A latent outside the data plate has the shape (K, 1, ...); a matrix product of it with a
        local one of shape (K, N, ...) pairs each draw of one with each draw of the other.
        """
        shape = site["log_prob"].shape
        if shape[: len(shape) - int(self.max_plate_nesting)].numel() > 1:
            raise InvalidInput(
                site["name"],
                got=f"log-probabilities of shape {tuple(shape)} for {self.num_particles} draws",
                expected="a program that broadcasts over a dimension of draws in front",
                fix="pass num_particles=1, or write products as (z.unsqueeze(-1) * w).sum(-2)",
            )


def guide_log_prob(site: Site) -> Tensor:
    """A guide site's log-probability, without the part of its gradient with zero mean.

    A factor was not drawn, so it has no such part, whatever its ``has_rsample`` says.
    """
    _, score_function, entropy_term = site["score_parts"]
    if site["is_observed"] or is_identically_zero(score_function):
        return site["log_prob"]
    return entropy_term + (site["log_prob"] - entropy_term).detach()


def _monte_carlo_kl(p: Site, q: Site) -> Tensor:
    return guide_log_prob(q) - p["log_prob"]


def _kl(p: Site, q: Site, comes_first: bool) -> Tensor:
    r"""The site's share of KL(q || p): in closed form where there is one, else at the draw.

    The closed form needs a p that depends only on latents that the guide draws before z. Where p
    depends on one drawn later (a bottom-up guide of a top-down model), only the Monte Carlo form is
    right. With weights a on the model's site and b on the guide's,
    E[b log q - a log p] = a KL(q || p) + (b - a) E log q.
    """
    if not comes_first or is_point_mass(q["fn"]):  # Pyro's KL of a Delta leaves out its log_density
        return _monte_carlo_kl(p, q)
    try:
        kl = kl_divergence(unwrapped(q["fn"]), unwrapped(p["fn"]))
    except NotImplementedError:
        return _monte_carlo_kl(p, q)
    kl = scale_and_mask(kl, p["scale"], p["mask"])
    if is_same(p["scale"], q["scale"]) and is_same(p["mask"], q["mask"]):
        return kl
    entropy_part = q["unscaled_log_prob"]
    if not is_identically_zero(q["score_parts"].score_function):
        entropy_part = entropy_part.detach()
    return kl + guide_log_prob(q) - scale_and_mask(entropy_part, p["scale"], p["mask"])


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution as the class for which KL divergences are registered."""
    return distribution.wrapped if isinstance(distribution, TorchToPyro) else distribution


class ELBO(SumOverSites):
    r"""The evidence lower bound by Monte Carlo, with a weight on the latents' terms.

    .. math:: \mathcal{L} = \frac1K \sum_k \log p(x \mid z_k) + \beta\,(\log p(z_k) - \log q(z_k
              \mid x)), \quad z_k \sim q(z \mid x)

    At :math:`\beta = 1` a lower bound on :math:`\log p(x)`, equal to `pyro.infer.Trace_ELBO` on the
    same random numbers; with another weight the beta-VAE's objective, which bounds nothing for
    :math:`\beta < 1`. The scale and the mask of a site, of the model or of the guide, multiply its
    term, and change no probability that draws come with. The gradient is pathwise where a site can
    be reparametrised, and the score function's with Pyro's local returns where not.

    Args:
        num_particles: number of draws K for each datum, run at once.
        beta: the weight on the latents' terms, in training only; evaluation never sees it.
        balance: whether levels whose KL is small weigh less during the warm-up (`balance_levels`).

    Source: Kingma and Welling (2014); Higgins et al. (2017) for beta.

    Example:
        >>> loss = pv.objectives.ELBO()(vae.model, vae.guide)   # a module, as of any Pyro ELBO
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0, balance: bool = False):
        super().__init__(num_particles, balance)
        check_weight("beta", beta)
        self.beta = beta

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        return -self.beta * _monte_carlo_kl(p, q)


class AnalyticELBO(SumOverSites):
    r"""The evidence lower bound with the KL of each latent in closed form, where there is one.

    .. math:: \mathcal{L} = \frac1K \sum_k \log p(x \mid z_k) - \beta \sum_l \mathrm{KL}(q(z_l \mid
              \cdot) \,\|\, p(z_l \mid \cdot)), \quad z_k \sim q(z \mid x)

    The same bound as `ELBO`, with less variance in its value and most often in its gradient. A KL
    is taken in closed form where `torch.distributions.kl_divergence` has it and where the model's
    density of that latent depends on none that the guide draws later; the other latents' are those
    of `ELBO`. Scales and masks of both sides count, where `pyro.infer.TraceMeanField_ELBO` reads
    the guide's alone. The gradient is pathwise, the score function's for latents that cannot be
    reparametrised.

    Args:
        num_particles: number of draws K for each datum.
        beta: the weight on the KL, in training only.
        balance: whether levels whose KL is small weigh less during the warm-up (`balance_levels`).

    Source: Kingma and Welling (2014), appendix B.

    Example:
        >>> loss = pv.objectives.AnalyticELBO()(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0, balance: bool = False):
        super().__init__(num_particles, balance)
        check_weight("beta", beta)
        self.beta = beta

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        return -self.beta * _kl(p, q, comes_first)


class FreeBits(SumOverSites):
    r"""The ELBO with some nats of KL free for each latent site, against posterior collapse.

    .. math:: \mathcal{L} = \sum_n \log p(x_n \mid z_n) - N \sum_l \max\Big(\lambda, \frac1N \sum_n
              \mathrm{KL}_l(x_n)\Big)

    Per latent site, not per dimension: all dimensions of ``"z"`` share the :math:`\lambda` nats,
    and a hierarchy has that many for each level; the mean is over the batch. At most the ELBO, so a
    lower bound on :math:`\log p(x)`, and equal to it where every KL exceeds :math:`\lambda`. Each
    KL is that of `AnalyticELBO`. A scale on a latent of both sides multiplies its KL and its free
    nats alike; data for which it is masked have neither. The gradient is that of the ELBO without
    the KL of the sites that lie below :math:`\lambda`.

    Args:
        minimum: :math:`\lambda`, in nats for each site and datum.
        num_particles: number of draws K for each datum.

    Raises:
        InvalidInput: unless the nats are a finite number >= 0.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow,
    appendix C.8.

    Example:
        >>> loss = pv.objectives.FreeBits(minimum=2.0)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    mixes_data = True

    def __init__(self, minimum: float = 1.0, num_particles: int = 1):
        super().__init__(num_particles)
        check_weight("minimum", minimum)
        self.minimum = minimum

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        kl = _kl(p, q, comes_first)
        free = scale_and_mask(torch.full_like(kl, self.minimum), q["scale"], q["mask"])
        return -torch.where(kl.sum() > free.sum(), kl, free)


def run_draws_one_by_one(objective: ObjectiveLike) -> None:
    """Let a bound that is a sum over sites make its draws one after another."""
    if not isinstance(objective, pyro.infer.ELBO) or not objective.vectorize_particles:
        return
    if not isinstance(objective, SumOverSites):
        raise InvalidInput(
            "objective",
            got=f"{type(objective).__name__} with {objective.num_particles} draws at once, for a "
            "program that is run one draw at a time",
            expected="a bound that is a sum over sites",
            fix="pass objective=pv.objectives.ELBO(num_particles="
            f"{objective.num_particles}) (--objective ELBO)",
        )
    objective.vectorize_particles = False
