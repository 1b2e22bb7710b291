"""A latent space seen on a plane: points of a map, and latents at points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.datasets.shown import result_html, result_words

__all__ = ["Plane", "plane_of"]


@dataclass(frozen=True, repr=False)
class Plane:
    r"""A plane in a latent space of D dimensions.

    .. math:: z(u) = o + u_1 e_1 + u_2 e_2, \quad u(z) = ((z - o) \cdot e_1, (z - o) \cdot e_2)

    Args:
        origin: the point o (D,) at the middle of the map.
        axes: the directions e of the map (2, D), orthonormal, or zero where the space has one
            dimension.
        shares: of the variance that each axis has, where they are principal components.
    """

    origin: Tensor
    axes: Tensor
    shares: tuple[float, float] | None = None

    __repr__, _repr_html_ = result_words, result_html

    @property
    def names(self) -> tuple[str, str]:
        """What the axes of the map show."""
        if self.shares is None:
            return "z[0]", "z[1]" if len(self.origin) > 1 else ""
        first, second = (
            f"principal component {i + 1} ({share:.0%} of the variance)"
            for i, share in enumerate(self.shares)
        )
        return first, second

    def project(self, z: Tensor) -> Tensor:
        r"""The points (\*batch, 2) of latents (\*batch, D), seen at right angles to the plane."""
        return (z.double().cpu() - self.origin) @ self.axes.T

    def latent_at(self, point: Tensor, through: Tensor | None = None) -> Tensor:
        """The latent (D,) at a point (2,) of the map.

        Args:
            point: where on the map.
            through: a latent (D,), whose distance from the plane is kept; by default none.

        Example:
            >>> plane = plane_of(torch.eye(3))
            >>> z = torch.tensor([0.3, 0.1, 0.2])
            >>> torch.allclose(plane.latent_at(plane.project(z), through=z), z.double())
            True
        """
        start = self.origin if through is None else through.double().cpu()
        return start + (point.double() - self.project(start)) @ self.axes


def plane_of(z: Tensor) -> Plane:
    """The plane on which latents (N, D) spread most: their first two principal components.

    A latent of two dimensions is its own plane, and one of a single dimension a line.

    Example:
        >>> plane_of(torch.zeros(5, 2)).names
        ('z[0]', 'z[1]')
    """
    points = z.detach().double().cpu()
    count, dim = points.shape
    if dim < 3 or count < 3:  # two points have only one principal component
        return Plane(points.new_zeros(dim), torch.eye(2, dim, dtype=torch.float64))
    origin = points.mean(0)
    _, sizes, rows = torch.linalg.svd(points - origin, full_matrices=False)
    axes = rows[:2]
    # A component's sign is open: its largest entry is positive.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    first, second = (sizes.square() / sizes.square().sum().clamp_min(1e-300))[:2].tolist()
    return Plane(origin, axes, (first, second))
