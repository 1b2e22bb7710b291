"""Objectives: bounds as Pyro ELBOs with nothing in them that forces a device to wait for the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.infer
import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer.enum import get_importance_trace
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.infer.util import MultiFrameTensor
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.validation import check_count

__all__ = ["ELBO", "EnumeratedELBO"]


class ELBO(pyro.infer.ELBO):
    r"""The evidence lower bound by Monte Carlo, with a weight on the latents' terms.

    .. math:: \mathcal{L} = \frac1K \sum_k \log p(x \mid z_k) + \beta\,(\log p(z_k) - \log q(z_k \mid x)),
              \quad z_k \sim q(z \mid x)

    At :math:`\beta = 1` a lower bound on :math:`\log p(x)`, equal to `pyro.infer.Trace_ELBO` on the same random
    numbers; with another weight the beta-VAE's objective, which bounds nothing for :math:`\beta < 1`. The gradient is
    pathwise where a site can be reparametrised, and the score function's with Pyro's local returns where not.
    Losses are summed over the data of the batch, in nats, as Pyro's are.

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
        check_count("num_particles", num_particles)
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)
        self.beta = beta

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        if self.beta != 1.0:
            model, guide = weigh_latents(model, self.beta), weigh_latents(guide, self.beta)
        traces = self._get_traces(model, guide, args, kwargs)
        return -torch.stack([_surrogate_elbo(*pair) for pair in traces]).sum() / self.num_particles

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """`loss`, with its gradient added to the parameters'; what `pyro.infer.SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return loss.item()


class EnumeratedELBO(pyro.infer.TraceEnum_ELBO):
    r"""The evidence lower bound with discrete latents summed over instead of drawn.

    .. math:: \mathcal{L} = \sum_z q(z \mid x) \left[ \log p(x \mid z) + \beta\, (\log p(z) - \log q(z \mid x)) \right]

    At :math:`\beta = 1` the exact bound on :math:`\log p(x)`, with its exact gradient, for the sites whose posterior asks
    for it (``infer = {"enumerate": "parallel"}``, as `pyro_vae.posteriors.EnumeratedBernoulli` does). Other latents are
    drawn K times and differentiated as Pyro's `TraceEnum_ELBO` does: pathwise, or by the score function with DiCE. Pyro
    asks the device once per step whether a probability is zero; nothing else waits for it. Losses are summed over the
    data of the batch, in nats.

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
        # A program without such a site has the ordinary bound; Pyro would warn.
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1, strict_enumeration_warning=False)
        self.beta = beta

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        if self.beta != 1.0:
            model, guide = weigh_latents(model, self.beta), weigh_latents(guide, self.beta)
        traces = self._get_traces(model, guide, args, kwargs)
        return -torch.stack([_compute_dice_elbo(*pair) for pair in traces]).sum() / self.num_particles

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """`loss`, with its gradient added to the parameters'; what `pyro.infer.SVI` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return loss.item()


def _surrogate_elbo(model: Any, guide: Any) -> Tensor:
    """A scalar with the ELBO's value and its gradient estimator's gradient."""
    model_sites = [site for site in model.nodes.values() if site["type"] == "sample"]
    guide_sites = [site for site in guide.nodes.values() if site["type"] == "sample"]
    log_joint: Tensor = sum(site["log_prob_sum"] for site in model_sites)  # type: ignore[assignment]
    elbo = log_joint - sum(site["log_prob_sum"] for site in guide_sites)
    if all(is_identically_zero(site["score_parts"].score_function) for site in guide_sites):
        return elbo
    surrogate, returns = log_joint, None
    for site in guide_sites:
        _, score_function, entropy_term = site["score_parts"]
        if not is_identically_zero(entropy_term):
            surrogate = surrogate - entropy_term.sum()
        if not is_identically_zero(score_function):
            returns = returns or _local_returns(model_sites, guide_sites)
            surrogate = surrogate + (returns.sum_to(site["cond_indep_stack"]) * score_function).sum()
    return surrogate + (elbo - surrogate).detach()


def _local_returns(model_sites: list, guide_sites: list) -> MultiFrameTensor:
    returns = MultiFrameTensor()
    for sign, sites in ((1.0, model_sites), (-1.0, guide_sites)):
        for site in sites:
            returns.add((site["cond_indep_stack"], sign * site["log_prob"].detach()))
    return returns


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
