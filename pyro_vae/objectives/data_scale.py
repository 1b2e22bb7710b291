"""The scale of the data plate, which a loss per datum is without."""

from __future__ import annotations

from pyro.poutine.messenger import Messenger

from pyro_vae.contracts import Site, StochasticFunction

__all__ = ["without_data_scale"]


class _WithoutDataScale(Messenger):
    """Undo the scale that a data plate of the full data set gives the sites of a batch."""

    def _pyro_sample(self, msg: Site) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == "data" and frame.full_size not in (None, frame.size):
                assert frame.full_size is not None
                msg["scale"] = msg["scale"] / (frame.full_size / frame.size)


def without_data_scale(fn: StochasticFunction) -> StochasticFunction:
    """Count each datum of a batch once, whatever full size the model's data plate states.

    ``pyro.plate("data", 60_000, subsample=x)`` makes a loss that stands for the full data set. One
    that is divided by the number of data in the batch must be of the batch.
    """
    return _WithoutDataScale()(fn)
