"""The beta-TCVAE objective."""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.contracts import Site
from pyro_vae.objectives.elbo import SumOverSites, guide_log_prob, unwrapped
from pyro_vae.runtime.latent_pairs import is_local
from pyro_vae.validation import InvalidInput, check_count, check_weight

__all__ = ["BetaTCVAE"]


class BetaTCVAE(SumOverSites):
    r"""The ELBO with its KL split into three weighted terms, one the total correlation.

    .. math:: \mathcal{L} = \log p(x \mid z) - \alpha \log \frac{q(z \mid x)}{q(z)}
              - \beta \log \frac{q(z)}{\prod_d q(z_d)} - \gamma \log \frac{\prod_d q(z_d)}{p(z)},
              \quad q(z) = \frac1N \sum_n q(z \mid x_n)

    The three terms are the mutual information of z and the datum, the total correlation, and the
    KL of the single dimensions. The aggregate posterior q(z) is estimated from the batch of M data,
    stratified: the datum that z came from counts 1/N and each other one (N - 1) / (N (M - 1)). This
    is unbiased for q(z), though not for its logarithm; likewise for each dimension. At weights of
    one the terms telescope to the ELBO, whatever the batch and the sites' own scales. A larger
    :math:`\beta` gives a lower bound on the ELBO but for that logarithm's bias, a smaller weight no
    bound. The gradient is pathwise, the score function's for latents that cannot be reparametrised.
    With several latent sites each is taken apart by itself; one outside the data plate, which
    belongs to no datum, counts as in the ELBO. The posterior must be a product over
    dimensions, such as DiagonalNormal; the prior may be any.

    Args:
        alpha: the weight on the mutual information of z and the datum.
        beta: the weight on the total correlation.
        gamma: the weight on the KL of the single dimensions.
        num_particles: number of draws K for each datum.
        num_data: the number of data N of the training set, for minibatch-weighted sampling; by
            default that of the data plate, which is the batch unless the program subsamples.

    Raises:
        InvalidInput: for a posterior that is no product over dimensions.

    Source: Chen, Li, Grosse and Duvenaud (2018), Isolating Sources of Disentanglement in VAEs.

    Example:
        >>> loss = pv.objectives.BetaTCVAE(beta=6.0)(vae.model, vae.guide)
        >>> loss(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    mixes_data = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        num_particles: int = 1,
        num_data: int | None = None,
    ):
        super().__init__(num_particles)
        if num_data is not None:
            check_count("num_data", num_data)
        for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            check_weight(name, weight)
        self.alpha, self.beta, self.gamma, self.num_data = alpha, beta, gamma, num_data

    def latent_term(self, p: Site, q: Site, comes_first: bool) -> Tensor:
        if not is_local(q):
            return p["log_prob"] - guide_log_prob(q)
        joint, product = (
            scale_and_mask(log_prob, q["scale"], q["mask"])
            for log_prob in _aggregate(q, self.num_data)
        )
        return (
            -self.alpha * (guide_log_prob(q) - joint)
            - self.beta * (joint - product)
            - self.gamma * (product - p["log_prob"])
        )


def _aggregate(site: Site, num_data: int | None) -> tuple[Tensor, Tensor]:
    """Log-densities at the draws: of the aggregate posterior, and of its dimensions' product."""
    fn = unwrapped(site["fn"])
    base = fn.base_dist if isinstance(fn, Independent) else fn
    event_dim = len(fn.event_shape)
    if base.event_shape:
        raise InvalidInput(
            site["name"],
            got=f"a posterior {type(base).__name__}",
            expected="a product over dimensions",
            fix="choose DiagonalNormal for BetaTCVAE, or another objective",
        )
    (frame,) = (frame for frame in site["cond_indep_stack"] if frame.name == "data")
    size, total, dim = frame.size, num_data or frame.full_size or frame.size, frame.dim or 0
    of_datum = dim - event_dim
    # Every draw (first dimension) under every datum's posterior (the data's dimension).
    pairs = base.log_prob(site["value"].movedim(of_datum, 0).unsqueeze(of_datum))
    own = torch.eye(size, dtype=pairs.dtype, device=pairs.device)
    other = (total - 1) / (total * (size - 1)) if size > 1 else 0.0
    weights = own / (total if size > 1 else 1) + (1 - own) * other
    log_weights = weights.log().reshape(
        size, *(1,) * (pairs.dim() - 1 + of_datum), size, *(1,) * (-of_datum - 1)
    )
    events = tuple(range(-event_dim, 0))
    product = torch.logsumexp(pairs + log_weights, of_datum).movedim(0, of_datum)
    if not events:
        return product, product
    joint = pairs.sum(events) + log_weights.reshape(
        log_weights.shape[: log_weights.dim() - event_dim]
    )
    return torch.logsumexp(joint, dim).movedim(0, dim), product.sum(events)
