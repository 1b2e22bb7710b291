"""Schedules: the learning rate's factor as a function of the completed fraction of a run.

They hold no state, so a resumed run needs nothing to continue them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Constant", "Cosine", "Exponential", "Stages", "Steps"]


@dataclass(frozen=True)
class Constant:
    """A constant learning rate.

    Example:
        >>> Constant()(0.7)
        1.0
    """

    def __call__(self, done: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    r"""Half a cosine from 1 to ``final``: :math:`f + (1 - f)(1 + \cos \pi t) / 2`.

    Args:
        final: the factor at the end.

    Source: Loshchilov and Hutter (2017), SGDR.

    Example:
        >>> Cosine()(0.0), Cosine()(0.5), Cosine()(1.0)
        (1.0, 0.5, 0.0)
    """

    final: float = 0.0

    def __call__(self, done: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Exponential:
    r"""Exponential decay from 1 to ``final``: :math:`f^t`.

    Args:
        final: the factor at the end.

    Example:
        >>> round(Exponential(final=0.01)(0.5), 12)
        0.1
    """

    final: float = 0.1

    def __call__(self, done: float) -> float:
        return self.final**done


@dataclass(frozen=True)
class Stages:
    """Stages of growing length and falling rate: stage i lasts ratio^i parts, at factor^i.

    The defaults are the recipe of importance-weighted autoencoders: 3280 epochs in eight stages.

    Args:
        count: number of stages.
        ratio: length of a stage over that of the one before.
        factor: learning rate of a stage over that of the one before.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.

    Example:
        >>> [round(Stages()(epoch / 3280), 3) for epoch in (0, 1, 4, 3279)]
        [1.0, 0.72, 0.518, 0.1]
    """

    count: int = 8
    ratio: float = 3.0
    factor: float = 10 ** (-1 / 7)

    def __call__(self, done: float) -> float:
        lengths = [self.ratio**i for i in range(self.count)]
        # A stage starts on its first step, whatever the rounding.
        reached, end = done * sum(lengths) + 1e-9, 0.0
        for stage, length in enumerate(lengths):
            end += length
            if reached < end:
                return self.factor**stage
        return self.factor ** (self.count - 1)


@dataclass(frozen=True)
class Steps:
    """Constant between milestones, multiplied by ``factor`` at each of them.

    Args:
        milestones: fractions of the run.
        factor: on the learning rate, at each milestone.

    Example:
        >>> [Steps(factor=0.5)(done) for done in (0.0, 0.5, 0.75)]
        [1.0, 0.5, 0.25]
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __call__(self, done: float) -> float:
        # A milestone is passed on its first step, whatever the rounding.
        return self.factor ** sum(done + 1e-9 >= milestone for milestone in self.milestones)
