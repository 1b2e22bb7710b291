"""A variational autoencoder of three components, and what all programs are made and run with."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor, nn

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import as_shape
from pyro_vae.programs.parts import check_parts, draw_latent, embed, initialize
from pyro_vae.programs.pyro_svi import warn_of_unmoved

__all__ = ["VAE"]


class VAE(nn.Module):
    r"""A variational autoencoder, or with a context a conditional one (CVAE): three components as a Pyro program.

    .. math:: z \sim p(z \mid c), \quad x \sim p(x \mid z, c), \quad q(z \mid x, c), \quad c =
              \mathrm{context}(y)

    Args:
        prior: p(z), or p(z | c) for a prior that uses its context.
        likelihood: p(x | z); it states ``event_shape``.
        posterior: q(z | x).
        context: a module from labels or covariates (N, ...) to features (N, C),
            `pyro_vae.networks.OneHot` or `torch.nn.Identity` for instance; ``None`` for a model
            without labels, which ignores those of the data.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes; Sohn, Lee and Yan (2015) for
    the CVAE.

    Example:
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [16], context=10)),
        ...     posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16], context=10)),
        ...     context=pv.networks.OneHot(10),
        ... )
        >>> pv.generate(vae, 4, context=7).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        posterior: nn.Module,
        context: nn.Module | None = None,
    ):
        super().__init__()
        check_parts(prior, likelihood, posterior)
        self.prior, self.posterior, self.context = prior, posterior, context
        self.likelihood: Any = likelihood
        part: Any
        for part in (prior, likelihood, posterior):
            if hasattr(part, "bind"):  # a part that needs another, as VampPrior needs the posterior
                part.bind(self)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        warn_of_unmoved(self)
        features = self.embed(context)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", as_pyro(self.prior(context=features)))
            return pyro.sample("x", as_pyro(self.likelihood(z, context=features)), obs=x)

    def guide(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        features = self.embed(context)
        with pyro.plate("data", len(x), dim=-1):
            return draw_latent("z", self.posterior, self.posterior(x, context=features))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        initialize((self.prior, self.likelihood, self.posterior), x, self.embed(context))

    def embed(self, context: Tensor | None) -> Tensor | None:
        """The features of a context; none where the program takes no context."""
        return embed(self.context, context)
