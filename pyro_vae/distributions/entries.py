"""Distributions put together entry by entry: a family for each column of a table, and entries that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, biject_to, constraints

from pyro_vae.distributions.adapters import TorchToPyro, as_pyro
from pyro_vae.validation import InvalidInput

__all__ = ["Columns", "ObservedEntries", "entries_of"]


def entries_of(distribution: Distribution, argument: str = "likelihood") -> Any:
    """The distribution of the entries behind one of whole events: its base, whose event is a single number.

    Raises:
        InvalidInput: if the entries are not independent, as those of a multinomial are not.

    Example:
        >>> entries_of(torch.distributions.Independent(torch.distributions.Normal(torch.zeros(5, 3), 1.0), 1)).batch_shape
        torch.Size([5, 3])
    """
    base: Any = distribution
    while isinstance(base, Independent | TorchToPyro):
        base = base.wrapped if isinstance(base, TorchToPyro) else base.base_dist
    if base.event_shape:
        raise InvalidInput(
            argument,
            got=f"{type(base).__name__}, whose entries depend on one another",
            expected="entries that are independent given z",
            fix="choose a likelihood of single entries",
        )
    return as_pyro(base)


class Columns(TorchDistribution):
    r"""Independent entries, the last dimension's put together of several distributions.

    .. math:: p(x) = \prod_i p_{g(i)}(x_i)

    The event is a single entry, so that ``to_event(1)`` makes rows of a table and entries can be
    left out.

    Args:
        parts: distributions of entries; the last dimension of each part's batch shape runs over its
            columns.
        columns: for each part the columns it describes, index tensors that together count 0, 1,
            ..., D - 1.

    Example:
        >>> from torch.distributions import Normal, Poisson
        >>> d = Columns([Normal(torch.zeros(5, 2), 1.0), Poisson(torch.ones(5, 1))], [torch.tensor([0, 2]), torch.tensor([1])])
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
        return PerColumn([part.support for part in self.parts], self._join, self._split)

    @property
    def mean(self) -> Tensor:
        return self._join([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._join([part.variance for part in self.parts])

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._join([part.sample(sample_shape) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        return self._join([part.log_prob(few) for part, few in zip(self.parts, self._split(value))])

    def expand(self, batch_shape: torch.Size, _instance=None) -> Columns:
        rows = tuple(batch_shape)[:-1]
        return Columns(
            [part.expand(torch.Size((*rows, part.batch_shape[-1]))) for part in self.parts],
            self.columns,
        )

    def _split(self, value: Tensor) -> list[Tensor]:
        return [value.index_select(-1, index) for index in self.columns]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1).index_select(-1, self.order)


class PerColumn(constraints.Constraint):
    """A constraint for each group of columns; discrete only if all of them are."""

    def __init__(
        self,
        parts: Sequence[Any],
        join: Callable[[Sequence[Tensor]], Tensor],
        split: Callable[[Tensor], list[Tensor]],
    ):
        self.parts, self._join, self._split = list(parts), join, split
        self.is_discrete = all(part.is_discrete for part in parts)  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self._join([part.check(few) for part, few in zip(self.parts, self._split(value))])

    def __repr__(self) -> str:
        return (
            " and ".join(dict.fromkeys(str(part).rstrip("()") for part in self.parts))
            + " by column"
        )


class ObservedEntries(TorchDistribution):
    r"""Independent entries of which some may be missing: a NaN counts nothing.

    .. math:: \log p(x) = [x \text{ is observed}]\; \log p_0(x)

    So the sum over an event is the log-probability of its observed entries, the others being
    integrated out. A NaN is replaced by a number of the support before the density is evaluated:
    masking its result alone would still give NaN gradients. Samples are complete.

    Args:
        base: the distribution of the entries, its event a single number.

    Example:
        >>> d = ObservedEntries(torch.distributions.Normal(torch.zeros(2), 1.0))
        >>> d.log_prob(torch.tensor([0.0, torch.nan]))
        tensor([-0.9189,  0.0000])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution):
        self.base: Any = as_pyro(base)
        super().__init__(self.base.batch_shape, validate_args=False)

    @property
    def support(self):
        return OrMissing(self.base.support)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        missing = torch.isnan(value)
        # 0.5, 1 or 0, the first that the support holds, entry by entry: no support of ours is
        # without all three.
        filler = torch.zeros_like(value)
        for candidate in (1.0, 0.5):
            number = torch.full_like(value, candidate)
            filler = torch.where(self.base.support.check(number), number, filler)
        log_prob = self.base.log_prob(torch.where(missing, filler, value))
        return torch.where(missing, torch.zeros_like(log_prob), log_prob)

    def expand(self, batch_shape: torch.Size, _instance=None) -> ObservedEntries:
        return ObservedEntries(self.base.expand(torch.Size(batch_shape)))


class OrMissing(constraints.Constraint):
    """A constraint that lets NaN, a missing entry, pass."""

    def __init__(self, base: Any):
        self.base, self.is_discrete = base, base.is_discrete  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return torch.isnan(value) | self.base.check(value)

    def __repr__(self) -> str:
        return f"{str(self.base).rstrip('()')} or missing"


@biject_to.register(OrMissing)
def _of_complete_values(constraint: OrMissing) -> Any:
    return biject_to(constraint.base)
