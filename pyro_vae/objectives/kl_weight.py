"""KL annealing, for any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["weigh_latents"]


class WeighLatents(Messenger):
    """Scales the log-probability of every latent site, and leaves observations and factors alone."""

    def __init__(self, weight: float | Tensor):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


def weigh_latents(fn: Callable, weight: float | Tensor) -> Callable:
    """A model or guide whose latents count ``weight`` times: KL annealing, applied to both, for any objective.

    Both must be scaled: Pyro's mean-field ELBO reads the guide's scale alone, and an unscaled prior
    under a scaled guide is no weight on the KL.
    """
    return WeighLatents(weight)(fn)
