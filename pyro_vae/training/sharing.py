"""The loss and gradients of a batch that several processes share.

Each process computes those of its rows; one reduction of one flat buffer adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import Work
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.writes import without_writes
from pyro_vae.ranks.batch import (
    CannotShare,
    DrawnShapes,
    StatisticsAsked,
    WholeBatchNoise,
    WholeBatchStatistics,
)
from pyro_vae.ranks.group import Group
from pyro_vae.runtime.environment import isolated_random
from pyro_vae.validation import InvalidInput

__all__ = ["SharedLossAndGradients"]

FirstBatch = Callable[[int], tuple[Tensor, Tensor, Tensor | None]]
MOST_APART = 1e-3  # of a loss and the sum of its parts, relative, as single precision may have it


class SharedLossAndGradients:
    """A loss and its gradients, of which each process of a group computes the rows that it has.

    It is called as `LossAndGradients` is, with the whole batch.

    Args:
        group: the processes.
        loss: of (index, keys, weight, rows): the terms of some rows (n,) of a batch, divided by
            the size of the whole batch.
        program: the module that is trained.
        parameters: what to differentiate by.
        compiled: whether to compile, for a number of data in a batch.
    """

    def __init__(
        self,
        group: Group,
        loss: Callable[..., Tensor],
        program: nn.Module,
        parameters: list[nn.Parameter],
        compiled: Callable[[int], bool],
    ):
        self.group, self.loss, self.program = group, loss, program
        self.dims: list[int | None] = []
        self.shares: dict[int, tuple[Tensor, Tensor]] = {}  # by the size of a batch
        self.needs_others = False  # statistics of the whole batch, which no graph can hold
        self.of_rows = LossAndGradients(
            self._loss_of_rows,
            parameters,
            lambda n: compiled(n) and not self.needs_others,
            program,
        )

    def __call__(
        self, index: Tensor, keys: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        own_loss, own_gradients = self.of_rows(*self._shared(index, keys, weight))
        loss, *gradients = self.group.all_reduce([own_loss, *own_gradients])
        return loss, tuple(gradients)

    def captured(self, index: Tensor, keys: Tensor, weight: Tensor | None) -> Captured | None:
        """The graph for a batch of this size, ``None`` if it runs eagerly."""
        return self.of_rows.captured(*self._shared(index, keys, weight))

    def run_eagerly(self) -> None:
        """Do without graphs from here on."""
        self.of_rows.run_eagerly()

    def work(self, index: Tensor, keys: Tensor, weight: Tensor | None) -> Work:
        """Estimate the work of the largest share of a batch."""
        return self.of_rows.work(*self._shared(index, keys, weight))

    def _shared(
        self, index: Tensor, keys: Tensor, weight: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The inputs, with the rows (n,) of this process and whether they count.

        A process without rows computes one that counts 0: so it takes part in all that is summed.
        """
        number = len(index)
        if number not in self.shares:
            own = self.group.rows(number)
            rows = torch.tensor([*own] or [0], device=index.device)
            self.shares[number] = rows, torch.tensor(float(len(own) > 0), device=index.device)
        return index, keys, weight, *self.shares[number]

    # before the first step

    def look(
        self, first_batch: FirstBatch, device: torch.device, seed: int, mixes: bool = False
    ) -> None:
        """Find the data's dimension in each draw, and check that the shares of a batch add up.

        All processes start from the first one's parameters. An objective that mixes the data of a
        batch may add up at the start, and not later.

        Raises:
            InvalidInput: if the rows of a batch cannot be computed apart.
        """
        module = self.program
        self.group.broadcast([*module.parameters(), *module.buffers()])
        self.program.train()
        asked, drawn = StatisticsAsked(), (DrawnShapes(), DrawnShapes())
        try:
            if mixes:
                raise CannotShare("its objective mixes the data of a batch")
            with without_writes(module), validation_enabled(False):
                for size, shapes in zip((2, 3), drawn):
                    with isolated_random(device, seed):
                        batch = first_batch(size)  # its keys are no draw of the program
                        with asked, shapes:
                            self.loss(*batch)
                self.dims, self.needs_others = drawn[0].dims(drawn[1]), asked.found
                with isolated_random(device, seed), _with_kept_statistics(module):
                    self._check_shares(first_batch, device, seed)
        except CannotShare as error:
            raise InvalidInput(
                "program",
                got=f"one whose batch cannot be divided among processes: {error}",
                expected="terms of single data, and noise that does not depend on them",
                fix="train it in one process, or choose another component or objective",
            ) from None

    def _check_shares(self, first_batch: FirstBatch, device: torch.device, seed: int) -> None:
        batch = first_batch(4)

        def loss(rows: list[int]) -> Tensor:
            with isolated_random(device, seed):
                return self._of_rows(*batch, torch.tensor(rows, device=device)).detach()

        whole, halves = loss([0, 1, 2, 3]), loss([0, 1]) + loss([2, 3])
        if not torch.allclose(whole, halves, rtol=MOST_APART, equal_nan=True):
            raise CannotShare("its loss of four data is not the sum over two and two")

    # a step

    def _loss_of_rows(
        self, index: Tensor, keys: Tensor, weight: Tensor | None, rows: Tensor, share: Tensor
    ) -> Tensor:
        statistics = WholeBatchStatistics(self.group, share) if self.needs_others else nullcontext()
        with statistics:
            return self._of_rows(index, keys, weight, rows) * share

    def _of_rows(self, index: Tensor, keys: Tensor, weight: Tensor | None, rows: Tensor) -> Tensor:
        with WholeBatchNoise(self.dims, len(index), rows):
            return self.loss(index, keys, weight, rows)


@contextmanager
def _with_kept_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch normalisation use what it keeps, as in evaluation: it may mix the rows."""
    mixing = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for each in mixing:
        each.eval()
    try:
        yield
    finally:
        for each in mixing:
            each.train()
