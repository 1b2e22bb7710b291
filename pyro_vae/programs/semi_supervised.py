"""A variational autoencoder of data of which few are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import MLP, Head, OneHot, as_shape
from pyro_vae.programs.parts import check_parts, draw_latent, embed, initialize
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput, check_weight

__all__ = ["SemiSupervisedVAE"]


class SemiSupervisedVAE(nn.Module):
    r"""A conditional variational autoencoder whose labels are known for some data and summed over for the others.

    .. math:: p(x) = \sum_y \tfrac1C \int p(x \mid z, y)\, p(z \mid y)\, dz

    A label of -1 is unknown: y is then a latent with a uniform prior, which
    `pyro_vae.objectives.EnumeratedELBO` sums over (any other objective draws it). A known label is
    what y is under both model and guide, as in a CVAE, and scores are of
    :math:`p(x \mid y)`; in training its :math:`\log q(y \mid \cdot)` counts ``weight`` times, a
    factor of the guide, without which the classifier would learn from the unlabelled data alone.
    The guide is one of two:

    .. math:: q(y \mid x)\, q(z \mid x, y), \quad \text{or} \quad q(z \mid x)\, p(y \mid z) \quad
              \text{with} \quad p(y \mid z) = \frac{p(z \mid y)}{\sum_{y'} p(z \mid y')}

    In the first a network is the classifier, and p(z | y) may be N(0, I): the label is what the
    decoder is told. In the second Bayes' rule is, so the prior must use its context: each label is
    a cluster of the latent space, and the unlabelled data shape the clusters. Where the decoder is
    not told the label (its network a `pyro_vae.networks.WithoutContext`), that p(y | z) is exact,
    and x is decoded once instead of C times.

    Probabilities of the labels of x are ``pv.encode(program, (x, minus_ones))["y"]``, in the second
    case at one draw of z. ``generate`` takes labels, -1 for a random one.

    Args:
        prior: p(z), or p(z | y) for a prior that uses its context.
        likelihood: p(x | z, y), its network with C context features, or p(x | z); it states
            ``event_shape``.
        posterior: q(z | x, y), its network with C context features; or q(z | x), which is given no
            context if ``hidden`` is ``None``.
        context: `pyro_vae.networks.OneHot` of the C labels.
        hidden: widths of the classifier's layers; ``None`` for p(y | z).
        weight: of the classification of a labelled datum, in units of its log-probability.

    Raises:
        InvalidInput: for a context that is no `OneHot`, or p(y | z) of a prior that does not depend
            on y.

    Source: Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep
    generative models; Jiang et al. (2017), Variational deep embedding, for labels as clusters.

    Example:
        >>> program = pv.SemiSupervisedVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [16], context=10)),
        ...     posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16], context=10)),
        ...     context=pv.networks.OneHot(10),
        ... )
        >>> pv.encode(program, (torch.zeros(3, 1, 8, 8), torch.tensor([-1, -1, 7])))["y"].argmax(1)[-1]
        tensor(7)
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        posterior: nn.Module,
        context: nn.Module | None = None,
        hidden: Sequence[int] | None = (400,),
        weight: float = 50.0,
    ):
        super().__init__()
        check_parts(prior, likelihood, posterior)
        if not isinstance(context, OneHot):
            raise InvalidInput(
                "context",
                got="none" if context is None else type(context).__name__,
                expected="OneHot, for the labels",
                fix="pass context=pv.networks.OneHot(10) for ten labels (--context labels)",
            )
        check_weight("weight", weight)
        self.prior, self.posterior, self.weight = prior, posterior, weight
        self.hidden = None if hidden is None else list(hidden)
        self.likelihood: Any = likelihood
        # As handed over but for this: -1 is no mistake here.
        self.context = OneHot(context.num_classes, unknown=True)
        part: Any
        for part in (prior, likelihood, posterior):
            if hasattr(part, "bind"):
                part.bind(self)
        if self.hidden is not None:
            self.network = MLP(self.event_shape, self.hidden)
            self.head = Head(self.network.out_shape, context.num_classes)
        elif not as_pyro(prior(context=torch.eye(context.num_classes))).batch_shape:
            raise InvalidInput(
                "hidden",
                got=f"None with the prior {type(prior).__name__}, which is the same for every label",
                expected="a prior that uses its context, for p(y | z)",
                fix="choose ConditionalNormal, or hidden=[400]",
            )

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        warn_of_unmoved(self)
        label: Any = embed(self.context, context)
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", self._labels(label, torch.zeros_like(label)))
            z = pyro.sample("z", as_pyro(self.prior(context=y)))
            return pyro.sample("x", as_pyro(self.likelihood(z, context=y)), obs=x)

    def guide(self, x: Tensor, context: Tensor | None = None) -> None:
        label: Any = embed(self.context, context)
        with pyro.plate("data", len(x), dim=-1):
            if self.hidden is None:
                z = draw_latent("z", self.posterior, self.posterior(x))
                self._classify(label, self._given(z))
            else:
                (logits,) = self.head(self.network(x))
                draw_latent(
                    "z", self.posterior, self.posterior(x, context=self._classify(label, logits))
                )

    def _given(self, z: Tensor) -> Tensor:
        """log p(z | y) of each label (*batch, C), the log-odds of the label given z."""
        density = as_pyro(
            self.prior(context=self.context.vectors[:-1].to(z))
        )  # the last is that of an unknown one
        return density.log_prob(z.unsqueeze(-1 - len(density.event_shape)))

    def _classify(self, label: Any, logits: Tensor) -> Tensor:
        infer: Any = {"enumerate": "parallel"}
        y = pyro.sample("y", self._labels(label, logits), infer=infer)
        if self.training:
            right = (label * logits.log_softmax(-1)).sum(-1)  # zero where there is no label
            pyro.factor("y_training_term", -self.weight * right, has_rsample=True)
        return y

    @staticmethod
    def _labels(label: Any, logits: Tensor) -> dist.OneHotCategorical:
        """The label where it is known, else one with these log-odds."""
        is_known = label.sum(-1, keepdim=True) > 0
        return dist.OneHotCategorical(logits=torch.where(is_known, label.log(), logits))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        initialize((self.prior, self.likelihood, self.posterior), x, embed(self.context, context))
