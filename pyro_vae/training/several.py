"""Several gradient steps in one call: a CUDA graph, or on the CPU a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cuda_graph import Replay
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.optimizer import Update
from pyro_vae.training.feed import Batch

if TYPE_CHECKING:  # it needs a file that the library runs without
    from pyro_vae.compilation.recording import Recording

__all__ = ["STEPS_AT_ONCE", "Several"]

STEPS_AT_ONCE = 16  # in a CUDA graph, and at most on the CPU


@dataclass
class Several:
    """Several steps in one call, where the compiled step and the update's kernel have run.

    Args:
        step: of places, keys, the weight of the latents' terms and the learning rate.
        loss_and_gradients: what the step calls.
        update: what it calls then.
        buffers: the tensors that a step changes besides the parameters and the update's state.
        batch_size: data in a batch; a smaller one is left to a single step.
    """

    step: Callable[..., Tensor]
    loss_and_gradients: LossAndGradients
    update: Update
    buffers: Sequence[Tensor]
    batch_size: int
    replay: Replay | Recording | None = None

    def of(self, batches: Sequence[Batch]) -> list[Batch]:
        """The first of these batches, as many as one call can take; none where it cannot."""
        few = [x for x in batches[:STEPS_AT_ONCE] if len(x.places) == self.batch_size]
        graph = self._graph(few[0]) if few else None
        if graph is None or not self.update.kernel_has_run or self.update.skip_norm is not None:
            return []
        if few[0].places.is_cuda:
            fits = len(few) == STEPS_AT_ONCE and graph.fits_cuda_graph and self.update.is_ready
        else:
            fits = len(few) > 1 and graph.is_compiled and self.update.compiled is not None
        return few if fits else []

    def __call__(self, batches: Sequence[Batch]) -> Tensor:
        """Take the steps; return their losses."""
        places, keys, weights, _, rates = zip(*batches)
        stacked = [
            torch.stack(places),
            torch.stack(keys),
            None if weights[0] is None else torch.stack(weights),
            torch.stack(rates),
        ]
        if self.replay is None:
            self.replay = self._made(batches[0], stacked)
        return self.replay(stacked)

    def _graph(self, batch: Batch) -> Captured | None:
        return self.loss_and_gradients.captured(*batch[:3])

    def _made(self, batch: Batch, stacked: list[Tensor | None]) -> Replay | Recording:
        graph = self._graph(batch)
        if graph is None or batch.places.is_cuda:
            return Replay(self.step, stacked)
        from pyro_vae.compilation.recording import Recording

        return Recording(self.step, stacked, graph, self.update, self.buffers, STEPS_AT_ONCE)
