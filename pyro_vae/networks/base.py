"""What all networks are made with: shapes, leading batch dimensions, the context, the last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from pyro_vae.validation import InvalidInput

__all__ = ["Corrupted", "Head", "Join", "OneHot", "Size", "as_shape", "broadcast_batch", "check_context_features", "features_of",
           "flatten_event", "out_shape_of", "over_batch"]

Size = int | Sequence[int]


def as_shape(size: Size) -> tuple[int, ...]:
    """A size as a tuple: ``20 -> (20,)``, ``[1, 28, 28] -> (1, 28, 28)``.

    Raises:
        InvalidInput: unless it is an integer >= 1 or a sequence of such.
    """
    shape = (int(size),) if isinstance(size, Integral) else tuple(size) if isinstance(size, Sequence) else None
    if shape is None or not all(isinstance(length, Integral) and length >= 1 for length in shape):
        raise InvalidInput("size", got=repr(size), expected="an integer >= 1, or a sequence of them",
                           fix="pass 20, or (1, 28, 28)")
    return shape


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

    Linear on vectors; one linear map for all places, a convolution of kernel size 1, where features and event are images
    of the same height and width, or sequences of the same length.

    Args:
        in_shape: the network's ``out_shape``.
        event_shape: the shape of each parameter.
        parameters: how many there are.
    """

    def __init__(self, in_shape: Size, event_shape: Size, parameters: int = 1):
        super().__init__()
        self.in_shape, self.event_shape, self.parameters_count = as_shape(in_shape), as_shape(event_shape), parameters
        rank = len(self.in_shape)
        self.is_map = rank in (2, 3) and len(self.event_shape) == rank and self.in_shape[1:] == self.event_shape[1:]
        if self.is_map:
            convolution = nn.Conv1d if rank == 2 else nn.Conv2d
            self.layer: nn.Conv1d | nn.Conv2d | nn.Linear = convolution(self.in_shape[0], parameters * self.event_shape[0], kernel_size=1)
        else:
            self.layer = nn.Linear(math.prod(self.in_shape), parameters * math.prod(self.event_shape))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        # Under autocast the layer answers in half precision; densities are computed in the parameters' own.
        dtype, rank = self.layer.weight.dtype, len(self.in_shape)
        if self.is_map:
            return over_batch(self.layer, features, rank).to(dtype).chunk(self.parameters_count, dim=-rank)
        out = self.layer(flatten_event(features, rank)).to(dtype)
        return tuple(part.reshape(*part.shape[:-1], *self.event_shape)
                     for part in out.chunk(self.parameters_count, dim=-1))


def broadcast_batch(*tensors: Tensor) -> list[Tensor]:
    """Expands vectors to one batch shape, their last dimensions left as they are."""
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return [t.expand(*batch, t.shape[-1]) for t in tensors]


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
        >>> net = WithMask(13, pv.networks.MLP(26, [50]))
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


class Corrupted(nn.Module):
    r"""A network that sees corrupted data in training: the encoder of a denoising autoencoder.

    .. math:: h = \mathrm{network}(\tilde x), \quad \tilde x \sim C(\tilde x \mid x)

    Args:
        network: any network.
        corruption: a module that is random while training, such as those of `pyro_vae.corruptions`.

    Source: Vincent et al. (2008), Extracting and Composing Robust Features with Denoising Autoencoders; Im et al. (2017),
    Denoising Criterion for Variational Auto-Encoding Framework, for a posterior with a density.

    Example:
        >>> net = Corrupted(pv.networks.MLP((1, 8, 8), [16]), pv.corruptions.Masking(0.3)).eval()
        >>> torch.equal(net(torch.ones(2, 1, 8, 8)), net.network(torch.ones(2, 1, 8, 8)))
        True
    """

    def __init__(self, network: nn.Module, corruption: nn.Module):
        super().__init__()
        self.network, self.corruption = network, corruption
        self.out_shape = out_shape_of(network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return features_of(self.network, self.corruption(x), context)


class WithoutContext(nn.Module):
    r"""A network that sees its input alone, whatever context the program has: p(x | z) beside p(z | y), for instance.

    Args:
        network: any network without a context.

    Example:
        >>> WithoutContext(pv.networks.MLP(2, [16]))(torch.zeros(5, 2), context=torch.zeros(3, 5, 10)).shape
        torch.Size([5, 16])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.out_shape = out_shape_of(network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x)


class OneHot(nn.Module):
    r"""Labels as features: label :math:`y \in \{0, \dots, C - 1\}` becomes the unit vector :math:`e_y`.

    Args:
        num_classes: how many labels there are.
        unknown: whether a label may be -1, which becomes zeros.

    Example:
        >>> OneHot(3)(torch.tensor([2]))
        tensor([[0., 0., 1.]])
    """

    vectors: Tensor

    def __init__(self, num_classes: int, unknown: bool = False):
        super().__init__()
        self.num_classes, self.unknown = num_classes, unknown
        self.out_shape = (num_classes,)
        # The last row is that of -1.
        self.register_buffer("vectors", torch.eye(num_classes + unknown, num_classes), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return self.vectors[labels.long()]

    def check(self, labels: Tensor) -> None:
        """Raises `InvalidInput` on labels that are no integers in range."""
        whole = labels if not labels.is_floating_point() else labels.round()
        bad = (whole != labels) | (labels < -int(self.unknown)) | (labels >= self.num_classes)
        if labels.dim() != 1 or bad.any():
            got = f"shape {tuple(labels.shape)}" if labels.dim() != 1 else f"label {labels[bad][0].item()!r}"
            raise InvalidInput("context", got=got,
                               expected=f"one integer from 0 to {self.num_classes - 1} for each datum",
                               fix=f"relabel the data, or build OneHot with more than {self.num_classes} classes")
