"""Different likelihoods for different columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.contracts import Likelihood, Quantity, as_module, known_by
from pyro_vae.distributions import Columns, entries_of
from pyro_vae.likelihoods.inner import Inner, likelihood_on
from pyro_vae.networks import Size, as_shape, features_of
from pyro_vae.validation import InvalidInput

__all__ = ["Group", "Mixed"]


class Group(Inner, total=False):
    """A group of columns with a likelihood of its own, in the words of a recipe."""

    columns: Sequence[int]


class Mixed(nn.Module):
    r"""A table's columns in groups, each with a likelihood of its own, all from one network.

    .. math:: p(x \mid z) = \prod_g p_g(x_{C_g} \mid z)

    A group is a mapping with the words of a recipe: ``columns``, a list of column numbers;
    ``class_path``, a class of `pyro_vae.likelihoods` with independent entries, or an import path;
    and its further arguments as ``init_args``. In YAML::

        likelihood:
          class_path: Mixed
          init_args:
            groups:
            - {columns: [0, 1], class_path: StudentT, init_args: {df: 4}}
            - {columns: [2], class_path: Categorical, init_args: {categories: 3}}

    Known quantities, such as ``censored``, are one number for a datum, (N,), or one for each of its
    columns, (N, D), of which each group takes its own.

    Args:
        event_shape: (D,), the number of columns.
        network: the decoder, from z to features.
        groups: the groups, which hold every column once; by default all columns are `Normal` with a
            learned scale each.

    Raises:
        InvalidInput: if the event is no vector, a column is in no group or in two, or a group's
            class is unknown; when called, if the entries of a group depend on one another given z.

    Source: Nazabal, Olmos, Ghahramani and Valera (2020), Handling Incomplete Heterogeneous Data
    using VAEs.

    Example:
        >>> p = Mixed(3, pv.networks.MLP(2, [8]), groups=[
        ...     {"columns": [0, 2], "class_path": "StudentT", "init_args": {"df": 4.0}},
        ...     {"columns": [1], "class_path": "Categorical", "init_args": {"categories": 3}}])
        >>> p(torch.zeros(5, 2)).log_prob(torch.tensor([0.3, 2.0, -1.2])).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Size, network: nn.Module, groups: Sequence[Group] = ()):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.groups = [Group(**group) for group in groups]
        if len(self.event_shape) != 1:
            raise InvalidInput(
                "event_shape",
                got=str(self.event_shape),
                expected="(D,), a row of a table",
                fix="flatten x",
            )
        everything: Group = {
            "columns": range(*self.event_shape),
            "class_path": "Normal",
            "init_args": {"learn_scale": "per_feature"},
        }
        described = self.groups or [everything]
        columns = [list(group.get("columns", ())) for group in described]
        self.check_columns([column for some in columns for column in some])
        self.parts = nn.ModuleList(  # the network runs once, for all groups
            as_module(self._part(group, len(some))) for group, some in zip(described, columns)
        )
        for i, some in enumerate(columns):
            self.register_buffer(f"columns_{i}", torch.tensor(some), persistent=False)

    def _part(self, group: Group, num_columns: int) -> Likelihood:
        unknown = set(group) - {"columns", "class_path", "init_args"}
        if unknown or "class_path" not in group:
            raise InvalidInput(
                "groups",
                got=f"a group with {', '.join(sorted(group)) or 'nothing'}",
                expected="columns, class_path and init_args",
                fix="see the example of likelihoods.Mixed",
            )
        inner = Inner(class_path=group["class_path"], init_args=group.get("init_args", {}))
        return likelihood_on(inner, (num_columns,), self.network, "groups")

    @property
    def known(self) -> dict[str, Quantity]:
        return {name: q for part in self.parts for name, q in known_by(part).items()}

    def forward(
        self, z: Tensor, *, context: Tensor | None = None, **known: Tensor
    ) -> dist.TorchDistribution:
        features = features_of(self.network, z, context)
        columns = [self.get_buffer(f"columns_{i}") for i in range(len(self.parts))]
        entries = []
        for part, some in zip(self.parts, columns):
            taken = {name: known[name] for name in known_by(part) if name in known}
            own = {
                name: value if value.dim() == 1 else value.index_select(-1, some)
                for name, value in taken.items()
            }
            entries.append(entries_of(part(features, **own), "groups"))
        return Columns(entries, columns).to_event(1)

    def check_columns(self, columns: Sequence[int]) -> None:
        """Raise `InvalidInput` unless the columns are 0, ..., D - 1, each once, in any order."""
        (size,) = self.event_shape
        if sorted(columns) != list(range(size)):
            wrong = sorted(
                set(range(size)).symmetric_difference(columns)
                | {c for c in columns if list(columns).count(c) > 1}
            )
            raise InvalidInput(
                "groups",
                got=f"columns {', '.join(map(str, wrong))} in no group, in two, or out of range",
                expected=f"every column from 0 to {size - 1} in one group",
                fix="correct the groups' columns",
            )
