r"""The geometry that a decoder gives the latent space.

The decoder is the map f from a latent to the mean of p(x | z), read off the program itself. Its
Jacobian J spans the plane that x moves in when z does; :math:`G = J^\top J` is the metric that
measures a step in z by how far x goes, so that a path is as long as the path of its images.

Paths and planes keep to the latents that there are: those of a sphere lie on it, proportions sum to
one. The mean of a von Mises-Fisher distribution is no latent; the latent nearest to it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.distributions import is_thin, words_of
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.spaces import Spheres
from pyro_vae.runtime.environment import evaluating, isolated_random, like_parameters
from pyro_vae.runtime.latents import frozen, in_rows
from pyro_vae.validation import InvalidInput, check_count

__all__ = [
    "LatentPath",
    "TangentPlane",
    "geodesic",
    "interpolate",
    "manifold",
    "path_length",
    "tangent_planes",
    "traverse",
]


@dataclass(frozen=True, repr=False)
class TangentPlane:
    r"""The planes that x moves in at N latents.

    Args:
        jacobian: J (N, P, D), derivatives of the mean of x, flattened, with respect to z; along
            directions that z can go only.
        basis: orthonormal directions in x, as many as x or z has (N, P, min(P, D)), those of the
            largest stretch first.
        singular_values: stretches (N, D), largest first.
        held: the directions of the D that a latent cannot go in, whose stretches are the last and
            0: one on a sphere or a simplex.
    """

    jacobian: Tensor
    basis: Tensor
    singular_values: Tensor
    held: int = 0

    __repr__, _repr_html_ = result_words, result_html

    def local_dimension(self, threshold: float = 0.01) -> Tensor:
        """How many directions x can move in (N,), by the size of the singular values.

        Those count that are above that share of the largest.
        """
        return (self.singular_values > threshold * self.singular_values[:, :1]).sum(1)

    @property
    def volume(self) -> Tensor:
        r"""The logarithm of :math:`\sqrt{\det J^\top J}` (N,): how much the decoder magnifies.

        The determinant is over the directions that a latent can go in: D - 1 of a sphere.
        """
        return self.singular_values[:, : self.singular_values.shape[1] - self.held].log().sum(1)


def tangent_planes(decoder: Decoder, z: Tensor) -> TangentPlane:
    r"""Compute the tangent planes of a decoder at latents (N, D).

    Directions are taken one at a time, by the transpose of the transposed derivative.

    A latent on a sphere or a simplex cannot go everywhere: J is then along its D - 1 possible
    directions only, and its last singular value is 0. Bits are taken as real numbers.

    Args:
        decoder: of any program.
        z: latents (N, D), or points near them, of which the nearest latents are taken.

    Source: Shao, Kumar and Fletcher (2018), The Riemannian Geometry of Deep Generative Models.

    Example:
        >>> planes = tangent_planes(Decoder(vae), torch.zeros(3, 2))
        >>> planes.jacobian.shape, planes.singular_values.shape, planes.local_dimension().tolist()
        (torch.Size([3, 64, 2]), torch.Size([3, 2]), [2, 2, 2])
    """
    _check_smooth(decoder)
    z = like_parameters(decoder.program, z)
    z = decoder.space.nearest(z)
    directions = _directions(decoder, z)  # (N, D, D): a column each
    with frozen(decoder.program):
        # The pull-back u -> J'u is linear in u, and its own transpose is J.
        z = z.detach().requires_grad_()
        x = decoder(z)
        u = torch.zeros_like(x, requires_grad=True)
        pulled = _derivative(x, z, u, create_graph=True)
        columns = [
            _derivative(pulled, u, directions[..., d]).reshape(len(z), -1)
            for d in range(z.shape[1])
        ]
    jacobian = torch.stack(columns, dim=-1).detach()
    basis, stretches, _ = torch.linalg.svd(jacobian, full_matrices=False)
    flat = z.shape[1] - stretches.shape[1]  # directions that x has no room for
    stretches = torch.nn.functional.pad(stretches, (0, max(0, flat)))
    return TangentPlane(jacobian, basis, stretches, decoder.space.held)


def _derivative(of: Tensor, by: Tensor, weights: Tensor, create_graph: bool = False) -> Tensor:
    """The derivative of a weighted sum; zeros where there is none."""
    if not of.requires_grad:
        return torch.zeros_like(by, requires_grad=create_graph)
    (found,) = torch.autograd.grad(
        of,
        by,
        weights,
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return found


def _check_smooth(decoder: Decoder) -> None:
    if not decoder.is_smooth:
        raise InvalidInput(
            "likelihood",
            got="a distribution without a mean, as that of sentences",
            expected="one whose mean moves with z",
            fix="interpolate between latents instead, and look at what is decoded",
        )


def _directions(decoder: Decoder, z: Tensor) -> Tensor:
    """The directions in which a latent can move, as the columns of a projection (N, D, D)."""
    normals = decoder.space.normals(z)
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device) - normals.mT @ normals


@dataclass(frozen=True, repr=False)
class LatentPath:
    r"""A path between two latents.

    Args:
        z: points along it (T + 1, D).
        length: its length under the pulled-back metric.
        straight: that of the straight line between its ends; on a sphere, of the great circle.
        line: points along that line (T + 1, D), if known.
    """

    z: Tensor
    length: float
    straight: float
    line: Tensor | None = None

    __repr__, _repr_html_ = result_words, result_html


def path_length(decoder: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    r"""The length of the image of a path with corners z (T + 1, D).

    It is the sum of the distances between the images of neighbouring corners.

    .. math:: L = \sum_t \| f(z_{t+1}) - f(z_t) \| \approx \int \sqrt{\dot z^\top J^\top J \dot z}\,
              dt
    """
    return decoder(z).flatten(1).diff(dim=0).norm(dim=1).sum()


def geodesic(
    decoder: Decoder, start: Tensor, end: Tensor, *, points: int = 32, steps: int = 200
) -> LatentPath:
    r"""Find the shortest path between two latents under the pulled-back metric.

    The length of the straight line is given for comparison.

    The energy :math:`\frac{T}{2} \sum_t \| f(z_{t+1}) - f(z_t) \|^2` is minimised over the inner
    points of a path that starts straight, by L-BFGS: its minimum is a path of constant speed, and a
    shortest one nearby. (A path that must go round something the other way is not found from a
    straight line.) Every point is a latent: on a sphere the path starts as an arc of a great
    circle, and its points are normalised; of proportions z the points are
    :math:`s^2 / \|s\|^2`; of other supports, the image of real numbers.

    Args:
        decoder: of any program whose latent is continuous.
        start: one latent (D,), or a point near one, such as the mean of a von Mises-Fisher
            distribution.
        end: the other.
        points: segments T of the path.
        steps: iterations at most.

    Raises:
        InvalidInput: if the latents are not two vectors of the decoder's size, or are discrete.

    Source: Arvanitidis, Hansen and Hauberg (2018), Latent Space Oddity; Shao, Kumar and Fletcher
    (2018).

    Example:
        >>> path = geodesic(Decoder(vae), torch.zeros(2), torch.ones(2), points=8, steps=20)
        >>> path.z.shape, path.length <= path.straight
        (torch.Size([9, 2]), True)
    """
    check_count("points", points, minimum=2)
    _check_smooth(decoder)
    if tuple(start.shape) != (decoder.dim,) or start.shape != end.shape:
        raise InvalidInput(
            "start",
            got=f"shapes {tuple(start.shape)} and {tuple(end.shape)}",
            expected=f"two of shape ({decoder.dim},)",
            fix="pass one latent each",
        )
    line = interpolate(start, end, points + 1, decoder=decoder)
    line, space = like_parameters(decoder.program, line), decoder.space
    with frozen(decoder.program):
        inner = space.free(line[1:-1]).requires_grad_()
        optimizer = torch.optim.LBFGS([inner], max_iter=steps, line_search_fn="strong_wolfe")

        def energy() -> Tensor:
            path = torch.cat([line[:1], space.at(inner), line[-1:]])
            value = points / 2 * decoder(path).flatten(1).diff(dim=0).square().sum()
            (inner.grad,) = torch.autograd.grad(value, inner)
            return value

        optimizer.step(energy)  # type: ignore[arg-type]
    with torch.no_grad():
        path = torch.cat([line[:1], space.at(inner.detach()), line[-1:]])
        length, straight = (path_length(decoder, z).item() for z in (path, line))
    return (
        LatentPath(path, length, straight, line)
        if length <= straight
        else LatentPath(line, straight, straight, line)
    )


def interpolate(
    start: Tensor,
    end: Tensor,
    points: int = 10,
    *,
    spherical: bool = False,
    decoder: Decoder | None = None,
) -> Tensor:
    r"""Interpolate between two latents (points, D), on the straight line or on an arc.

    Both ends are included.

    On the arc the direction turns evenly and the norm changes evenly,

    .. math:: \hat z_t = \frac{\sin((1 - t) \theta)}{\sin \theta} \hat z_0 + \frac{\sin(t
              \theta)}{\sin \theta} \hat z_1, \quad \|z_t\| = (1 - t) \|z_0\| + t \|z_1\|,

    so that it stays where draws of a standard normal of many dimensions lie, which the straight
    line's middle does not.

    Latents on a sphere, proportions and bits are not known from others by their numbers alone. With
    the decoder every point is a latent of it: on a sphere, line and arc are then the great circle,
    and ends that are no latents, such as means, are put at the nearest.

    Args:
        start: one latent (D,).
        end: the other.
        points: how many.
        spherical: on the arc.
        decoder: whose latents the points are.

    Raises:
        InvalidInput: if the path would leave the decoder's latents, as an arc leaves a simplex and
            every path leaves discrete states.

    Source: Shoemake (1985), Animating Rotation with Quaternion Curves; White (2016), Sampling
    Generative Networks.

    Example:
        >>> interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3, spherical=True)[1]
        tensor([0.7071, 0.7071])
    """
    check_count("points", points, minimum=2)
    t = torch.linspace(0, 1, points, dtype=start.dtype, device=start.device)[:, None]
    if decoder is None:
        return _arc(start, end, t) if spherical else (1 - t) * start + t * end
    path = decoder.space.between(start, end, t)
    if spherical and not isinstance(decoder.space, Spheres):
        path = _arc(path[0], path[-1], t)
    decoder.space.check(path, "spherical" if spherical else "start")
    return path


def _arc(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """The arc between two points (D,) at times (T, 1), of which the norm changes evenly."""
    a, b = (torch.nn.functional.normalize(point, dim=0) for point in (start, end))
    angle = torch.acos((a @ b).clamp(-1, 1))
    if angle.sin() < 1e-6:  # one direction, or opposite ones, between which no arc is the shortest
        return (1 - t) * start + t * end
    direction = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / angle.sin()
    return direction * ((1 - t) * start.norm() + t * end.norm())


def traverse(decoder: Decoder, z: Tensor, dimensions: Sequence[int], values: Tensor) -> Tensor:
    r"""Decode a latent with one dimension at a time moved: (dimensions, values, \*event).

    The others stay as they are, but where a latent has its norm or its sum fixed. On a sphere the
    others are multiplied by what keeps the norm at 1, on a simplex by what keeps the sum at 1:

    .. math:: z_e' = z_e \sqrt{\frac{1 - v^2}{1 - z_d^2}}, \quad z_e' = z_e \frac{1 - v}{1 - z_d}

    Args:
        decoder: of any program.
        z: the latent to start from (D,), or a point near one.
        dimensions: which to move, such as the active ones of
            `pyro_vae.evaluation.active.active_units`.
        values: what each is set to (T,).

    Raises:
        InvalidInput: for a dimension that there is not, and for values that no latent has, such as
            1.5 on a sphere and 0.5 of a bit.

    Example:
        >>> traverse(Decoder(vae), torch.zeros(2), [0, 1], torch.linspace(-2, 2, 5)).shape
        torch.Size([2, 5, 1, 8, 8])
    """
    outside = [d for d in dimensions if not 0 <= d < decoder.dim]
    if outside or not len(dimensions):
        raise InvalidInput(
            "dimensions",
            got=str(list(dimensions)),
            expected=f"some of 0 to {decoder.dim - 1}",
            fix="name others",
        )
    space = decoder.space
    start = space.nearest(z.detach()[None])[0]
    moved = torch.stack([space.moved(start, d, values) for d in dimensions])
    space.check(like_parameters(decoder.program, moved.flatten(0, 1)), "values")
    with torch.no_grad():
        return decoder(moved.flatten(0, 1)).unflatten(0, (len(dimensions), len(values)))


def manifold(decoder: Decoder, size: int = 20, *, draws: int = 4000, seed: int = 0) -> Tensor:
    r"""Decode a grid over a two-dimensional latent: (size \* size, \*event).

    The first dimension runs rightwards and the second upwards, each at equally spaced quantiles of
    the prior's draws.

    Raises:
        InvalidInput: if the latent has not two dimensions, or fills no plane, as one on a circle.

    Example:
        >>> manifold(Decoder(vae), size=3).shape
        torch.Size([9, 1, 8, 8])
    """
    if decoder.dim != 2:
        raise InvalidInput(
            "decoder",
            got=f"a latent of {decoder.dim} dimensions",
            expected="two",
            fix="traverse the active ones instead",
        )
    if is_thin(decoder.support):
        raise InvalidInput(
            "decoder",
            got=f"a latent on {words_of(decoder.support)}, which fills no plane",
            expected="one of two dimensions that vary freely",
            fix="traverse its dimensions instead",
        )
    check_count("size", size)
    given = decoder.given
    with (
        evaluating(decoder.program, seed),
        isolated_random(given.device, seed),
        validation_enabled(False),
    ):
        prior = in_rows(given.draw(given.model, draws)[decoder.site], given.plates)
        levels = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        columns = [
            torch.quantile(prior.reshape(draws, 2)[:, d].double().cpu(), levels) for d in range(2)
        ]
        across, up = torch.meshgrid(columns[0], columns[1].flip(0), indexing="xy")
        return decoder(torch.stack([across, up], dim=-1).flatten(0, 1).to(prior))
