"""Codes: discrete ones with joint states to enumerate, and relaxed ones with a true bound."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Independent, TorchDistribution, constraints
from torch import Tensor
from torch.distributions.utils import clamp_probs
from torch.nn.functional import logsigmoid

__all__ = ["JointlyEnumerated", "RelaxedBernoulli", "RelaxedCategorical"]


class JointlyEnumerated(Independent):
    r"""Independent discrete variables as one event, whose joint states can be listed.

    .. math:: p(z) = \prod_d p_d(z_d), \quad z \in S_1 \times \dots \times S_D

    Pyro's own `Independent` refuses to enumerate over a Cartesian product, because it grows like
    :math:`|S|^D`; for the few bits of a code it is what makes the bound exact.

    Example:
        >>> from pyro.distributions import Bernoulli
        >>> JointlyEnumerated(Bernoulli(torch.full((2,), 0.5)), 1).enumerate_support()
        tensor([[0., 0.],
                [0., 1.],
                [1., 0.],
                [1., 1.]])
    """

    @property
    def has_enumerate_support(self) -> bool:
        return self.base_dist.has_enumerate_support

    def enumerate_support(self, expand: bool = True) -> Tensor:
        single = self.base_dist.enumerate_support(expand=False)
        dims = self.base_dist.batch_shape[len(self.batch_shape) :]
        single = single.reshape(len(single), *self.base_dist.event_shape)
        states = torch.arange(len(single), device=single.device)
        grid = torch.cartesian_prod(*[states] * math.prod(dims)).reshape(-1, *dims)
        values = single[grid].reshape(len(grid), *(1,) * len(self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values


class RelaxedBernoulli(TorchDistribution):
    r"""A bit relaxed to (0, 1), with a point mass at each end for what floats cannot resolve.

    .. math:: z = \mathrm{sigmoid}(y), \quad y = (\ell + L) / \tau, \quad L \sim
              \mathrm{Logistic}(0, 1),

    whose density is, with s the logistic distribution function,

    .. math:: \log p(z) = \log \tau + \log s(\tau y - \ell) + \log s(\ell - \tau y) - \log z (1 -
              z).

    Near 1 a float keeps no more than some sixteen nats of y. Clipping the draws and scoring them as
    if nothing had happened lets a posterior gain nats that do not exist; so y is clipped to
    :math:`\pm c` and the two ends have the clipped mass, :math:`\log s(\ell - \tau c)` and
    :math:`\log s(-\ell - \tau c)`. With the same ends in prior and posterior the bound is a bound
    in either precision, c being 12 in float32 and 27 in float64.

    Args:
        temperature: :math:`\tau > 0`; the bits are sharp below one.
        logits: :math:`\ell` (\*batch), log-odds in nats.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution; Jang, Gu and Poole (2017).

    Example:
        >>> RelaxedBernoulli(0.5, torch.zeros(3)).log_prob(torch.full((3,), 0.5))
        tensor([-0.6931, -0.6931, -0.6931])
    """

    arg_constraints = {"logits": constraints.real}
    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None):
        self.temperature, self.logits = temperature, logits
        self.reach = -0.75 * math.log(torch.finfo(logits.dtype).eps)  # c
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def support(self):
        return _UNIT_INTERVAL_WITH_ENDS

    def expand(self, batch_shape: torch.Size, _instance=None) -> RelaxedBernoulli:
        return RelaxedBernoulli(
            self.temperature, self.logits.expand(batch_shape), validate_args=False
        )

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.sigmoid(torch.full_like(like, -self.reach))
        return low, 1 - low

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        logits = self.logits.expand(self._extended_shape(sample_shape))
        uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
        # The generator leaves out one but not zero; both tails are drawn from the small end, where
        # floats are dense.
        tail = -(uniform / 2).logit()
        noise = torch.where(torch.rand_like(logits) < 0.5, tail, -tail)
        low, high = self._ends(logits)
        return torch.sigmoid((logits + noise) / self.temperature).clamp(low, high)

    def log_prob(self, value: Tensor) -> Tensor:
        low, high = self._ends(value)
        y = value.log() - torch.log1p(-value)
        shifted = self.temperature * y - self.logits
        inside = (
            math.log(self.temperature)
            + logsigmoid(shifted)
            + logsigmoid(-shifted)
            - value.log()
            - torch.log1p(-value)
        )
        reach = self.temperature * self.reach
        inside = torch.where(value >= high, logsigmoid(self.logits - reach), inside)
        return torch.where(value <= low, logsigmoid(-self.logits - reach), inside)


class RelaxedCategorical(TorchDistribution):
    r"""A one-hot code relaxed to the simplex, with mass on its faces for what floats cannot hold.

    .. math:: z = \mathrm{softmax}((\ell + G) / \tau), \quad G_c \sim \mathrm{Gumbel}(0, 1)

    An entry below the smallest normal float :math:`\epsilon` is put there, and stands for all that
    are smaller. With R the r classes whose entries are larger, the density on their face is

    .. math:: \log p(z) = \log\, (r - 1)! + (r - 1) \log \tau + \sum_{c \in R} (\ell_c - (\tau +
              1) \log z_c) - r \log \sum_{c = 1}^C e^{\ell_c} z_c^{-\tau}.

    Where no entry is that small it is the usual one, of all C classes. The mass of the others is an
    integral in closed form: given the entries of R, the level that their Gumbel numbers have in
    common is the logarithm of a gamma variable.

    Args:
        temperature: :math:`\tau > 0`; the codes are sharp below one.
        logits: :math:`\ell` (\*batch, C) in nats, of which only differences count.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution; Jang, Gu and Poole (2017).

    Example:
        >>> RelaxedCategorical(0.5, torch.zeros(3)).log_prob(torch.full((3,), 1 / 3))
        tensor(-0.6931)
        >>> RelaxedCategorical(0.5, torch.tensor([1e4, -1e4])).log_prob(torch.tensor([1.0, 0.0]))
        tensor(0.)
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None):
        self.temperature, self.logits = temperature, logits
        self.smallest = torch.finfo(logits.dtype).tiny
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> RelaxedCategorical:
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        return RelaxedCategorical(self.temperature, logits, validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        noise = -(-clamp_probs(uniform).log()).log()
        scores = (self.logits.log_softmax(-1) + noise) / self.temperature
        return scores.softmax(-1).clamp_min(self.smallest)

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.logits.log_softmax(-1)
        is_inside = ~(value <= self.smallest)
        size = torch.where(is_inside, value, self.smallest).log()  # a constant on a face
        terms = logits - self.temperature * size
        terms = torch.where(is_inside, terms - terms.logsumexp(-1, keepdim=True) - size, 0)
        count = is_inside.to(value.dtype).sum(-1)
        return terms.sum(-1) + torch.lgamma(count) + (count - 1) * math.log(self.temperature)


_UNIT_INTERVAL_WITH_ENDS = constraints.interval(0.0, 1.0)
# See `supports.measure_of`: on the line itself there would be no room for two points with mass.
_UNIT_INTERVAL_WITH_ENDS.measure = "the unit interval and its two ends"  # type: ignore[attr-defined]
