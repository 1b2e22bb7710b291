"""The ELBO with discrete latents summed over."""

from __future__ import annotations

import pyro.infer
import torch
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.infer.util import Dice
from pyro.ops import packed
from torch import Tensor

from pyro_vae.compilation.writes import without_writes
from pyro_vae.contracts import StochasticFunction, Trace, sites_of
from pyro_vae.objectives.base import Objective
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.programs.handlers import AllDrawn
from pyro_vae.validation import check_count, check_weight

__all__ = ["EnumeratedELBO"]


class EnumeratedELBO(pyro.infer.TraceEnum_ELBO):
    r"""The evidence lower bound with discrete latents summed over instead of drawn.

    .. math:: \mathcal{L} = \sum_z q(z \mid x) \left[ \log p(x \mid z) + \beta\, (\log p(z) - \log
              q(z \mid x)) \right]

    At :math:`\beta = 1` the exact bound on :math:`\log p(x)`, with its exact gradient, for the
    sites whose posterior asks for it (``infer = {"enumerate": "parallel"}``, as
    `pyro_vae.posteriors.EnumeratedBernoulli` does). Other latents are drawn K times and
    differentiated as Pyro's `TraceEnum_ELBO` does: pathwise, or by the score function with DiCE.
    A model's sites that the guide leaves to it are summed over within the logarithm, as Pyro does.
    Otherwise, unlike Pyro's, this objective never asks the device whether a probability is zero. It
    sums over the joint states of all such sites, which is made for one code or a few. Losses are
    summed over the data of the batch, in nats. A site's own scale weighs its term, and no
    probability.

    Args:
        num_particles: number of draws K of the latents that are not summed over, run at once.
        beta: the weight on the latents' terms, in training only; evaluation never sees it.

    Source: Bingham et al. (2019), Pyro: deep universal probabilistic programming; Foerster et al.
    (2018) for DiCE.

    Example:
        >>> program = pv.VAE(
        ...     prior=pv.priors.Categorical(4),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(4, [16])),
        ...     posterior=pv.posteriors.EnumeratedCategorical(4, pv.networks.MLP((1, 8, 8), [16])),
        ... )
        >>> EnumeratedELBO()(program.model, program.guide)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0):
        check_count("num_particles", num_particles)
        check_weight("beta", beta)
        # A program without such a site has the ordinary bound; Pyro would warn.
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=num_particles > 1,
            strict_enumeration_warning=False,
        )
        self.beta = beta

    def differentiable_loss(
        self, model: StochasticFunction, guide: StochasticFunction, *args: object, **kwargs: object
    ) -> Tensor:
        """Minus the bound, summed over the batch, as a tensor to differentiate."""
        if self.beta != 1.0:
            model, guide = weigh_latents(model, self.beta), weigh_latents(guide, self.beta)
        traces = self._get_traces(model, guide, args, kwargs)
        bounds = [_bound(*pair) for pair in traces]
        return -torch.stack(bounds).sum() / self.num_particles

    def _guess_max_plate_nesting(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        with AllDrawn(), without_writes():
            super()._guess_max_plate_nesting(model, guide, args, kwargs)

    # Those of every objective, over the differentiable loss above.
    loss = Objective.loss  # type: ignore[assignment]
    loss_and_grads = Objective.loss_and_grads  # type: ignore[assignment]


def _bound(model: Trace, guide: Trace) -> Tensor:
    """The ELBO of packed traces; Pyro's own where the model sums over latents of its own."""
    sites, drawn = sites_of(model), sites_of(guide)
    is_summed = any(
        name not in drawn and site["infer"].get("_enumerate_dim") is not None
        for name, site in sites.items()
    )
    if is_summed:
        return torch.as_tensor(_compute_dice_elbo(model, guide))
    return _expected_elbo(model, guide)


def _expected_elbo(model: Trace, guide: Trace) -> Tensor:
    """The ELBO of packed traces, each site's term weighted by its states' probabilities."""
    signed = [
        (sign, trace, site)
        for sign, trace in ((1.0, model), (-1.0, guide))
        for site in sites_of(trace).values()
    ]
    plates = {
        site["name"]: frozenset(
            trace.plate_to_symbol[frame.name]
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        )
        for _, trace, site in signed
    }
    dice, total = Dice(guide, plates), torch.zeros(())
    for sign, _, site in signed:
        # A factor for each site of the guide upstream. For a site that was summed over it is the
        # probability, for one that was drawn 1 with the score function's gradient, and for one
        # that Pyro runs through state by state a number.
        factors = dice._get_log_factors(plates[site["name"]])
        tensors = packed.broadcast_all(
            site["packed"]["log_prob"], *(f for f in factors if isinstance(f, Tensor))
        )
        weight = sum(tensors[1:], start=torch.zeros_like(tensors[0])) + sum(
            f for f in factors if not isinstance(f, Tensor)
        )
        # No state of probability zero counts.
        term = torch.where(weight > -torch.inf, tensors[0], 0.0)
        total = total + sign * (weight.exp() * term).sum()
    return total
