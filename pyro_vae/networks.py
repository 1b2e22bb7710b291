"""Networks: from an input and an optional context to features.

The contract: ``network(in_shape, ...)`` is a module with ``out_shape``; its ``forward(x, context=None)`` maps
``(*batch, *in_shape)`` to ``(*batch, *out_shape)`` for any leading batch dimensions, the context's batch
broadcast against the input's. The context joins features, so the input is encoded once even where the context
carries more batch dimensions. Any module that keeps this is a network; nothing needs to be inherited, and a plain
`torch.nn.Sequential` becomes one by setting its ``out_shape``. `OneHot`, which turns labels into a context's
features, is no network in this sense, and `WithMask` wraps one for data with missing entries: both stay out of
``__all__``, from which choices and tests are derived.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.validation import InvalidInput

__all__ = ["MLP", "Conv", "ConvTranspose"]

Size = int | Sequence[int]


def as_shape(size: Size) -> tuple[int, ...]:
    """A size as a tuple: ``20 -> (20,)``, ``[1, 28, 28] -> (1, 28, 28)``."""
    return (size,) if isinstance(size, int) else tuple(size)


def over_batch(module: Callable[[Tensor], Tensor], x: Tensor, event_dim: int) -> Tensor:
    """Calls a module that wants one batch dimension, such as a convolution, over any number of them."""
    batch = x.shape[: x.dim() - event_dim]
    out = module(x.reshape(-1, *x.shape[x.dim() - event_dim:]))
    return out.reshape(*batch, *out.shape[1:])


def flatten_event(x: Tensor, event_dim: int) -> Tensor:
    """Joins the last ``event_dim`` dimensions into one."""
    return x if event_dim == 1 else x.reshape(*x.shape[: x.dim() - event_dim], -1)


def features_of(network: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """What ``network`` makes of x; a network that takes no context is called without one."""
    return network(x) if context is None else network(x, context=context)


def out_shape_of(network: nn.Module) -> tuple[int, ...]:
    """The features' shape that a network states.

    Raises:
        InvalidInput: if it states none.
    """
    shape = getattr(network, "out_shape", None)
    if shape is None:
        raise InvalidInput("network", got=f"{type(network).__name__} without out_shape",
                           expected="a module that states the shape of its features",
                           fix="set network.out_shape = (400,) or whatever it returns for one datum")
    return as_shape(shape)


class Join(nn.Module):
    r"""An affine map of an input and a context, :math:`h = W x + V c + b`.

    The same function as a linear layer on ``[x, c]``, but each part is multiplied at its own batch shape and
    only the results are broadcast.
    """

    def __init__(self, in_features: int, out_features: int, context: int = 0):
        super().__init__()
        self.context_features = context
        self.input = nn.Linear(in_features, out_features)
        self.context = nn.Linear(context, out_features, bias=False) if context else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.input(x)
        check_context_features(self.context_features, context)
        return h if self.context is None else h + self.context(context)


def check_context_features(expected: int, context: Tensor | None) -> None:
    """Raises `InvalidInput` unless the context's last dimension is what the network was built for."""
    got = 0 if context is None else context.shape[-1]
    if got != expected:
        raise InvalidInput("context", got=f"{got} features" if got else "none",
                           expected=f"{expected} features" if expected else "none by this network",
                           fix=f"build the network with context={got}" if got else
                               "give the program a context module and pass a context with the data")


class Head(nn.Module):
    """The last layer that a component builds on a network: one tensor of event shape per parameter.

    Linear on vectors; a 1x1 convolution where features and event are images of the same height and width.

    Args:
        in_shape: the network's ``out_shape``.
        event_shape: the shape of each parameter.
        parameters: how many there are.
    """

    def __init__(self, in_shape: Size, event_shape: Size, parameters: int = 1):
        super().__init__()
        self.in_shape, self.event_shape, self.parameters_count = as_shape(in_shape), as_shape(event_shape), parameters
        self.is_image = len(self.in_shape) == len(self.event_shape) == 3 and self.in_shape[1:] == self.event_shape[1:]
        if self.is_image:
            self.layer: nn.Conv2d | nn.Linear = nn.Conv2d(self.in_shape[0], parameters * self.event_shape[0], kernel_size=1)
        else:
            self.layer = nn.Linear(math.prod(self.in_shape), parameters * math.prod(self.event_shape))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        # Under autocast the layer answers in half precision; densities are computed in the parameters' own.
        dtype = self.layer.weight.dtype
        if self.is_image:
            return over_batch(self.layer, features, 3).to(dtype).chunk(self.parameters_count, dim=-3)
        out = self.layer(flatten_event(features, len(self.in_shape))).to(dtype)
        return tuple(part.reshape(*part.shape[:-1], *self.event_shape)
                     for part in out.chunk(self.parameters_count, dim=-1))


class MLP(nn.Module):
    r"""Fully connected layers, :math:`h_i = a(W_i h_{i-1} + b_i)`, the context joined in the first.

    Args:
        in_shape: event shape of the input; flattened.
        hidden: widths of the layers; ``[]`` gives the (flattened) input itself, for linear models.
        context: number of context features, 0 for none.
        activation: the nonlinearity, a module class without arguments.
        dropout: probability of dropping a unit while training.

    Example:
        >>> net = MLP((1, 28, 28), [400], context=10)
        >>> net(torch.zeros(5, 1, 28, 28), context=torch.zeros(3, 5, 10)).shape
        torch.Size([3, 5, 400])
    """

    def __init__(self, in_shape: Size, hidden: Sequence[int] = (400,), *, context: int = 0,
                 activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0):
        super().__init__()
        self.in_shape, self.hidden = as_shape(in_shape), list(hidden)
        self.context, self.activation, self.dropout = context, activation, dropout
        widths = [math.prod(self.in_shape), *self.hidden]
        self.layers = nn.ModuleList(
            Join(before, after, context if i == 0 else 0) for i, (before, after) in enumerate(itertools.pairwise(widths)))
        self.nonlinearity = nn.Sequential(activation(), nn.Dropout(dropout)) if dropout else activation()
        self.out_shape = (self.hidden[-1] if self.hidden else widths[0] + context,)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = flatten_event(x, len(self.in_shape))
        if not self.layers:
            check_context_features(self.context, context)
            return h if context is None else torch.cat(broadcast_batch(h, context), dim=-1)
        h = self.nonlinearity(self.layers[0](h, context))
        for layer in self.layers[1:]:
            h = self.nonlinearity(layer(h))
        return h


def broadcast_batch(*tensors: Tensor) -> list[Tensor]:
    """Expands vectors to one batch shape, their last dimensions left as they are."""
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return [t.expand(*batch, t.shape[-1]) for t in tensors]


class Conv(nn.Module):
    """Strided convolutions on images of any (C, H, W), each of which halves height and width (rounded up).

    Args:
        in_shape: (channels, height, width).
        channels: channels of each layer.
        hidden: widths of dense layers after the last convolution, where the context joins too; with ``[]`` and
            no context the features are the last feature map.
        context: number of context features, 0 for none; it needs a dense layer to join.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on an input that is no image, an even kernel, or a context without a dense layer.

    Example:
        >>> Conv((1, 28, 28), [32, 64])(torch.zeros(4, 2, 1, 28, 28)).shape
        torch.Size([4, 2, 256])
    """

    def __init__(self, in_shape: Size, channels: Sequence[int] = (32, 64), hidden: Sequence[int] = (256,), *,
                 context: int = 0, kernel_size: int = 3, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.in_shape, self.channels, self.hidden = check_image_shape(in_shape), list(channels), list(hidden)
        self.context, self.kernel_size, self.activation = context, check_kernel(kernel_size), activation
        if context and not self.hidden:
            raise InvalidInput("hidden", got="[] with a context", expected="at least one dense layer for it to join",
                               fix="pass hidden=[256]")
        size, layers, before = self.in_shape[1:], [], self.in_shape[0]
        for after in self.channels:
            layers += [nn.Conv2d(before, after, kernel_size, stride=2, padding=kernel_size // 2), activation()]
            size, before = halve(size), after
        self.convolutions = nn.Sequential(*layers)
        self.feature_map = (before, *size)
        self.dense = MLP(self.feature_map, hidden, context=context, activation=activation) if self.hidden else None
        self.out_shape = self.dense.out_shape if self.dense else self.feature_map

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = over_batch(self.convolutions, x, 3)
        if self.dense is None:
            check_context_features(0, context)
            return h
        return self.dense(h, context)


class ConvTranspose(nn.Module):
    """Dense layers, then strided transposed convolutions up to a feature map of the wanted height and width.

    The mirror image of `Conv`: the sizes between are those that `Conv` passes through on the way down, so every
    height and width is met exactly.

    Args:
        in_shape: event shape of the input, usually the latent's; flattened.
        size: (height, width) of the feature map returned, or an image's (channels, height, width).
        channels: channels of the maps, the deepest first; the last are the channels returned.
        hidden: widths of dense layers before the first map; the context joins at the first dense layer.
        context: number of context features, 0 for none.
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.

    Example:
        >>> ConvTranspose(20, (28, 28), [64, 32])(torch.zeros(7, 20)).shape
        torch.Size([7, 32, 28, 28])
    """

    def __init__(self, in_shape: Size, size: Size = (), channels: Sequence[int] = (64, 32),
                 hidden: Sequence[int] = (256,), *, context: int = 0, kernel_size: int = 3, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.in_shape, self.channels, self.hidden = as_shape(in_shape), list(channels), list(hidden)
        self.context, self.kernel_size, self.activation = context, check_kernel(kernel_size), activation
        self.size = as_shape(size)[-2:]
        if len(self.size) != 2 or not self.channels:
            raise InvalidInput("size", got=f"{size!r} with channels {self.channels}",
                               expected="(height, width) and at least one channel count",
                               fix="pass size=(28, 28), channels=[64, 32]")
        sizes: list[Any] = [self.size]
        for _ in self.channels:
            sizes.insert(0, halve(sizes[0]))
        deepest = self.channels[0]
        self.dense = MLP(self.in_shape, [*self.hidden, deepest * math.prod(sizes[0])], context=context,
                         activation=activation)
        self.feature_map = (deepest, *sizes[0])
        layers: list[nn.Module] = []
        for i, (small, large) in enumerate(itertools.pairwise(sizes)):
            # A transposed convolution of stride 2 gives 2 n - 1 rows; the missing one is padded where n was halved.
            extra: Any = tuple(b - (2 * a - 1) for a, b in zip(small, large))
            layers += [nn.ConvTranspose2d(self.channels[max(i - 1, 0)], self.channels[i], kernel_size, stride=2,
                                          padding=kernel_size // 2, output_padding=extra), activation()]
        self.convolutions = nn.Sequential(*layers)
        self.out_shape = (self.channels[-1], *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.dense(x, context)
        return over_batch(self.convolutions, h.reshape(*h.shape[:-1], *self.feature_map), 3)


def halve(size: Size) -> tuple[int, ...]:
    """Height and width after a convolution of stride 2: halved, rounded up."""
    return tuple((n + 1) // 2 for n in as_shape(size))


def check_image_shape(shape: Size) -> tuple[int, ...]:
    """Raises `InvalidInput` unless ``shape`` is (channels, height, width)."""
    shape = as_shape(shape)
    if len(shape) != 3:
        raise InvalidInput("in_shape", got=str(shape), expected="(channels, height, width)",
                           fix="reshape x to images, or use MLP")
    return shape


def check_kernel(kernel_size: int) -> int:
    """Raises `InvalidInput` unless the kernel has a middle, so that sizes halve whatever they are."""
    if kernel_size % 2 == 0:
        raise InvalidInput("kernel_size", got=str(kernel_size), expected="an odd number",
                           fix=f"pass kernel_size={kernel_size + 1}")
    return kernel_size


class WithMask(nn.Module):
    r"""A network that sees data with missing entries, NaN, as their values filled with 0 and what was observed.

    .. math:: h = \mathrm{network}([\tilde x, m]), \quad m = [x \text{ is observed}], \quad
              \tilde x = x \text{ where } m, \text{ else } 0

    joined along the first dimension of the event: twice as many columns of a table, twice as many channels of an image.

    Args:
        in_shape: event shape of x.
        network: any network whose input shape is ``WithMask.doubled(in_shape)``.

    Source: Nazabal et al. (2020) for the zeros; Collier, Nazabal and Williams (2020), VAEs in the Presence of Missing Data,
    for the mask.

    Example:
        >>> net = WithMask(13, MLP(26, [50]))
        >>> net(torch.full((4, 13), torch.nan)).shape
        torch.Size([4, 50])
    """

    def __init__(self, in_shape: Size, network: nn.Module):
        super().__init__()
        self.in_shape, self.network = as_shape(in_shape), network
        self.out_shape = out_shape_of(network)

    @staticmethod
    def doubled(in_shape: Size) -> tuple[int, ...]:
        """The input shape of the network inside."""
        first, *rest = as_shape(in_shape)
        return (2 * first, *rest)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        missing = torch.isnan(x)
        filled = torch.where(missing, torch.zeros_like(x), x)
        return features_of(self.network, torch.cat([filled, (~missing).to(x.dtype)], dim=-len(self.in_shape)), context)


class OneHot(nn.Module):
    r"""Labels as features: label :math:`y \in \{0, \dots, C - 1\}` becomes the unit vector :math:`e_y`.

    Args:
        num_classes: how many labels there are.

    Example:
        >>> OneHot(3)(torch.tensor([2]))
        tensor([[0., 0., 1.]])
    """

    vectors: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.out_shape = (num_classes,)
        self.register_buffer("vectors", torch.eye(num_classes), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return self.vectors[labels.long()]

    def check(self, labels: Tensor) -> None:
        """Raises `InvalidInput` on labels that are no integers in range."""
        whole = labels if not labels.is_floating_point() else labels.round()
        bad = (whole != labels) | (labels < 0) | (labels >= self.num_classes)
        if labels.dim() != 1 or bad.any():
            got = f"shape {tuple(labels.shape)}" if labels.dim() != 1 else f"label {labels[bad][0].item()!r}"
            raise InvalidInput("context", got=got,
                               expected=f"one integer from 0 to {self.num_classes - 1} for each datum",
                               fix=f"relabel the data, or build OneHot with more than {self.num_classes} classes")
