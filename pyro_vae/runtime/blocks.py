"""Data in blocks of fixed shape, so that a datum's numbers do not depend on how many others are.

A block's size follows from the program and K alone. Each block has random numbers of its own, and
the last one is padded. So a datum's draws follow from the seed and from its place in the data, and
its numbers are the same to the bit, however many data come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.environment import seed_generators
from pyro_vae.runtime.memory import Cost, chunks, rows_within
from pyro_vae.runtime.noise import block_seed

__all__ = ["BLOCK_BYTES", "Blocks", "Drawing", "Places", "fewest_runs", "with_noise_of"]

Places = Sequence[int] | Tensor  # of data
Drawing = Callable[[Conditioned], Callable[[int], object]]  # from a few data, and then from K

# Bytes of activations in a block of draws. They are constants, not a user's budget: what is drawn
# follows from program, K and seed alone.
BLOCK_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}

# Runs of a guide that draws random numbers of its own: its draws of one run are not independent, so
# the spread is that between runs.
NOISES = 20


def fewest_runs(given: Conditioned) -> int:
    """In how many runs draws are to be taken, so that their spread is known."""
    return 1 if given.noise is None else NOISES


@dataclass(frozen=True)
class Blocks:
    """How the draws for a data set are divided: in blocks that follow from program and K alone.

    A block has always the same shape, the last one padded by copies of its last datum, and random
    numbers of its own. So a datum's draws, and its score to the bit, depend on the seed and on its
    place in the data set, not on how many others are scored with it.

    Args:
        size: data in a block.
        draws: numbers of draws that are taken at once; they add up to K.
    """

    size: int
    draws: tuple[int, ...]

    @classmethod
    def of(
        cls,
        given: Conditioned,
        drawing: Drawing,
        num_samples: int = 1,
        fewest_runs: int = 1,
    ) -> Blocks:
        """The blocks for K draws, which are taken in ``fewest_runs`` runs or more."""
        # Made before the measurement: a guide is refitted by steps whose memory is freed each time.
        runs = {count: drawing(given[[0] * count]) for count in (1, 2)}
        cost = Cost.of(lambda num_data, draws: runs[num_data](draws))
        budget = _budget_of(given.device)
        rows = cost.draws_at_once(budget, num_samples)
        size = cost.data_at_once(budget, rows) if rows == num_samples else 1
        if fewest_runs > 1:
            rows = min(rows, max(1, num_samples // fewest_runs))
        return cls(size, tuple(few.stop - few.start for few in chunks(num_samples, rows)))

    @classmethod
    def of_rows(cls, device: torch.device, run: Callable[[int], object]) -> Blocks:
        """The blocks for a single draw of each datum, by what ``run(count)`` allocates."""
        return cls(rows_within(_budget_of(device), run), (1,))

    def over(self, given: Conditioned, seed: int) -> Iterator[tuple[Conditioned, slice]]:
        """Each block of the data, and which of the data are in it; those beyond are padding."""
        for own, few in self.seeded(given.device, len(given), seed):
            yield with_noise_of(given[self.rows(few)], own), few

    def seeded(self, device: torch.device, num: int, seed: int) -> Iterator[tuple[int, slice]]:
        """Each block's own seed, by which the device's random numbers are seeded, and its data."""
        for block, few in enumerate(chunks(num, self.size)):
            own = block_seed(seed, block)
            seed_generators(device, own)
            yield own, few

    def rows(self, few: slice) -> Tensor:
        """The places of a block's data, the last of them repeated until it is full."""
        return torch.arange(few.start, few.start + self.size).clamp_max(few.stop - 1)


def with_noise_of(given: Conditioned, seed: int) -> Conditioned:
    """The same, the random numbers of the guide's own, if it draws any, by a seed."""
    return given if given.noise is None else replace(given, noise=block_seed(seed, 0))


def _budget_of(device: torch.device) -> int:
    return BLOCK_BYTES.get(device.type, BLOCK_BYTES["cuda"])
