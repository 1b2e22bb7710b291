"""The likelihood of counts whose size is a latent: the last coordinate of z."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.contracts import Likelihood
from pyro_vae.likelihoods.counts import Multinomial
from pyro_vae.likelihoods.inner import Inner, inner_of, likelihood_on
from pyro_vae.likelihoods.parameters import LOG_SCALE
from pyro_vae.networks import Size, as_shape, features_of
from pyro_vae.validation import InvalidInput, flattened

__all__ = ["LatentSize"]

NARROWEST = 0.01  # of log sizes: data of equal totals have no spread


class LatentSize(nn.Module):
    r"""Counts whose total is uncertain: the last coordinate of z says how large a datum is.

    .. math:: p(x \mid z, \ell) = p_0(x \mid f(z_{1:L-1}), \ell), \qquad \log \ell = m + s\, z_L

    and :math:`s z_L` kept between -20 and 20, so that no size overflows. :math:`p_0` is a
    likelihood of counts with ``size_factor="total"``: the entries' means add up to :math:`\ell`.
    Under a standard normal prior the size is log-normal; m and s are the mean and the standard
    deviation of the training data's log totals, set before training. Where the size is known, pass
    it as ``size_factor`` to :math:`p_0` itself. A `Multinomial` is given its total and has no such
    latent.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z (L,) to features; it sees the last coordinate as zero.
        of: the likelihood of counts: ``"Poisson"``, ``"NegativeBinomial"`` or
            ``"ZeroInflatedNegativeBinomial"``, or a mapping with ``class_path`` and ``init_args``
            as in `Mixed`.

    Raises:
        InvalidInput: if there is no such likelihood, or it takes no size.

    Source: Lopez, Regier, Cole, Jordan and Yosef (2018), Deep generative modeling for single-cell
    transcriptomics.

    Example:
        >>> p = LatentSize(3, pv.networks.MLP(2, [8]))(torch.tensor([[0.3, 0.0], [0.3, 1.0]]))
        >>> p.mean.sum(-1).log().round(decimals=4)  # m and m + s, before any data are seen
        tensor([1.0986, 2.0986], grad_fn=<RoundBackward1>)
    """

    log_size: Tensor
    spread: Tensor

    def __init__(self, event_shape: Size, network: nn.Module, of: str | Inner = "NegativeBinomial"):
        super().__init__()
        self.event_shape, self.network, self.of = as_shape(event_shape), network, of
        self.part = self._counts(network)
        self.register_buffer("log_size", torch.tensor(math.log(math.prod(self.event_shape))))
        self.register_buffer("spread", torch.tensor(1.0))

    def _counts(self, network: nn.Module) -> Likelihood:
        """The likelihood of counts, given their size."""
        inner = inner_of(self.of)
        arguments = {**inner.get("init_args", {}), "size_factor": "total"}
        described = Inner(class_path=inner.get("class_path", ""), init_args=arguments)
        try:
            counts = likelihood_on(described, self.event_shape, network)
        except TypeError:  # a likelihood without this argument
            counts = None
        if counts is None or isinstance(counts, Multinomial):
            raise InvalidInput(
                "of",
                got=repr(self.of),
                expected="a likelihood of counts whose mean has a size_factor",
                fix="choose NegativeBinomial, Poisson or ZeroInflatedNegativeBinomial",
            )
        return counts

    def initialize(self, x: Tensor, features: Tensor | None = None) -> None:
        r"""Set m and s from the log totals of data (N, \*event); missing entries count nothing.

        Nor does a datum of which all entries are missing: its total is not known.
        """
        entries = flattened(x)
        seen = entries[~entries.isnan().all(1)]
        if not len(seen):
            return
        totals = seen.nansum(1).clamp(min=1).log()
        self.log_size.copy_(totals.mean())
        self.spread.copy_(totals.std(correction=0).clamp(min=NARROWEST))

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> Distribution:
        distance = (self.spread * z[..., -1]).clamp(-LOG_SCALE, LOG_SCALE)
        size = (self.log_size + distance).exp()
        beside = size.reshape(*size.shape, *[1] * len(self.event_shape))
        others = torch.cat([z[..., :-1], torch.zeros_like(z[..., -1:])], -1)
        return self.part(features_of(self.network, others, context), size_factor=beside)
