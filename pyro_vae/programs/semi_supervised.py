"""A variational autoencoder for data with few labels."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.contracts import Likelihood, Posterior, Prior, Tensors
from pyro_vae.distributions import as_pyro
from pyro_vae.networks import MLP, Head, OneHot
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.parts import density_of, draw_latent, features_of_context
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput, as_counts, check_weight

__all__ = ["SemiSupervisedVAE"]


class SemiSupervisedVAE(Autoencoder):
    r"""A conditional variational autoencoder that sums over the labels of the unlabelled data.

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
        hidden: widths of the classifier's layers, which takes a missing entry as zero; ``None`` for
            p(y | z).
        weight: of the classification of a labelled datum, in units of its log-probability.

    Raises:
        InvalidInput: for a context that is no `OneHot`, or p(y | z) of a prior that does not depend
            on y.

    Source: Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep
    generative models; Jiang et al. (2017), Variational deep embedding, for labels as clusters.

    Example:
        >>> net = pv.networks.MLP
        >>> program = pv.SemiSupervisedVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net(2, [16], context=10)),
        ...     posterior=pv.posteriors.DiagonalNormal(2, net((1, 8, 8), [16], context=10)),
        ...     context=pv.networks.OneHot(10),
        ... )
        >>> data = (torch.zeros(3, 1, 8, 8), torch.tensor([-1, -1, 7]))
        >>> pv.encode(program, data)["y"].argmax(1)[-1]
        tensor(7)
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        context: nn.Module | None = None,
        hidden: Sequence[int] | None = (400,),
        weight: float = 50.0,
    ):
        super().__init__()
        if not isinstance(context, OneHot):
            raise InvalidInput(
                "context",
                got="none" if context is None else type(context).__name__,
                expected="OneHot, for the labels",
                fix="pass context=pv.networks.OneHot(10) for ten labels (--context labels, "
                "which are those of --target)",
            )
        check_weight("weight", weight)
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood
        self.hidden, self.weight = None if hidden is None else as_counts("hidden", hidden), weight
        # The same classes as the given OneHot, but label -1 means unknown.
        self.context: OneHot = OneHot(context.num_classes, unknown=True)
        self.bind_components()
        if self.hidden is not None:
            self.network = MLP(self.event_shape, self.hidden)
            self.head = Head(self.network.out_shape, context.num_classes)
        elif not as_pyro(prior(context=torch.eye(context.num_classes))).batch_shape:
            raise InvalidInput(
                "hidden",
                got=f"None with the prior {type(prior).__name__}, the same for every label",
                expected="a prior that uses its context, for p(y | z)",
                fix="choose ConditionalNormal, or hidden=[400]",
            )

    def model(self, x: Tensor, context: Tensors | None = None) -> Tensor:
        warn_of_unmoved(self)
        self.bind_components()
        labels, known = self.labels(context), self.known_values(context)
        with global_latents(self, prior=True), pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", label_density(labels, torch.zeros_like(labels)))
            prior = self.prior(context=y)
            z = pyro.sample("z", as_pyro(prior))
            density = density_of(self.likelihood, z, len(prior.event_shape), y, known)
            return pyro.sample("x", as_pyro(density), obs=x)

    def guide(self, x: Tensor, context: Tensors | None = None) -> None:
        self.bind_components()
        known = self.labels(context)
        with global_latents(self, prior=False), pyro.plate("data", len(x), dim=-1):
            if self.hidden is None:
                density = density_of(self.posterior, x, x.dim() - 1, None)
                z = draw_latent("z", self.posterior, density)
                self._classify(known, self._given(z))
            else:
                complete = torch.where(x.isnan(), 0.0, x)  # a missing entry tells nothing of y
                (logits,) = self.head(self.network(complete))
                y = self._classify(known, logits)
                density = density_of(self.posterior, x, x.dim() - 1, y)
                draw_latent("z", self.posterior, density)

    def labels(self, context: Tensors | None) -> Tensor:
        """The known labels as unit vectors, zeros where they are unknown."""
        return features_of_context(self.context, context, self.known)

    def _given(self, z: Tensor) -> Tensor:
        """log p(z | y) of each label (*batch, C), the log-odds of the label given z."""
        labels = self.context.vectors[:-1].to(z)  # the last one means unknown
        density = as_pyro(self.prior(context=labels))
        return density.log_prob(z.unsqueeze(-1 - len(density.event_shape)))

    def _classify(self, known: Tensor, logits: Tensor) -> Tensor:
        """Draw the label in the guide; in training a known one counts ``weight`` times."""
        y = pyro.sample("y", label_density(known, logits), infer={"enumerate": "parallel"})
        if self.training:
            right = (known * logits.log_softmax(-1)).sum(-1)  # zero where there is no label
            pyro.factor("y_training_term", -self.weight * right, has_rsample=True)
        return y


def label_density(known: Tensor, logits: Tensor) -> dist.OneHotCategorical:
    """A distribution of labels: a point mass where known, else one with these log-odds."""
    is_known = known.sum(-1, keepdim=True) > 0
    return dist.OneHotCategorical(logits=torch.where(is_known, known.log(), logits.log_softmax(-1)))
