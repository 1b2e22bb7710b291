"""A variational autoencoder of three components."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from pyro_vae.contracts import Likelihood, Posterior, Prior, Tensors
from pyro_vae.distributions import as_pyro
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.parts import density_of, draw_latent
from pyro_vae.programs.pyro_svi import warn_of_unmoved

__all__ = ["VAE"]


class VAE(Autoencoder):
    r"""A variational autoencoder of three components; with a context, a conditional one (CVAE).

    .. math:: z \sim p(z \mid c), \quad x \sim p(x \mid z, c), \quad q(z \mid x, c), \quad c =
              \mathrm{context}(y)

    Args:
        prior: p(z), or p(z | c) for a prior that uses its context.
        likelihood: p(x | z); it states ``event_shape``.
        posterior: q(z | x).
        context: a module from labels or covariates (N, ...) to features (N, C),
            `pyro_vae.networks.OneHot` or `torch.nn.Identity` for instance; ``None`` for a model
            without labels, which ignores those of the data. Of a context dictionary the likelihood
            takes the known quantities that it states, such as ``size_factor``. The module takes the
            one other entry, or several by name if it is a `pyro_vae.networks.Covariates` of them.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes; Sohn, Lee and Yan (2015) for
    the CVAE.

    Example:
        >>> net = pv.networks.MLP
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net(2, [16], context=10)),
        ...     posterior=pv.posteriors.DiagonalNormal(2, net((1, 8, 8), [16], context=10)),
        ...     context=pv.networks.OneHot(10),
        ... )
        >>> pv.generate(vae, 4, context=7).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        context: nn.Module | None = None,
    ):
        super().__init__()
        # In the order of version 0.1.0, by which its runs resume.
        self.prior, self.posterior, self.context = prior, posterior, context
        self.likelihood = likelihood
        self.bind_components()

    def model(self, x: Tensor, context: Tensors | None = None) -> Tensor:
        warn_of_unmoved(self)
        self.bind_components()
        features, known = self.context_features(context), self.known_values(context)
        with global_latents(self, prior=True), pyro.plate("data", len(x), dim=-1):
            prior = self.prior(context=features)
            z = pyro.sample("z", as_pyro(prior))
            density = density_of(self.likelihood, z, len(prior.event_shape), features, known)
            return pyro.sample("x", as_pyro(density), obs=x)

    def guide(self, x: Tensor, context: Tensors | None = None) -> Tensor:
        self.bind_components()
        features = self.context_features(context)
        with global_latents(self, prior=False), pyro.plate("data", len(x), dim=-1):
            density = density_of(self.posterior, x, x.dim() - 1, features)
            return draw_latent("z", self.posterior, density)

    embed = Autoencoder.context_features  # its name in version 0.1.0
