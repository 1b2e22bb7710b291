"""Random draws as functions of noise that is given: a sampler without random numbers of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["GivenNoise"]


class GivenNoise(TorchFunctionMode):
    r"""Make what is drawn a function of standard normals :math:`\epsilon` (N, D).

    A normal variable is :math:`\mu + \sigma \epsilon`, a uniform one :math:`\Phi(\epsilon)`, and a
    category the one in whose part of the unit interval that lies. Other draws stay random.

    Args:
        num: N, the number of data.
        noise: the normals (N, D); by default they are drawn.
        sizes: how many normals of each datum every draw takes, in their order, as ``sizes`` of an
            earlier run has them; by default they are counted. D is their sum.
    """

    def __init__(self, num: int, noise: Tensor | None = None, sizes: Sequence[int] = ()):
        super().__init__()
        self.num, self.noise, self.known = num, noise, sizes
        self.sizes: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        draw = DRAWS.get(func)
        return draw(self, *args, **(kwargs or {})) if draw else func(*args, **(kwargs or {}))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normals of a shape whose entries are so many for each datum."""
        start, drawn = sum(self.sizes), len(self.sizes)
        # Known sizes are numbers where that of the data is a symbol, as while a graph is captured.
        each = self.known[drawn] if self.known else math.prod(shape) // self.num
        self.sizes.append(each)
        if self.noise is None:
            return torch.randn(list(shape))
        return self.noise[:, start : start + each].reshape(list(shape))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform variables strictly between 0 and 1."""
        u = 0.5 * (1 + torch.erf(self.normal(shape) / math.sqrt(2)))
        tiny = torch.finfo(u.dtype).eps
        return u.clamp(tiny, 1 - tiny)


def _normal(given: GivenNoise, mean: Tensor, std: Tensor, **options: object) -> Tensor:
    return mean + std * given.normal(torch.broadcast_shapes(mean.shape, std.shape))


def _normal_(given: GivenNoise, x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return x.copy_(mean + std * given.normal(x.shape))


def _uniform_(given: GivenNoise, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return x.copy_(low + (high - low) * given.uniform(x.shape))


def _randn(given: GivenNoise, *size: Any, **options: object) -> Tensor:
    return given.normal(size if isinstance(size[0], int | torch.SymInt) else size[0])


def _rand(given: GivenNoise, *size: Any, **options: object) -> Tensor:
    return given.uniform(size if isinstance(size[0], int | torch.SymInt) else size[0])


def _bernoulli(given: GivenNoise, probs: Tensor, **options: object) -> Tensor:
    return (given.uniform(probs.shape) < probs).to(probs.dtype)


def _multinomial(
    given: GivenNoise, probs: Tensor, num_samples: int, replacement: bool = False
) -> Tensor:
    ends = probs.cumsum(-1)[..., None, :] / probs.sum(-1)[..., None, None]
    u = given.uniform([*probs.shape[:-1], num_samples])
    return (u[..., None] > ends).sum(-1).clamp(max=probs.shape[-1] - 1)


DRAWS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.normal: _normal,
    torch.randn: _randn,
    torch.rand: _rand,
    torch.bernoulli: _bernoulli,
    torch.multinomial: _multinomial,
    Tensor.normal_: _normal_,
    Tensor.uniform_: _uniform_,
}
