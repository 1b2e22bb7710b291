r"""Values of a program's latents, in the shapes that Pyro gives them and as real vectors.

A set of values is a dictionary from a latent site's name to its value, K draws for each of N data,
in the shape that the site has under the plate of draws. Gradient methods need those latents without
constraints: `Unconstrained` packs them into vectors of real numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.contracts import ProgramLike, Trace
from pyro_vae.distributions import stated_support, words_of
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.traces import Plates
from pyro_vae.validation import InvalidInput

__all__ = ["Unconstrained", "Values", "draws_in", "frozen", "in_rows", "out_of_rows", "to_real"]

Values = dict[str, Tensor]


def draws_in(values: Values) -> int:
    """The number of draws K in a set of values; one of no values."""
    return next((len(value) for value in values.values()), 1)


def in_rows(value: Tensor, plates: Plates) -> Tensor:
    r"""A site's value as (K, N, \*others): draws first, data second, all else behind."""
    return value.movedim(plates.data_axis, 1)


def out_of_rows(rows: Tensor, plates: Plates) -> Tensor:
    r"""The reverse of `in_rows`: from (K, N, \*others) to the shape that a site has."""
    return rows.movedim(1, plates.data_axis)


def to_real(name: str, distribution: TorchDistribution) -> torch.distributions.Transform:
    """The transform from real numbers to a distribution's support.

    Raises:
        InvalidInput: for a support that no such transform reaches: discrete ones, spheres.
    """
    support = stated_support(distribution)
    if not support.is_discrete:
        try:
            return biject_to(support)
        except NotImplementedError:
            pass
    raise InvalidInput(
        name,
        got=f"a latent whose support is {words_of(support)}",
        expected="a continuous latent that a smooth transform maps to real numbers",
        fix="score it by log_likelihood, with proposal=Defensive() where q is poor",
    )


class Unconstrained:
    """The continuous latents of a program as vectors of D real numbers.

    There is one for each draw and datum.

    Args:
        prior: a trace of the model at one draw and one datum, which shows the latent sites.
        plates: the program's plates.

    Raises:
        InvalidInput: if a latent is discrete or lies on a manifold without a chart.
    """

    def __init__(self, prior: Trace, plates: Plates):
        self.plates, self.transforms, self.shapes = plates, {}, {}
        for name, site in latent_sites(prior).items():
            if name in plates.summed:
                continue
            self.transforms[name] = to_real(name, site["fn"])
            real = self.transforms[name].inv(site["value"])
            self.shapes[name] = in_rows(real, plates).shape[2:]
        self.sizes = [shape.numel() for shape in self.shapes.values()]

    def pack(self, values: Values) -> Tensor:
        """Values as real vectors (K, N, D)."""
        parts = [
            in_rows(transform.inv(values[name]), self.plates)
            for name, transform in self.transforms.items()
        ]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=-1)

    def unpack(self, vectors: Tensor) -> tuple[Values, Tensor]:
        """Real vectors (K, N, D) as values, and that map's log Jacobian determinant (K, N)."""
        values, log_jacobian = {}, vectors.new_zeros(vectors.shape[:2])
        for (name, shape), part in zip(self.shapes.items(), vectors.split(self.sizes, dim=-1)):
            rows = part.reshape(*vectors.shape[:2], *shape)
            real = out_of_rows(rows, self.plates)
            values[name] = self.transforms[name](real)
            change = self.transforms[name].log_abs_det_jacobian(real, values[name])
            log_jacobian = log_jacobian + in_rows(change, self.plates).reshape(
                *vectors.shape[:2], -1
            ).sum(-1)
        return values, log_jacobian


@contextmanager
def frozen(program: ProgramLike) -> Iterator[None]:
    """Take gradients of latents only: parameters take none, and keep no activations for theirs."""
    trained = [p for p in program.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
