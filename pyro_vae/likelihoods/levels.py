"""Likelihoods of entries with finitely many values: grey levels, categories, successes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.contracts import Quantity
from pyro_vae.likelihoods.parameters import Positive, as_bounds, bounded_exp, per_entry, required
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import check_count, check_positive

__all__ = [
    "Binomial",
    "Categorical",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Ordinal",
]


class DiscretizedLogistic(nn.Module):
    r"""Independent grey levels in [0, 1]: logistic variables, located by the network, on a grid.

    .. math:: P(x \mid z) = \prod_d F_d(x_d + h) - F_d(x_d - h), \quad F_d(t) =
              \mathrm{sigmoid}\frac{t - f_d(z)}{s_d}, \quad h = \frac{1}{2 (L - 1)}

    The lowest and the highest level take all that lies beyond them, so the L masses sum to one. A
    likelihood of bytes as they are (x = byte / 255): its scores are log-probabilities, and bits per
    dimension are theirs. A learned scale moves between bounds as that of `Normal` does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        levels: the number of levels L.
        scale: the scale s, in the units of x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each.
        scale_bounds: the interval of a learned scale.

    Raises:
        InvalidInput: if there are fewer than two levels, or the scale does not lie strictly within
            its bounds.

    Source: Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow;
    Salimans et al. (2017).

    Example:
        >>> p = DiscretizedLogistic((1, 8, 8), pv.networks.MLP(2, [16]))
        >>> p(torch.zeros(3, 2)).log_prob(torch.full((3, 1, 8, 8), 51 / 255)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        levels: int = 256,
        scale: float = 0.1,
        learn_scale: Literal["shared", "per_feature"] | None = "shared",
        scale_bounds: Sequence[float] = (1e-3, 1e2),
    ):
        super().__init__()
        check_count("levels", levels, minimum=2)
        self.event_shape, self.network, self.levels = as_shape(event_shape), network, levels
        self.scale, self.learn_scale = scale, learn_scale
        self.scale_bounds = as_bounds("scale_bounds", scale_bounds)
        self.head = Head(out_shape_of(network), self.event_shape)
        self.spread = Positive(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (loc,) = self.head(features_of(self.network, z, context))
        return distributions.DiscretizedLogistic(loc, self.spread(), self.levels).to_event(
            len(self.event_shape)
        )


class DiscretizedLogisticMixture(nn.Module):
    r"""Independent grey levels in [0, 1], each a mixture of discretised logistic variables.

    .. math:: P(x \mid z) = \prod_d \sum_c \pi_{cd}\, \big(F_{cd}(x_d + h) - F_{cd}(x_d - h)\big),
              \quad F_{cd}(t) = \mathrm{sigmoid}\frac{t - \mu_{cd}}{s_{cd}}

    The network computes the weights :math:`\pi = \mathrm{softmax}(a(z))`, the locations
    :math:`\mu_c = \frac{c - 1/2}{C} + f_c(z)`, which start spread over [0, 1], and the scales
    :math:`s = s_0\, e^{5 \tanh(g(z) / 5)}`, within e^-5 and e^5 of their start.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        components: number of logistics C in each entry's mixture.
        levels: the number of levels L.
        scale: the scale s_0 about which scales move, in the units of x.

    Raises:
        InvalidInput: if there are fewer than two levels or no component.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++.

    Example:
        >>> p = DiscretizedLogisticMixture((1, 8, 8), pv.networks.MLP(2, [16]), components=3)
        >>> p(torch.zeros(3, 2)).mean.shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        components: int = 5,
        levels: int = 256,
        scale: float = 0.1,
    ):
        super().__init__()
        check_count("components", components)
        check_count("levels", levels, minimum=2)
        self.event_shape, self.network = as_shape(event_shape), network
        check_positive("scale", scale)
        self.components, self.levels, self.scale = components, levels, scale
        self.head = Head(out_shape_of(network), self.event_shape, parameters=3 * components)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw = torch.stack(self.head(features_of(self.network, z, context)), -1)
        weights, shift, width = raw.chunk(3, -1)
        start = (
            torch.arange(self.components, dtype=raw.dtype, device=raw.device) + 0.5
        ) / self.components
        logistics = distributions.DiscretizedLogistic(
            start + shift, self.scale * bounded_exp(width, 5.0), self.levels
        )
        return distributions.Mixture(
            dist.Categorical(logits=weights.log_softmax(-1)), logistics
        ).to_event(len(self.event_shape))


class Categorical(nn.Module):
    r"""Independent categories 0, ..., C - 1; the network computes their log-odds.

    .. math:: P(x \mid z) = \prod_d \mathrm{softmax}(f_d(z))_{x_d}

    Generation shows the most likely category by default. The mean is the expected number of the
    category, of use where categories are ordered, as grey levels are.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        categories: the number of categories C.

    Raises:
        InvalidInput: if there are fewer than two categories.

    Source: van den Oord, Kalchbrenner and Kavukcuoglu (2016), Pixel Recurrent Neural Networks, for
    grey levels.

    Example:
        >>> p = Categorical(3, pv.networks.MLP(2, [8]), categories=4)
        >>> p(torch.zeros(5, 2)).log_prob(torch.tensor([0.0, 3.0, 2.0])).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Size, network: nn.Module, categories: int = 10):
        super().__init__()
        check_count("categories", categories, minimum=2)
        self.event_shape, self.network, self.categories = as_shape(event_shape), network, categories
        self.head = Head(out_shape_of(network), self.event_shape, parameters=categories)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        logits = torch.stack(self.head(features_of(self.network, z, context)), -1)
        return distributions.CategoricalCode(logits=logits.log_softmax(-1)).to_event(
            len(self.event_shape)
        )


class Ordinal(nn.Module):
    r"""Independent ordered categories 0, ..., C - 1, cut from a latent scale that z moves.

    .. math:: P(x \mid z) = \prod_d P(c_{x_d - 1} < f_d(z) + \varepsilon \le c_{x_d}), \quad
              \varepsilon \sim \mathrm{Logistic}, \quad c_{-1} = -\infty, \; c_{C-1} = \infty

    Cumulative logits: :math:`P(x \le k) = \mathrm{sigmoid}(c_k - f(z))`. Grades, stages, answers
    from "never" to "always". The cutpoints are learned, each entry's own, in order by their
    positive distances, which move between e^-5 and e^5; the first starts so that all are about 0.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        categories: the number of categories C, at least two.

    Raises:
        InvalidInput: if there are fewer than two categories.

    Source: McCullagh (1980), Regression Models for Ordinal Data.

    Example:
        >>> p = Ordinal(3, pv.networks.MLP(2, [8]), categories=4)
        >>> p(torch.zeros(5, 2)).log_prob(torch.tensor([0.0, 3.0, 2.0])).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Size, network: nn.Module, categories: int = 5):
        super().__init__()
        check_count("categories", categories, minimum=2)
        self.event_shape, self.network, self.categories = as_shape(event_shape), network, categories
        self.head = Head(out_shape_of(network), self.event_shape)
        self.first = nn.Parameter(torch.full(self.event_shape, 1 - categories / 2))
        self.log_gaps = nn.Parameter(torch.zeros(*self.event_shape, categories - 2))

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (loc,) = self.head(features_of(self.network, z, context))
        gaps = bounded_exp(self.log_gaps, 5.0)
        ordered = distributions.OrderedCategory(loc, self.first, gaps)
        return ordered.to_event(len(self.event_shape))


class Binomial(nn.Module):
    r"""Independent numbers of successes in n trials; the network computes their log-odds.

    .. math:: P(x \mid z) = \prod_d \binom{n}{x_d} p_d^{x_d} (1 - p_d)^{n - x_d}, \quad p =
              \mathrm{sigmoid}(f(z))

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        total_count: the number of trials n, of every entry.
        trials: whether n is known of each datum instead: the context dictionary's entry ``trials``,
            (N,) or (N, \*event).

    Raises:
        InvalidInput: if there is no trial.

    Source: McCullagh and Nelder (1989), Generalized Linear Models.

    Example:
        >>> p = Binomial(3, pv.networks.MLP(2, [8]), total_count=4)(torch.zeros(1, 2))
        >>> p.support.check(torch.tensor([[0.0, 4.0, 5.0]]))
        tensor([False])
    """

    def __init__(
        self, event_shape: Size, network: nn.Module, total_count: int = 10, trials: bool = False
    ):
        super().__init__()
        check_count("total_count", total_count)
        self.event_shape, self.network = as_shape(event_shape), network
        self.total_count, self.trials = total_count, trials
        self.head = Head(out_shape_of(network), self.event_shape)

    @property
    def known(self) -> dict[str, Quantity]:
        return {"trials": TRIALS} if self.trials else {}

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, trials: Tensor | None = None
    ) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        event_dim = len(self.event_shape)
        if not self.trials:
            return distributions.Binomial(self.total_count, logits=logits).to_event(event_dim)
        total = per_entry(required("trials", trials), self.event_shape)
        return distributions.BinomialOfTrials(total, logits=logits).to_event(event_dim)


TRIALS = Quantity(
    "whole numbers of at least x",
    lambda trials, x: (trials == trials.round()) & ((trials >= x) | torch.isnan(x)) & (trials >= 0),
    has_units=False,
)
