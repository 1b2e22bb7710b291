"""Whether the data are binarised as those that the run was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.checks.base import Check, Finding, Number
from pyro_vae.checks.subject import Subject, rows_of_entries
from pyro_vae.checks.two_samples import share_test
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.validation import tensors_of

__all__ = ["Binarisation"]

TOLERATED = 0.01  # difference of the share of ones


class Binarisation(Check):
    """Scores of binary data are those of one binarisation, in training and in test.

    Two binarisations of the same grey values, by a threshold and by a draw, give other data and
    scores that cannot be compared: log p(x) of MNIST differs by ten nats. The policy, the SHA-256
    that the run noted, and the share of ones are held against those of the data.
    """

    name = "binarisation and identity of the data"
    question = "Is the score honest?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        test, claims = subject.test, subject.claims
        policy = claims.binarize or (subject.train.binarize if subject.train else None)
        if policy is None and claims.sha256 is None:
            return Finding("neither a policy nor a SHA-256 is known to hold the data against")
        numbers: dict[str, Number] = {
            "policy of the run": policy,
            "policy of the data": test.binarize,
        }
        faults = []
        if policy is not None and policy != test.binarize:
            faults.append("wrong binarisation")
        if claims.sha256 is not None:
            same = claims.sha256 == test.sha256
            numbers |= {"SHA-256 of the run": claims.sha256, "SHA-256 of the data": test.sha256}
            faults += [] if same else ["not the data of the run"]
        p_value = more = None
        if subject.train is not None:
            ours, theirs = (_binary_parts(data) for data in (test, subject.train))
            if ours.shape[1] and ours.shape[1:] == theirs.shape[1:]:
                p_value, more = share_test(ours.numpy(), theirs.numpy())
                differ = (p_value * len(p_value) < 1e-4) & (abs(more) > TOLERATED)
                numbers["entries whose share of ones differs from training"] = int(differ.sum())
                faults += ["wrong binarisation"] if differ.mean() > 0.1 else []
        return Finding(
            means="; ".join(dict.fromkeys(faults))
            or f"the data are those of the run, binarised as they were ({policy or 'unknown'})",
            numbers=numbers,
            passed=not faults,
            faults=list(dict.fromkeys(faults)),
            change="Score the data under the policy that the run was trained with (binarize=), and "
            "compare only scores of one policy and one SHA-256.",
        )


def _binary_parts(data: Dataset) -> Tensor:
    """The parts of the data that are all 0 or 1, such as pictures beside words (N, D)."""
    parts = map(rows_of_entries, tensors_of(data.x).values())
    none = torch.zeros(len(data), 0, dtype=torch.float64)
    return torch.cat([none, *(x for x in parts if bool(((x == 0) | (x == 1)).all()))], dim=1)
