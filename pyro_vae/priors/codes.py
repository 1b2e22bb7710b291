"""Priors on codes: bits and one-hot vectors, and their relaxations."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.networks import Size, as_shape
from pyro_vae.validation import check_latent, check_positive

__all__ = ["Bernoulli", "Categorical", "RelaxedBernoulli", "RelaxedCategorical"]


class Bernoulli(nn.Module):
    r"""Independent bits with learned probabilities, for discrete posteriors.

    .. math:: p(z) = \prod_d \pi_d^{z_d} (1 - \pi_d)^{1 - z_d}, \quad z \in \{0, 1\}^D

    The probabilities start at one half.

    Args:
        latent: event shape of z.

    Source: Mnih and Gregor (2014), Neural variational inference and learning in belief networks.

    Example:
        >>> Bernoulli(3)().log_prob(torch.tensor([0.0, 1.0, 1.0])).detach()
        tensor(-2.0794)
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        self.logits = nn.Parameter(torch.zeros(self.latent))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.JointlyEnumerated(dist.Bernoulli(logits=self.logits), len(self.latent))


class Categorical(nn.Module):
    r"""A one-hot code with learned probabilities, for discrete posteriors: one of C clusters.

    .. math:: p(z) = \prod_c \pi_c^{z_c}, \quad z \in \{e_1, \dots, e_C\}

    The probabilities start equal.

    Args:
        latent: event shape of z, (C,) for one code of C classes or (\*, C) for several.

    Raises:
        InvalidInput: if C < 2.

    Source: Kingma et al. (2014), Semi-supervised learning with deep generative models.

    Example:
        >>> Categorical(4)().log_prob(torch.tensor([0.0, 1.0, 0.0, 0.0])).detach()
        tensor(-1.3863)
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        check_latent(self.latent, 2, "a code of at least two classes")
        self.logits = nn.Parameter(torch.zeros(self.latent))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.JointlyEnumerated(
            dist.OneHotCategorical(logits=self.logits.log_softmax(-1)), len(self.latent) - 1
        )


class RelaxedBernoulli(nn.Module):
    r"""Independent relaxed bits with learned log-odds, scored by their own density.

    .. math:: z = \mathrm{sigmoid}((\ell + L) / \tau), \quad L \sim \mathrm{Logistic}(0, 1)

    The KL divergence of discrete probabilities put in place of this density bounds nothing; with it
    the ELBO is a bound for the relaxed model. It pairs with the posterior of the same name.

    Args:
        latent: event shape of z.
        temperature: :math:`\tau > 0`.

    Raises:
        InvalidInput: if the temperature is not positive.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution.

    Example:
        >>> RelaxedBernoulli(3)().log_prob(torch.full((3,), 0.5)).detach()
        tensor(-2.0794)
    """

    def __init__(self, latent: Size, temperature: float = 0.5):
        super().__init__()
        check_positive("temperature", temperature)
        self.latent, self.temperature = as_shape(latent), temperature
        self.logits = nn.Parameter(torch.zeros(self.latent))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.RelaxedBernoulli(self.temperature, self.logits).to_event(
            len(self.latent)
        )


class RelaxedCategorical(nn.Module):
    r"""A relaxed one-hot code on the simplex with learned logits, scored by its own density.

    .. math:: p(z) = (C - 1)!\, \tau^{C - 1} \prod_c \frac{\alpha_c z_c^{-\tau - 1}}{\sum_j \alpha_j
              z_j^{-\tau}}, \quad \alpha = e^{\ell}

    Entries too small for a float have the mass that `pyro_vae.distributions.RelaxedCategorical`
    explains.

    Args:
        latent: event shape of z, (C,) for one code of C classes or (\*, C) for several.
        temperature: :math:`\tau > 0`.

    Raises:
        InvalidInput: if C < 2 or the temperature is not positive.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution; Jang, Gu and Poole (2017).

    Example:
        >>> RelaxedCategorical(3)().log_prob(torch.full((3,), 1 / 3)).detach()
        tensor(-0.6931)
    """

    def __init__(self, latent: Size, temperature: float = 0.5):
        super().__init__()
        self.latent, self.temperature = as_shape(latent), temperature
        check_latent(self.latent, 2, "a code of at least two classes")
        check_positive("temperature", temperature)
        self.logits = nn.Parameter(torch.zeros(self.latent))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.RelaxedCategorical(self.temperature, self.logits).to_event(
            len(self.latent) - 1
        )
