"""Distributions that neither torch nor Pyro has, and adapters for Pyro's sites.

Densities, draws and supports live here, in files named as those of the likelihoods that use them.
Nothing here has trainable parameters or knows a program.
"""

from pyro_vae.distributions.adapters import Mixture, Reshaped, TorchToPyro, as_pyro
from pyro_vae.distributions.censored import CensoredEntries
from pyro_vae.distributions.codebook import AutoregressiveCodes, CodeGrid, nearest_code
from pyro_vae.distributions.codes import JointlyEnumerated, RelaxedBernoulli, RelaxedCategorical
from pyro_vae.distributions.counts import (
    MultinomialGivenTotal,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.distributions.entries import (
    Columns,
    ObservedEntries,
    are_names,
    entries_of,
    is_interval,
)
from pyro_vae.distributions.events import ObservedEvents, is_missing
from pyro_vae.distributions.flows import AlongVelocity, PushForward
from pyro_vae.distributions.levels import (
    Binomial,
    BinomialOfTrials,
    CategoricalCode,
    DiscretizedLogistic,
    OrderedCategory,
)
from pyro_vae.distributions.mixtures import MixtureOfNormals
from pyro_vae.distributions.one_way import image_of, is_one_way, remembered, source_of
from pyro_vae.distributions.paths import GaussianMarkovPath, MarkovPath, ParallelPaths
from pyro_vae.distributions.pixels import AutoregressiveBits, CoupledLogistics
from pyro_vae.distributions.positive import Gamma, Weibull
from pyro_vae.distributions.real import FullRankNormal, LowRankNormal, NormalWithNoise, StudentT
from pyro_vae.distributions.sequences import AutoregressiveSequences
from pyro_vae.distributions.simplex import LogisticNormal
from pyro_vae.distributions.sphere import SphericalUniform, VonMisesFisher, unit_vector
from pyro_vae.distributions.supports import (
    Flat,
    NoDraws,
    Unstated,
    given_datum,
    has_mean,
    innermost_support,
    is_point_mass,
    is_same_support,
    is_thin,
    log_prob_inside,
    measure_of,
    points_of,
    representative_of,
    stated_support,
    words_of,
)
from pyro_vae.distributions.tails import log_between, log_tails, tails_inside
from pyro_vae.distributions.truncated import TruncatedEntries
from pyro_vae.distributions.unit import Beta, ContinuousBernoulli
from pyro_vae.distributions.zero_inflated import ZeroInflatedEntries

__all__ = [
    "are_names",
    "AlongVelocity",
    "AutoregressiveBits",
    "CoupledLogistics",
    "AutoregressiveCodes",
    "AutoregressiveSequences",
    "Beta",
    "Binomial",
    "BinomialOfTrials",
    "CategoricalCode",
    "CensoredEntries",
    "CodeGrid",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Flat",
    "FullRankNormal",
    "Gamma",
    "GaussianMarkovPath",
    "JointlyEnumerated",
    "LogisticNormal",
    "LowRankNormal",
    "MarkovPath",
    "Mixture",
    "MixtureOfNormals",
    "MultinomialGivenTotal",
    "NegativeBinomial",
    "NoDraws",
    "NormalWithNoise",
    "ObservedEntries",
    "ObservedEvents",
    "OrderedCategory",
    "ParallelPaths",
    "Poisson",
    "PushForward",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "Reshaped",
    "SphericalUniform",
    "StudentT",
    "TorchToPyro",
    "TruncatedEntries",
    "Unstated",
    "VonMisesFisher",
    "Weibull",
    "ZeroInflatedEntries",
    "ZeroInflatedNegativeBinomial",
    "as_pyro",
    "entries_of",
    "given_datum",
    "has_mean",
    "image_of",
    "innermost_support",
    "is_missing",
    "is_interval",
    "is_one_way",
    "is_point_mass",
    "is_same_support",
    "is_thin",
    "log_prob_inside",
    "log_between",
    "log_tails",
    "measure_of",
    "nearest_code",
    "points_of",
    "remembered",
    "representative_of",
    "source_of",
    "stated_support",
    "tails_inside",
    "unit_vector",
    "words_of",
]
