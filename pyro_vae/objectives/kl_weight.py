"""KL annealing, for any objective."""

from __future__ import annotations

from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.contracts import Site, StochasticFunction
from pyro_vae.objectives.base import is_same

__all__ = ["weigh_latents"]


class WeighLatents(Messenger):
    """Scale the log-probability of every latent, but not of observations and factors."""

    def __init__(self, weight: float | Tensor):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"]:
            # One object for all latents where nothing else scales them, known to be equal so.
            msg["scale"] = self.weight if is_same(msg["scale"], 1) else msg["scale"] * self.weight


def weigh_latents(fn: StochasticFunction, weight: float | Tensor) -> StochasticFunction:
    """Weigh the latents of a model or guide: KL annealing, for any objective.

    Apply it to both: Pyro's mean-field ELBO reads the guide's scale alone, and an unscaled prior
    under a scaled guide is no weight on the KL.
    """
    return WeighLatents(weight)(fn)
