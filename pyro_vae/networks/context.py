"""Contexts: modules that turn labels, covariates or masks into features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.contracts import Tensors
from pyro_vae.networks.shapes import Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["ColumnFeatures", "Corrupted", "Covariates", "OneHot", "WithMask", "WithoutContext"]


class Covariates(nn.Module):
    r"""Covariates (N,) or (N, C) as features (N, C); or several entries of a context, joined.

    .. math:: c = [m_1(y_1), m_2(y_2), \dots]

    Args:
        parts: a module for each entry of the context dictionary, `OneHot` for categories,
            `torch.nn.Identity` for numbers; by default the context is a tensor of numbers.

    Example:
        >>> context = Covariates({"batch": OneHot(3), "age": torch.nn.Identity()})
        >>> context({"batch": torch.tensor([2]), "age": torch.tensor([0.5])})
        tensor([[0.0000, 0.0000, 1.0000, 0.5000]])
    """

    one: Tensor

    def __init__(self, parts: Mapping[str, nn.Module] | nn.ModuleDict | None = None):
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts or {}))
        self.entries = tuple(self.parts)
        self.register_buffer("one", torch.ones(()), persistent=False)  # for its device and dtype

    def forward(self, values: Tensors) -> Tensor:
        if isinstance(values, Tensor):
            return self._columns(values)
        made = [self._columns(part(values[name])) for name, part in self.parts.items()]
        return torch.cat(made, -1)

    def _columns(self, values: Tensor) -> Tensor:
        return values.to(self.one).reshape(len(values), -1)

    def check(self, values: Tensors) -> None:
        """Raise `InvalidInput` if a part of it refuses its entry."""
        for name, part in self.parts.items():
            if isinstance(part, OneHot) and isinstance(values, dict):
                part.check(values[name], f"context[{name!r}]")


class ColumnFeatures(nn.Module):
    r"""Columns of a table as features: numbers as they are, categories as unit vectors.

    Args:
        categories: for each column the number of its categories, or 0 for one of numbers.

    Example:
        >>> ColumnFeatures([0, 3])(torch.tensor([[0.5, 2.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """

    vectors: Tensor

    def __init__(self, categories: Sequence[int]):
        super().__init__()
        self.categories = list(categories)
        self.out_shape = (sum(count or 1 for count in self.categories),)
        vectors = torch.eye(max([1, *self.categories]))
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        values = values.to(self.vectors)
        features = [
            self.vectors[values[..., i].long()][..., :count] if count else values[..., i : i + 1]
            for i, count in enumerate(self.categories)
        ]
        return torch.cat(features, -1)

    def check(self, values: Tensor) -> None:
        """Raise `InvalidInput` unless each column has its number, and categories are in range."""
        if values.dim() != 2 or values.shape[1] != len(self.categories):
            raise InvalidInput(
                "context",
                got=f"shape {tuple(values.shape)}",
                expected=f"(N, {len(self.categories)}), a number for each column",
                fix="pass all columns of the context in their order",
            )
        for i, count in enumerate(self.categories):
            column = values[:, i]
            bad = (column % 1 != 0) | (column < 0) | (column >= count)
            if count and bool(bad.any()):
                raise InvalidInput(
                    "context",
                    got=f"category {column[bad][0].item():g} in column {i}",
                    expected=f"one of 0 to {count - 1}",
                    fix="number the categories as in the training data",
                )


class WithMask(nn.Module):
    r"""A network for data with missing entries: it takes zeros there, and the mask.

    Missing entries are NaN in x. The network sees

    .. math:: h = \mathrm{network}([\tilde x, m]), \quad m = [x \text{ is observed}], \quad
              \tilde x = x \text{ where } m, \text{ else } 0

    joined along the first dimension of the event: twice the columns of a table, or twice the
    channels of an image.

    Args:
        in_shape: event shape of x.
        network: any network whose input shape is ``WithMask.doubled(in_shape)``.

    Source: Nazabal et al. (2020) for the zeros; Collier, Nazabal and Williams (2020), VAEs in the
    Presence of Missing Data, for the mask.

    Example:
        >>> net = WithMask(13, pv.networks.MLP(26, [50]))
        >>> net(torch.full((4, 13), torch.nan)).shape
        torch.Size([4, 50])
    """

    takes_draws = True

    def __init__(self, in_shape: Size, network: nn.Module):
        super().__init__()
        self.in_shape, self.network = as_shape(in_shape), network
        self.out_shape = out_shape_of(network)

    @staticmethod
    def doubled(in_shape: Size) -> tuple[int, ...]:
        """The input shape that the network inside needs."""
        first, *rest = as_shape(in_shape)
        return (2 * first, *rest)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        missing = torch.isnan(x)
        filled = torch.where(missing, torch.zeros_like(x), x)
        both = torch.cat([filled, (~missing).to(x.dtype)], dim=-len(self.in_shape))
        return features_of(self.network, both, context)


class Corrupted(nn.Module):
    r"""A network that sees corrupted data in training, as a denoising autoencoder's encoder does.

    .. math:: h = \mathrm{network}(\tilde x), \quad \tilde x \sim C(\tilde x \mid x)

    Args:
        network: any network.
        corruption: a module that is random while training, such as those of
            `pyro_vae.networks.corruptions`.

    Source: Vincent et al. (2008), Extracting and Composing Robust Features with Denoising
    Autoencoders; Im et al. (2017), Denoising Criterion for Variational Auto-Encoding Framework, for
    a posterior with a density.

    Example:
        >>> masking = pv.networks.corruptions.Masking(0.3)
        >>> net = Corrupted(pv.networks.MLP((1, 8, 8), [16]), masking).eval()
        >>> torch.equal(net(torch.ones(2, 1, 8, 8)), net.network(torch.ones(2, 1, 8, 8)))
        True
    """

    takes_draws = True

    def __init__(self, network: nn.Module, corruption: nn.Module):
        super().__init__()
        self.network, self.corruption = network, corruption
        self.out_shape = out_shape_of(network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return features_of(self.network, self.corruption(x), context)


class WithoutContext(nn.Module):
    r"""A network that ignores the context, such as that of p(x | z) beside a prior p(z | y).

    Args:
        network: any network without a context.

    Example:
        >>> network = WithoutContext(pv.networks.MLP(2, [16]))
        >>> network(torch.zeros(5, 2), context=torch.zeros(3, 5, 10)).shape
        torch.Size([5, 16])
    """

    takes_draws = True

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.out_shape = out_shape_of(network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return features_of(self.network, x, None)


class OneHot(nn.Module):
    r"""Labels as unit vectors: label y in 0, ..., C - 1 becomes :math:`e_y`.

    Args:
        num_classes: the number of labels C.
        unknown: whether a label may be -1, unknown, which becomes a vector of zeros.

    Example:
        >>> OneHot(3)(torch.tensor([2]))
        tensor([[0., 0., 1.]])
    """

    vectors: Tensor

    def __init__(self, num_classes: int, unknown: bool = False):
        super().__init__()
        check_count("num_classes", num_classes)
        self.num_classes, self.unknown = num_classes, unknown
        self.out_shape = (num_classes,)
        vectors = torch.eye(num_classes + unknown, num_classes)  # the last row is that of -1
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return self.vectors[labels.long()]

    def check(self, labels: Tensor, argument: str = "context") -> None:
        """Raise `InvalidInput` unless all labels are integers in range."""
        whole = labels if not labels.is_floating_point() else labels.round()
        bad = (whole != labels) | (labels < -int(self.unknown)) | (labels >= self.num_classes)
        if labels.dim() != 1 or bad.any():
            one_each = labels.dim() == 1
            is_unknown = one_each and not self.unknown and bool((labels[bad] == -1).all())
            raise InvalidInput(
                argument,
                got=f"label {labels[bad][0].item()}" + ", of a datum without one" * is_unknown
                if one_each
                else f"shape {(*labels.shape,)}",
                expected=f"one integer from 0 to {self.num_classes - 1} for each datum",
                fix="leave these data out, or train a SemiSupervisedVAE, which learns from them too"
                if is_unknown
                else f"relabel the data, or build OneHot with more than {self.num_classes} classes",
            )
