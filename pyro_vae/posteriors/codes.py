"""Posteriors on codes: relaxed, or discrete with their states summed over."""

from __future__ import annotations

import math

import pyro.distributions as dist
from pyro.poutine.runtime import InferDict
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.networks import Head, Size, as_shape, bounded, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, as_number, check_latent, check_positive

__all__ = ["EnumeratedBernoulli", "EnumeratedCategorical", "RelaxedBernoulli", "RelaxedCategorical"]

MAX_STATES = 4096
SUMMED: InferDict = {"enumerate": "parallel"}


class RelaxedBernoulli(nn.Module):
    r"""Independent relaxed, reparametrised bits whose log-odds the network computes.

    .. math:: z = \mathrm{sigmoid}((\ell(x) + L) / \tau), \quad L \sim \mathrm{Logistic}(0, 1)

    It pairs with the prior of the same name: both have the ends that
    `pyro_vae.distributions.RelaxedBernoulli` explains.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.
        temperature: :math:`\tau > 0`.

    Raises:
        InvalidInput: if the temperature is not positive.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution; Jang, Gu and Poole (2017).

    Example:
        >>> q = RelaxedBernoulli(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((4,)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, latent: Size, network: nn.Module, temperature: float = 0.6):
        super().__init__()
        check_positive("temperature", temperature)
        self.latent, self.network, self.temperature = as_shape(latent), network, temperature
        self.head = Head(out_shape_of(network), self.latent)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, x, context))
        return distributions.RelaxedBernoulli(self.temperature, logits).to_event(len(self.latent))


class RelaxedCategorical(nn.Module):
    r"""A relaxed, reparametrised one-hot code whose logits the network computes: Gumbel softmax.

    .. math:: z = \mathrm{softmax}((\ell(x) + G) / \tau), \quad G_c \sim \mathrm{Gumbel}(0, 1)

    The logits are kept within :math:`\pm b`, :math:`\ell = b \tanh(m(x) / b)` with
    :math:`b = 40 \tau - 10`, so that no entry underflows to zero in float32, where the density
    would no longer be that of the draw.

    Args:
        latent: event shape of z, (C,) for one code of C classes or (\*, C) for several.
        network: the encoder, from x to features.
        temperature: :math:`\tau`, above 0.3.

    Raises:
        InvalidInput: if C < 2 or the temperature is too low.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution; Jang, Gu and Poole (2017).

    Example:
        >>> q = RelaxedCategorical(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((4,)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, latent: Size, network: nn.Module, temperature: float = 0.6):
        super().__init__()
        self.latent, self.network, self.temperature = as_shape(latent), network, temperature
        check_latent(self.latent, 2, "a code of at least two classes")
        if not 0.3 < as_number(temperature) < math.inf:
            raise InvalidInput(
                "temperature",
                got=repr(temperature),
                expected="a number above 0.3, below which float32 cannot hold the draws",
                fix="pass temperature=0.5, or EnumeratedCategorical for sharp codes",
            )
        self.head = Head(out_shape_of(network), self.latent)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, x, context))
        bound = 40 * self.temperature - 10
        logits = bounded(raw, bound)
        return distributions.RelaxedCategorical(self.temperature, logits).to_event(
            len(self.latent) - 1
        )


class EnumeratedBernoulli(nn.Module):
    r"""Independent bits whose log-odds the network computes; training sums over all joint states.

    .. math:: q(z \mid x) = \prod_d p_d(x)^{z_d} (1 - p_d(x))^{1 - z_d}, \quad p =
              \mathrm{sigmoid}(\ell(x))

    `pyro_vae.objectives.EnumeratedELBO` sums over the :math:`2^D` states: no noise from the
    latents. Any other objective draws them, with the score function's gradient.

    Args:
        latent: event shape of z, with at most 12 entries.
        network: the encoder, from x to features.

    Raises:
        InvalidInput: on more than 4096 states.

    Source: Mnih and Gregor (2014); Bingham et al. (2019), Pyro, for enumeration.

    Example:
        >>> q = EnumeratedBernoulli(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).enumerate_support().shape
        torch.Size([8, 5, 3])
    """

    infer = SUMMED

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        check_states(self.latent, 2 ** math.prod(self.latent))
        self.head = Head(out_shape_of(network), self.latent)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, x, context))
        return distributions.JointlyEnumerated(dist.Bernoulli(logits=logits), len(self.latent))


class EnumeratedCategorical(nn.Module):
    r"""A one-hot code whose probabilities the network computes; training sums over its states.

    .. math:: q(z \mid x) = \prod_c p_c(x)^{z_c}, \quad p = \mathrm{softmax}(\ell(x))

    `pyro_vae.objectives.EnumeratedELBO` sums over the states: no noise from the latents. Any other
    objective draws them, with the score function's gradient.

    Args:
        latent: event shape of z, (C,) for one code of C classes or (\*, C) for several.
        network: the encoder, from x to features.

    Raises:
        InvalidInput: if C < 2, or on more than 4096 joint states.

    Source: Kingma et al. (2014), Semi-supervised learning with deep generative models.

    Example:
        >>> q = EnumeratedCategorical(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).enumerate_support().shape
        torch.Size([3, 5, 3])
    """

    infer = SUMMED

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        check_latent(self.latent, 2, "a code of at least two classes")
        check_states(self.latent, self.latent[-1] ** math.prod(self.latent[:-1]))
        self.head = Head(out_shape_of(network), self.latent)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, x, context))
        return distributions.JointlyEnumerated(
            dist.OneHotCategorical(logits=logits.log_softmax(-1)), len(self.latent) - 1
        )


def check_states(latent: tuple[int, ...], states: int) -> None:
    """Raise `InvalidInput` on a code with more joint states than can be listed."""
    if states > MAX_STATES:
        raise InvalidInput(
            "latent",
            got=f"{latent}, a code of {states} joint states",
            expected=f"a shape with at most {MAX_STATES} states, such as 12 bits",
            fix="pass a smaller latent, or a relaxed posterior",
        )
