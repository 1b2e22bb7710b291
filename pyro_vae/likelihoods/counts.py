"""Likelihoods of counts: unbounded entry by entry, or given their total."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.contracts import Quantity
from pyro_vae.likelihoods.parameters import (
    LOG_RATE,
    SIZE_FACTOR,
    Positive,
    as_bounds,
    bounded,
    per_entry,
    required,
)
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["Multinomial", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]


class Poisson(nn.Module):
    r"""Independent Poisson counts; the network computes their log-rates.

    .. math:: P(x \mid z) = \prod_d \frac{\lambda_d^{x_d} e^{-\lambda_d}}{x_d!}, \quad
              \log \lambda = 12 \tanh(f(z) / 12)

    close to f(z) for rates that occur, and bounded, so that no rate overflows.

    With a ``size_factor`` the context dictionary has an entry of that name, s > 0, (N,) or (N,
    \*event), and

    .. math:: \lambda = s\, e^{12 \tanh(f(z) / 12)} \quad (\text{"exposure"}), \qquad
              \lambda = s\, \mathrm{softmax}(f(z)) \quad (\text{"total"}),

    the softmax over all entries of x: s is then the total that a datum's counts have on average.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        size_factor: ``None``, ``"exposure"`` or ``"total"``, the meaning of each datum's own.

    Source: McCullagh and Nelder (1989), Generalized Linear Models.

    Example:
        >>> p = Poisson(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 7.0])).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        size_factor: Literal["exposure", "total"] | None = None,
    ):
        super().__init__()
        self.event_shape, self.network, self.size_factor = (
            as_shape(event_shape),
            network,
            size_factor,
        )
        self.head = Head(out_shape_of(network), self.event_shape)
        self.rate = LogRate(self.event_shape, size_factor)

    @property
    def known(self) -> dict[str, Quantity]:
        return self.rate.known

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, size_factor: Tensor | None = None
    ) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, z, context))
        log_rate = self.rate(raw, size_factor)
        return distributions.Poisson(log_rate).to_event(len(self.event_shape))


class NegativeBinomial(nn.Module):
    r"""Independent overdispersed counts; the network computes their log-means.

    .. math:: P(x \mid z) = \prod_d \frac{\Gamma(x_d + r_d)}{x_d!\, \Gamma(r_d)}
              \left(\frac{r_d}{r_d + \mu_d}\right)^{r_d} \left(\frac{\mu_d}{r_d +
              \mu_d}\right)^{x_d}, \quad \log \mu = 12 \tanh(f(z) / 12)

    Poisson counts whose rate is a Gamma variable, with mean :math:`\mu` and variance
    :math:`\mu + \mu^2 / r`; a large r is a Poisson.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: r, that of the Gamma; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        concentration_bounds: the interval of a learned concentration.
        size_factor: ``None``, ``"exposure"`` or ``"total"``, see `Poisson`.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> p = NegativeBinomial(3, pv.networks.MLP(2, [8]), concentration=2.0)(torch.zeros(5, 2))
        >>> torch.allclose(p.variance, p.mean + p.mean**2 / 2)
        True
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 10.0,
        learn_concentration: Literal["shared", "per_feature", "network"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (1e-2, 1e4),
        size_factor: Literal["exposure", "total"] | None = None,
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = as_bounds("concentration_bounds", concentration_bounds)
        self.size_factor = size_factor
        count = 1 + (learn_concentration == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )
        self.rate = LogRate(self.event_shape, size_factor)

    @property
    def known(self) -> dict[str, Quantity]:
        return self.rate.known

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, size_factor: Tensor | None = None
    ) -> dist.TorchDistribution:
        raw, *spread = self.head(features_of(self.network, z, context))
        log_mean, concentration = self.rate(raw, size_factor), self.shape(*spread)
        logits = log_mean - concentration.log()
        return distributions.NegativeBinomial(concentration, logits=logits).to_event(
            len(self.event_shape)
        )


class ZeroInflatedNegativeBinomial(nn.Module):
    r"""`NegativeBinomial` counts with extra zeros, which occur with a learned probability.

    .. math:: P(x \mid z) = \prod_d g_d\, [x_d = 0] + (1 - g_d)\, \mathrm{NB}(x_d; \mu_d, r_d),
              \quad g = \mathrm{sigmoid}(a(z)), \quad \log \mu = 12 \tanh(f(z) / 12)

    The network computes f and a.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: r, see `NegativeBinomial`; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        concentration_bounds: the interval of a learned concentration.
        size_factor: ``None``, ``"exposure"`` or ``"total"``, see `Poisson`.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> ZeroInflatedNegativeBinomial(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 10.0,
        learn_concentration: Literal["shared", "per_feature", "network"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (1e-2, 1e4),
        size_factor: Literal["exposure", "total"] | None = None,
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = as_bounds("concentration_bounds", concentration_bounds)
        self.size_factor = size_factor
        count = 2 + (learn_concentration == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )
        self.rate = LogRate(self.event_shape, size_factor)

    @property
    def known(self) -> dict[str, Quantity]:
        return self.rate.known

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, size_factor: Tensor | None = None
    ) -> dist.TorchDistribution:
        raw, gate, *spread = self.head(features_of(self.network, z, context))
        log_mean, concentration = self.rate(raw, size_factor), self.shape(*spread)
        return distributions.ZeroInflatedNegativeBinomial(
            concentration, logits=log_mean - concentration.log(), gate_logits=gate
        ).to_event(len(self.event_shape))


class Multinomial(nn.Module):
    r"""Counts of V words given their total; the network computes the words' log-odds.

    .. math:: P(x \mid z, n) = \frac{n!}{\prod_v x_v!} \prod_v p_v^{x_v}, \quad p =
              \mathrm{softmax}(f(z)), \quad n = \sum_v x_v

    The likelihood of a bag of words. The total n is not modelled: each datum is scored given its
    own, which is read off x, and scores are log P(x | n). Draws and means have ``total_count``
    words, or each as many as its ``size_factor`` says, an entry of the context dictionary (N,).

    Args:
        event_shape: (V,), at least two words: counts in a single cell are their total.
        network: the decoder, from z to features.
        total_count: the total of draws and means.
        size_factor: ``"total"`` where each datum's own total is known; reconstructions have that of
            their datum in any case.

    Raises:
        InvalidInput: if the event is no vector of at least two counts.

    Source: Miao, Yu and Blunsom (2016), Neural Variational Inference for Text Processing.

    Example:
        >>> p = Multinomial(500, pv.networks.MLP(2, [8]), total_count=60)
        >>> p(torch.zeros(5, 2)).sample().sum(-1)
        tensor([60., 60., 60., 60., 60.])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        total_count: int = 100,
        size_factor: Literal["total"] | None = None,
    ):
        super().__init__()
        check_count("total_count", total_count)
        check_choice("size_factor", size_factor, [None, "total"])
        self.event_shape, self.network = as_shape(event_shape), network
        self.total_count, self.size_factor = total_count, size_factor
        if len(self.event_shape) != 1 or math.prod(self.event_shape) < 2:
            raise InvalidInput(
                "event_shape",
                got=str(self.event_shape),
                expected="(V,), a vector of at least two counts",
                fix="flatten x, or choose Poisson, which counts entries of any shape",
            )
        self.head = Head(out_shape_of(network), self.event_shape)

    @property
    def known(self) -> dict[str, Quantity]:
        return {"size_factor": TOTAL} if self.size_factor else {}

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, size_factor: Tensor | None = None
    ) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        total = required("size_factor", size_factor) if self.size_factor else self.total_count
        return distributions.MultinomialGivenTotal(total, logits=logits)


TOTAL = Quantity(
    "whole numbers >= 0", lambda total, x: (total >= 0) & (total == total.round()), has_units=False
)


class LogRate(nn.Module):
    """The logarithms of rates, from what a network computes and the sizes of data.

    Args:
        event_shape: the shape of x.
        size_factor: ``None``, ``"exposure"`` or ``"total"``, see `Poisson`.

    Raises:
        InvalidInput: on any other size factor.
    """

    def __init__(self, event_shape: Sequence[int], size_factor: str | None):
        super().__init__()
        check_choice("size_factor", size_factor, [None, "exposure", "total"])
        self.event_shape, self.size_factor = tuple(event_shape), size_factor

    @property
    def known(self) -> dict[str, Quantity]:
        return {"size_factor": SIZE_FACTOR} if self.size_factor else {}

    def forward(self, raw: Tensor, size_factor: Tensor | None) -> Tensor:
        if self.size_factor is None:
            return bounded(raw, LOG_RATE)
        log_size = per_entry(required("size_factor", size_factor), self.event_shape).log()
        if self.size_factor == "exposure":
            return log_size + bounded(raw, LOG_RATE)
        flat = raw.flatten(raw.dim() - len(self.event_shape))
        return log_size + flat.log_softmax(-1).reshape(raw.shape)
