"""Priors p(z), or p(z | context).

The contract: sizes come first (``prior(latent, ...)``); ``forward(*, context=None)`` returns a
distribution whose event shape is the latent's and whose batch shape is empty, or the context's.
Constructor arguments are kept as attributes of the same name, which is how a program is saved
without pickles. A prior that shares another part of the program has ``bind(program)``, called again
whenever a part is replaced; one that starts from data has ``initialize(x, features)``, which
training calls once. One that may stand below the top of a hierarchy, too, is given what lies above
by position: ``forward(given=None, *, context=None)``. Nothing needs to be inherited.
"""

from pyro_vae.priors.codebook import PixelCNN, UniformCodes
from pyro_vae.priors.codes import Bernoulli, Categorical, RelaxedBernoulli, RelaxedCategorical
from pyro_vae.priors.continuous import ContinuousFlow
from pyro_vae.priors.flow import Flow
from pyro_vae.priors.hyperpriors import BayesianMixture
from pyro_vae.priors.manifolds import Dirichlet, LogisticNormal, UniformOnSphere
from pyro_vae.priors.paths import DeepMarkov, GaussianMarkov, GaussianProcess
from pyro_vae.priors.real import (
    ConditionalNormal,
    Flat,
    GaussianMixture,
    Laplace,
    StandardNormal,
    StudentT,
)
from pyro_vae.priors.vamp import VampPrior

__all__ = [
    "StandardNormal",
    "Laplace",
    "StudentT",
    "GaussianMixture",
    "BayesianMixture",
    "VampPrior",
    "Flow",
    "ContinuousFlow",
    "ConditionalNormal",
    "UniformOnSphere",
    "Dirichlet",
    "LogisticNormal",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "Bernoulli",
    "Categorical",
    "UniformCodes",
    "PixelCNN",
    "GaussianMarkov",
    "DeepMarkov",
    "GaussianProcess",
    "Flat",
]
