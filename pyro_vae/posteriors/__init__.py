"""Approximate posteriors q(z | x), or q(z | x, context): encoders with a density.

The contract: sizes come first (``posterior(latent, network, ...)``); ``forward(x, *,
context=None)`` returns a distribution whose event shape is the latent's and whose batch shape is
x's, broadcast against the context's. Constructor arguments are kept as attributes of the same name.
A posterior may state ``infer``, which Pyro is told about its site: ``{"enumerate": "parallel"}``
for one whose states are to be summed over. Its distribution may have a ``training_term`` (N,), in
nats, that training adds to the bound and no score sees. One that starts from data has
``initialize(x, features)``, as a prior. Nothing needs to be inherited.
One that says ``takes_prior`` is also called with ``prior=``, the prior's distribution, where the
guide knows it.

`ProductOfExperts` and `MixtureOfExperts` take posteriors where the others take a network, and a
dictionary of data, so they stay out of ``__all__``, from which tests are derived.
"""

from pyro_vae.posteriors.codebook import Codebook
from pyro_vae.posteriors.codes import (
    EnumeratedBernoulli,
    EnumeratedCategorical,
    RelaxedBernoulli,
    RelaxedCategorical,
)
from pyro_vae.posteriors.experts import MixtureOfExperts as MixtureOfExperts
from pyro_vae.posteriors.experts import ProductOfExperts as ProductOfExperts
from pyro_vae.posteriors.flow import Flow
from pyro_vae.posteriors.manifolds import LogisticNormal, VonMisesFisher
from pyro_vae.posteriors.paths import DeepMarkov, GaussianMarkov
from pyro_vae.posteriors.real import Delta, DiagonalNormal, FullRankNormal, LowRankNormal, Mixture
from pyro_vae.posteriors.relative import RelativeNormal

OF_SITES = ("ProductOfExperts", "MixtureOfExperts")  # posteriors of several observed sites

__all__ = [
    "DiagonalNormal",
    "LowRankNormal",
    "FullRankNormal",
    "RelativeNormal",
    "Mixture",
    "Flow",
    "VonMisesFisher",
    "LogisticNormal",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "EnumeratedBernoulli",
    "EnumeratedCategorical",
    "Codebook",
    "GaussianMarkov",
    "DeepMarkov",
    "Delta",
]
