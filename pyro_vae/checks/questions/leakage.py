"""Whether test data are among the training data."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
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
NEAR = (0.05, 0.25)  # of the distance of a training row to its nearest
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
    r"""No test datum is a training datum, by a hash of each row, nor a copy with noise.

    Rows of few digits repeat by chance: the share of test rows that lie in the training data is
    then held against the share of training rows that occur there twice. Where no training row does,
    a number of many digits in both is enough. The number of other test rows among the training rows
    is about Poisson with mean

    .. math:: N M \, P(|x_d - x'_d| \le h_d \text{ for each } d) \prod_d (2 h_d / g_d + 1)^{-1}

    for N test and M training rows, where x and x' are two rows, and d are the three columns that
    repeat least, whose values lie on a grid of step g; h is a small distance.

    A copy with noise lies much nearer to its training row t than that lies to any other:

    .. math:: |x - t| \le c \, \min_{s \ne t} |t - s|, \quad c = 1/20, \; 1/4

    This has no unit, and is as frequent where data are dense as where they are sparse. The share of
    such test rows is held against that of training rows, of which each pair counts once: of two
    that are near one another, both are.
    """

    name = "test data among the training data"
    question = "Is the score honest?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        learnt, test = subject.need_train(), subject.test
        hashes = _hashes(learnt)
        same, close, near = [_same(subject, learnt, hashes), *_near(subject, learnt, hashes)]
        tests = [same, close, near]
        # The smallest p-value of the departures that matter, corrected for all three looks.
        large = [each for each in tests if each.excess > TOLERATED]
        p_value = min(each.p_value for each in large or tests)
        return Finding(
            means=f"{same.among} of {len(test)} test data are among the training data, and "
            f"{same.usual} of {len(learnt)} training data occur there twice; {near.among} of "
            f"{near.of} others lie right beside a training datum, and {near.usual} of "
            f"{near.of_usual} training data",
            numbers={
                "test data": len(test),
                "of them among the training data": same.among,
                "training data": len(learnt),
                "of them that occur twice": same.usual,
                "share that chance does not explain": same.excess,
                "test data right beside a training datum": close.among,
                "share of these that chance does not explain": close.excess,
                "test data near a training datum": near.among,
                "share of the near that chance does not explain": near.excess,
            },
            p_value=min(1.0, len(tests) * p_value),
            matters=bool(large),
            faults=["test data leaked into the training data"],
            change="Remove the rows from one of the two, split by group where data repeat, and "
            "train again.",
        )


class _Share(NamedTuple):
    """How many test rows have something, and how many training rows.

    Args:
        among: test rows that have it.
        of: test rows.
        usual: training rows that have it.
        of_usual: training rows.
        p_value: that chance makes the share of test rows so much larger, or smaller.
        excess: by how much it is larger.
    """

    among: int
    of: int
    usual: int
    of_usual: int
    p_value: float
    excess: float

    @classmethod
    def between(cls, test: Tensor, train: Tensor) -> _Share:
        """Compare two samples of zeros and ones (N,) and (M,).

        Training rows have it in pairs, each row by the other, and so vary twice as much as rows
        that have it independently of one another: half of them are counted.
        """
        half = train.sort(descending=True).values[::2]
        p_value, excess = share_test(test[:, None].numpy(), half[:, None].numpy())
        numbers = int(test.sum()), len(test), int(train.sum()), len(train)
        return cls(*numbers, float(p_value[0]), float(excess[0]))


def _same(subject: Subject, learnt: Dataset, train: list[bytes]) -> _Share:
    """Which rows are equal to a training row."""
    known, test = Counter(train), _hashes(subject.test)
    among = torch.tensor([float(row in known) for row in test])
    twins = torch.tensor([float(known[row] > 1) for row in train])
    found = _Share.between(among, twins)
    if not found.among or found.usual:
        return found
    few, others = (
        rows_of_entries(seeded_rows(data, ROWS, subject.seed).values).double()
        for data in (learnt, subject.test)
    )
    both = torch.cat([few, others])
    steps = [_step(column[~column.isnan()].unique()) for column in both.T]
    equal = rows_of_entries(subject.test.values).double()[among > 0]
    if _have_many_digits(equal, both, steps).any():  # who has such a number has that row
        return found._replace(p_value=0.0)
    expected = len(test) * len(train) * _chance_alike(few, steps)
    by_chance = float(stats.poisson.sf(found.among - 1, expected))
    return found._replace(p_value=min(1.0, 2 * min(found.p_value, by_chance)))


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


def _near(subject: Subject, learnt: Dataset, hashes: list[bytes]) -> list[_Share]:
    """Which rows lie much nearer to a training row than that does to another, for each of `NEAR`.

    Rows that are equal to a training row are left out: another look tells of them. Rows of many
    entries are looked at along random directions, which keep distances roughly.
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

    train, known = seen(every), Counter(hashes)
    some = seeded_rows(subject.test, MOST, subject.seed)
    is_new = torch.tensor([row not in known for row in _hashes(some)])
    test = seen(rows_of_entries(some.values))[is_new].unique(dim=0)
    own = torch.randperm(len(train), generator=generator)[:MOST]
    own = own[[known[hashes[i]] == 1 for i in own.tolist()]]
    of_test = _beside(test, train, torch.full((len(test),), -1))
    of_train = _beside(train[own], train, own)
    return [
        _Share.between(*((far <= (c * usual).clamp_min(ROUNDING)).double() for far, usual in both))
        for c, both in ((c, (of_test, of_train)) for c in NEAR)
    ]


def _beside(rows: Tensor, train: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """How far rows (N, D) are from their nearest training row, and that from its own nearest.

    Of training rows, ``own`` is their place (N,), and neither distance is to themselves.
    """
    far, place = _nearest(rows, train, own[:, None])
    usual, _ = _nearest(train[place], train, torch.stack([own, place], 1))
    return far, usual


def _nearest(rows: Tensor, train: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) to the nearest training row, and its place, without some places (N, C)."""
    count = min(len(train), left_out.shape[1] + 1)
    distances, places = [], []
    size = max(1, BLOCK // len(train))
    for block, out in zip(rows.split(size), left_out.split(size)):
        found = torch.cdist(block, train).topk(count, largest=False)
        taken = (found.indices[:, :, None] != out[:, None]).all(2)
        distance, best = torch.where(taken, found.values, torch.inf).min(1)
        distances.append(distance)
        places.append(found.indices.gather(1, best[:, None])[:, 0])
    return torch.cat(distances), torch.cat(places)
