"""Markov chains that take turns, so that the points of all are evaluated as one batch.

Pyro runs one chain at a time. On a small model a step costs what calling its operations costs,
whether for one point or for four. Each chain has a thread here. One of them runs at a time, in a
fixed order, up to the point that it asks about. So the random numbers are the same in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Ask", "in_turns"]

Ask = Callable[[Tensor], tuple[Tensor, Tensor]]  # from a point (D,) to its value and its gradient
Batch = Callable[[Tensor], tuple[Tensor, Tensor]]  # from points (K, D) to values (K,), gradients


def in_turns(
    chains: Sequence[Callable[[Ask], None]], evaluate: Batch, starts: Sequence[Tensor]
) -> None:
    """Run chains together; what one of them raises ends all of them, and is raised.

    Args:
        chains: each is called with the function that it gets values and gradients from.
        evaluate: the values and gradients of a batch, always of one point for each chain.
        starts: a point (D,) of each chain, which stands in the batch until it asks about another.

    Example:
        >>> found = []
        >>> square = lambda u: (u.square().sum(-1), 2 * u)
        >>> chain = lambda ask: found.append(ask(torch.tensor([3.0]))[1])
        >>> in_turns([chain, chain], square, [torch.zeros(1)] * 2)
        >>> found
        [tensor([6.]), tensor([6.])]
    """
    turns = [_Turn(chain, start) for chain, start in zip(chains, starts, strict=True)]
    try:
        while running := [turn for turn in turns if not turn.has_ended]:
            for turn in running:
                turn.go_on()
            values, gradients = evaluate(torch.stack([turn.point for turn in turns]))
            for turn, *answer in zip(turns, values, gradients):
                turn.answer = answer[0], answer[1]
    finally:
        for turn in turns:
            turn.stop()


class _Stopped(BaseException):
    """Ends a chain whose answers do not come any more."""


class _Turn:
    """A chain in a thread of its own, which runs only while `go_on` waits for it."""

    def __init__(self, chain: Callable[[Ask], None], start: Tensor):
        self.chain, self.point, self.answer = chain, start, (start, start)
        self.has_ended, self.is_stopped = False, False
        self.failure: BaseException | None = None
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let the chain run until it asks about a point, or ends."""
        self._mine.release()
        self._theirs.acquire()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End the chain where it is."""
        self.is_stopped = True
        self._mine.release()
        self._thread.join()

    def _ask(self, point: Tensor) -> tuple[Tensor, Tensor]:
        self.point = point.detach()
        self._theirs.release()
        self._mine.acquire()
        if self.is_stopped:
            raise _Stopped
        return self.answer

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self.is_stopped:
                self.chain(self._ask)
        except _Stopped:
            pass
        except BaseException as error:  # raised again where the chain is waited for
            self.failure = error
        finally:
            self.has_ended = True
            self._theirs.release()
