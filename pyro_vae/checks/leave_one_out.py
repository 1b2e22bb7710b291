r"""Each entry of a datum as the model predicts it from the others.

.. math:: p(x_d \mid x_{-d}) = \int p(x_d \mid z)\, p(z \mid x_{-d})\, dz \approx
          \sum_k w_{kd}\, p(x_d \mid z_k), \quad
          w_{kd} \propto \frac{p(z_k)\, p(x_{-d} \mid z_k)}{(q(z_k \mid x) + p(z_k)) / 2}

Half of the draws z_k are from q and half from the prior. Those of q have seen the entry, and all by
themselves would hardly forget it; those of the prior have not.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import singledispatch

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.checks.subject import CannotTell, DoesNotApply, Subject
from pyro_vae.distributions import (
    CensoredEntries,
    Columns,
    ObservedEntries,
    ObservedEvents,
    entries_of,
    stated_support,
)
from pyro_vae.distributions.censored import ABOVE, BELOW, BETWEEN
from pyro_vae.distributions.supports import number_inside
from pyro_vae.distributions.tails import log_tails
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.observed import EntriesOfSites
from pyro_vae.validation import InvalidInput, flattened, tensors_of

__all__ = ["ROWS", "Predicted", "predicted"]

DRAWS, DATA = 800, 300
ROWS = DRAWS * DATA
BLOCK = 2**22  # numbers at a time
FEWEST, ENOUGH = 20, 0.9  # effective draws, and the share of entries that have them


@dataclass(frozen=True)
class Predicted:
    """Entries of one part of x, each predicted from the others.

    Args:
        name: of the part.
        x: the entries (N, D).
        pit: the probability of a smaller entry (N, D), ties broken at random, and a bound taken
            for a value beyond it, drawn by the model; NaN where an entry is missing.
        one: the predicted probability of a 1 (N, D), or its density.
        ess: effective draws behind each (N, D).
    """

    name: str
    x: Tensor
    pit: Tensor
    one: Tensor
    ess: Tensor


def predicted(subject: Subject) -> list[Predicted]:
    """Predict each entry of the data from the others.

    Raises:
        CannotTell: where q is too far from the posterior for weights that mean something.
        DoesNotApply: where entries depend on one another given z.
    """
    few = subject.few[:DATA]
    rows: dict[str, list[Predicted]] = {}
    with conditioned(subject.local, few, subject.seed) as given:
        given.check_no_auxiliary()
        size = sum(part[0].numel() for part in tensors_of(given.x).values())
        for part, _ in given.in_chunks(max(1, BLOCK // (DRAWS * size))):
            for one in _of(part):
                rows.setdefault(one.name, []).append(one)
    found = [
        Predicted(
            name,
            *(
                torch.cat([vars(one)[field] for one in parts])
                for field in ("x", "pit", "one", "ess")
            ),
        )
        for name, parts in rows.items()
    ]
    enough = torch.cat([(one.ess > FEWEST).flatten() for one in found]).double().mean().item()
    if enough < ENOUGH:
        raise CannotTell(
            f"only {enough:.0%} of the entries have {FEWEST} effective draws: q is too far from "
            "the posterior to predict an entry from the others",
            "Bring q nearer to the posterior: train longer, or with a more flexible --posterior.",
        )
    return found


def _of(given: Conditioned) -> list[Predicted]:
    """The predictions of a few data."""
    halves = [given.draw(fn, DRAWS // 2) for fn in (given.guide, given.model)]
    values = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    log_prior, log_x, log_q = (each.double() for each in given.densities(values, given.guide))
    log_w = log_prior + log_x - torch.logaddexp(log_q, log_prior)
    found: list[Predicted] = []
    refused: InvalidInput | None = None
    for name in given.observed_names:
        x = tensors_of(given.x).get(name, tensors_of(given.x).get(""))
        assert x is not None
        try:
            law = _entries(given.predictive(values, name))
        except InvalidInput as no:  # entries of this part depend on one another; others may not
            refused = no
            continue
        shape = (DRAWS, *x.shape)
        own = law.log_prob(x).double().expand(shape)[..., None].flatten(2)
        entries = flattened(x.double())
        one = law.log_prob(torch.ones_like(x)).double().exp().expand(shape)[..., None].flatten(2)
        weights = (log_w[:, :, None] - own).softmax(0)
        ess = 1 / weights.square().sum(0)
        pit = _smaller(law, x, weights, ess)
        pit = torch.where(entries.isnan(), torch.nan, pit)
        found.append(
            Predicted(name, *(v.cpu() for v in (entries, pit, (weights * one).sum(0), ess)))
        )
    if not found and refused is not None:
        raise DoesNotApply(f"the data are {refused.got}")
    return found


def _entries(law: TorchDistribution) -> TorchDistribution:
    """The distribution of single entries, of which some or a whole part may be missing."""
    if isinstance(law, ObservedEvents):
        return ObservedEntries(entries_of(law.base))
    return entries_of(law)


def _smaller(law: TorchDistribution, x: Tensor, weights: Tensor, ess: Tensor) -> Tensor:
    """The weighted probability (N, D) of a smaller entry, ties broken at random."""
    *each, are_exact = _below_and_at(law, x)
    below, equal = (
        (weights * one.double().expand(DRAWS, *x.shape).flatten(2)).sum(0) for one in each
    )
    share = below + torch.rand_like(below) * equal
    if are_exact:
        return share
    return (share * ess + torch.rand_like(below)) / (ess + 1)  # of so many draws, a rank


@singledispatch
def _below_and_at(law: TorchDistribution, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """P(X < x) and P(X = x), and whether they are exact; of one draw of X where they are not."""
    if not stated_support(law).is_discrete:
        with suppress(NotImplementedError):
            return (below := law.cdf(x)), torch.zeros_like(below), True
    drawn = law.sample()
    return drawn < x, drawn == x, False


@_below_and_at.register
def _of_censored(law: CensoredEntries, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """A bound may stand for any value beyond it, as likely as that is."""
    below, above = (each.exp() for each in log_tails(law.base, x))
    low, high = 1 - above, below
    low = torch.where(law.codes == BELOW, 0.0, low)
    high = torch.where(law.codes == ABOVE, 1.0, high)
    if law.upper is not None:
        high = torch.where(law.codes == BETWEEN, log_tails(law.base, law.upper)[0].exp(), high)
    return low, (high - low).clamp(min=0), True


@_below_and_at.register
def _of_observed(law: ObservedEntries, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    return _below_and_at(
        law.base, torch.where(x.isnan(), number_inside(stated_support(law.base), x), x)
    )


@_below_and_at.register(Columns)
@_below_and_at.register(EntriesOfSites)
def _of_parts(law: Columns | EntriesOfSites, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    below, at, exact = zip(*(_below_and_at(one, few) for one, few in zip(law.parts, law.split(x))))
    return law.joined(below), law.joined(at), all(exact)
