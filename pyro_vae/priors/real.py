"""Priors on real vectors."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.distributions import Mixture
from pyro_vae.networks import MLP, Head, Size, as_shape
from pyro_vae.validation import InvalidInput, as_counts, check_count, check_positive

__all__ = ["ConditionalNormal", "Flat", "GaussianMixture", "Laplace", "StandardNormal", "StudentT"]


class StandardNormal(nn.Module):
    r"""Independent standard normals, the prior of the first VAE.

    .. math:: p(z) = \prod_d \mathcal{N}(z_d; 0, 1)

    Args:
        latent: event shape of z.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> StandardNormal(2)().log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        # Buffers, so that the prior follows the program's device and dtype; constants, so they are
        # not saved.
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.scale).to_event(len(self.latent))


class Flat(nn.Module):
    r"""No prior: a log-density of zero everywhere, as in a plain autoencoder.

    .. math:: \log p(z) = 0

    With a posterior that is a point, and a `Normal` likelihood of scale :math:`\sigma`, the loss is
    the squared error
    :math:`\|x - f(z)\|^2 / 2 \sigma^2` and a constant. There is no distribution to draw from, so
    generation is refused, and so is every posterior with a density.

    Args:
        latent: event shape of z.

    Source: Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural
    networks.

    Example:
        >>> Flat(2)().log_prob(torch.randn(3, 2))
        tensor([0., 0., 0.])
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.Flat((), self.latent)


class Laplace(nn.Module):
    r"""Independent Laplace variables: sparse codes, most entries near zero.

    .. math:: p(z) = \prod_d \frac{1}{2 b} e^{-|z_d| / b}

    Args:
        latent: event shape of z.
        scale: b > 0.

    Raises:
        InvalidInput: if the scale is not positive.

    Source: Barello, Charles and Pillow (2018), Sparse-coding variational auto-encoders.

    Example:
        >>> Laplace(2)().log_prob(torch.zeros(2))
        tensor(-1.3863)
    """

    loc: Tensor
    spread: Tensor

    def __init__(self, latent: Size, scale: float = 1.0):
        super().__init__()
        check_positive("scale", scale)
        self.latent, self.scale = as_shape(latent), scale
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("spread", torch.full(self.latent, float(scale)), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Laplace(self.loc, self.spread).to_event(len(self.latent))


class StudentT(nn.Module):
    r"""Independent Student t variables: heavy tails, which leave room for outlying codes.

    .. math:: p(z) = \prod_d \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\nu \pi}\,
              s} \left(1 + \frac{z_d^2}{\nu s^2}\right)^{-\frac{\nu + 1}{2}}

    Args:
        latent: event shape of z.
        df: degrees of freedom :math:`\nu > 0`.
        scale: s > 0.

    Raises:
        InvalidInput: if the degrees of freedom or the scale are not positive.

    Source: Abiri and Ohlsson (2020), Variational auto-encoders with Student's t-prior.

    Example:
        >>> StudentT(2, df=3.0)().log_prob(torch.zeros(2))
        tensor(-2.0018)
    """

    loc: Tensor
    spread: Tensor

    def __init__(self, latent: Size, df: float = 5.0, scale: float = 1.0):
        super().__init__()
        check_positive("df", df)
        check_positive("scale", scale)
        self.latent, self.df, self.scale = as_shape(latent), df, scale
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("spread", torch.full(self.latent, float(scale)), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return dist.StudentT(self.df, self.loc, self.spread).to_event(len(self.latent))


class GaussianMixture(nn.Module):
    r"""A mixture of diagonal normals with learned weights, means and scales.

    .. math:: p(z) = \sum_c \pi_c \prod_d \mathcal{N}(z_d; \mu_{cd}, \sigma_{cd}^2), \quad \sigma =
              s(\rho) + 10^{-3}

    with s the softplus: the floor keeps a component from collapsing on one datum. The means start
    at draws from N(0, I), all weights equal and all scales at one, so that no component starts
    dead.

    Args:
        latent: event shape of z.
        components: number of components C.

    Source: Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture VAEs.

    Example:
        >>> prior = GaussianMixture(2, components=5)
        >>> prior().sample((3,)).shape, prior().log_prob(torch.zeros(4, 7, 2)).shape
        (torch.Size([3, 2]), torch.Size([4, 7]))
    """

    def __init__(self, latent: Size, components: int = 10):
        super().__init__()
        check_count("components", components)
        self.latent, self.components = as_shape(latent), components
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, *self.latent))
        self.raw_scale = nn.Parameter(
            torch.full((components, *self.latent), SOFTPLUS_OF_THIS_IS_ONE)
        )

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        scale = nn.functional.softplus(self.raw_scale) + 1e-3
        return Mixture(
            dist.Categorical(logits=self.logits.log_softmax(-1)),
            dist.Normal(self.loc, scale).to_event(len(self.latent)),
        )


class ConditionalNormal(nn.Module):
    r"""A learned p(z | y): independent normals with parameters that a network computes from y.

    .. math:: p(z \mid c) = \prod_d \mathcal{N}(z_d; \mu_d(c), \sigma_d(c)^2), \quad \sigma =
              s(\rho(c)) + 10^{-3}

    with s the softplus.

    Args:
        latent: event shape of z.
        context: number of context features.
        hidden: widths of the network's layers.

    Raises:
        InvalidInput: without a context.

    Source: Sohn, Lee and Yan (2015), Learning structured output representation using deep
    conditional generative models.

    Example:
        >>> ConditionalNormal(2, context=10)(context=torch.zeros(5, 10)).batch_shape
        torch.Size([5])
    """

    def __init__(self, latent: Size, context: int = 0, hidden: Sequence[int] = (64,)):
        super().__init__()
        if isinstance(context, bool) or not isinstance(context, int) or context < 1:
            raise InvalidInput(
                "context",
                got=repr(context),
                expected="the number of context features, 1 or more",
                fix="pass context=10 for ten labels (--context labels), or choose another prior",
            )
        self.latent, self.context = as_shape(latent), context
        self.hidden = as_counts("hidden", hidden)
        self.network = MLP((context,), self.hidden)
        self.head = Head(self.network.out_shape, self.latent, parameters=2)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        if context is None:
            raise InvalidInput(
                "context",
                got="none",
                expected=f"{self.context} features, for a prior p(z | context)",
                fix="give the program a context module and pass a context with the data",
            )
        loc, raw_scale = self.head(self.network(context))
        return dist.Normal(loc, nn.functional.softplus(raw_scale) + 1e-3).to_event(len(self.latent))


SOFTPLUS_OF_THIS_IS_ONE = 0.5413248546129181  # log(e - 1)
