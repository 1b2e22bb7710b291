"""Checks for all components, networks and programs: gradients, copies, unchanged globals."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_vae.checkpoint.description import build, describe
from pyro_vae.contracts import ModuleLike, as_module
from pyro_vae.runtime.environment import evaluating

__all__ = [
    "check_close",
    "check_copies",
    "check_gradients",
    "dtype_of",
    "in_float64",
    "say_ok",
    "unchanged_globals",
]

M = TypeVar("M", bound=ModuleLike)


def check_gradients(module: M, loss: Callable[[M], Tensor]) -> None:
    """Check that a finite gradient of a loss reaches every parameter."""
    module = copy.deepcopy(module)
    as_module(module).zero_grad()
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


def check_copies(module: M, result: Callable[[M], Tensor]) -> None:
    """Check that copying, and saving and loading, keep results identical bit for bit."""
    expected = _evaluated(module, result)
    copied = copy.deepcopy(module)
    _check_same(_evaluated(copied, result), expected, "a deep copy differs")
    shared = _pointers(module.parameters()) & _pointers(copied.parameters())
    assert not shared, "a deep copy shares parameters with the original"
    rebuilt = cast(M, build(describe(module), trust=["pyro_vae.testing"]))
    rebuilt.to(dtype_of(module))
    rebuilt.load_state_dict(module.state_dict())
    _check_same(_evaluated(rebuilt, result), expected, "saved and loaded it differs")
    held = [value.data_ptr() for value in module.state_dict().values() if value.numel()]
    assert len(held) == len(set(held)), (
        "state_dict holds a tensor twice: register a shared module in one place only"
    )
    if torch.cuda.is_available():
        moved = copy.deepcopy(as_module(module)).cuda()
        assert all(t.is_cuda for t in [*moved.parameters(), *moved.buffers()]), (
            "it does not move to the GPU as a whole"
        )


def _evaluated(module: M, result: Callable[[M], Tensor]) -> Tensor:
    with evaluating(module, seed=0):
        return result(module)


def _check_same(got: Tensor, expected: Tensor, words: str) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, msg=lambda m: f"{words}: {m}")


def _pointers(tensors: Iterator[torch.nn.Parameter]) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors}


@contextmanager
def unchanged_globals() -> Iterator[None]:
    """Fail if the body switches distribution validation, or registers global parameters."""
    before = _globals()
    yield
    assert _globals() == before, (
        "it changed distribution validation or Pyro's global parameter store"
    )


def _globals() -> tuple[object, ...]:
    return (
        torch.distributions.Distribution._validate_args,
        TorchDistribution._validate_args,
        tuple(pyro.get_param_store().keys()),
    )


def check_close(got: Tensor, expected: Tensor, words: str) -> None:
    """Check that two results agree up to rounding."""
    torch.testing.assert_close(got, expected, msg=lambda m: f"{words}: {m}")


def in_float64(module: M) -> M:
    """A copy in float64 and in evaluation mode."""
    copied = copy.deepcopy(module)
    copied.double()
    copied.eval()
    return copied


def say_ok(module: object, checked: Iterable[str]) -> None:
    """Print what was checked of a module, now that all of it holds."""
    print(f"ok: {type(module).__name__}: {', '.join(checked)}")


def dtype_of(module: ModuleLike) -> torch.dtype:
    """The floating-point type of a module's first parameter or buffer that has one."""
    tensors = [*module.parameters(), *module.buffers()]
    floating = (t.dtype for t in tensors if t.is_floating_point())
    return next(floating, torch.get_default_dtype())
