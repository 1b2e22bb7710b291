"""Check that a density integrates to one, and that its draws agree with it."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, biject_to, constraints

from pyro_vae.distributions import (
    CodeGrid,
    Columns,
    ObservedEntries,
    ZeroInflatedEntries,
    innermost_support,
)
from pyro_vae.distributions.sphere import log_area
from pyro_vae.testing.laws import say_ok

__all__ = ["LARGEST_INTEGRATED", "check_density", "integrate"]

# Entries of an event: importance sampling in more dimensions would need many more draws.
LARGEST_INTEGRATED = 6


def check_density(distribution: Distribution, tolerance: float = 1e-3) -> None:
    """Check that a density integrates to one and that its samples follow it.

    An event of a single entry is integrated by quadrature, a larger one by importance sampling,
    five standard errors allowed; the states of a discrete one are summed, where it can list them.

    Args:
        distribution: of any batch shape, its event a few entries.
        tolerance: how far from one the integral may be.

    Example:
        >>> check_density(torch.distributions.StudentT(torch.tensor(2.5, dtype=torch.float64)))
        ok: StudentT: integral of the density, draws
    """
    integrate(distribution, tolerance)
    say_ok(distribution, ["integral of the density", "draws"])


def integrate(distribution: Distribution, tolerance: float = 1e-3) -> None:
    """Do what `check_density` does, and print nothing."""
    batch, event = distribution.batch_shape, distribution.event_shape
    entries = distribution.base_dist if isinstance(distribution, Independent) else distribution
    entries = entries.base if isinstance(entries, ObservedEntries) else entries
    if isinstance(entries, Columns) and len(entries.parts) > 1:
        for part in entries.parts:  # a product of sums and integrals: each factor by itself
            integrate(part.to_event(1), tolerance)
        return
    if isinstance(entries, ZeroInflatedEntries) and not entries.base.support.is_discrete:
        _check_zeros(entries, tolerance)
        return
    if math.prod(event) > 1 or isinstance(distribution, CodeGrid):
        _check_joint_density(distribution, tolerance)
        return
    if support_of(distribution).is_discrete:
        points = _integers(distribution).reshape(-1, *(1,) * (len(batch) + len(event)))
        mass = distribution.log_prob(points.expand(-1, *batch, *event)).exp()
        total, mean = mass.sum(0), (mass * points.reshape(-1, *(1,) * len(batch))).sum(0)
        spread = (mass * points.reshape(-1, *(1,) * len(batch)).square()).sum(0) - mean.square()
    else:
        # Unconstrained values u = sinh(t) reach far into heavy tails with few points.
        transform = biject_to(support_of(distribution))
        t = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
        base = transform.inv(distribution.sample(torch.Size((1001,)))).median(0).values.double()
        u = base + torch.sinh(t).reshape(-1, *(1,) * (len(batch) + len(event)))
        x = transform(u)
        inside = torch.isfinite(x) & (x.abs() < 1e12)
        inside = inside & innermost_support(support_of(distribution)).check(x)
        x = torch.where(inside, x, transform(base))
        jacobian = _flat(transform.log_abs_det_jacobian(u, x), batch)
        log_density = (
            distribution.log_prob(x)
            + jacobian
            + torch.cosh(t).log().reshape(-1, *(1,) * len(batch))
        )
        density = torch.where(
            _flat(inside, batch).bool(), torch.nan_to_num(log_density, nan=-math.inf).exp(), 0.0
        )
        total = torch.trapezoid(density, t, dim=0)
        mean = torch.trapezoid(density * _flat(x, batch), t, dim=0)
        spread = torch.trapezoid(density * _flat(x, batch).square(), t, dim=0) - mean.square()
    assert torch.allclose(total, torch.ones_like(total), atol=tolerance), (
        f"the density integrates to {total.flatten().tolist()}"
    )
    num = 20_000
    draws = _flat(distribution.sample(torch.Size((num,))).double(), batch)
    known = (spread > 0) & torch.isfinite(spread) & (spread < 1e6)
    error = (draws.mean(0) - mean).abs() / (spread.clamp_min(1e-12) / num).sqrt()
    assert (error[known] < 5).all(), (
        f"the samples' mean is {error[known].max():.1f} standard errors from the density's"
    )


def _check_zeros(entries: ZeroInflatedEntries, tolerance: float) -> None:
    """Check a density with a point at zero: the point's mass, the rest's, and their draws."""
    integrate(entries.base, tolerance)
    draws = entries.sample(torch.Size((20_000,)))
    share = (draws == 0).to(draws.dtype).mean(0)
    mass = entries.log_prob(torch.zeros_like(share)).exp()
    error = (share - mass).abs() / (mass * (1 - mass) / len(draws)).sqrt()
    assert (error < 5).all(), f"the share of zeros is {error.max():.1f} standard errors off"
    x = entries.base.sample()
    rest = (entries.log_prob(x) - entries.base.log_prob(x)).exp()
    assert torch.allclose(rest + mass, torch.ones_like(mass), atol=tolerance), (
        f"zeros and the rest add up to {(rest + mass).flatten().tolist()}"
    )


def _check_joint_density(distribution: Distribution, tolerance: float) -> None:
    batch, num = len(distribution.batch_shape), 10_000
    if support_of(distribution).is_discrete:
        if not distribution.has_enumerate_support:
            return
        x = distribution.enumerate_support()
        weights, error = distribution.log_prob(x).exp(), torch.zeros(())
        total = weights.sum(0)
    else:
        x, log_proposal = _propose(distribution, num)
        weights = (distribution.log_prob(x) - log_proposal).exp() / num
        total, error = weights.sum(0), weights.std(0) * math.sqrt(num)
        assert (error < 0.1).all(), (
            f"the integral of the density is {total.max():.3g} with an error of {error.max():.2g}"
        )
    assert ((total - 1).abs() < 5 * error + tolerance).all(), (
        f"the density integrates to {total.flatten().tolist()}"
    )
    # First and second moments of the draws, against the density's.
    draws = distribution.sample(torch.Size((num,))).flatten(1 + batch)
    x, weights = x.flatten(1 + batch), (weights / total).unsqueeze(-1)
    for power in (1, 2):
        expected, got = (weights * x**power).sum(0), (draws**power).mean(0)
        spread = (draws**power).var(0) / num
        if not support_of(distribution).is_discrete:
            spread = spread + (weights * (x**power - expected)).square().sum(0)
        off = ((got - expected).abs() / (spread + 1e-12).sqrt()).max()
        assert off < 6, (
            f"the samples' moment of order {power} is {off:.1f} standard errors from the density's"
        )


def _propose(distribution: Distribution, num: int) -> tuple[Tensor, Tensor]:
    r"""Points (num, \*batch, \*event) that cover a density, and their proposal's log-density."""
    batch, event = distribution.batch_shape, distribution.event_shape
    base = support_of(distribution)
    base = base.base_constraint if isinstance(base, constraints.independent) else base
    if base is dist.constraints.sphere:
        x = nn.functional.normalize(torch.randn(num, *batch, *event, dtype=torch.float64), dim=-1)
        return x, x.new_full((num, *batch), -log_area(event[-1]) * math.prod(event[:-1]))
    transform = biject_to(support_of(distribution))
    draws = transform.inv(distribution.sample(torch.Size((2000,))))
    shape = draws.shape[1 + len(batch) :]
    draws = draws.flatten(1 + len(batch))
    centred = draws - draws.mean(0)
    covariance = torch.einsum("s...i,s...j->...ij", centred, centred) / len(draws)
    scale = torch.linalg.cholesky(
        1.5 * covariance + 1e-8 * torch.eye(draws.shape[-1], dtype=draws.dtype)
    )
    # Heavier tails than most: Student's t of five degrees of freedom around the draws' mean.
    proposal = dist.MultivariateStudentT(draws.new_tensor(5.0), draws.mean(0), scale)
    u = proposal.sample((num,))
    value = u.reshape(num, *batch, *shape)
    x = transform(value)
    jacobian = transform.log_abs_det_jacobian(value, x)
    return x, proposal.log_prob(u) - jacobian.reshape(num, *batch, -1).sum(-1)


def _flat(value: Tensor, batch: torch.Size) -> Tensor:
    """Drop the event dimensions, all of size one."""
    return value.reshape(*value.shape[: len(batch) + 1])


def _integers(distribution: Distribution) -> Tensor:
    entry = distribution
    while entry.event_shape and isinstance(entry, Independent):
        entry = entry.base_dist
    if entry.has_enumerate_support and math.prod(entry.event_shape) == 1:
        return entry.enumerate_support(expand=False).flatten().double()
    highest = distribution.sample(torch.Size((1000,))).max().item()
    support = support_of(distribution)
    values = torch.arange(int(4 * highest + 50), dtype=torch.float64)
    shape = (-1, *(1,) * (len(distribution.batch_shape) + len(distribution.event_shape)))
    full = values.reshape(shape).expand(-1, *distribution.batch_shape, *distribution.event_shape)
    inside = support.check(full).reshape(len(values), -1).all(1)
    return values[inside]


def support_of(distribution: Distribution) -> constraints.Constraint:
    """The support of a distribution, which must state one."""
    support = distribution.support
    assert support is not None, "a distribution must state its support"
    return support
