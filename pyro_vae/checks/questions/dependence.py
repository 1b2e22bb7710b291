"""Whether entries depend on one another as the model says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pyro_vae.checks.base import Check, Finding, Number
from pyro_vae.checks.dependence import FEWEST, Dependence, Family, chosen_entries, compared
from pyro_vae.checks.drawing import bars
from pyro_vae.checks.subject import MOST, REPLICATES, CannotTell, DoesNotApply, Subject
from pyro_vae.validation import counted

__all__ = ["Together"]

LEVEL = 0.01
PAIR, ALL = 0.1, 0.05  # differences of correlations up to which they do not matter
SEEN = 0.5  # a difference of one pair that a check which passes would have seen
SHOWN = 8  # pairs in the figure

MORE = "entries depend on one another more than in the model"
LESS = "entries depend on one another less than in the model"
OTHER = "entries depend on one another otherwise than in the model"
RICHER = (
    "The latents do not carry this dependence: give the program more latent dimensions or a larger "
    "decoder, or a likelihood whose entries depend on one another given z, as "
    "AutoregressiveBernoulli or CoupledLogisticMixture; where latents depend on one another, a "
    "prior that learns."
)
CHANGE = {
    MORE: RICHER,
    OTHER: RICHER,
    LESS: "The model ties entries together that are not so in the data: train longer, look at "
    "their units, or use a prior that learns.",
}


class Together(Check):
    r"""Entries correlate with one another as those of data drawn from the model do.

    .. math:: z \sim p(z), \; \tilde x \sim p(x \mid z): \quad
              \rho(\tilde x_i, \tilde x_j) = \rho(x_i, x_j)

    Correlations are of the normal scores of ranks. Three things are looked at: the pair that
    differs most, neighbours together, and all pairs together; each as it is, and with the other
    entries accounted for. Their p-values come from exchanges of each datum with its simulated ones,
    so they hold for any kind of entry. Of more than 128 entries, runs of four neighbours are taken.
    Entries that are nearly all the same are left out.

    Source: Gelman, Meng and Stern (1996), Posterior Predictive Assessment of Model Fitness via
    Realized Discrepancies.
    """

    name = "dependence between entries"
    question = "Does the model fit?"
    calls, rows = 40, MOST * REPLICATES

    def look(self, subject: Subject) -> Finding:
        rows = _Rows.of(subject)
        if len(rows.real) < FEWEST:
            raise CannotTell(
                f"{len(rows.real)} data are too few to correlate entries",
                f"Check {FEWEST} test data or more.",
            )
        if len(rows.names) < 2:
            raise DoesNotApply("no two entries of the data vary")
        found = compared(rows.real, rows.simulated, rows.followers, subject.seed)
        return _finding(found, rows.names)


@dataclass(frozen=True)
class _Rows:
    """Entries of all parts of x that are compared, beside one another.

    Args:
        names: of the entries (E,).
        real: the data (N, E).
        simulated: draws of the model (R, N, E).
        followers: whether each but the first is the neighbour of the one before it.
    """

    names: list[str]
    real: np.ndarray
    simulated: np.ndarray
    followers: list[bool]

    @classmethod
    def of(cls, subject: Subject) -> _Rows:
        parts = subject.by_category
        names = [name for part in parts for name in part.columns]
        places = [(i, d) for i, part in enumerate(parts) for d in range(len(part.columns))]
        real = np.concatenate([part.real.numpy() for part in parts], -1)
        simulated = np.concatenate([part.simulated.numpy() for part in parts], -1)
        few = chosen_entries(np.concatenate([real, *simulated]))
        beside = [
            places[a][0] == places[b][0] and places[a][1] + 1 == places[b][1]
            for a, b in pairwise(few)
        ]
        return cls(
            [names[d] for d in few],
            real[:, few],
            simulated[..., few],
            beside,
        )


@dataclass(frozen=True)
class _Departure:
    """A departure that is significant and matters: in words, what is wrong, and its p-value."""

    words: str
    fault: str
    p_value: float


def _finding(found: Dependence, names: list[str]) -> Finding:
    """What a comparison of named entries means."""
    raw = found.families[0]
    numbers: dict[str, Number] = {"entries": len(names), "pairs": len(raw.pairs)}
    wrong: list[_Departure] = []
    for family in found.families:
        wrong += _departures(family, names, LEVEL / found.looks)[:1]
        numbers |= _numbers(family, names)
    seen = (raw.threshold + 1) * float(np.median(raw.error))
    numbers["difference of one pair that would have been seen"] = seen
    fine = (
        f"{len(raw.pairs)} pairs of entries correlate as in data of the model's own; a difference "
        f"of {seen:.2f} would have been seen"
    )
    faults = list(dict.fromkeys(each.fault for each in wrong))
    if len(faults) > 1:
        faults = [fault for fault in faults if fault != OTHER]
    smallest = min([each.p_value for each in wrong], default=1.0)
    return Finding(
        means="; ".join(each.words for each in wrong) or fine,
        numbers=numbers,
        p_value=min(1.0, found.looks * smallest) if wrong else found.p_value,
        matters=bool(wrong),
        clear=seen <= SEEN,
        faults=faults,
        change=" ".join(CHANGE[fault] for fault in faults),
        figure=_figure(found, names),
    )


def _departures(family: Family, names: list[str], level: float) -> list[_Departure]:
    """What is wrong in a family: a pair by name if it can be, else neighbours, else all."""
    i, found = family.worst, []
    given = ", with the other entries accounted for," if family.given_others else ""
    some = (family.p_pair < level) & (np.abs(family.difference) > PAIR)
    others = int(some.sum()) - 1
    if some[i]:
        real, model = float(family.real[i]), float(family.simulated[i])
        more = f", and so differ {counted(others, 'more pair')}" if others else ""
        how = (
            f"{given} correlate by {abs(real - model):.2f} +- {family.error[i]:.2f} "
            f"{'more' if real > model else 'less'} than in the model{more}"
            if family.given_others
            else f" correlate by {real:.2f}, in the model by {model:.2f} +- {family.error[i]:.2f}"
            + more
        )
        fault = OTHER if given else MORE if abs(real) > abs(model) else LESS
        pair = " and ".join(names[d] for d in family.pairs[i])
        found.append(_Departure(pair + how, fault, float(family.p_pair[i])))
    between, wide = family.of_neighbours, family.together
    if family.p_neighbours < level and abs(between) > ALL:
        which = "more" if between > 0 else "less"
        words = f"neighbours{given} correlate by {abs(between):.2f} {which} than in the model"
        found.append(_Departure(words, OTHER, family.p_neighbours))
    if family.p_together < level and wide > ALL:
        words = f"correlations of all pairs{given} are off by {wide:.2f}"
        found.append(_Departure(words, OTHER, family.p_together))
    return found


def _numbers(family: Family, names: list[str]) -> dict[str, Number]:
    i, given = family.worst, ", given the others" if family.given_others else ""
    return {
        f"pair that differs most{given}": " and ".join(names[d] for d in family.pairs[i]),
        f"its correlation{given}": float(family.real[i]),
        f"that of the model{given}": float(family.simulated[i]),
        f"standard error of the difference{given}": float(family.error[i]),
        f"mean difference of neighbours{given}": family.of_neighbours,
        f"root mean square difference of all pairs{given}": family.together,
    }


def _figure(found: Dependence, names: list[str]):
    """What draws the pairs that differ most."""
    family = min(found.families, key=lambda each: float(each.p_pair.min()))
    order = np.argsort(-np.abs(family.difference / family.error))[:SHOWN]
    return bars(
        [", ".join(names[d] for d in family.pairs[i]) for i in order],
        [float(family.difference[i]) for i in order],
        "correlations of the data, less those of the model",
        "difference" + (", given the other entries" if family.given_others else ""),
    )
