"""Where the batches of an epoch come from: data in memory, or a file that is read ahead.

A thread reads ahead where a processor is free for it, or where reading takes work, as unpacking
does. Beside a step that uses all processors, it would hold up the step's threads, for several times
as long as it works. There the system reads ahead, and rows are copied between two steps.

A run on data in memory shuffles them all. One on disk reads chunks of rows in random order and
shuffles sixteen of them together, so that a disk reads forward. Both orders are permutations that
follow from the seed and the epoch alone, and so a resumed run has the same.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.on_disk import OnDisk
from pyro_vae.ranks.group import Group
from pyro_vae.validation import map_tensors, tensors_of

__all__ = [
    "Batch",
    "FromDisk",
    "FromMemory",
    "chunk_rows",
    "feed_of",
    "order_on_disk",
    "read_ahead",
]

CHUNK_BYTES, MIXED = 2**22, 16  # of rows that lie together, and how many are shuffled together
LOAD_BYTES, AHEAD = 2**26, 3  # of batches handed over together, and how many loads are read ahead

Item = TypeVar("Item")


class Batch(NamedTuple):
    """The inputs of a step.

    Args:
        places: of the batch's data in the data set.
        keys: the keys of their binarisation.
        kl_weight: the weight of the latents' terms, ``None`` for one of 1.
        rate_factor: the factor on the learning rate.
        rate_on_device: the learning rate itself, on the device.
    """

    places: Tensor
    keys: Tensor
    kl_weight: Tensor | None
    rate_factor: float
    rate_on_device: Tensor


class Load(NamedTuple):
    """The data of a few batches one after the other, where they lie among rows that were read.

    Args:
        read: the rows, as the disk has them.
        places: of the data among these rows.
    """

    read: Dataset
    places: Tensor


class Feed(Protocol):
    """Where batches come from.

    Args:
        data: what the places of a batch are places in: a tensor in memory that a graph can hold.
    """

    data: Dataset

    def epoch(self, epoch: int) -> Generator[list[Tensor], None, None]:
        """The places of an epoch's batches, some batches at a time."""
        ...


def feed_of(
    data: Dataset, batch_size: int, batches_at_once: int, seed: int, group: Group | None
) -> Feed:
    """The feed that suits where the data are."""
    if not data.is_on_disk:
        return FromMemory(data, batch_size)
    return FromDisk(data, batch_size, batches_at_once, seed, group)


@dataclass
class FromMemory:
    """Batches of data in memory, shuffled by the device's own random numbers."""

    data: Dataset
    batch_size: int

    def epoch(self, epoch: int) -> Generator[list[Tensor], None, None]:
        order = torch.randperm(len(self.data), device=self.data.device)  # drawn now
        return (batches for batches in [list(order.split(self.batch_size))])


class FromDisk:
    """Batches of data on disk: the next are read while these are trained on.

    ``data`` is a window, which holds a few batches at a time in the same memory. A graph that looks
    up rows in it is captured once.

    Args:
        whole: the data, on the device to train on.
        batch_size: data in a batch.
        batches_at_once: how many batches the window may hold.
        seed: of the order.
        group: the processes that share each batch: each reads its own rows.
    """

    def __init__(
        self,
        whole: Dataset,
        batch_size: int,
        batches_at_once: int,
        seed: int,
        group: Group | None,
    ):
        self.batch_size, self.seed, self.group = batch_size, seed, group
        self.whole, self.number = whole.to("cpu"), len(whole)
        self.is_pinned = whole.device.type == "cuda"
        self.stored = [
            stored
            for part in (self.whole, *self.whole.parts.values())
            for stored in tensors_of(part._stored).values()
            if isinstance(stored, OnDisk)
        ]
        threads = torch.get_num_threads() * (group.size if group else 1)
        takes_work = not all(stored.source.is_plain for stored in self.stored)
        self.has_thread = self.is_pinned or takes_work or processors() > threads
        most = LOAD_BYTES // (batch_size * row_bytes(whole))
        batches = max(1, min(batches_at_once, most, -(-self.number // batch_size)))
        self.size = batches * batch_size
        self.data = whole.taken(torch.arange(self.size) % self.number)

    def epoch(self, epoch: int) -> Generator[list[Tensor], None, None]:
        for stored in self.stored:
            stored.source.check_same()
        loads = self._loads(epoch)
        with closing(read_ahead(loads, AHEAD) if self.has_thread else loads) as loads:
            for load in loads:
                number = len(load.places)
                refill(self.data, load)
                del load  # before the next is waited for
                places = torch.arange(number, device=self.data.device)
                yield list(places.split(self.batch_size))

    def _loads(self, epoch: int) -> Generator[Load, None, None]:
        """The rows of a few batches after the other, in the order of the epoch."""
        rest, done = np.empty(0, dtype=np.int64), 0
        groups = order_on_disk(self.number, chunk_rows(self.whole), self.seed, epoch)
        for shuffled, following in pairwise(chain(groups, [rest])):
            for stored in self.stored:
                stored.prefetch(torch.from_numpy(following))
            rest = np.concatenate([rest, shuffled])
            is_last = done + len(rest) == self.number
            now = len(rest) if is_last else len(rest) - len(rest) % self.size
            if now:
                yield from self._of(rest[:now], self._own(now))
            rest, done = rest[now:], done + now

    def _own(self, number: int) -> np.ndarray:
        """Which of some rows, whole batches of the epoch, this process computes with."""
        if self.group is None:
            return np.ones(number, dtype=bool)
        own = np.zeros(number, dtype=bool)
        for start in range(0, number, self.batch_size):
            rows = self.group.rows(min(self.batch_size, number - start))
            own[start + rows.start : start + rows.stop] = True
        return own

    def _of(self, rows: np.ndarray, own: np.ndarray) -> Iterator[Load]:
        wanted = np.flatnonzero(own) if own.any() else np.zeros(1, dtype=np.int64)
        rising = wanted[rows[wanted].argsort()]  # as a disk reads them
        read = self.whole.taken(torch.from_numpy(rows[rising]))
        place = np.zeros(len(rows), dtype=np.int64)  # rows of other processes: any will do
        place[rising] = np.arange(len(rising))
        for few in torch.from_numpy(place).split(self.size):
            # A GPU's copies need them in order. A CPU looks them up when it needs them: by all of
            # its threads, which would be in the way of a step if this thread had its own.
            pin = self.is_pinned
            yield Load(pinned(read.taken(few)), torch.arange(len(few))) if pin else Load(read, few)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def row_bytes(data: Dataset) -> int:
    """The size of one datum as it is kept."""
    shapes = data.taken(torch.zeros(1, dtype=torch.int64))
    parts = [shapes, *shapes.parts.values()]
    return max(1, sum(v.nbytes for part in parts for v in tensors_of(part._stored).values()))


def chunk_rows(data: Dataset) -> int:
    """How many data lie in a chunk."""
    return max(1, min(CHUNK_BYTES // row_bytes(data), 2**16))


def order_on_disk(number: int, chunk: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The places 0 ... number - 1 in a random order, a few chunks of them at a time.

    Chunks come in random order, and the rows of `MIXED` of them are shuffled together.

    Example:
        >>> sorted(np.concatenate([*order_on_disk(10, 3, seed=0, epoch=1)]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    starts = chunk * random.permutation(-(-number // chunk))
    for few in np.split(starts, range(MIXED, len(starts), MIXED)):
        rows = [np.arange(start, min(start + chunk, number)) for start in few]
        yield random.permutation(np.concatenate(rows))


def refill(window: Dataset, load: Load) -> None:
    """Write data over the first of those in a window."""
    number, (read, places) = len(load.places), load
    pairs = [(window._stored, read._stored), (window.context, read.context)]
    for own, other in pairs:
        for name, value in tensors_of(own).items():
            rows = tensors_of(other)[name]
            if value.device == rows.device:
                torch.index_select(rows, 0, places, out=value[:number])
            else:
                value[:number].copy_(rows, non_blocking=True)
    for name, part in window.parts.items():
        refill(part, Load(read.parts[name], places))


def pinned(data: Dataset) -> Dataset:
    """Data in memory from which a GPU copies while the host goes on."""
    stored = map_tensors(lambda value: value.pin_memory(), data._stored)
    context = map_tensors(lambda value: value.pin_memory(), data.context)
    return data._like(stored, context, {name: pinned(part) for name, part in data.parts.items()})


def read_ahead(items: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """The same items, made by a thread that is at most so many ahead.

    What it raises is raised here. When the caller leaves, the thread ends.

    Example:
        >>> list(read_ahead(range(3), ahead=2))
        [0, 1, 2]
    """
    ready: queue.Queue[Item | _End] = queue.Queue(ahead)
    left = threading.Event()

    def put(item: Item | _End) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:
            put(_End(error))

    thread = threading.Thread(target=work, name="reads data", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        thread.join()


@dataclass
class _End:
    error: BaseException | None = None
