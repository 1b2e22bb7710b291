"""Distributions made entry by entry: a family for each column, and missing entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, Transform, biject_to, constraints

from pyro_vae.distributions.adapters import TorchToPyro, as_pyro
from pyro_vae.distributions.levels import CategoricalCode
from pyro_vae.distributions.supports import (
    OrElse,
    given_datum,
    innermost_support,
    number_inside,
    representative_of,
    stated_support,
    words_of,
)
from pyro_vae.validation import InvalidInput

__all__ = ["Columns", "ObservedEntries", "are_names", "entries_of", "is_interval"]


@runtime_checkable
class MadeOfEntries(Protocol):
    """A distribution of whole events that says itself what its entries have."""

    def entries(self) -> TorchDistribution: ...


def entries_of(distribution: Distribution, argument: str = "likelihood") -> TorchDistribution:
    """The distribution of single entries underlying one of whole events.

    Raises:
        InvalidInput: if entries depend on one another, as those of a multinomial do.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> entries_of(Independent(Normal(torch.zeros(5, 3), 1.0), 1)).batch_shape
        torch.Size([5, 3])
    """
    base = distribution
    while isinstance(base, Independent | TorchToPyro):
        base = base.wrapped if isinstance(base, TorchToPyro) else base.base_dist
    if isinstance(base, MadeOfEntries):
        return base.entries()
    if base.event_shape:
        raise InvalidInput(
            argument,
            got=f"{type(base).__name__}, whose entries depend on one another",
            expected="entries that are independent given z",
            fix="choose a likelihood whose entries are independent, such as Normal",
        )
    return as_pyro(base)


class Columns(TorchDistribution):
    r"""Independent entries, each from the distribution of its column.

    .. math:: p(x) = \prod_i p_{g(i)}(x_i)

    with g(i) the part that describes column i. The event is a single entry: ``to_event(1)`` makes
    rows of a table, and entries can be left out.

    Args:
        parts: distributions of entries; the last dimension of each part's batch shape runs over its
            columns.
        columns: for each part the columns it describes, index tensors that together count 0, 1,
            ..., D - 1.

    Example:
        >>> from torch.distributions import Normal, Poisson
        >>> parts = [Normal(torch.zeros(5, 2), 1.0), Poisson(torch.ones(5, 1))]
        >>> d = Columns(parts, [torch.tensor([0, 2]), torch.tensor([1])])
        >>> d.batch_shape, d.log_prob(torch.zeros(3)).shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    arg_constraints: dict = {}

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[Tensor]):
        self.parts, self.columns = [as_pyro(part) for part in parts], list(columns)
        self.order = torch.cat(self.columns).argsort()
        rows = torch.broadcast_shapes(*(part.batch_shape[:-1] for part in self.parts))
        self.parts = [part.expand(torch.Size((*rows, part.batch_shape[-1]))) for part in self.parts]
        super().__init__(torch.Size((*rows, len(self.order))), validate_args=False)

    @property
    def support(self):
        if len(self.parts) == 1:
            return self.parts[0].support
        return PerColumn([part.support for part in self.parts], self.joined, self.split)

    @property
    def mean(self) -> Tensor:
        return self.joined([part.mean for part in self.parts])

    @property
    def representative(self) -> Tensor:
        return self.joined([representative_of(part) for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self.joined([part.variance for part in self.parts])

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.joined([part.sample(sample_shape) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        return self.joined([part.log_prob(few) for part, few in zip(self.parts, self.split(value))])

    def at_datum(self, x: Tensor) -> Columns:
        """The same with what a datum fixes of each part."""
        parts = [given_datum(part, few) for part, few in zip(self.parts, self.split(x))]
        return Columns(parts, self.columns)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Columns:
        rows = tuple(batch_shape)[:-1]
        parts = [part.expand(torch.Size((*rows, part.batch_shape[-1]))) for part in self.parts]
        return Columns(parts, self.columns)

    def split(self, value: Tensor) -> list[Tensor]:
        """The columns of each part."""
        return [value.index_select(-1, index) for index in self.columns]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """What each part has for its columns, in the table's order."""
        return torch.cat(list(parts), -1).index_select(-1, self.order)


class PerColumn(constraints.Constraint):
    """A constraint for each group of columns; discrete only if all of them are."""

    def __init__(
        self,
        parts: Sequence[constraints.Constraint],
        join: Callable[[Sequence[Tensor]], Tensor],
        split: Callable[[Tensor], list[Tensor]],
    ):
        self.parts, self._join, self._split = list(parts), join, split
        self.is_discrete = all(part.is_discrete for part in parts)  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.by_column(lambda part, few: part.check(few), value)

    def by_column(
        self, function: Callable[[constraints.Constraint, Tensor], Tensor], value: Tensor
    ) -> Tensor:
        """What a function gives of each group's constraint and columns, in the table's order."""
        few = zip(self.parts, self._split(value))
        return self._join([function(part, columns) for part, columns in few])

    def __repr__(self) -> str:
        return " and ".join(dict.fromkeys(map(words_of, self.parts))) + " by column"


def are_names(entries: Distribution) -> Tensor:
    """Which entries are categories, whose numbers stand for names: of columns (D,), else of all ().

    Example:
        >>> names = CategoricalCode(logits=torch.zeros(5, 1, 3))
        >>> numbers = torch.distributions.Normal(torch.zeros(5, 2), 1.0)
        >>> are_names(Columns([names, numbers], [torch.tensor([1]), torch.tensor([0, 2])]))
        tensor([False,  True, False])
    """
    if isinstance(entries, ObservedEntries):
        return are_names(entries.base)
    if isinstance(entries, Columns):
        found = torch.zeros(len(entries.order), dtype=torch.bool)
        for part, columns in zip(entries.parts, entries.columns):
            found[columns.cpu()] = are_names(part)
        return found
    return torch.tensor(isinstance(entries, CategoricalCode))


@number_inside.register
def _inside_of_columns(support: PerColumn, like: Tensor) -> Tensor:
    return support.by_column(number_inside, like)


class ObservedEntries(TorchDistribution):
    r"""Independent entries, where NaN marks a missing one.

    .. math:: \log p(x) = [x \text{ is observed}]\; \log p_0(x)

    The sum over an event is the log-probability of its observed entries; the others are integrated
    out. A number of the support replaces each NaN before the density is evaluated, for masking the
    result alone would still give NaN gradients. Samples are complete.

    Args:
        base: the distribution of the entries, its event a single number.

    Example:
        >>> d = ObservedEntries(torch.distributions.Normal(torch.zeros(2), 1.0))
        >>> d.log_prob(torch.tensor([0.0, torch.nan]))
        tensor([-0.9189,  0.0000])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution):
        self.base = as_pyro(base)
        super().__init__(self.base.batch_shape, validate_args=False)

    @property
    def support(self):
        return OrMissing(self.base.support)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def representative(self) -> Tensor:
        return representative_of(self.base)

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        missing = torch.isnan(value)
        filler = number_inside(stated_support(self.base), value)
        log_prob = self.base.log_prob(torch.where(missing, filler, value))
        return torch.where(missing, torch.zeros_like(log_prob), log_prob)

    def at_datum(self, x: Tensor) -> ObservedEntries:
        """The same with what a datum fixes of each entry."""
        return ObservedEntries(given_datum(self.base, x))

    def expand(self, batch_shape: torch.Size, _instance=None) -> ObservedEntries:
        return ObservedEntries(self.base.expand(torch.Size(batch_shape)))


class OrMissing(OrElse):
    """A constraint under which an entry may also be missing, a NaN."""

    def __init__(self, base: constraints.Constraint):
        super().__init__(base, "missing")

    def check(self, value: Tensor) -> Tensor:
        return torch.isnan(value) | self.base.check(value)


INTERVALS = tuple(
    type(each)
    for each in (
        constraints.real,
        constraints.positive,
        constraints.nonnegative,
        constraints.less_than(0.0),
        constraints.unit_interval,
        constraints.half_open_interval(0.0, 1.0),
        constraints.boolean,
        constraints.nonnegative_integer,
        constraints.integer_interval(0, 1),
    )
)


def is_interval(support: constraints.Constraint) -> bool:
    """Whether a support is one interval for all entries, of numbers or of whole numbers.

    Entries may be missing. Whether data lie in it follows from the least of their numbers, the
    largest, and one that is no whole number.

    Example:
        >>> is_interval(OrMissing(constraints.unit_interval)), is_interval(constraints.simplex)
        (True, False)
    """
    inner = innermost_support(support)
    if isinstance(inner, OrMissing):
        return is_interval(inner.base)
    bounds = [bound for bound in vars(inner).values() if isinstance(bound, Tensor)]
    return isinstance(inner, INTERVALS) and all(bool((b == b.flatten()[0]).all()) for b in bounds)


@biject_to.register(OrMissing)
def _of_complete_values(constraint: OrMissing) -> Transform:
    return biject_to(constraint.base)
