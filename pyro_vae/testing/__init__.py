"""Contract checks for components, networks and programs, for tests of this library and of its users.

Laws that a component must keep are checked here. Nothing in the library depends on this package.
"""

from pyro_vae.testing.components import (
    check_likelihood,
    check_network,
    check_posterior,
    check_prior,
    check_program,
)
from pyro_vae.testing.density import check_density

__all__ = [
    "check_density",
    "check_likelihood",
    "check_network",
    "check_posterior",
    "check_prior",
    "check_program",
]
