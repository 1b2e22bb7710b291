"""Flows that run one way: densities that are known at their own draws and nowhere else.

Pyro's planar, radial and block-autoregressive flows have no inverse. They remember what their last
draw is the image of, and score that draw alone.
"""

from __future__ import annotations

from contextlib import suppress

from pyro.distributions import TorchDistribution, TransformedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyro_vae.distributions.adapters import TorchToPyro

__all__ = ["image_of", "is_one_way", "remembered", "source_of"]


def is_one_way(distribution: Distribution, value: Tensor) -> bool:
    """Whether a distribution has no density at a value unless it has drawn this very tensor.

    To ask makes its maps forget that tensor.

    Example:
        >>> from pyro.distributions import Normal, transforms
        >>> base = Normal(torch.zeros(2), 1.0).to_event(1)
        >>> flow = TransformedDistribution(base, [transforms.planar(2)])
        >>> is_one_way(flow, torch.zeros(2)), is_one_way(base, torch.zeros(2))
        (True, False)
    """
    if _flow_of(distribution) is None:
        return False
    with suppress(KeyError, NotImplementedError):
        distribution.log_prob(value.clone())
        return False
    return True


def source_of(distribution: Distribution, value: Tensor) -> Tensor:
    """The draw of a flow's base that its last draw is the image of; of no flow the draw itself."""
    flow = _flow_of(distribution)
    for transform in reversed(flow.transforms if flow else []):
        value = transform.inv(value)
    return value


def image_of(distribution: Distribution, source: Tensor) -> Tensor:
    """The image of a draw of a flow's base, which the flow then has a density at."""
    flow = _flow_of(distribution)
    for transform in flow.transforms if flow else []:
        source = transform(source)
    return source


class _AtItsDraw(TorchToPyro):
    """A distribution that remembers the density of one draw, of which its flow keeps the last."""

    def __init__(self, wrapped: Distribution, value: Tensor, known: Tensor):
        super().__init__(wrapped)
        self.value, self.known = value, known

    def log_prob(self, value: Tensor) -> Tensor:
        return self.known if value is self.value else super().log_prob(value)


def remembered(distribution: TorchDistribution, value: Tensor) -> TorchDistribution:
    """A distribution that knows the density of its last draw after further ones, too."""
    if _flow_of(distribution) is None:
        return distribution
    known = distribution.log_prob(value)
    return (
        _AtItsDraw(distribution, value, known) if is_one_way(distribution, value) else distribution
    )


def _flow_of(distribution: Distribution) -> TransformedDistribution | None:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, TransformedDistribution) else None
