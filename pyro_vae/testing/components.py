"""Check the contracts of priors, likelihoods and posteriors.

Call the checks on a component of your own, as our tests do on ours. Each raises `AssertionError`
with what was broken::

    from pyro_vae.testing import check_prior

    def test_my_prior():
        check_prior(MyPrior(1, df=4.0))

A check that passes prints what it has checked. The density of a component whose event has a few
entries is integrated too, so check it in such a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.contracts import (
    Bindable,
    Likelihood,
    ModuleLike,
    Posterior,
    Prior,
    ProgramOfParts,
    as_module,
)
from pyro_vae.distributions import Flat, as_pyro, is_point_mass
from pyro_vae.networks import MLP, as_shape, tell_event_dim
from pyro_vae.posteriors import DiagonalNormal
from pyro_vae.testing.density import LARGEST_INTEGRATED, integrate
from pyro_vae.testing.laws import (
    M,
    check_close,
    check_copies,
    check_gradients,
    dtype_of,
    in_float64,
    say_ok,
    unchanged_globals,
)
from pyro_vae.validation import InvalidInput

__all__ = ["check_likelihood", "check_posterior", "check_prior"]

OF_DENSITIES = ("draws", "support", "log-density", "plates")


def check_prior(prior: Prior, *, context: Tensor | None = None) -> None:
    r"""Check the contract of a prior.

    A prior that shares parts of a program, as VampPrior does, is put into one.

    Args:
        prior: the prior.
        context: features (N, C) for a prior that uses them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_prior(pv.priors.GaussianMixture(1, components=3))
        ok: GaussianMixture: draws, support, log-density, plates, integral of the density,
        gradients, copies, files, global state
    """
    if isinstance(prior, Bindable):
        bound = _Bound(cast(_SharingPrior, prior), 0 if context is None else context.shape[-1])
        checked = _check_prior(bound, lambda program: program.prior, context)
    else:
        checked = _check_prior(prior, lambda prior: prior, context)
    say_ok(prior, checked)


def _check_prior(module: M, prior_of: Callable[[M], Prior], context: Tensor | None) -> list[str]:
    def forward(module: M) -> Distribution:
        return prior_of(module)(context=_as_dtype_of(module, context))

    return _check_component(module, forward, () if context is None else (len(context),), ())


class _SharingPrior(Bindable, Prior, Protocol):
    latent: tuple[int, ...]


class _Bound(nn.Module):
    """The part of a program that a prior may use."""

    event_shape = (3,)

    def __init__(self, prior: _SharingPrior, features: int):
        super().__init__()
        self.features = features
        self.context = nn.Identity() if features else None
        self.posterior = DiagonalNormal(prior.latent, MLP(self.event_shape, [8], context=features))
        self.posterior.register_buffer("codebook", torch.randn(3, prior.latent[0]))
        self.posterior.requires_grad_(False)  # lent: what is checked is what the prior adds
        self.prior = prior
        prior.bind(cast(ProgramOfParts, self))


def check_likelihood(
    likelihood: Likelihood,
    z: Tensor | None = None,
    *,
    context: Tensor | None = None,
    known: Mapping[str, Tensor] | None = None,
) -> None:
    r"""Check the contract of a likelihood.

    Args:
        likelihood: the likelihood.
        z: latents (N, \*latent), such as draws from the prior; by default four standard normal
            ones, of the shape that the likelihood's network takes.
        context: features (N, C) for a likelihood whose network takes them.
        known: the known quantities that it takes, (N,) or (N, \*event), for which its density
            integrates to one.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_likelihood(pv.likelihoods.Normal(1, pv.networks.MLP(2, [8])))
        ok: Normal: draws, support, log-density, plates, integral of the density, gradients,
        copies, files, global state, a batch against a loop, leading dimensions, event shape
    """
    assert getattr(likelihood, "event_shape", None) is not None, (
        "it must state event_shape, the shape of one datum"
    )
    given = _Given(_latents_for(likelihood) if z is None else z, context, known or {})
    checked = _check_conditional(likelihood, given)
    assert tuple(given.of(likelihood).event_shape) == as_shape(likelihood.event_shape), (
        "a likelihood's distribution must have the event shape that the module states"
    )
    say_ok(likelihood, [*checked, "event shape"])


@runtime_checkable
class _StatesShapes(Protocol):
    """A network that states the shapes of what it takes and of what it gives."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


def _latents_for(likelihood: Likelihood) -> Tensor:
    """Four latents of the shape that a likelihood's network takes."""
    parts = as_module(likelihood).modules()
    found = next((part for part in parts if isinstance(part, _StatesShapes)), None)
    if found is None:
        raise InvalidInput(
            "z",
            got="none, and no network of the likelihood states its in_shape",
            expected="latents (N, *latent)",
            fix="pass z, such as torch.randn(4, 2) for two latent dimensions",
        )
    return torch.randn(4, *as_shape(found.in_shape), generator=torch.Generator().manual_seed(0))


def check_posterior(posterior: Posterior, x: Tensor, *, context: Tensor | None = None) -> None:
    r"""Check the contract of a posterior.

    Args:
        posterior: the posterior.
        x: data (N, \*event).
        context: features (N, C) for a posterior whose network takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> posterior = pv.posteriors.DiagonalNormal(1, pv.networks.MLP(3, [8]))
        >>> check_posterior(posterior, torch.randn(4, 3))
        ok: DiagonalNormal: draws, support, log-density, plates, integral of the density,
        gradients, copies, files, global state, a batch against a loop, leading dimensions
    """
    say_ok(posterior, _check_conditional(posterior, _Given(x, context, {})))


def _check_component(
    module: M, forward: Callable[[M], Distribution], *batches: tuple[int, ...]
) -> list[str]:
    """Check the density of a component; return what was checked."""
    with unchanged_globals():
        double = in_float64(module)
        density = as_pyro(forward(double))
        batch = tuple(density.batch_shape)
        assert batch in batches, f"batch shape {batch}, expected {' or '.join(map(str, batches))}"
        if isinstance(density, Flat):
            values, checked = _check_flat(density), ["log-density", "no draws"]
        else:
            values, checked = _check_draws(density), list(OF_DENSITIES)
            checked += ["integral of the density"] if _is_integrated(density) else []
            checked += ["gradients"] if any(p.requires_grad for p in double.parameters()) else []
            check_gradients(double, lambda copied: _loss(forward(copied), values))
        check_copies(double, lambda copied: forward(copied).log_prob(values))
    return [*checked, "copies", "files", "global state"]


def _check_draws(density: Distribution) -> Tensor:
    """Check draws of a density against its stated shape and support; return the draws."""
    batch, event, support = density.batch_shape, density.event_shape, density.support
    assert support is not None, "it must state its support"
    values = density.sample(torch.Size((2, 3)))
    assert values.shape == (2, 3, *batch, *event), f"samples of shape {tuple(values.shape)}"
    assert values.dtype == torch.float64 or support.is_discrete, (
        "samples must follow the module's dtype"
    )
    assert support.check(values).all(), "samples must lie in the support"
    log_prob = density.log_prob(values)
    assert log_prob.shape == (2, 3, *batch), (
        f"log_prob of shape {tuple(log_prob.shape)} for values (2, 3, ...)"
    )
    assert log_prob.dtype == torch.float64, "log_prob must follow the module's dtype"
    assert torch.isfinite(log_prob).all(), "log_prob must be finite at samples"
    _check_plates(density, batch[0] if batch else 4)
    if _is_integrated(density):
        integrate(density)
    return values


def _check_plates(density: Distribution, size: int) -> None:
    try:
        with (
            poutine.trace() as trace,
            pyro.plate("data", size),
            pyro.plate("particles", 2, dim=-2),
        ):
            pyro.sample("site", as_pyro(density))
        trace.trace.compute_log_prob()
    except Exception as error:  # whatever a distribution of the user's raises
        raise AssertionError(
            f"its distribution must expand in Pyro's plates, and expand failed ({error}); "
            "a program whose batches have the plates' shape may still train"
        ) from error
    assert trace.trace.nodes["site"]["log_prob"].shape == (2, size), (
        "it must expand in Pyro's plates"
    )


def _is_integrated(density: Distribution) -> bool:
    """Whether the density is one that `integrate` takes."""
    return math.prod(density.event_shape) <= LARGEST_INTEGRATED and not is_point_mass(density)


def _loss(density: Distribution, values: Tensor) -> Tensor:
    """A loss that depends on all of a density: its values at points, and its draws."""
    torch.manual_seed(0)
    draw = density.rsample() if density.has_rsample else density.sample()
    return density.log_prob(values).sum() + density.log_prob(draw).sum() + draw.square().sum()


def _check_flat(density: Flat) -> Tensor:
    """Check that an improper prior is zero and refuses to be sampled; return some points."""
    values = torch.randn(2, 3, *density.batch_shape, *density.event_shape, dtype=torch.float64)
    assert torch.equal(density.log_prob(values), values.new_zeros(2, 3, *density.batch_shape)), (
        "its log-density must be zero"
    )
    try:
        density.sample()
    except InvalidInput:
        return values
    raise AssertionError("a flat prior must refuse to be drawn from")


@dataclass(frozen=True)
class _Given:
    """What a conditional density is given: data or latents, a context, known quantities."""

    values: Tensor
    context: Tensor | None
    known: Mapping[str, Tensor]

    def of(self, module: Likelihood | Posterior) -> Distribution:
        """The density, its inputs in the module's dtype."""
        dtype = dtype_of(module)
        known = {name: value.to(dtype) for name, value in self.known.items()}
        context = None if self.context is None else self.context.to(dtype)
        call: Callable[..., Distribution] = module
        return call(self.values.to(dtype), context=context, **known)

    def row(self, i: int) -> _Given:
        one = slice(i, i + 1)
        context = None if self.context is None else self.context[one]
        return _Given(self.values[one], context, {k: v[one] for k, v in self.known.items()})


def _check_conditional(module: Likelihood | Posterior, given: _Given) -> list[str]:
    num = len(given.values)
    tell_event_dim(as_module(module), given.values.dim() - 1)
    checked = _check_component(module, given.of, (num,))
    double = in_float64(module)
    density = given.of(double)
    value = density.sample()
    rows = [_scored(given.row(i).of(double), value[i : i + 1]) for i in range(num)]
    loop = torch.cat(rows)
    check_close(_scored(density, value), loop, "a batch must equal a loop")
    leading = replace(given, values=given.values.expand(2, *given.values.shape)).of(double)
    assert tuple(leading.batch_shape) == (2, num), (
        f"inputs (K, N) gave batch shape {tuple(leading.batch_shape)}"
    )
    check_close(_scored(leading, value), loop.expand(2, -1), "leading dimensions")
    return [*checked, "a batch against a loop", "leading dimensions"]


def _scored(density: Distribution, points: Tensor) -> Tensor:
    """Log-densities of points, or the location of a point mass.

    A point mass scores a rounding error as it scores any other miss.
    """
    if is_point_mass(density):
        return density.mean.flatten(len(density.batch_shape)).sum(-1)
    return density.log_prob(points)


def _as_dtype_of(module: ModuleLike, context: Tensor | None) -> Tensor | None:
    return None if context is None else context.to(dtype_of(module))
