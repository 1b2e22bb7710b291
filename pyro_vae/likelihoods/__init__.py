"""Likelihoods p(x | z), or p(x | z, context): a decoder with a density.

The contract: sizes come first (``likelihood(event_shape, network, ...)``); ``forward(z, *,
context=None)`` returns a distribution whose event shape is x's and whose batch shape is z's,
broadcast against the context's; the module states ``event_shape``, which is what generation needs.
Constructor arguments are kept as attributes of the same name. Nothing needs to be inherited.

A likelihood may state ``known``, the quantities of a datum that it takes by keyword, such as
``likelihood(z, size_factor=s)``: entries of the context dictionary of these names, which go to it
and not to the program's context module.

`Missing` makes any of them with independent entries one of the observed entries alone. It takes a
likelihood where the others take sizes, so it stays out of ``__all__``, from which choices and tests
are derived.
"""

from pyro_vae.likelihoods.censored import Censored
from pyro_vae.likelihoods.counts import (
    Multinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.likelihoods.latent_size import LatentSize
from pyro_vae.likelihoods.levels import (
    Binomial,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Ordinal,
)
from pyro_vae.likelihoods.missing import Missing as Missing
from pyro_vae.likelihoods.mixed import Mixed
from pyro_vae.likelihoods.pixels import AutoregressiveBernoulli, CoupledLogisticMixture
from pyro_vae.likelihoods.positive import Exponential, Gamma, LogNormal, Weibull
from pyro_vae.likelihoods.real import Laplace, Normal, NormalWithNoise, StudentT
from pyro_vae.likelihoods.sequences import AutoregressiveCategorical
from pyro_vae.likelihoods.truncated import Truncated
from pyro_vae.likelihoods.unit import Bernoulli, Beta, ContinuousBernoulli
from pyro_vae.likelihoods.zero_inflated import ZeroInflated

__all__ = [
    "Bernoulli",
    "AutoregressiveBernoulli",
    "Normal",
    "ContinuousBernoulli",
    "Laplace",
    "StudentT",
    "NormalWithNoise",
    "Exponential",
    "Gamma",
    "LogNormal",
    "Weibull",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "CoupledLogisticMixture",
    "Categorical",
    "Ordinal",
    "Binomial",
    "Beta",
    "Poisson",
    "NegativeBinomial",
    "ZeroInflatedNegativeBinomial",
    "Multinomial",
    "LatentSize",
    "AutoregressiveCategorical",
    "Mixed",
    "Censored",
    "Truncated",
    "ZeroInflated",
]
