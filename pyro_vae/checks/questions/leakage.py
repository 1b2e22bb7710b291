"""Whether test data are among the training data."""

from __future__ import annotations

import hashlib

import torch
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


class Leakage(Check):
    """No test datum is a training datum, by a hash of each row, nor a copy with other digits.

    Rows of few whole numbers repeat by chance: the share of test rows that lie in the training data
    is then held against the share of training rows that occur there twice. Likewise the share of
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
        # Rows that never repeat by chance need no test: one found twice was put there.
        # One column of numbers that hardly repeat is enough, whatever stands beside it.
        unique = any(
            len(column[~column.isnan()].unique()) > len(column) / 2
            for column in rows_of_entries(seeded_rows(learnt, MOST, subject.seed).values).T
        )
        never = unique and not twins.any()
        p_same = (0.0 if count else 1.0) if never else float(p_value[0])
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
