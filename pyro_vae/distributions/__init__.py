"""Distributions that neither torch nor Pyro has, and the one adapter that makes any of them usable at a Pyro site."""

from pyro_vae.distributions.adapters import Mixture, TorchToPyro, as_pyro
from pyro_vae.distributions.columns import Columns, ObservedEntries, entries_of
from pyro_vae.distributions.logistic import DiscretizedLogistic
from pyro_vae.distributions.variants import Beta, CategoricalCode, MultinomialGivenTotal, ZeroInflatedNegativeBinomial

__all__ = ["Beta", "CategoricalCode", "Columns", "DiscretizedLogistic", "Mixture", "MultinomialGivenTotal", "ObservedEntries",
           "TorchToPyro", "ZeroInflatedNegativeBinomial", "as_pyro", "entries_of"]
