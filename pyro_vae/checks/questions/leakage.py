"""Whether test data are among the training data."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.subject import MOST, Subject, rows_of_entries, seeded_rows
from pyro_vae.checks.two_samples import share_test
from pyro_vae.datasets.dataset import Dataset

__all__ = ["Leakage"]

TOLERATED = 0.005  # share of the test data
NEAR = 0.05  # of the median distance of training rows to their nearest
DIRECTIONS = 32
ROUNDING = 1e-6  # of a distance
BLOCK = 2**24  # distances at a time
GRIDS = (1.0, 0.1, 0.01, 0.001)  # steps of columns that are rounded, in the units of x
PART, COLUMNS = 0.1, 3  # of the pairs of rows, the nearest to one another; of the columns, the best
FEWEST = 10  # values of a column that tell how often two are alike
TOLERANCE = 0.01  # of a step
ROWS = 300  # that are compared for it
RARELY = 0.01  # a probability that two values are alike; above it they are counted


class Leakage(Check):
    r"""No test datum is a training datum, by a hash of each row, nor a copy with other digits.

    Rows of few digits repeat by chance: the share of test rows that lie in the training data is
    then held against the share of training rows that occur there twice. Where no training row does,
    a number of many digits in both is enough. The number of other test rows among the training rows
    is about Poisson with mean

    .. math:: N M \, P(|x_d - x'_d| \le h_d \text{ for each } d) \prod_d (2 h_d / g_d + 1)^{-1}

    for N test and M training rows, where x and x' are two rows, and d are the three columns that
    repeat least, whose values lie on a grid of step g; h is a small distance. Likewise the share of
    test rows that lie right beside a training row is held against that of training rows.
    """

    name = "test data among the training data"
    question = "Is the score honest?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        learnt = subject.need_train()
        train, test = _hashes(learnt), _hashes(subject.test)
        known: dict[bytes, int] = {}
        for row in train:
            known[row] = known.get(row, 0) + 1
        among = torch.tensor([[float(row in known)] for row in test])
        twins = torch.tensor([[float(known[row] > 1)] for row in train])
        p_value, more = share_test(among.numpy(), twins.numpy())
        count, share = int(among.sum()), among.mean().item()
        p_same = float(p_value[0])
        if count and not twins.any():
            few, others = (
                rows_of_entries(seeded_rows(data, ROWS, subject.seed).values).double()
                for data in (learnt, subject.test)
            )
            both = torch.cat([few, others])
            steps = [_step(column[~column.isnan()].unique()) for column in both.T]
            expected = len(test) * len(train) * _chance_alike(few, steps)
            p_same = min(p_same, float(stats.poisson.sf(count - 1, expected)))
            equal = rows_of_entries(subject.test.values).double()[among.flatten() > 0]
            if _have_many_digits(equal, both, steps).any():  # who has such a number has that row
                p_same = 0.0
        beside, usual = _beside(subject, learnt)
        p_beside, more_beside = share_test(beside.numpy(), usual.numpy())
        near = int(beside.sum())
        copied = share > TOLERATED and more[0] > TOLERATED
        return Finding(
            means=f"{count} of {len(test)} test data are among the training data, and "
            f"{int(twins.sum())} of {len(train)} training data occur there twice; {near} of "
            f"{len(beside)} test data lie right beside a training datum, and {int(usual.sum())} of "
            f"{len(usual)} training data",
            numbers={
                "test data": len(test),
                "of them among the training data": count,
                "training data": len(train),
                "of them that occur twice": int(twins.sum()),
                "share that chance does not explain": float(more[0]),
                "test data right beside a training datum": near,
                "share of these that chance does not explain": float(more_beside[0]),
            },
            p_value=min(1.0, 2 * min(p_same, float(p_beside[0]))),
            matters=bool(copied or more_beside[0] > TOLERATED),
            faults=["test data leaked into the training data"],
            change="Remove the rows from one of the two, split by group where data repeat, and "
            "train again.",
        )


def _hashes(data: Dataset) -> list[bytes]:
    """A hash of the values of each row, before a binarisation is drawn."""
    rows = rows_of_entries(data.values).float().contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


class _Column(NamedTuple):
    """How often two values of a column are alike.

    Args:
        alike: the probability.
        near: which pairs of rows are near one another in it (P,), where it lies on a grid.
        places: how many places of the grid are as near as that.
    """

    alike: float
    near: Tensor | None = None
    places: int = 1


def _chance_alike(rows: Tensor, steps: list[float]) -> float:
    """About how probable it is that two rows are equal by chance, by the columns that tell most."""
    every = (_column(values, step) for values, step in zip(rows.T, steps))
    best = sorted((one for one in every if one is not None), key=lambda one: one.alike)[:COLUMNS]
    near = [one.near for one in best if one.near is not None]
    together = 1.0
    if near:
        inside = torch.stack(near).all(0)
        share = (int(inside.sum()) + 1) / (len(inside) + 1)
        together = share / math.prod(one.places for one in best)
    return min([together, *(one.alike for one in best)])


def _have_many_digits(equal: Tensor, rows: Tensor, steps: list[float]) -> Tensor:
    """Which rows (N, D) have a number that no other row has by chance.

    It is neither round nor an end of its column (M, D), and that column has no grid.
    """
    free = torch.tensor(steps) == 0
    whole = equal / GRIDS[-1]
    is_round = (whole - whole.round()).abs() < TOLERANCE
    low, high = rows.nan_to_num(torch.inf).amin(0), rows.nan_to_num(-torch.inf).amax(0)
    inside = (equal > low) & (equal < high)
    return (free & ~is_round & inside).any(1)


def _column(column: Tensor, step: float) -> _Column | None:
    """What a column (N,) tells; ``None`` where it has too few values, or no grid."""
    _, counts = column[~column.isnan()].unique(return_counts=True)
    count = int(counts.sum())
    if count < FEWEST:
        return None
    alike = float((counts * (counts - 1)).sum()) / (count * (count - 1))
    if alike > RARELY:
        return _Column(alike)
    if not step:
        return None
    apart = torch.pdist(column[:, None])  # too few are equal to count: those that are near tell
    reach = apart.nanquantile(PART).item()
    places = 2 * round(reach / step) + 1
    return _Column(PART / places, apart <= reach, places)


def _step(values: Tensor) -> float:
    """The step of the grid that the values (N,) of a column lie on, in their order; 0 for none."""
    gaps = values.diff()
    if not len(gaps):
        return GRIDS[0]
    for step in (*GRIDS, gaps.min().item()):
        whole = values / step if step in GRIDS else gaps / step
        if (whole - whole.round()).abs().max() < TOLERANCE:
            return step
    return 0.0


def _beside(subject: Subject, learnt: Dataset) -> tuple[Tensor, Tensor]:
    """Which of some test rows (N, 1), and training rows (M, 1), have another right beside them.

    Rows of many entries are looked at along random directions, which keep distances roughly.
    """
    every = rows_of_entries(learnt.values)
    middle = every.nanmean(0)
    spread = (every - middle).square().nanmean(0).sqrt().clamp_min(1e-9)
    width, generator = every.shape[1], torch.Generator().manual_seed(subject.seed)
    along = torch.eye(width, dtype=every.dtype)
    if width > DIRECTIONS:
        along = torch.randn(width, DIRECTIONS, dtype=every.dtype, generator=generator)

    def seen(rows: Tensor) -> Tensor:
        return ((rows - middle) / spread).nan_to_num(0) @ along

    some, few = (
        seen(rows_of_entries(seeded_rows(data, MOST, subject.seed).values))
        for data in (subject.test, learnt)
    )
    others = seen(every)
    of_test = _nearest(some, others, 1)
    of_train = _nearest(few, others, 2)[:, -1:]  # the nearest is the row itself
    close = max(NEAR * of_train.median().item(), ROUNDING)
    return (of_test <= close).double(), (of_train <= close).double()


def _nearest(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Distances (N, count) to the nearest of the others, in their order."""
    blocks = rows.split(max(1, BLOCK // len(others)))
    return torch.cat(
        [torch.cdist(block, others).topk(count, largest=False).values for block in blocks]
    )
