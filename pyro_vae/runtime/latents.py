r"""The latents of a program as values to move about: drawn, scored where they are put, packed as real vectors.

`pyro_vae.runtime.traces` runs a program on the guide's own draws. Annealing, refined proposals,
aggregated posteriors and calibration need the densities p(x, z) and q(z | x) at latents of their
own choice, and gradient methods need those latents without constraints. A set of values is a
dictionary from a latent site's name to its value, K draws for each of N data, in the shape that the
site has under the plate of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine, validation_enabled
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.contracts import ProgramLike
from pyro_vae.programs import particles
from pyro_vae.runtime.memory import DEFAULT_MEMORY, bytes_allocated
from pyro_vae.runtime.traces import Plates, site_log_prob
from pyro_vae.validation import InvalidInput

__all__ = [
    "Unconstrained",
    "Values",
    "check_no_auxiliary",
    "densities",
    "draw",
    "frozen",
    "in_rows",
    "log_density",
    "observation",
    "to_real",
]

Values = dict[str, Tensor]


def draw(
    fn: Callable, x: Tensor, context: Tensor | None, num_samples: int, where: Plates
) -> Values:
    """K draws of every latent site from a guide, or from a model's prior."""
    trace = poutine.trace(particles(fn, num_samples, where.particle_dim)).get_trace(x, context)
    nodes: dict[str, Any] = prune_subsample_sites(trace).nodes
    return {
        name: site["value"]
        for name, site in nodes.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def log_density(
    fn: Callable,
    values: Values,
    x: Tensor,
    context: Tensor | None,
    num_samples: int,
    where: Plates,
) -> tuple[Tensor, Tensor]:
    """The log-density of a model or a guide at given latents, both (K, N): that of the latents, and that of the rest.

    The rest is the observed sites' and the factors' of a model; of a guide it is training's, and of
    no use.
    """
    conditioned = poutine.condition(particles(fn, num_samples, where.particle_dim), data=values)
    trace = prune_subsample_sites(poutine.trace(conditioned).get_trace(x, context))
    shape = (num_samples, len(x))
    latents, rest = x.new_zeros(shape), x.new_zeros(shape)
    for name, site in trace.nodes.items():
        if site["type"] == "sample":
            value = site_log_prob(site, where, shape)
            latents, rest = (latents + value, rest) if name in values else (latents, rest + value)
    return latents, rest


def in_rows(value: Tensor, where: Plates) -> Tensor:
    r"""A site's value, or any tensor in its shape, as (K, N, \*others): the data plate second, all else behind."""
    return value.movedim(where.data_dim - where.particle_dim, 1)


def to_real(name: str, distribution: Any) -> torch.distributions.Transform:
    """The transform from real numbers to a distribution's support.

    Raises:
        InvalidInput: for a support that no such transform reaches: discrete ones, spheres.
    """
    if not distribution.support.is_discrete:
        try:
            return biject_to(distribution.support)
        except NotImplementedError:
            pass
    raise InvalidInput(
        name,
        got=f"a latent whose support is {distribution.support}",
        expected="a continuous latent that a smooth transform maps to real numbers",
        fix="score it by log_likelihood, with proposal=Defensive() where q is poor",
    )


def check_no_auxiliary(
    program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates
) -> None:
    """Raises `InvalidInput` if the guide has sites that the model lacks: q(z | x) itself is then an integral."""
    one = slice(0, 1)
    labels = None if context is None else context[one]
    extra = (
        draw(program.guide, x[one], labels, 1, where).keys()
        - draw(program.model, x[one], labels, 1, where).keys()
    )
    if extra:
        raise InvalidInput(
            min(extra),
            got="an auxiliary site of the guide",
            expected="a guide whose density at z is known",
            fix="use a guide without auxiliary sites, or start annealing from the prior",
        )


class Unconstrained:
    """The continuous latents of a program, all sites together, as one vector of D real numbers for each draw and datum.

    Args:
        program: any program whose latents are continuous.
        x: data (N, ...), of which the first is run once to see the sites.
        context: context (N, ...) or ``None``.
        where: the program's plates.

    Raises:
        InvalidInput: if a latent is discrete or lies on a manifold without a chart.
    """

    def __init__(self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates):
        one = slice(0, 1)
        model = particles(program.model, 1, where.particle_dim)
        trace = prune_subsample_sites(
            poutine.trace(model).get_trace(x[one], None if context is None else context[one])
        )
        self.where, self.transforms, self.shapes = where, {}, {}
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and not site["is_observed"]:
                self.transforms[name] = to_real(name, site["fn"])
                self.shapes[name] = in_rows(self.transforms[name].inv(site["value"]), where).shape[
                    2:
                ]
        self.sizes = [shape.numel() for shape in self.shapes.values()]

    def pack(self, values: Values) -> Tensor:
        """Values as real vectors (K, N, D)."""
        parts = [
            in_rows(transform.inv(values[name]), self.where)
            for name, transform in self.transforms.items()
        ]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=-1)

    def unpack(self, vectors: Tensor) -> tuple[Values, Tensor]:
        """Real vectors (K, N, D) as values, and the logarithm of the Jacobian determinant (K, N) of that map."""
        values, log_jacobian = {}, vectors.new_zeros(vectors.shape[:2])
        for (name, shape), part in zip(self.shapes.items(), vectors.split(self.sizes, dim=-1)):
            rows = part.reshape(*vectors.shape[:2], *shape)
            real = rows.movedim(1, self.where.data_dim - self.where.particle_dim)
            values[name] = self.transforms[name](real)
            change = self.transforms[name].log_abs_det_jacobian(real, values[name])
            log_jacobian = log_jacobian + in_rows(change, self.where).reshape(
                *vectors.shape[:2], -1
            ).sum(-1)
        return values, log_jacobian


@contextmanager
def frozen(program: ProgramLike) -> Iterator[None]:
    """Gradients with respect to latents only: the parameters take none, and no activations are kept for theirs."""
    trained = [p for p in program.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def observation(
    program: ProgramLike, values: Values, x: Tensor, context: Tensor | None, where: Plates
) -> Any:
    r"""p(x | z) at K given latents of N data: a distribution of batch shape (K, ..., N)."""
    num_samples = len(next(iter(values.values())))
    conditioned = poutine.condition(
        particles(program.model, num_samples, where.particle_dim), data=values
    )
    return prune_subsample_sites(poutine.trace(conditioned).get_trace(x, context)).nodes["x"]["fn"]


def densities(
    program: ProgramLike,
    values: Values,
    x: Tensor,
    context: Tensor | None,
    where: Plates,
    *,
    guide: Callable | None = None,
    memory_budget: int = DEFAULT_MEMORY,
) -> tuple[Tensor, ...]:
    """log p(z), log p(x | z) and, of a guide that is given, log q(z | x) at latents (K, N); a few of the K at a time."""
    num_samples = len(next(iter(values.values())))

    def at(few: slice) -> Sequence[Tensor]:
        part = {name: value[few] for name, value in values.items()}
        count = len(next(iter(part.values())))
        given = (part, x, context, count, where)
        return [
            *log_density(program.model, *given),
            *([] if guide is None else [log_density(guide, *given)[0]]),
        ]

    if num_samples == 1:
        return tuple(at(slice(0, 1)))
    with validation_enabled(False):
        rows = max(1, memory_budget // bytes_allocated(lambda count: at(slice(0, count))))
        parts = [at(slice(start, start + rows)) for start in range(0, num_samples, rows)]
    return tuple(torch.cat(part) for part in zip(*parts))
