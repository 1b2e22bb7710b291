"""Distributions that neither torch nor Pyro has, and the one adapter that makes any of them usable at a Pyro site."""

from pyro_vae.distributions.adapters import Mixture, TorchToPyro, as_pyro

__all__ = ["Mixture", "TorchToPyro", "as_pyro"]
