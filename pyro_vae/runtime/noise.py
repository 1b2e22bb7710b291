"""Random numbers of a guide's own: found, and held fixed between runs.

A guide may draw more than its sites: `pyro_vae.Refined` fits its parameters on fresh draws, dropout
that stays on in evaluation is another case. Such a guide is another density each time it runs.
Where latents are drawn by one run and scored by the next, its own numbers must be the same in both.
"""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Self

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.contracts import Site, StochasticFunction, Tensors, sites_of
from pyro_vae.runtime.environment import seed_generators

__all__ = ["FixedNoise", "block_seed", "has_own_noise"]

SEEDS = 3  # of a guide's own random numbers, to see whether it is another under each


def block_seed(seed: int, block: int) -> int:
    """The seed of a block of data: a hash, so that blocks of neighbouring seeds share no draws.

    Example:
        >>> block_seed(0, 1) != block_seed(1, 0)
        True
    """
    digest = hashlib.sha256(f"{seed}/{block}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class _Generators:
    """The state of the random numbers of the host and of a device."""

    def __init__(self, device: torch.device):
        self.device = device

    def state(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states

    def restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)


class FixedNoise(Messenger):
    """Make a guide a function of a seed, but for the draws at its sites.

    There are two streams of random numbers. The guide's own starts from the seed at every run; that
    of its sites goes on from run to run. What runs inside `pyro.poutine.block` is the guide's own.

    Args:
        device: the program's device.
        seed: seed of the guide's own numbers.
    """

    def __init__(self, device: torch.device, seed: int):
        super().__init__()
        self.generators, self.seed = _Generators(device), seed
        self.of_sites: list[Tensor] = []
        self.own: list[Tensor] = []

    def __enter__(self) -> Self:
        self.of_sites = self.generators.state()
        seed_generators(self.generators.device, self.seed)
        return super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.generators.restore(self.of_sites)
        super().__exit__(exc_type, exc_value, traceback)

    def _pyro_sample(self, msg: Site) -> None:
        self.own = self.generators.state()
        self.generators.restore(self.of_sites)

    def _pyro_post_sample(self, msg: Site) -> None:
        self.of_sites = self.generators.state()
        self.generators.restore(self.own)


class _OwnNoise(Messenger):
    """Notice random numbers that are drawn between a guide's sites."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.generators, self.found = _Generators(device), False
        self.last: list[Tensor] = []

    def __enter__(self) -> Self:
        self.last = self.generators.state()
        return super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._look()
        super().__exit__(exc_type, exc_value, traceback)

    def _look(self) -> None:
        now = self.generators.state()
        self.found |= not all(torch.equal(a, b) for a, b in zip(self.last, now))

    def _pyro_sample(self, msg: Site) -> None:
        self._look()

    def _pyro_post_sample(self, msg: Site) -> None:
        self.last = self.generators.state()


def has_own_noise(guide: StochasticFunction, device: torch.device, *args: Tensors | None) -> bool:
    """Whether a guide draws random numbers other than those of its sites, and they change it.

    The first value of a ``pyro.param``, drawn at every call and used at the first, changes nothing.
    """
    noise = _OwnNoise(device)
    with noise:
        poutine.trace(guide).get_trace(*args)
    if not noise.found:
        return False
    generators = _Generators(device)
    start, runs = generators.state(), []
    for seed in range(SEEDS):
        generators.restore(start)
        with torch.no_grad():
            trace = poutine.trace(FixedNoise(device, seed)(guide)).get_trace(*args)
            trace.compute_log_prob()
        runs.append([each for site in sites_of(trace).values() for each in _numbers(site)])
    return any(not torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def _numbers(site: Site) -> list[Tensor]:
    """A site's value and log-density, NaN as a number."""
    values = site["value"], site["log_prob"]
    return [value.nan_to_num(torch.pi) for value in values if isinstance(value, Tensor)]
