"""Whether the data depend on the context as the model says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_vae.checks.base import TOLD, Check, Finding, is_clear
from pyro_vae.checks.subject import MOST, REPLICATES, CannotTell, DoesNotApply, Subject
from pyro_vae.checks.two_samples import error_of_ranks, rank_test

__all__ = ["Context"]

TOLERATED = 0.1
FEWEST = 15  # data of a label
MOST_LABELS = 20


class Context(Check):
    """Data under each context are those that the model makes under it.

    The data of a label are compared with the model's own of that label; with covariates, data
    above a covariate's median and below. Where the model's data do not depend on the context at
    all, the decoder ignores it.
    """

    name = "data given the context"
    question = "Does the model fit?"
    calls, rows = 40, MOST * REPLICATES + 1

    def suits(self, subject: Subject) -> bool:
        return bool(subject.told)

    def look(self, subject: Subject) -> Finding:
        if not self.suits(subject):
            raise DoesNotApply("the program takes no context")
        groups = list(_groups(subject))
        if not groups:
            raise CannotTell(
                f"no label has {FEWEST} data", f"Check on {FEWEST} data or more of a label."
            )
        real = torch.cat([part.real for part in subject.entries], dim=1).numpy()
        made = torch.cat([part.simulated for part in subject.entries], dim=2).numpy()
        pooled = made.reshape(-1, made.shape[-1])
        tests, own = [], []
        for _, rows in groups:
            theirs = made[:, rows].reshape(-1, made.shape[-1])
            tests.append(rank_test(real[rows], theirs))
            own.append(rank_test(theirs, pooled)[0])  # whether the model's data depend on it
        looks = len(groups) * real.shape[1]
        p = np.array([each for each, _ in tests])
        size = np.array([each for _, each in tests])
        wrong = (p * looks < 0.01) & (np.abs(size) > TOLERATED)
        place = np.unravel_index(p.argmin(), p.shape)
        fewest = min(int((~np.isnan(real[rows])).sum(0).min()) for _, rows in groups)
        ignored = float(np.min(own)) * looks > 0.01
        fault = (
            "the decoder ignores the context" if ignored else "data do not go with their context"
        )
        return Finding(
            means=f"{fault}: under {groups[place[0]][0]} data are larger than the model's in "
            f"{0.5 + size[place]:.0%} of the pairs"
            if wrong.any()
            else f"data under {_each_of(len(groups))} are like the model's own",
            numbers={
                "groups of contexts": len(groups),
                "comparisons": looks,
                "comparisons that differ": int(wrong.sum()),
                "largest difference": float(np.abs(size).max()),
                "the model's own data depend on the context": not ignored,
            },
            p_value=min(1.0, looks * float(p.min())),
            matters=bool(wrong.any()),
            clear=is_clear(error_of_ranks(fewest, REPLICATES), TOLD),
            faults=[fault],
            change="Give the context to the decoder's network (context=), and number the labels as "
            "in training.",
        )


def _groups(subject: Subject):
    """The data of each label, or on either side of a covariate's median, by name."""
    for name, value in subject.told.items():
        for d, column in enumerate(_columns(value)):
            title = f"{name or 'context'}[{d}]"
            labels = column.unique()
            if len(labels) <= MOST_LABELS:
                for label in labels.tolist():
                    rows = (column == label).numpy()
                    if rows.sum() >= FEWEST:
                        yield f"{title} = {label:g}", rows
            else:
                rows = (column > column.median()).numpy()
                yield f"{title} above its median", rows
                yield f"{title} below its median", ~rows


def _columns(value: Tensor) -> list[Tensor]:
    return list(value.double().flatten(1).cpu().T) if value.dim() > 1 else [value.double().cpu()]


def _each_of(number: int) -> str:
    return "the one context" if number == 1 else f"each of {number} contexts"
