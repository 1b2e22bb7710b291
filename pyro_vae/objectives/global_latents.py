r"""Global latents in the loss of a batch: their weight, and how several draws are made.

A bound on the log-evidence of all N data has a part of each datum and one of the global latents,

.. math:: \mathcal{L} = \sum_{n=1}^N \ell_n(\theta) + \log p(\theta) - \log q(\theta), \quad
          \theta \sim q.

Per datum, a batch of B estimates it by the mean of its :math:`\ell_n` and 1 / N of the rest: the
weight B / N on global sites, in a sum over the batch that is divided by B. So losses of batches of
any sizes, weighted by these, add up to that of all data.
"""

from __future__ import annotations

from collections.abc import Collection

from pyro.poutine.messenger import Messenger

from pyro_vae.contracts import Site, StochasticFunction

__all__ = ["weigh_globals"]


class WeighSites(Messenger):
    """Scale the log-probability of some sites, by name."""

    def __init__(self, names: Collection[str], weight: float):
        super().__init__()
        self.names, self.weight = names, weight

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self.names:
            msg["scale"] = msg["scale"] * self.weight


def weigh_globals(
    fn: StochasticFunction, names: Collection[str], weight: float
) -> StochasticFunction:
    """Weigh the sites outside the data plate of a model or guide, for any objective.

    Args:
        fn: the model or the guide.
        names: of those sites, `Plates.globals`.
        weight: data in the batch over data in all.
    """
    return WeighSites(names, weight)(fn) if names else fn
