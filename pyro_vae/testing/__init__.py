"""Contract checks for components, networks and programs: for our tests and for yours.

Laws that every component must keep are checked here. Nothing in the library may depend on it.
"""

from pyro_vae.testing.components import check_likelihood, check_posterior, check_prior
from pyro_vae.testing.density import check_density
from pyro_vae.testing.networks import check_network
from pyro_vae.testing.programs import check_program

__all__ = [
    "check_density",
    "check_likelihood",
    "check_network",
    "check_posterior",
    "check_prior",
    "check_program",
]
