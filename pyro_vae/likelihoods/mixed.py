"""Different likelihoods for different columns of a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import Columns, entries_of
from pyro_vae.networks import Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["Group", "Mixed"]


class Group(TypedDict, total=False):
    """A group of columns with a likelihood of its own, in the words of a recipe."""

    columns: Sequence[int]
    class_path: str | type[nn.Module]
    init_args: Mapping[str, object]


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
        features = Features(out_shape_of(network))  # the network runs once, for all groups
        self.parts = nn.ModuleList(
            _likelihood_class(group)((len(some),), features, **group.get("init_args", {}))
            for group, some in zip(described, columns)
        )
        for i, some in enumerate(columns):
            self.register_buffer(f"columns_{i}", torch.tensor(some), persistent=False)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        features = features_of(self.network, z, context)
        entries = [entries_of(part(features), "groups") for part in self.parts]
        columns = [self.get_buffer(f"columns_{i}") for i in range(len(self.parts))]
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


class Features(nn.Module):
    """A network that passes on the features that another module has computed."""

    takes_draws = True

    def __init__(self, out_shape: Size):
        super().__init__()
        self.out_shape = as_shape(out_shape)

    def forward(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        return features


def _likelihood_class(group: Group) -> Callable[..., nn.Module]:
    unknown = set(group) - {"columns", "class_path", "init_args"}
    if unknown or "class_path" not in group:
        raise InvalidInput(
            "groups",
            got=f"a group with {', '.join(sorted(group)) or 'nothing'}",
            expected="columns, class_path and init_args",
            fix="see the example of likelihoods.Mixed",
        )
    named = group["class_path"]
    if isinstance(named, type) and issubclass(named, nn.Module):
        return named
    family = importlib.import_module("pyro_vae.likelihoods")
    path, _, name = named.rpartition(".") if isinstance(named, str) else ("", "", repr(named))
    try:
        if not path and name not in family.__all__:
            raise AttributeError(name)
        found = getattr(importlib.import_module(path) if path else family, name)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise AttributeError(name)
        return found
    except (ImportError, AttributeError):
        raise InvalidInput(
            "groups",
            got=f"class_path {named!r}",
            expected="a likelihood or an import path",
            fix=nearest_name(name, family.__all__),
        ) from None
