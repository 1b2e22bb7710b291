"""Whether data and score are of the run's test data, binarised as those that it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.checks.base import Check, Finding, Number
from pyro_vae.checks.subject import Scored, Subject, rows_of_entries
from pyro_vae.checks.two_samples import share_test
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.validation import counted, tensors_of

__all__ = ["Binarisation"]

TOLERATED = 0.01  # difference of the share of ones
OF_TRAINING = "the score is of training data"
OF_OTHERS = "the score is of other data"
SCORE_ANEW = (
    "Score data that the program has not seen: pyro-vae evaluate RUN --split test, or pv.evaluate "
    "of the test data."
)
SCORE_UNDER = (
    "Score the data under the policy that the run was trained with (binarize=), and compare only "
    "scores of one policy and one SHA-256."
)


class Binarisation(Check):
    """Scores of binary data are those of one binarisation, in training and in test.

    Two binarisations of the same grey values, by a threshold and by a draw, give other data and
    scores that cannot be compared: log p(x) of MNIST differs by ten nats. The policy, the SHA-256
    that the run noted, and the share of ones are held against those of the data.

    The score that the run states is of the test data, or the first of them: one of training data
    says how well these are learnt by heart. Their SHA-256 tells, and else their name and split.
    """

    name = "binarisation and identity of the data"
    question = "Is the score honest?"
    calls, rows = 0, 0

    def look(self, subject: Subject) -> Finding:
        test, claims = subject.test, subject.claims
        policy = claims.binarize or (subject.train.binarize if subject.train else None)
        if policy is None and claims.sha256 is None and claims.scored is None:
            return Finding(
                "neither a policy nor a SHA-256 is known to hold the data against",
                change="Say how the data of the run were binarised, and which were scored: "
                "claims=Claims(binarize=, sha256=, scored=).",
            )
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
        if subject.train is not None:
            ours, theirs = (_binary_parts(data) for data in (test, subject.train))
            if ours.shape[1] and ours.shape[1:] == theirs.shape[1:]:
                p_value, more = share_test(ours.numpy(), theirs.numpy())
                differ = (p_value * len(p_value) < 1e-4) & (abs(more) > TOLERATED)
                numbers["entries whose share of ones differs from training"] = int(differ.sum())
                faults += ["wrong binarisation"] if differ.mean() > 0.1 else []
        faults = list(dict.fromkeys(faults))
        means = "; ".join(faults) or (
            f"the data are those of the run, binarised as they were ({policy or 'unknown'})"
        )
        change = [SCORE_UNDER] if faults else []
        if (scored := claims.scored) is not None:
            told, fault = _look_at_score(subject, scored)
            means += told
            faults += [fault] if fault else []
            change += [SCORE_ANEW] if fault else []
            numbers |= {
                "data that were scored": f"{scored.name}, {scored.split}",
                "number of them": scored.num_data,
                "SHA-256 of them": scored.sha256,
            }
        return Finding(means, numbers, passed=not faults, faults=faults, change=" ".join(change))


def _look_at_score(subject: Subject, scored: Scored) -> tuple[str, str]:
    """What data a score is of, to follow what was said of the data, and what is wrong with that."""
    whole = subject.test if subject.claims.whole is None else subject.claims.whole
    train, named = subject.train, (scored.name, scored.split)
    if scored.are(whole):
        if scored.num_data == len(whole):
            return ", and the score is of them", ""
        return f", and the score is of the first {scored.num_data:,} of {len(whole):,}", ""
    told = f"{', '.join(named)}, {counted(scored.num_data, 'datum', 'data')}"
    if train is not None and (scored.are(train) or named in _with_training(train)):
        return f", but {OF_TRAINING} ({told})", OF_TRAINING
    like = " of the same name" if named == (whole.name, whole.split) else ""
    return f", but {OF_OTHERS}{like} ({told}, SHA-256 {scored.sha256[:12]})", OF_OTHERS


def _with_training(train: Dataset) -> list[tuple[str, str]]:
    """The names and splits of data some of which were trained on."""
    return [(train.name, split) for split in ("train", "all")]


def _binary_parts(data: Dataset) -> Tensor:
    """The parts of the data that are all 0 or 1, such as pictures beside words (N, D)."""
    parts = map(rows_of_entries, tensors_of(data.x).values())
    none = torch.zeros(len(data), 0, dtype=torch.float64)
    return torch.cat([none, *(x for x in parts if bool(((x == 0) | (x == 1)).all()))], dim=1)
