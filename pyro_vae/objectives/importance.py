"""Bounds that are a function of the log-weights of K draws for each datum, and the gradients that go with them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vae.objectives.base import Objective, Site, is_same
from pyro_vae.runtime.traces import latent_sites, paired_traces, plates_of, site_log_prob
from pyro_vae.validation import InvalidInput

__all__ = ["IWAE", "StickingTheLanding", "DReG"]


@dataclass
class LogWeights:
    r"""The log-weights of K draws for each datum, :math:`\log w = \log p - \log q`.

    A site's scale within is relative to that of x: KL annealing weighs a latent inside the bound,
    the scale of a subsampled plate the bound of each datum as a whole.

    Args:
        log_p: the model's sites (K, N).
        log_q: the guide's latents (K, N).
        score: the log-probability of those latents that cannot be reparametrised (K, N),
            unweighted; or ``None``.
        weight: of the guide's latents, relative to x.
        scale: of x.
        penalties: the guide's factors, which are training terms; summed over data, averaged over
            draws.
    """

    log_p: Tensor
    log_q: Tensor
    score: Tensor | None
    weight: float | Tensor
    scale: float | Tensor
    penalties: float | Tensor

    @classmethod
    def of(cls, model: Any, guide: Any, num_particles: int) -> LogWeights:
        where = plates_of(guide, model, has_particles=num_particles > 1)
        x, latents = model.nodes["x"], latent_sites(guide)
        shape = (num_particles, where.num_data)

        def relative(site: Site) -> float | Tensor:
            return (
                1.0
                if site is x or is_same(site["scale"], x["scale"])
                else site["scale"] / x["scale"]
            )

        def log_prob(site: Site) -> Tensor:
            return relative(site) * site_log_prob(site, where, shape)

        zero = x["value"].new_zeros(shape)
        unreparametrised = [site for site in latents.values() if not site["fn"].has_rsample]
        penalties = [
            site
            for site in guide.nodes.values()
            if site["type"] == "sample" and site["is_observed"]
        ]
        return cls(
            log_p=sum(
                (log_prob(site) for site in model.nodes.values() if site["type"] == "sample"),
                start=zero,
            ),
            log_q=sum((log_prob(site) for site in latents.values()), start=zero),
            score=sum((site_log_prob(site, where, shape) for site in unreparametrised), start=zero)
            if unreparametrised
            else None,
            weight=relative(next(iter(latents.values()))) if latents else 1.0,
            scale=x["scale"],
            penalties=sum(
                (
                    scale_and_mask(site_log_prob(site, where, shape), site["scale"]).sum()
                    / num_particles
                    for site in penalties
                ),
                start=0.0,
            ),
        )


class OfLogWeights(Objective):
    """A bound that is a function of the log-weights (K, N), summed over data."""

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple:
        guide_trace, model_trace = paired_traces(model, guide, *args, **kwargs)
        return model_trace, guide_trace


class IWAE(OfLogWeights):
    r"""The importance-weighted bound, the log of the mean of K importance weights.

    .. math:: \mathcal{L}_K = \log \frac1K \sum_k w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k \mid x)},
              \quad z_k \sim q(z \mid x)

    A lower bound on :math:`\log p(x)` that tightens with K; the ELBO at K = 1. The logarithm is
    taken for each datum, of unscaled weights, so it stays this bound where a plate is subsampled.
    The gradient is pathwise; the part that is due to latents that cannot be reparametrised is the
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

    The guide's draws are cut off as leaves, and model and guide are scored at those. The model's
    parameters get the gradient of the bound there. The guide's get, through its draws, the gradient
    of the log-weights with respect to the leaves. No parameter is detached, so one that the model
    shares with the guide gets both.
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
        gradients = torch.autograd.grad(
            (weights.scale * for_guide * log_w).sum() - weights.penalties,
            leaves,
            retain_graph=True,
            materialize_grads=True,
        )
        surrogate = (weights.scale * for_model * weights.log_p).sum()
        for i in reversed(range(len(draws))):
            surrogate = surrogate + (gradients[i] * draws[i]).sum()
            if (
                i and draws[i].requires_grad
            ):  # it also moves with the earlier draws that it was drawn given
                through = torch.autograd.grad(
                    draws[i], leaves[:i], gradients[i], retain_graph=True, materialize_grads=True
                )
                gradients = (*(a + b for a, b in zip(gradients, through)), *gradients[i:])
        return value + (surrogate - surrogate.detach())


class CutDraws(Messenger):
    """Hands on every draw as a leaf of its own; the draw with its gradient is kept in the site's ``infer["draw"]``."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if (
            msg["is_observed"] or site_is_subsample(msg) or "draw" in msg["infer"]
        ):  # the model's are the guide's
            return
        if not msg["fn"].has_rsample:
            raise InvalidInput(
                msg["name"],
                got="a latent that cannot be reparametrised",
                expected="one that can",
                fix="choose ELBO or IWAE, or a relaxed posterior",
            )
        msg["infer"] = {**msg["infer"], "draw": msg["value"]}
        msg["value"] = msg["value"].detach().requires_grad_()


class StickingTheLanding(PathDerivative):
    r"""The ELBO, with a gradient whose variance vanishes where the guide is exact.

    .. math:: \mathcal{L} = \frac1K \sum_k \log w_k, \quad
              \nabla_\phi \mathcal{L} \approx \frac1K \sum_k \frac{\partial \log w_k}{\partial z_k}
              \frac{\partial z_k}{\partial \phi}

    A lower bound on :math:`\log p(x)`, equal to `ELBO`. The gradient of the guide's parameters is
    the path
    derivative: the score :math:`\partial_\phi \log q_\phi(z_k)` at fixed z has expectation zero and
    is left out. The model's parameters get their usual gradient, those that model and guide share
    get both. Latents must be reparametrised.

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
              \nabla_\phi \mathcal{L}_K \approx \sum_k \tilde w_k^2 \frac{\partial \log
              w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \quad \tilde w_k =
              \frac{w_k}{\sum_j w_j}

    The bound of `IWAE`, and a gradient with the same expectation. The guide's parameters get the
    one above, whose signal does not drown in noise as K grows; the model's get that of `IWAE`, and
    those that model and guide share get both. Under a weight b on all latents (KL annealing) the
    coefficient becomes :math:`\tilde w_k (1 - b + b\, \tilde w_k)`, which keeps the expectation.
    Latents must be reparametrised.

    Args:
        num_particles: number of draws K for each datum.

    Raises:
        InvalidInput: for a latent that cannot be reparametrised.

    Source: Tucker, Lawson, Gu and Maddison (2019), Doubly Reparameterized Gradient Estimators for
    Monte Carlo Objectives.

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
