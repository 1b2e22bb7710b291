"""The set in which a latent lies, and paths within it: space, spheres, simplices, bits.

A latent has D entries, flattened. Where its event has several dimensions, such as a product of
spheres (3, 4), the last one is that of one sphere or one simplex.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint
from torch.nn.functional import normalize

from pyro_vae.distributions import innermost_support, measure_of, words_of
from pyro_vae.distributions.supports import ends_of
from pyro_vae.validation import InvalidInput

__all__ = ["Bits", "Bounded", "OneHots", "Simplices", "Space", "Spheres", "States", "space_of"]

REST = 15.0  # of free coordinates that would be infinite, at the end of a support
LEAST = 1e-3  # of a share of a simplex that a path may leave 0 from: at 0 itself nothing pulls


@dataclass(frozen=True)
class Space:
    """All vectors of real numbers, and what the other sets of latents do in their own way.

    Args:
        support: the support of the prior.
        event: the shape of a latent.
    """

    support: Constraint
    event: torch.Size

    is_flat, is_discrete = True, False
    held = 0  # directions of the D that no latent can go in
    line = "straight line"  # what the straightest path is called
    rest = "at rest"  # what the entries are beside one that is moved

    def nearest(self, z: Tensor) -> Tensor:
        """The latents nearest to points (N, D), such as means of q(z | x)."""
        return z

    def check(self, z: Tensor, argument: str) -> None:
        """Raise `InvalidInput` unless points (N, D) are latents; any real vector is one."""

    def between(self, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        """The straightest path (T, D) from one latent (D,) to another, at times t (T, 1)."""
        return (1 - t) * start + t * end

    def moved(self, z: Tensor, d: int, values: Tensor) -> Tensor:
        """A latent (D,) with entry d set to each value: (T, D)."""
        rows = z.detach().repeat(len(values), 1)
        rows[:, d] = values.to(rows)
        return rows

    def free(self, z: Tensor) -> Tensor:
        """Coordinates of latents (N, D) that may take any value; see `at`."""
        return z.clone()

    def at(self, free: Tensor) -> Tensor:
        """The latents (N, D) at such coordinates, differentiably."""
        return free

    def normals(self, z: Tensor) -> Tensor:
        """Orthonormal directions that latents (N, D) cannot go in, (N, held, D)."""
        return z.new_zeros(len(z), 0, z.shape[1])

    def shown(self, means: Tensor) -> tuple[float, float]:
        """The values between which figures move an entry, with latents (N, D) of data."""
        return -2.5, 2.5


@dataclass(frozen=True)
class Bounded(Space):
    """Vectors of which each entry has a range of its own, such as the positive numbers."""

    is_flat = False

    def check(self, z: Tensor, argument: str) -> None:
        if not self.support.check(z.reshape(-1, *self.event)).all():
            raise InvalidInput(
                argument,
                got=f"points off the latents' support, {words_of(self.support)}",
                expected="latents",
                fix=self._fix(),
            )

    def _fix(self) -> str:
        low, high = ends_of(innermost_support(self.support))
        bounds = (
            float(f(torch.as_tensor(end))) for f, end in ((torch.max, low), (torch.min, high))
        )
        return "take values from {:g} to {:g}".format(*bounds)

    def free(self, z: Tensor) -> Tensor:
        inverse = self._bijection().inv(z.reshape(-1, *self.event)).reshape(len(z), -1)
        return torch.nan_to_num(inverse, REST, REST, -REST)

    def at(self, free: Tensor) -> Tensor:
        return self._bijection()(free.reshape(-1, *self.event)).reshape(len(free), -1)

    def _bijection(self) -> torch.distributions.Transform:
        try:
            return biject_to(self.support)
        except NotImplementedError:
            raise InvalidInput(
                "decoder",
                got=f"a latent on {words_of(self.support)}, of which torch knows no coordinates",
                expected="a support in torch.distributions.biject_to",
                fix="register one there, or interpolate",
            ) from None

    def shown(self, means: Tensor) -> tuple[float, float]:
        low, high = ends_of(innermost_support(self.support))
        if isinstance(low, Tensor) or isinstance(high, Tensor) or not -low < high - low < torch.inf:
            return means.min().item(), means.max().item()
        return float(low), float(high)


@dataclass(frozen=True)
class UnitNorm(Bounded, ABC):
    r"""Vectors whose last dimension has a norm of one, :math:`\sum_e |z_e|^p = 1`.

    An entry is moved with the others in their ratios:

    .. math:: z_e' = z_e \left( \frac{1 - |v|^p}{1 - |z_d|^p} \right)^{1 / p}
    """

    power: ClassVar[int]
    rest = "in their ratios"

    @abstractmethod
    def _unit(self, rows: Tensor) -> Tensor:
        """The nearest latents to rows (..., K); any latent for a row without a direction."""

    @property
    def held(self) -> int:  # type: ignore[override]
        return self.event[:-1].numel()

    def nearest(self, z: Tensor) -> Tensor:
        return self._unit(self._rows(z)).flatten(1)

    def normals(self, z: Tensor) -> Tensor:
        rows = normalize(self._rows(z).pow(self.power - 1), dim=-1)
        eye = torch.eye(self.held, dtype=z.dtype, device=z.device)
        return (eye[:, :, None] * rows[:, None]).flatten(2)

    def moved(self, z: Tensor, d: int, values: Tensor) -> Tensor:
        row, entry = divmod(d, self.event[-1])
        moved = self.nearest(z.detach()[None]).repeat(len(values), 1)
        rows, value = self._rows(moved), values.to(moved)[:, None]
        before, _, after = rows[:, row].split([entry, 1, self.event[-1] - entry - 1], dim=1)
        left = (1 - value.abs() ** self.power).clamp_min(0) ** (1 / self.power)
        others = self._unit(torch.cat([before, after], dim=1)) * left
        rows[:, row] = torch.cat([others[:, :entry], value, others[:, entry:]], dim=1)
        return rows.flatten(1)

    def _rows(self, z: Tensor) -> Tensor:
        return z.reshape(len(z), -1, self.event[-1])


@dataclass(frozen=True)
class Spheres(UnitNorm):
    r"""Unit vectors, or several.

    Its straightest paths are arcs of great circles,

    .. math:: z_t = \cos(t \theta)\, z_0 + \sin(t \theta)\, u, \quad u \propto z_1 - (z_0 \cdot
              z_1)\, z_0,

    one of them where the ends are opposite.
    """

    power = 2
    line = "great circle"

    def _unit(self, rows: Tensor) -> Tensor:
        pole = torch.eye(1, rows.shape[-1], dtype=rows.dtype, device=rows.device)[0]
        norm = rows.norm(dim=-1, keepdim=True)
        return torch.where(norm > 1e-12, rows / norm.clamp_min(1e-12), pole)

    def between(self, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        a, b = (self._rows(self.nearest(z[None]))[0] for z in (start, end))
        cosine = (a * b).sum(-1, keepdim=True)
        aside = b - cosine * a
        # Between opposite points every arc is as short; one is along the axis farthest from both.
        axis = torch.zeros_like(a).scatter(-1, a.abs().argmin(-1, keepdim=True), 1.0)
        axis = axis - (a * axis).sum(-1, keepdim=True) * a
        is_clear = aside.norm(dim=-1, keepdim=True) > 64 * torch.finfo(a.dtype).eps
        u = normalize(torch.where(is_clear, aside, axis), dim=-1)
        u = normalize(u - (a * u).sum(-1, keepdim=True) * a, dim=-1)
        angle = torch.atan2(aside.norm(dim=-1, keepdim=True), cosine)
        turn = t[:, None] * angle
        path = torch.where(t[:, None] == 1, b, turn.cos() * a + turn.sin() * u)
        return normalize(path, dim=-1).flatten(1)

    def at(self, free: Tensor) -> Tensor:
        return normalize(self._rows(free), dim=-1).flatten(1)

    def free(self, z: Tensor) -> Tensor:
        return z.clone()

    def shown(self, means: Tensor) -> tuple[float, float]:
        return -1.0, 1.0

    def _fix(self) -> str:
        return "take values from -1 to 1: the other entries follow, so that the norm stays 1"


@dataclass(frozen=True)
class Simplices(UnitNorm):
    r"""Proportions that sum to one, or several times such.

    Straight lines stay there. Paths are sought in :math:`s, z = s^2 / \|s\|^2`.
    """

    power = 1

    def _unit(self, rows: Tensor) -> Tensor:
        shares = rows.clamp_min(0)
        total = shares.sum(-1, keepdim=True)
        equal = torch.full_like(shares, 1 / max(1, rows.shape[-1]))
        return torch.where(total > 0, shares / total, equal)

    def between(self, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        a, b = self.nearest(torch.stack([start, end]))
        return (1 - t) * a + t * b

    def at(self, free: Tensor) -> Tensor:
        return normalize(self._rows(free), dim=-1).square().flatten(1)

    def free(self, z: Tensor) -> Tensor:
        return z.clamp_min(LEAST / self.event[-1]).sqrt()

    def shown(self, means: Tensor) -> tuple[float, float]:
        return 0.0, 1.0

    def _fix(self) -> str:
        return "take values from 0 to 1: the other entries follow, so that the sum stays 1"


@dataclass(frozen=True)
class States(Bounded):
    """Discrete points, between which there is no path; derivatives are as of real numbers."""

    is_discrete = True

    def between(self, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        raise self._no_path()

    def free(self, z: Tensor) -> Tensor:
        raise self._no_path()

    def _no_path(self) -> InvalidInput:
        return InvalidInput(
            "decoder",
            got=f"a latent of discrete states, {words_of(self.support)}",
            expected="one with a path between latents",
            fix="decode the states themselves, as pv.decode does",
        )

    def _fix(self) -> str:
        return "take its states"


@dataclass(frozen=True)
class Bits(States):
    """Vectors of zeros and ones."""

    def nearest(self, z: Tensor) -> Tensor:
        return (z > 0.5).to(z.dtype)

    def shown(self, means: Tensor) -> tuple[float, float]:
        return 0.0, 1.0


@dataclass(frozen=True)
class OneHots(States):
    """Vectors with a one at the state and zeros elsewhere, or several."""

    def nearest(self, z: Tensor) -> Tensor:
        rows = z.reshape(len(z), -1, self.event[-1])
        return torch.zeros_like(rows).scatter(-1, rows.argmax(-1, keepdim=True), 1.0).flatten(1)


KINDS: dict[type[Constraint], Callable[[Constraint, torch.Size], Space]] = {
    type(constraints.real): Space,
    type(constraints.sphere): Spheres,
    type(constraints.simplex): Simplices,
    type(constraints.boolean): Bits,
    type(constraints.one_hot): OneHots,
}


def space_of(support: Constraint, event: torch.Size) -> Space:
    """The space of latents of that shape on a support.

    Example:
        >>> sphere = space_of(constraints.sphere, torch.Size([2]))
        >>> sphere.moved(torch.tensor([0.0, -1.0]), 0, torch.tensor([0.6]))
        tensor([[ 0.6000, -0.8000]])
        >>> sphere.held, space_of(constraints.real_vector, torch.Size([2])).held
        (1, 0)
    """
    other = States if measure_of(support) == "discrete points" else Bounded
    return KINDS.get(type(innermost_support(support)), other)(support, event)
