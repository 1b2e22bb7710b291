"""A moving average of the weights, by which a program is validated, saved and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pyro_vae.contracts import ProgramLike, as_module
from pyro_vae.datasets.binarize import batch_keys
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.traces import importance_traces

__all__ = ["MovingAverage", "Statistics"]

LOOKED_AT = 2**14  # data that statistics are estimated from

PREFIX = "average."  # of the names of its tensors in a state


@dataclass(frozen=True)
class Statistics:
    """The running statistics of batch and instance normalisation, estimated from training data.

    They belong to weights. Those that training has gathered are of its last weights, and an average
    of weights needs its own. The other layers and all random numbers are those of an evaluation.

    Args:
        program: the program.
        data: the data, on its device.
        batch_size: data in a batch, each of which counts alike; a smaller one is left out.
        seed: of the latents.

    Source: Izmailov et al. (2018), Averaging weights leads to wider optima and better
    generalization.
    """

    program: ProgramLike
    data: Dataset
    batch_size: int
    seed: int

    def layers(self) -> list[_NormBase]:
        """The layers that keep such statistics."""
        layers = [x for x in as_module(self.program).modules() if isinstance(x, _NormBase)]
        return [layer for layer in layers if layer.running_mean is not None]

    def tensors(self) -> list[Tensor]:
        """The statistics, not copied."""
        return [x for layer in self.layers() for x in layer.buffers(recurse=False)]

    def estimate(self) -> None:
        """Let the statistics be those of the weights that the program has now."""
        layers, number, device = self.layers(), len(self.data), self.data.device
        if not layers:
            return
        rows = torch.arange(0, number, -(-number // LOOKED_AT), device=device)
        size = min(self.batch_size, len(rows))
        whole = rows[: len(rows) - len(rows) % size].split(size)
        momenta = [layer.momentum for layer in layers]
        with evaluating(self.program, self.seed):
            for layer in layers:
                layer.reset_running_stats()
                layer.train().momentum = None  # the mean over batches
            try:
                for few, key in zip(whole, batch_keys(len(whole), device)):
                    importance_traces(self.program, *self.data.batch(few, key))
            finally:
                for layer, momentum in zip(layers, momenta):
                    layer.momentum = momentum


class MovingAverage:
    r"""The exponential moving average of parameters over the steps of a training.

    .. math:: \bar\theta_t = \frac{1 - \beta}{1 - \beta^t} \sum_{s=1}^t \beta^{t-s} \theta_s

    The denominator makes it an average of the steps taken, as in Adam: the first weights have no
    part in it. It is kept as the average of a parameter that is always 1.

    Args:
        parameters: what is averaged, in place.
        decay: :math:`\beta`, between 0 and 1; some :math:`1 / (1 - \beta)` steps count.
        statistics: the running statistics that belong to the parameters, estimated for the average.
            Other buffers, as a codebook and its counts, stay as training has left them.

    Source: Polyak and Juditsky (1992); Kingma and Ba (2015), section 7.2.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor(1.0))
        >>> average = MovingAverage([weight], decay=0.5)
        >>> for value in (1.0, 4.0):
        ...     _ = weight.data.fill_(value)
        ...     average.update()
        >>> with average.in_place():
        ...     print(weight.item())  # (1 * 1 + 2 * 4) / 3
        3.0
        >>> weight.item()
        4.0
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        decay: float,
        statistics: Statistics | None = None,
    ):
        self.statistics = statistics
        self.parameters, self.share = [x.detach() for x in parameters], 1 - decay
        self.sums = [torch.zeros_like(x) for x in self.parameters]
        self.one = torch.ones((), dtype=torch.float64, device=self.parameters[0].device)
        self.total = torch.zeros_like(self.one)

    def update(self) -> None:
        """Take in the parameters after a step."""
        torch._foreach_lerp_(self.sums, self.parameters, self.share)
        self.total.lerp_(self.one, self.share)

    def values(self) -> list[Tensor]:
        """The averages; before the first step, the parameters themselves."""
        if self.total == 0:
            return [x.clone() for x in self.parameters]
        return [(x / self.total).to(x.dtype) for x in self.sums]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the parameters are the averages."""
        changed = [*self.parameters, *(self.statistics.tensors() if self.statistics else ())]
        before = [x.clone() for x in changed]
        try:
            self.put()
            yield
        finally:
            for x, value in zip(changed, before):
                x.copy_(value)

    def put(self) -> None:
        """Give the parameters the averages, for good."""
        torch._foreach_copy_(self.parameters, self.values())
        if self.statistics:
            self.statistics.estimate()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, not copied."""
        return {f"{PREFIX}{i}": x for i, x in enumerate((*self.sums, self.total))}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; other names are ignored.

        Raises:
            KeyError: if one is missing.
        """
        for name, x in self.tensors().items():
            x.copy_(tensors[name])
