"""Schedules: the learning rate's factor as a function of the completed fraction of a run.

They hold no state, so a resumed run needs nothing to continue them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pyro_vae.validation import InvalidInput, as_number, check_count, check_positive

__all__ = ["Constant", "Cosine", "Exponential", "Stages", "Steps"]

LOOKS = 1000  # at a schedule, before a training begins


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
        final: the factor at the end, from 0 to 1.

    Raises:
        InvalidInput: if it does not lie there.

    Source: Loshchilov and Hutter (2017), SGDR.

    Example:
        >>> Cosine()(0.0), Cosine()(0.5), Cosine()(1.0)
        (1.0, 0.5, 0.0)
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_final(self.final, least=0.0)

    def __call__(self, done: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Exponential:
    r"""Exponential decay from 1 to ``final``: :math:`f^t`.

    Args:
        final: the factor at the end, above 0 and at most 1.

    Raises:
        InvalidInput: if it does not lie there.

    Example:
        >>> round(Exponential(final=0.01)(0.5), 12)
        0.1
    """

    final: float = 0.1

    def __post_init__(self) -> None:
        _check_final(self.final, least=math.ulp(0.0))

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

    Raises:
        InvalidInput: unless count is an integer >= 1, and ratio and factor are positive.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.

    Example:
        >>> [round(Stages()(epoch / 3280), 3) for epoch in (0, 1, 4, 3279)]
        [1.0, 0.72, 0.518, 0.1]
    """

    count: int = 8
    ratio: float = 3.0
    factor: float = 10 ** (-1 / 7)

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_positive("ratio", self.ratio)
        check_positive("factor", self.factor)

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
        milestones: fractions of the run, between 0 and 1.
        factor: on the learning rate, at each milestone.

    Raises:
        InvalidInput: on a milestone that lies elsewhere, or a factor that is not positive.

    Example:
        >>> [Steps(factor=0.5)(done) for done in (0.0, 0.5, 0.75)]
        [1.0, 0.5, 0.25]
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        given = self.milestones
        is_list = isinstance(given, tuple | list)
        if not is_list or not all(0 < as_number(each) < 1 for each in given):
            raise InvalidInput(
                "milestones",
                got=repr(given),
                expected="fractions of the run, between 0 and 1",
                fix="pass milestones=(0.5, 0.75)",
            )
        check_positive("factor", self.factor)

    def __call__(self, done: float) -> float:
        # A milestone is passed on its first step, whatever the rounding.
        return self.factor ** sum(done + 1e-9 >= milestone for milestone in self.milestones)


def _check_final(final: float, least: float) -> None:
    """Raise `InvalidInput` unless a factor at the end of a run lies between ``least`` and 1."""
    if not least <= as_number(final) <= 1:
        raise InvalidInput(
            "final",
            got=repr(final),
            expected="a number from 0 to 1" if least == 0 else "a number above 0, at most 1",
            fix="pass final=0.1",
        )


def factor_at(schedule: Callable[[float], float], done: float) -> float:
    """The factor of a schedule at a fraction of the run.

    Raises:
        InvalidInput: unless it is a finite number >= 0.
    """
    try:
        factor: object = schedule(done)
    except OverflowError:
        factor = math.inf
    if not 0 <= as_number(factor) < math.inf:
        raise InvalidInput(
            "schedule",
            got=f"{factor!r} at {done:.3g} of the run",
            expected="a finite factor >= 0 on the learning rate",
            fix="pass schedules.Cosine(), or a function from 0 ... 1 to such factors",
        )
    return as_number(factor)


def check_schedule(schedule: Callable[[float], float], epochs: int) -> None:
    """Raise `InvalidInput` unless a schedule gives factors, before a run comes to its end."""
    if isinstance(schedule, type) or not callable(schedule):
        is_class = isinstance(schedule, type)
        raise InvalidInput(
            "schedule",
            got=f"the class {schedule.__name__}" if is_class else repr(schedule),
            expected="an object or a function, from the fraction of steps done to a factor",
            fix=f"pass {schedule.__name__}()" if is_class else "pass schedules.Cosine()",
        )
    looks = min(epochs, LOOKS)
    for look in range(looks):
        factor_at(schedule, look / looks)
