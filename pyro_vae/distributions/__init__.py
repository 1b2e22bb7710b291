"""Distributions that neither torch nor Pyro has, and the one adapter that makes any of them usable at a Pyro site."""

from pyro_vae.distributions.adapters import Mixture, Reshaped, TorchToPyro, as_pyro
from pyro_vae.distributions.codes import JointlyEnumerated, RelaxedBernoulli
from pyro_vae.distributions.flows import PushForward
from pyro_vae.distributions.mixtures import MixtureOfNormals
from pyro_vae.distributions.simplex import LogisticNormal
from pyro_vae.distributions.sphere import SphericalUniform, VonMisesFisher
from pyro_vae.distributions.supports import is_point_mass, is_thin, measure_of, points_of

__all__ = ["JointlyEnumerated", "LogisticNormal", "Mixture", "MixtureOfNormals", "PushForward", "RelaxedBernoulli",
           "Reshaped", "SphericalUniform", "TorchToPyro", "VonMisesFisher", "as_pyro", "is_point_mass", "is_thin",
           "measure_of", "points_of"]
