r"""Objectives: bounds as Pyro ELBOs with nothing in them that forces a device to wait for the host.

Two kinds. A bound of the first kind is a sum over sites: each observed site adds its log-probability, each latent
what the class says of it, and sites that cannot be reparametrised get the score function's gradient. A bound of the
second kind is a function of the log-weights of `pyro_vae.traces`, of K draws for each datum. Losses are summed over
the data of the batch, in nats, as Pyro's are. KL annealing (`weigh_latents`) serves all.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.infer
import torch
from pyro import poutine
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import Dice, MultiFrameTensor
from pyro.ops import packed
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_vae.distributions import is_point_mass
from pyro_vae.traces import latent_sites, paired_traces, site_log_prob, structure_of
from pyro_vae.validation import InvalidInput, check_count, check_weight

__all__ = ["ELBO", "AnalyticELBO", "FreeBits", "BetaTCVAE", "IWAE", "StickingTheLanding", "DReG", "EnumeratedELBO"]

Site = Any  # a Pyro message: a dictionary whose keys depend on its kind


class Objective(pyro.infer.ELBO):
    """What all objectives share: K draws at once, and a loss that is minus the bound summed over the batch.

    Args:
        num_particles: number of draws K for each datum.
    """

    def __init__(self, num_particles: int):
        check_count("num_particles", num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)

    @abstractmethod
    def bound(self, model: poutine.Trace, guide: poutine.Trace) -> Tensor:
        """A scalar with the bound's value and its gradient estimator's gradient."""

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return -self.bound(*traces)

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """`loss`, with its gradient added to the parameters'; what `pyro.infer.SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return loss.item()


# ------------------------------------------------------------------------------------------------- sums over sites

class SumOverSites(Objective):
    """A bound to which each observed site adds its log-probability and each latent a `latent_term`."""

    @abstractmethod
    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        """What a latent adds, in the shape of its plates, scaled and masked.

        Args:
            p: its site in the model.
            q: its site in the guide.
            comes_first: whether its density in the model depends on no latent that the guide draws after it.
        """

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def bound(self, model: Any, guide: Any) -> Tensor:
        latents, drawn = latent_sites(model), latent_sites(guide)
        order = list(drawn)
        terms, before = [], set[str]()
        for name, site in model.nodes.items():
            if name in latents:
                if name not in drawn:
                    raise InvalidInput(name, got="a latent site of the model that the guide does not have",
                                       expected="a guide for every latent", fix="sample it in the guide")
                after = set(order[order.index(name):])
                term = self.latent_term(site, guide.nodes[name], comes_first=before.isdisjoint(after))
                terms.append((site["cond_indep_stack"], term))
                before.add(name)
            elif site["type"] == "sample":
                terms.append((site["cond_indep_stack"], site["log_prob"]))
        # What else the guide has: auxiliary variables, and factors, which are training terms.
        terms += [(site["cond_indep_stack"], -_log_q(site)) for name, site in guide.nodes.items()
                  if site["type"] == "sample" and name not in latents]
        total: Tensor = sum(term.sum() for _, term in terms)  # type: ignore[assignment]
        returns = None
        for site in drawn.values():
            score = site["score_parts"].score_function
            if not is_identically_zero(score):
                returns = returns or MultiFrameTensor(*((plates, term.detach()) for plates, term in terms))
                surrogate = (returns.sum_to(site["cond_indep_stack"]) * score).sum()
                total = total + (surrogate - surrogate.detach())
        return total / self.num_particles


def _log_q(site: Site) -> Tensor:
    """A guide site's log-probability, without the part of its gradient whose expectation is zero."""
    score_function, entropy_term = site["score_parts"].score_function, site["score_parts"].entropy_term
    if is_identically_zero(score_function):
        return site["log_prob"]
    return entropy_term + (site["log_prob"] - entropy_term).detach()


def _monte_carlo_kl(p: Site, q: Site) -> Tensor:
    return _log_q(q) - p["log_prob"]


def _kl(p: Site, q: Site, comes_first: bool) -> Tensor:
    r"""The site's share of KL(q || p): in closed form where there is one, else at the draw.

    The closed form needs p at the draws of the latents before z in the guide alone; where p depends on one drawn
    after it (a bottom-up guide of a top-down model), only the Monte Carlo form is right. With weights a on the model's
    site and b on the guide's, E[b log q - a log p] = a KL(q || p) + (b - a) E log q.
    """
    if not comes_first or is_point_mass(q["fn"]):  # Pyro's KL of a Delta leaves out its log_density
        return _monte_carlo_kl(p, q)
    try:
        kl = kl_divergence(_unwrapped(q["fn"]), _unwrapped(p["fn"]))
    except NotImplementedError:
        return _monte_carlo_kl(p, q)
    kl = scale_and_mask(kl, p["scale"], p["mask"])
    if _is_same(p["scale"], q["scale"]) and _is_same(p["mask"], q["mask"]):
        return kl
    entropy_part = q["unscaled_log_prob"]
    if not is_identically_zero(q["score_parts"].score_function):
        entropy_part = entropy_part.detach()
    return kl + _log_q(q) - scale_and_mask(entropy_part, p["scale"], p["mask"])


def _is_same(a: Any, b: Any) -> bool:
    """Whether two scales or masks are known to be equal without asking the device."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def _unwrapped(distribution: Any) -> Distribution:
    """A distribution in the class that divergences are registered for."""
    return getattr(distribution, "wrapped", distribution)


class ELBO(SumOverSites):
    r"""The evidence lower bound by Monte Carlo, with a weight on the latents' terms.

    .. math:: \mathcal{L} = \frac1K \sum_k \log p(x \mid z_k) + \beta\,(\log p(z_k) - \log q(z_k \mid x)),
              \quad z_k \sim q(z \mid x)

    At :math:`\beta = 1` a lower bound on :math:`\log p(x)`, equal to `pyro.infer.Trace_ELBO` on the same random
    numbers; with another weight the beta-VAE's objective, which bounds nothing for :math:`\beta < 1`. The gradient is
    pathwise where a site can be reparametrised, and the score function's with Pyro's local returns where not.

    Args:
        num_particles: number of draws K for each datum, run at once.
        beta: the weight on the latents' terms, in training only; evaluation never sees it.

    Source: Kingma and Welling (2014); Higgins et al. (2017) for beta.

    Example:
        >>> loss = pv.objectives.ELBO()(vae.model, vae.guide)   # a module, as every Pyro ELBO's call gives
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0):
        super().__init__(num_particles)
        check_weight("beta", beta)
        self.beta = beta

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        return -self.beta * _monte_carlo_kl(p, q)


class AnalyticELBO(SumOverSites):
    r"""The evidence lower bound with the KL of each latent in closed form, where there is one.

    .. math:: \mathcal{L} = \frac1K \sum_k \log p(x \mid z_k) - \beta \sum_l \mathrm{KL}(q(z_l \mid \cdot) \,\|\, p(z_l \mid \cdot)),
              \quad z_k \sim q(z \mid x)

    The same bound as `ELBO`, with less variance in its value and most often in its gradient. A KL is taken in closed
    form where `torch.distributions.kl_divergence` has it and where the model's density of that latent depends on none
    that the guide draws later; the other latents' are those of `ELBO`. Scales and masks of both sides count, where
    `pyro.infer.TraceMeanField_ELBO` reads the guide's alone. The gradient is pathwise, the score function's for latents
    that cannot be reparametrised.

    Args:
        num_particles: number of draws K for each datum.
        beta: the weight on the KL, in training only.

    Source: Kingma and Welling (2014), appendix B.

    Example:
        >>> loss = pv.objectives.AnalyticELBO()(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0):
        super().__init__(num_particles)
        check_weight("beta", beta)
        self.beta = beta

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        return -self.beta * _kl(p, q, comes_first)


class FreeBits(SumOverSites):
    r"""The ELBO with a number of nats that each latent site has for free, against posterior collapse.

    .. math:: \mathcal{L} = \sum_n \log p(x_n \mid z_n) - N \sum_l \max\Big(\lambda, \frac1N \sum_n \mathrm{KL}_l(x_n)\Big)

    Per latent site, not per dimension: all dimensions of ``"z"`` share the :math:`\lambda` nats, and a hierarchy has
    that many for each level; the mean is over the batch. At most the ELBO, so a lower bound on :math:`\log p(x)`, and
    equal to it where every KL exceeds :math:`\lambda`. Each KL is that of `AnalyticELBO`. The gradient is that of the
    ELBO without the KL of the sites that lie below :math:`\lambda`.

    Args:
        minimum: :math:`\lambda`, in nats for each site and datum.
        num_particles: number of draws K for each datum.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow, appendix C.8.

    Example:
        >>> loss = pv.objectives.FreeBits(minimum=2.0)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, minimum: float = 1.0, num_particles: int = 1):
        super().__init__(num_particles)
        self.minimum = minimum

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        kl = _kl(p, q, comes_first)
        free = scale_and_mask(torch.full_like(kl, self.minimum), q["scale"], q["mask"])
        return -torch.where(kl.sum() > free.sum(), kl, free)


class BetaTCVAE(SumOverSites):
    r"""The ELBO with its KL taken apart: information, total correlation and the dimensions' own KL, each weighted.

    .. math:: \mathcal{L} = \log p(x \mid z) - \alpha \log \frac{q(z \mid x)}{q(z)}
              - \beta \log \frac{q(z)}{\prod_d q(z_d)} - \gamma \log \frac{\prod_d q(z_d)}{p(z)},
              \quad q(z) = \frac1N \sum_n q(z \mid x_n)

    The aggregate posterior q(z) is estimated from the batch of M data, stratified: the datum that z came from counts
    1/N and each other one (N - 1) / (N (M - 1)), which is unbiased for q(z), though not for its logarithm; likewise
    for each dimension. At weights of one the terms telescope to the ELBO, whatever the batch. With a larger
    :math:`\beta` a lower bound on the ELBO but for that logarithm's bias; with a smaller weight no bound. The gradient is
    pathwise, the score function's for latents that cannot be reparametrised. With several latent sites each
    is taken apart by itself. The posterior must be a product over dimensions, such as DiagonalNormal; the prior may be any.

    Args:
        alpha: the weight on the mutual information of z and the datum.
        beta: the weight on the total correlation.
        gamma: the weight on the KL of the single dimensions.
        num_particles: number of draws K for each datum.
        num_data: the number of data N of the training set; by default that of the data plate, which is the batch
            itself unless the program subsamples: then the gradient is that of minibatch-weighted sampling.

    Raises:
        InvalidInput: for a posterior that is no product over dimensions.

    Source: Chen, Li, Grosse and Duvenaud (2018), Isolating Sources of Disentanglement in VAEs.

    Example:
        >>> loss = pv.objectives.BetaTCVAE(beta=6.0)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, alpha: float = 1.0, beta: float = 6.0, gamma: float = 1.0, num_particles: int = 1,
                 num_data: int | None = None):
        super().__init__(num_particles)
        if num_data is not None:
            check_count("num_data", num_data)
        for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            check_weight(name, weight)
        self.alpha, self.beta, self.gamma, self.num_data = alpha, beta, gamma, num_data

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        joint, product = (scale_and_mask(log_prob, q["scale"], q["mask"]) for log_prob in _aggregate(q, self.num_data))
        return (-self.alpha * (_log_q(q) - joint) - self.beta * (joint - product)
                - self.gamma * (product - p["log_prob"]))


def _aggregate(site: Site, num_data: int | None) -> tuple[Tensor, Tensor]:
    """The aggregate posterior's log-density at the draws, and that of the product of its dimensions."""
    fn = _unwrapped(site["fn"])
    base = fn.base_dist if isinstance(fn, Independent) else fn
    event_dim = len(fn.event_shape)
    if base.event_shape:
        raise InvalidInput(site["name"], got=f"a posterior {type(base).__name__}", expected="a product over dimensions",
                           fix="choose DiagonalNormal for BetaTCVAE, or another objective")
    (frame,) = (frame for frame in site["cond_indep_stack"] if frame.name == "data")
    size, total = frame.size, num_data or frame.full_size
    of_datum = frame.dim - event_dim
    # Every draw (first dimension) under every datum's posterior (the data's dimension).
    pairs = base.log_prob(site["value"].movedim(of_datum, 0).unsqueeze(of_datum))
    own = torch.eye(size, dtype=pairs.dtype, device=pairs.device)
    other = (total - 1) / (total * (size - 1)) if size > 1 else 0.0
    weights = own / (total if size > 1 else 1) + (1 - own) * other
    log_weights = weights.log().reshape(size, *(1,) * (pairs.dim() - 1 + of_datum), size, *(1,) * (-of_datum - 1))
    events = tuple(range(-event_dim, 0))
    product = torch.logsumexp(pairs + log_weights, of_datum).movedim(0, of_datum)
    if not events:
        return product, product
    joint = pairs.sum(events) + log_weights.reshape(log_weights.shape[: log_weights.dim() - event_dim])
    return torch.logsumexp(joint, frame.dim).movedim(0, frame.dim), product.sum(events)


# --------------------------------------------------------------------------------- functions of the log-weights

@dataclass
class LogWeights:
    r"""The log-weights of K draws for each datum, :math:`\log w = \log p - \log q`.

    A site's scale within is relative to that of x: KL annealing weighs a latent inside the bound, the scale of a
    subsampled plate the bound of each datum as a whole.

    Args:
        log_p: the model's sites (K, N).
        log_q: the guide's latents (K, N).
        score: the log-probability of those latents that cannot be reparametrised (K, N), unweighted; or ``None``.
        weight: of the guide's latents, relative to x.
        scale: of x.
        penalties: the guide's factors, which are training terms; summed over data, averaged over draws.
    """

    log_p: Tensor
    log_q: Tensor
    score: Tensor | None
    weight: float | Tensor
    scale: float | Tensor
    penalties: float | Tensor

    @classmethod
    def of(cls, model: Any, guide: Any, num_particles: int) -> LogWeights:
        where = structure_of(guide, model, has_particles=num_particles > 1)
        x, latents = model.nodes["x"], latent_sites(guide)
        shape = (num_particles, where.num_data)

        def relative(site: Site) -> float | Tensor:
            return 1.0 if site is x or _is_same(site["scale"], x["scale"]) else site["scale"] / x["scale"]

        def log_prob(site: Site) -> Tensor:
            return relative(site) * site_log_prob(site, where, shape)

        zero = x["value"].new_zeros(shape)
        unreparametrised = [site for site in latents.values() if not site["fn"].has_rsample]
        penalties = [site for site in guide.nodes.values() if site["type"] == "sample" and site["is_observed"]]
        return cls(
            log_p=sum((log_prob(site) for site in model.nodes.values() if site["type"] == "sample"), start=zero),
            log_q=sum((log_prob(site) for site in latents.values()), start=zero),
            score=sum((site_log_prob(site, where, shape) for site in unreparametrised), start=zero) if unreparametrised else None,
            weight=relative(next(iter(latents.values()))) if latents else 1.0,
            scale=x["scale"],
            penalties=sum((scale_and_mask(site_log_prob(site, where, shape), site["scale"]).sum() / num_particles
                           for site in penalties), start=0.0),
        )


class OfLogWeights(Objective):
    """A bound that is a function of the log-weights (K, N), summed over data."""

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple:
        guide_trace, model_trace = paired_traces(model, guide, *args, **kwargs)
        return model_trace, guide_trace


class IWAE(OfLogWeights):
    r"""The importance-weighted bound, the log of the mean of K importance weights.

    .. math:: \mathcal{L}_K = \log \frac1K \sum_k w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    A lower bound on :math:`\log p(x)` that tightens with K; the ELBO at K = 1. The logarithm is taken for each datum, of
    unscaled weights, so it stays this bound where a plate is subsampled. The gradient is pathwise; the part that is
    due to latents that cannot be reparametrised is the score function's, with the other K - 1 draws as its baseline.

    Args:
        num_particles: number of draws K for each datum.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders; Mnih and Rezende (2016), VIMCO,
    for the baseline.

    Example:
        >>> loss = pv.objectives.IWAE(num_particles=5)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 5):
        super().__init__(num_particles)

    def bound(self, model: poutine.Trace, guide: poutine.Trace) -> Tensor:
        weights = LogWeights.of(model, guide, self.num_particles)
        log_w = weights.log_p - weights.log_q
        bound = _log_mean_exp(log_w)
        if weights.score is not None:
            signal = (bound - _without_each(log_w)).detach()
            bound = bound + (signal * (weights.score - weights.score.detach())).sum(0)
        return (weights.scale * bound).sum() - weights.penalties


def _log_mean_exp(log_w: Tensor) -> Tensor:
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def _without_each(log_w: Tensor) -> Tensor:
    """The bound (K, N) with each log-weight in turn replaced by the mean of the others; zero for a single one."""
    num = len(log_w)
    if num == 1:
        return torch.zeros_like(log_w)
    others = (log_w.sum(0) - log_w) / (num - 1)
    own = torch.eye(num, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    return torch.logsumexp(torch.where(own, others, log_w.unsqueeze(1)), 0) - math.log(num)


class PathDerivative(OfLogWeights):
    """A bound whose guide learns through its draws alone, the score of its density being left out.

    The guide's draws are cut off as leaves, and model and guide are scored at those. The model's parameters get the
    gradient of the bound there. The guide's get, through its draws, the gradient of the log-weights with respect to
    the leaves. No parameter is detached, so one that the model shares with the guide gets both.
    """

    @abstractmethod
    def coefficients(self, log_w: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bound (N,), and what a draw's log-weight counts in the model's gradient and in the guide's, (K, N) each.

        Args:
            log_w: log-weights (K, N), without a gradient.
            weight: the weight of the guide's density in them.
        """

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple:
        with CutDraws():
            return super()._get_trace(model, guide, args, kwargs)

    def bound(self, model: poutine.Trace, guide: poutine.Trace) -> Tensor:
        weights = LogWeights.of(model, guide, self.num_particles)
        log_w = weights.log_p - weights.log_q
        bound, for_model, for_guide = self.coefficients(log_w.detach(), weights.weight)
        value = (weights.scale * bound).sum() - weights.penalties
        if not torch.is_grad_enabled():
            return value
        draws = [site["infer"]["draw"] for site in latent_sites(guide).values()]
        leaves = [site["value"] for site in latent_sites(guide).values()]
        gradients = torch.autograd.grad((weights.scale * for_guide * log_w).sum() - weights.penalties, leaves,
                                        retain_graph=True, materialize_grads=True)
        surrogate = (weights.scale * for_model * weights.log_p).sum()
        for i in reversed(range(len(draws))):
            surrogate = surrogate + (gradients[i] * draws[i]).sum()
            if i and draws[i].requires_grad:  # it also moves with the earlier draws that it was drawn given
                through = torch.autograd.grad(draws[i], leaves[:i], gradients[i], retain_graph=True, materialize_grads=True)
                gradients = (*(a + b for a, b in zip(gradients, through)), *gradients[i:])
        return value + (surrogate - surrogate.detach())


class CutDraws(Messenger):
    """Hands on every draw as a leaf of its own; the draw with its gradient is kept in the site's ``infer["draw"]``."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg) or "draw" in msg["infer"]:  # the model's are the guide's
            return
        if not msg["fn"].has_rsample:
            raise InvalidInput(msg["name"], got="a latent that cannot be reparametrised", expected="one that can",
                               fix="choose ELBO or IWAE, or a relaxed posterior")
        msg["infer"] = {**msg["infer"], "draw": msg["value"]}
        msg["value"] = msg["value"].detach().requires_grad_()


class StickingTheLanding(PathDerivative):
    r"""The ELBO, with a gradient whose variance vanishes where the guide is exact.

    .. math:: \mathcal{L} = \frac1K \sum_k \log w_k, \quad
              \nabla_\phi \mathcal{L} \approx \frac1K \sum_k \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}

    A lower bound on :math:`\log p(x)`, equal to `ELBO`. The gradient of the guide's parameters is the path
    derivative: the score :math:`\partial_\phi \log q_\phi(z_k)` at fixed z has expectation zero and is left out. The model's
    parameters get their usual gradient, those that model and guide share get both. Latents must be reparametrised.

    Args:
        num_particles: number of draws K for each datum.

    Raises:
        InvalidInput: for a latent that cannot be reparametrised.

    Source: Roeder, Wu and Duvenaud (2017), Sticking the Landing.

    Example:
        >>> loss = pv.objectives.StickingTheLanding()(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1):
        super().__init__(num_particles)

    def coefficients(self, log_w: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.full_like(log_w, 1 / self.num_particles)
        return log_w.mean(0), mean, mean


class DReG(PathDerivative):
    r"""The importance-weighted bound, with doubly reparametrised gradients.

    .. math:: \mathcal{L}_K = \log \frac1K \sum_k w_k, \quad
              \nabla_\phi \mathcal{L}_K \approx \sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k}
              \frac{\partial z_k}{\partial \phi}, \quad \tilde w_k = \frac{w_k}{\sum_j w_j}

    The bound of `IWAE`, and a gradient with the same expectation. The guide's parameters get the one above, whose signal
    does not drown in noise as K grows; the model's get that of `IWAE`, and those that model and guide share get both.
    Under a weight b on all latents (KL annealing) the coefficient becomes :math:`\tilde w_k (1 - b + b\, \tilde w_k)`, which
    keeps the expectation. Latents must be reparametrised.

    Args:
        num_particles: number of draws K for each datum.

    Raises:
        InvalidInput: for a latent that cannot be reparametrised.

    Source: Tucker, Lawson, Gu and Maddison (2019), Doubly Reparameterized Gradient Estimators for Monte Carlo
    Objectives.

    Example:
        >>> loss = pv.objectives.DReG(num_particles=5)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 5):
        super().__init__(num_particles)

    def coefficients(self, log_w: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normalised = torch.softmax(log_w, 0)
        return _log_mean_exp(log_w), normalised, normalised * (1 - weight + weight * normalised)


# --------------------------------------------------------------------------------------------------- enumeration


class EnumeratedELBO(pyro.infer.TraceEnum_ELBO):
    r"""The evidence lower bound with discrete latents summed over instead of drawn.

    .. math:: \mathcal{L} = \sum_z q(z \mid x) \left[ \log p(x \mid z) + \beta\, (\log p(z) - \log q(z \mid x)) \right]

    At :math:`\beta = 1` the exact bound on :math:`\log p(x)`, with its exact gradient, for the sites whose posterior asks
    for it (``infer = {"enumerate": "parallel"}``, as `pyro_vae.posteriors.EnumeratedBernoulli` does). Other latents are
    drawn K times and differentiated as Pyro's `TraceEnum_ELBO` does: pathwise, or by the score function with DiCE. Unlike
    it this never asks the device whether a probability is zero, and sums over the joint states of all such sites, which is
    made for one code or a few. Losses are summed over the data of the batch, in nats.

    Args:
        num_particles: number of draws K of the latents that are not summed over, run at once.
        beta: the weight on the latents' terms, in training only; evaluation never sees it.

    Source: Bingham et al. (2019), Pyro: deep universal probabilistic programming; Foerster et al. (2018) for DiCE.

    Example:
        >>> program = pv.VAE(
        ...     prior=pv.priors.Categorical(4),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(4, [16])),
        ...     posterior=pv.posteriors.EnumeratedCategorical(4, pv.networks.MLP((1, 8, 8), [16])),
        ... )
        >>> EnumeratedELBO().differentiable_loss(program.model, program.guide, torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0):
        check_count("num_particles", num_particles)
        check_weight("beta", beta)
        # A program without such a site has the ordinary bound; Pyro would warn.
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1, strict_enumeration_warning=False)
        self.beta = beta

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        if self.beta != 1.0:
            model, guide = weigh_latents(model, self.beta), weigh_latents(guide, self.beta)
        traces = self._get_traces(model, guide, args, kwargs)
        return -torch.stack([_expected_elbo(*pair) for pair in traces]).sum() / self.num_particles

    # Those of every objective, over the differentiable loss above.
    loss = Objective.loss  # type: ignore[assignment]
    loss_and_grads = Objective.loss_and_grads  # type: ignore[assignment]


def _expected_elbo(model: Any, guide: Any) -> Tensor:
    """The ELBO, each site's term weighted by the probabilities of the states that it was computed at (packed traces)."""
    signed = [(1.0, model, site) for site in _sampled(model)] + [(-1.0, guide, site) for site in _sampled(guide)]
    plates = {site["name"]: frozenset(trace.plate_to_symbol[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized)
              for _, trace, site in signed}
    dice, total = Dice(guide, plates), torch.zeros(())
    for sign, _, site in signed:
        # A factor for each site of the guide upstream: its probability where it was summed over, else one, with the
        # score function's gradient; a number for each site that Pyro runs through one state after another.
        factors = dice._get_log_factors(plates[site["name"]])
        tensors = packed.broadcast_all(site["packed"]["log_prob"], *(f for f in factors if isinstance(f, Tensor)))
        weight = sum(tensors[1:], start=torch.zeros_like(tensors[0])) + sum(f for f in factors if not isinstance(f, Tensor))
        term = torch.where(weight > -torch.inf, tensors[0], 0.0)  # no state of probability zero counts
        total = total + sign * (weight.exp() * term).sum()
    return total


def _sampled(trace: Any) -> list[Site]:
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


# ---------------------------------------------------------------------------------------------------- annealing

class WeighLatents(Messenger):
    """Scales the log-probability of every latent site, and leaves observations and factors alone."""

    def __init__(self, weight: float | Tensor):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


def weigh_latents(fn: Callable, weight: float | Tensor) -> Callable:
    """A model or guide whose latents count ``weight`` times: KL annealing, applied to both, for any objective.

    Both must be scaled: Pyro's mean-field ELBO reads the guide's scale alone, and an unscaled prior under a scaled
    guide is no weight on the KL.
    """
    return WeighLatents(weight)(fn)
