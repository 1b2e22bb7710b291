r"""Bounds whose guide learns through its draws alone: gradients without the score term.

Reparametrised, the gradient of a bound of log-weights with respect to a guide's parameter has a
part through the draws and the scores of the guide's densities,

.. math:: \sum_k c_k\, \frac{\mathrm{d} \log w_k}{\mathrm{d} z_k}
          \frac{\partial z_k}{\partial \phi}
          - \sum_k \sum_j c_k\, b_j\, \partial_\phi \log q_j(z_k), \qquad
          c_k = \frac{\partial \mathcal{L}}{\partial \log w_k},

with b_j the weight of latent j of the guide. A score at fixed draws has expectation zero if c_k
does not depend on the draw, as in the ELBO. If it does, reparametrising a second time, for each
latent by itself given those drawn before it, gives

.. math:: \mathbb{E}\, c_k\, \partial_\phi \log q_j
          = \mathbb{E}\, \frac{\partial c_k}{\partial \log w_k}
          \frac{\mathrm{d} \log w_k}{\mathrm{d} z_{kj}} \frac{\partial z_{kj}}{\partial \phi},

so that latent j's path counts :math:`c_k - b_j\, \partial c_k / \partial \log w_k`. A latent that
is masked in the guide has no density in log w_k and b_j = 0. So has a point mass, such as the image
of an auxiliary latent: its Jacobian is no score, and keeps its own gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vae.contracts import Site, StochasticFunction, Trace
from pyro_vae.distributions import is_point_mass
from pyro_vae.objectives.base import is_same
from pyro_vae.objectives.importance import LogWeights, OfLogWeights, log_mean_exp
from pyro_vae.validation import InvalidInput

__all__ = ["DReG", "StickingTheLanding"]


class PathDerivative(OfLogWeights):
    """A bound whose guide learns through its draws alone.

    The guide's draws are cut off as leaves, at which model and guide are scored. The model's
    parameters get the gradient of the bound there. The guide's get, through its draws, the gradient
    of the log-weights with respect to the leaves. No parameter is detached, so one that the model
    shares with the guide gets both.
    """

    @abstractmethod
    def coefficients(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""The bound (N,), :math:`c_k` and :math:`\partial c_k / \partial \log w_k`, (K, N) each.

        The last is ``None`` where it is zero.

        Args:
            log_w: log-weights (K, N), without a gradient.
        """

    def _get_trace(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[Trace, Trace]:
        with CutDraws(self.globals):
            return super()._get_trace(model, guide, args, kwargs)

    def bound(self, model: Trace, guide: Trace) -> Tensor:
        weights = self.weights(model, guide)
        log_w = weights.log_p - weights.log_q
        bound, first, second = self.coefficients(log_w.detach())
        value = weights.value(bound)
        if not torch.is_grad_enabled():
            return value
        jacobians = weights.total(s for s in weights.latents if is_point_mass(s["fn"]))
        surrogate = (weights.scale * first * (weights.log_p - jacobians)).sum()
        sites = weights.latents
        b = [_weight_of_density(weights, site) for site in sites]
        is_one = second is None or all(_is_number(e) and is_same(e, b[0]) for e in b)
        if second is not None and is_one and b:  # then one pass does
            first = first - b[0] * second
        paths = _along_draws(weights.value((first * log_w).sum(0)), sites)
        if second is not None and not is_one:
            scores = _along_draws((weights.scale * second * log_w).sum(), sites)
            paths = [
                path - _over_events(each, site) * score
                for path, each, site, score in zip(paths, b, sites, scores)
            ]
        for path, site in zip(paths, sites):
            surrogate = surrogate + (path * _draw_of(site)).sum()
        return value + (surrogate - surrogate.detach())


def _weight_of_density(weights: LogWeights, site: Site) -> float | Tensor:
    """The weight of a latent's density in the log-weights: one number, or one per draw."""
    if is_point_mass(site["fn"]):
        return 0.0
    weight, fn = weights.weight(site), site["fn"]
    for mask in (site["mask"], fn._mask if isinstance(fn, MaskedDistribution) else None):
        if mask is not None:
            weight = weight * mask
    return weight


def _over_events(weight: float | Tensor, site: Site) -> float | Tensor:
    """A weight per batch entry, or one for all, shaped to multiply a site's values."""
    if not isinstance(weight, Tensor) or _is_number(weight):
        return weight
    return weight.reshape(*weight.shape, *(1,) * len(site["fn"].event_shape))


def _is_number(weight: float | Tensor) -> bool:
    return not isinstance(weight, Tensor) or weight.dim() == 0


def _along_draws(value: Tensor, sites: Sequence[Site]) -> list[Tensor]:
    """A scalar's total derivative by each draw, through its effect on later draws too."""
    leaves = [site["value"] for site in sites]
    if not leaves:
        return []
    gradients = list(torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True))
    for i in reversed(range(1, len(sites))):
        draw = _draw_of(sites[i])
        if draw.requires_grad:
            through = torch.autograd.grad(
                draw, leaves[:i], gradients[i], retain_graph=True, materialize_grads=True
            )
            gradients[:i] = [a + b for a, b in zip(gradients, through)]
    return gradients


def _draw_of(site: Site) -> Tensor:
    """The draw of a site with its gradient, which `CutDraws` has kept."""
    draw = site["infer"]["draw"]
    assert isinstance(draw, Tensor)
    return draw


class CutDraws(Messenger):
    """Replace every draw by a detached leaf, and keep the draw in ``infer["draw"]``.

    Global latents stay as they are: a bound has one draw of them, with its ordinary gradient.
    """

    def __init__(self, outside: Collection[str] = ()):
        super().__init__()
        self.outside = outside

    def _pyro_post_sample(self, msg: Site) -> None:
        # What the model is given are the guide's leaves.
        is_subsample = site_is_subsample(msg)  # type: ignore[arg-type]  # Pyro's type of a message
        if msg["is_observed"] or is_subsample or "draw" in msg["infer"]:
            return
        if not msg["fn"].has_rsample:
            raise InvalidInput(
                msg["name"],
                got="a latent that cannot be reparametrised",
                expected="one that can",
                fix="choose ELBO or IWAE, or a relaxed posterior",
            )
        if msg["name"] in self.outside:
            return
        msg["infer"] = {**msg["infer"], "draw": msg["value"]}
        msg["value"] = msg["value"].detach().requires_grad_()


class StickingTheLanding(PathDerivative):
    r"""The ELBO, with a gradient whose variance vanishes where the guide is exact.

    .. math:: \mathcal{L} = \frac1K \sum_k \log w_k, \quad
              \nabla_\phi \mathcal{L} \approx \frac1K \sum_k \frac{\partial \log w_k}{\partial z_k}
              \frac{\partial z_k}{\partial \phi}

    A lower bound on :math:`\log p(x)`, equal to `ELBO`, whatever weights the latents have. The
    gradient of the guide's parameters is the path derivative: the score
    :math:`\partial_\phi \log q_\phi(z_k)` at fixed z has expectation zero and is left out. The
    model's parameters get their usual gradient, those that model and guide share get both. Latents
    must be reparametrised.

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

    def coefficients(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return log_w.mean(0), torch.full_like(log_w, 1 / self.num_particles), None


class DReG(PathDerivative):
    r"""The importance-weighted bound, with doubly reparametrised gradients.

    .. math:: \mathcal{L}_K = \log \frac1K \sum_k w_k, \quad
              \nabla_\phi \mathcal{L}_K \approx \sum_k \tilde w_k^2 \frac{\partial \log
              w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \quad \tilde w_k =
              \frac{w_k}{\sum_j w_j}

    The bound of `IWAE`, and a gradient with the same expectation. The guide's parameters get the
    one above, whose signal does not drown in noise as K grows; the model's get that of `IWAE`, and
    those that model and guide share get both. Under a weight b on a latent of the guide (KL
    annealing, a scale or a mask of its own) the coefficient of that latent's path becomes
    :math:`\tilde w_k (1 - b + b\, \tilde w_k)`, which keeps the expectation. Latents must be
    reparametrised.

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

    def coefficients(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        normalised = torch.softmax(log_w, 0)
        return log_mean_exp(log_w), normalised, normalised * (1 - normalised)
