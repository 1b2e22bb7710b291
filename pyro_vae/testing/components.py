"""Contract tests that ship: what a prior, a likelihood, a posterior or a program must do to be used with the rest.

Call them on a component of your own, as our tests do on ours. Each raises `AssertionError` with
what was broken::

    from pyro_vae.testing import check_prior

    def test_my_prior():
        check_prior(MyPrior(1, df=4.0))

A component whose event has a few entries also has its density integrated, so check it in such a
size too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.checkpoint.description import build, describe
from pyro_vae.contracts import ProgramLike
from pyro_vae.distributions import Flat, as_pyro, is_point_mass
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.networks import MLP, as_shape
from pyro_vae.objectives import ELBO
from pyro_vae.posteriors import DiagonalNormal
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.predictive import generate
from pyro_vae.testing.density import LARGEST_INTEGRATED, check_density
from pyro_vae.validation import InvalidInput

__all__ = ["check_likelihood", "check_network", "check_posterior", "check_prior", "check_program"]

Forward = Callable[[nn.Module], torch.distributions.Distribution]


def check_prior(prior: nn.Module, *, context: Tensor | None = None) -> None:
    r"""Checks the contract of a prior. One that shares parts of a program, as VampPrior does, is put into one.

    Args:
        prior: the prior.
        context: features (N, C) for a prior that uses them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_prior(pv.priors.GaussianMixture(1, components=3))
    """

    def forward(module: Any) -> torch.distributions.Distribution:
        part = module.prior if bound else module
        return part(context=None if context is None else context.to(_dtype(module)))

    bound = hasattr(prior, "bind")
    module = _Bound(prior, 0 if context is None else context.shape[-1]) if bound else prior
    _check_component(module, forward, () if context is None else (len(context),), ())


class _Bound(nn.Module):
    """As much of a program as a prior can ask for."""

    event_shape = (3,)

    def __init__(self, prior: nn.Module, features: int):
        super().__init__()
        self.features = features
        part: Any = prior
        self.context = nn.Identity() if features else None
        self.posterior = DiagonalNormal(part.latent, MLP(self.event_shape, [8], context=features))
        self.posterior.register_buffer("codebook", torch.randn(3, part.latent[0]))
        self.posterior.requires_grad_(False)  # lent: what is checked is what the prior adds
        self.prior = prior
        part.bind(self)


def check_likelihood(likelihood: Any, z: Tensor, *, context: Tensor | None = None) -> None:
    r"""Checks the contract of a likelihood.

    Args:
        likelihood: the likelihood.
        z: latents (N, \*latent), such as draws from the prior.
        context: features (N, C) for a likelihood whose network takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_likelihood(pv.likelihoods.Normal(1, pv.networks.MLP(2, [8])), torch.randn(4, 2))
    """
    _check_event_shape(likelihood)
    _check_conditional(likelihood, z, context)
    assert tuple(as_pyro(likelihood(z, context=context)).event_shape) == as_shape(
        likelihood.event_shape
    ), "a likelihood's distribution must have the event shape that the module states"


def check_posterior(posterior: nn.Module, x: Tensor, *, context: Tensor | None = None) -> None:
    r"""Checks the contract of a posterior.

    Args:
        posterior: the posterior.
        x: data (N, \*event).
        context: features (N, C) for a posterior whose network takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_posterior(pv.posteriors.DiagonalNormal(1, pv.networks.MLP(3, [8])), torch.randn(4, 3))
    """
    _check_conditional(posterior, x, context)


def check_network(network: Any, x: Tensor, *, context: Tensor | None = None) -> None:
    r"""Checks the contract of a network: its shape, leading batch dimensions, and that a batch equals a loop.

    Args:
        network: the network.
        x: inputs (N, \*in_shape).
        context: features (N, C) for a network that takes them.

    Example:
        >>> check_network(pv.networks.Conv((1, 7, 5), [4], context=2), torch.randn(3, 1, 7, 5), context=torch.randn(3, 2))
    """
    network = copy.deepcopy(network).double().eval()
    x, given = x.double(), () if context is None else (context.double(),)
    features = network(x, *given)
    shape = as_shape(network.out_shape)
    assert tuple(features.shape) == (len(x), *shape), (
        f"features {tuple(features.shape)} where out_shape says {shape}"
    )
    rows = torch.cat([network(x[i : i + 1], *(c[i : i + 1] for c in given)) for i in range(len(x))])
    torch.testing.assert_close(
        features, rows, msg=lambda m: f"a batch must equal a loop over its data: {m}"
    )
    many = network(x.expand(2, 3, *x.shape), *given)
    torch.testing.assert_close(
        many, features.expand(2, 3, *features.shape), msg=lambda m: f"leading dimensions: {m}"
    )
    if given:
        spread = network(x, given[0].expand(2, *given[0].shape))
        torch.testing.assert_close(
            spread, features.expand(2, *features.shape), msg=lambda m: f"context dimensions: {m}"
        )
    _check_gradients(network, lambda module: module(x, *given).square().sum())
    _check_copies(network, lambda module: module(x, *given))


def check_program(program: ProgramLike, x: Tensor, *, context: Tensor | None = None) -> None:
    r"""Checks the contract of a program: it trains, scores, generates, copies, saves and loads.

    Args:
        program: the program.
        x: data (N, \*event) in the likelihood's support.
        context: labels or covariates (N, ...) for a program that takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_program(vae, torch.zeros(4, 1, 8, 8))
    """
    _check_event_shape(program)
    with _unchanged_globals():
        _check_gradients(program, _loss_of(x, context))
        scores = evaluate(program, (x, context), num_samples=5)
        for name, score in scores.items():
            assert score.values.shape == (len(x),), f"{name} must have one value for each datum"
        new = generate(program, len(x), context=context, draws=True)
        assert new.shape == x.shape, f"generated {tuple(new.shape)} for data of {tuple(x.shape)}"
        _check_copies(program, lambda module: evaluate(module, (x, context), 5)["elbo"].values)


def _loss_of(x: Tensor, context: Tensor | None) -> Callable[[Any], Tensor]:
    return lambda program: ELBO().differentiable_loss(program.model, program.guide, x, context)


# components


def _check_component(module: nn.Module, forward: Forward, *batches: tuple[int, ...]) -> None:
    with _unchanged_globals():
        double = copy.deepcopy(module).double().eval()
        density: Any = as_pyro(forward(double))
        batch = tuple(density.batch_shape)
        assert batch in batches, f"batch shape {batch}, expected {' or '.join(map(str, batches))}"
        event = tuple(density.event_shape)
        if isinstance(density, Flat):
            _check_flat(density, double, forward)
            return
        values = density.sample((2, 3))
        assert tuple(values.shape) == (2, 3, *batch, *event), (
            f"samples of shape {tuple(values.shape)}"
        )
        assert values.dtype == torch.float64 or density.support.is_discrete, (
            "samples must follow the module's dtype"
        )
        assert density.support.check(values).all(), "samples must lie in the support"
        log_prob = density.log_prob(values)
        assert tuple(log_prob.shape) == (2, 3, *batch), (
            f"log_prob of shape {tuple(log_prob.shape)} for values (2, 3, ...)"
        )
        assert log_prob.dtype == torch.float64, "log_prob must follow the module's dtype"
        assert torch.isfinite(log_prob).all(), "log_prob must be finite at samples"
        with (
            poutine.trace() as trace,
            pyro.plate("data", batch[0] if batch else 4),
            pyro.plate("particles", 2, dim=-2),
        ):
            pyro.sample("site", density)
        trace.trace.compute_log_prob()
        assert trace.trace.nodes["site"]["log_prob"].shape == (2, batch[0] if batch else 4), (
            "it must expand in Pyro's plates"
        )
        if math.prod(event) <= LARGEST_INTEGRATED and not is_point_mass(density):
            check_density(density)

        def loss(copied: nn.Module) -> Tensor:
            torch.manual_seed(0)
            again = as_pyro(forward(copied))
            draw = again.rsample() if again.has_rsample else again.sample()
            return again.log_prob(values).sum() + again.log_prob(draw).sum() + draw.square().sum()

        _check_gradients(double, loss)
        _check_copies(double, lambda copied: forward(copied).log_prob(values))


def _check_flat(density: Flat, module: nn.Module, forward: Forward) -> None:
    """What is left of a prior's contract where there is no distribution: it says so when asked for a draw."""
    values = torch.randn(2, 3, *density.batch_shape, *density.event_shape, dtype=torch.float64)
    assert torch.equal(density.log_prob(values), values.new_zeros(2, 3, *density.batch_shape)), (
        "its log-density must be zero"
    )
    try:
        density.sample()
    except InvalidInput:
        _check_copies(module, lambda copied: forward(copied).log_prob(values))
    else:
        raise AssertionError("a flat prior must refuse to be drawn from")


def _check_conditional(module: nn.Module, given: Tensor, context: Tensor | None) -> None:
    def forward(module: nn.Module) -> torch.distributions.Distribution:
        dtype = _dtype(module)
        return module(given.to(dtype), context=None if context is None else context.to(dtype))

    _check_component(module, forward, (len(given),))
    double = copy.deepcopy(module).double().eval()
    x, c = given.double(), None if context is None else context.double()
    density = as_pyro(double(x, context=c))
    value = density.sample()

    def scored(d: Any, points: Tensor) -> Tensor:
        # A point mass scores a rounding error as it scores any other miss: compare where it lies.
        return (
            d.mean.flatten(len(d.batch_shape)).sum(-1) if is_point_mass(d) else d.log_prob(points)
        )

    rows = torch.cat(
        [
            scored(
                as_pyro(double(x[i : i + 1], context=None if c is None else c[i : i + 1])),
                value[i : i + 1],
            )
            for i in range(len(x))
        ]
    )
    torch.testing.assert_close(
        scored(density, value), rows, msg=lambda m: f"a batch must equal a loop: {m}"
    )
    leading = as_pyro(double(x.expand(2, *x.shape), context=c))
    assert tuple(leading.batch_shape) == (2, len(x)), (
        f"inputs (K, N) gave batch shape {tuple(leading.batch_shape)}"
    )
    torch.testing.assert_close(
        scored(leading, value), rows.expand(2, -1), msg=lambda m: f"leading dimensions: {m}"
    )


def _check_event_shape(module: Any) -> None:
    assert getattr(module, "event_shape", None) is not None, (
        "it must state event_shape, the shape of one datum"
    )


def _check_gradients(module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
    module = copy.deepcopy(module)
    module.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss_value = loss(module)
        if not any(p.requires_grad for p in module.parameters()):
            return
        loss_value.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def _check_copies(module: nn.Module, result: Callable[[nn.Module], Tensor]) -> None:
    with evaluating(module, seed=0):
        expected = result(module)
    copied = copy.deepcopy(module)
    with evaluating(copied, seed=0):
        torch.testing.assert_close(
            result(copied), expected, rtol=0, atol=0, msg=lambda m: f"a deep copy differs: {m}"
        )
    shared = {p.data_ptr() for p in module.parameters()} & {
        p.data_ptr() for p in copied.parameters()
    }
    assert not shared, "a deep copy shares parameters with the original"
    rebuilt = build(describe(module)).to(_dtype(module))
    rebuilt.load_state_dict(module.state_dict())
    with evaluating(rebuilt, seed=0):
        torch.testing.assert_close(
            result(rebuilt),
            expected,
            rtol=0,
            atol=0,
            msg=lambda m: f"saved and loaded it differs: {m}",
        )
    pointers = [value.data_ptr() for value in module.state_dict().values() if value.numel()]
    assert len(pointers) == len(set(pointers)), (
        "state_dict holds a tensor twice: register a shared module in one place only"
    )
    if torch.cuda.is_available():
        moved = copy.deepcopy(module).cuda()
        assert all(t.is_cuda for t in [*moved.parameters(), *moved.buffers()]), (
            "it does not move to the GPU as a whole"
        )


class _unchanged_globals:
    """Fails if the body switches the process's distribution validation on or off, or registers global parameters."""

    def __enter__(self) -> None:
        self.before = self._state()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            assert self._state() == self.before, (
                "it changed distribution validation or Pyro's global parameter store"
            )

    @staticmethod
    def _state() -> tuple:
        return (
            torch.distributions.Distribution._validate_args,
            dist.torch_distribution.TorchDistribution._validate_args,
            tuple(pyro.get_param_store().keys()),
        )


def _dtype(module: nn.Module) -> torch.dtype:
    return next(
        (t.dtype for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()),
        torch.get_default_dtype(),
    )
