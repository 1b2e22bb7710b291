"""Whether test data are among the training data."""

from __future__ import annotations

import hashlib

import torch

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.subject import Subject, rows_of_entries
from pyro_vae.checks.two_samples import share_test
from pyro_vae.datasets.dataset import Dataset

__all__ = ["Leakage"]

TOLERATED = 0.005  # share of the test data


class Leakage(Check):
    """No test datum is a training datum, by a hash of each row.

    Rows of few whole numbers repeat by chance: the share of test rows that lie in the training data
    is then held against the share of training rows that occur there twice.
    """

    name = "test data among the training data"
    question = "Is the score honest?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        train, test = _hashes(subject.need_train()), _hashes(subject.test)
        known: dict[bytes, int] = {}
        for row in train:
            known[row] = known.get(row, 0) + 1
        among = torch.tensor([[float(row in known)] for row in test])
        twins = torch.tensor([[float(known[row] > 1)] for row in train])
        p_value, more = share_test(among.numpy(), twins.numpy())
        count, share = int(among.sum()), among.mean().item()
        # Rows that never repeat by chance need no test: one found twice was put there.
        values = rows_of_entries(subject.test.values)
        unique = values.flatten().unique().numel() > values.numel() / 2
        never = unique and not twins.any()
        return Finding(
            means=f"{count} of {len(test)} test data are among the training data, and "
            f"{int(twins.sum())} of {len(train)} training data occur there twice",
            numbers={
                "test data": len(test),
                "of them among the training data": count,
                "training data": len(train),
                "of them that occur twice": int(twins.sum()),
                "share that chance does not explain": float(more[0]),
            },
            p_value=(0.0 if count else 1.0) if never else float(p_value[0]),
            matters=share > TOLERATED and more[0] > TOLERATED,
            faults=["test data leaked into the training data"],
            change="Remove the rows from one of the two, split by group where data repeat, and "
            "train again.",
        )


def _hashes(data: Dataset) -> list[bytes]:
    """A hash of the values of each row, before a binarisation is drawn."""
    rows = rows_of_entries(data.values).float().contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
