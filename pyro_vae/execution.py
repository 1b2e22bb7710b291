"""The conditions under which a program is run: on which device, on which data, with which random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import validation_enabled
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_vae.datasets import Data, as_dataset
from pyro_vae.programs import AnyProgram
from pyro_vae.traces import importance_traces
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    check_context,
    check_event_shape,
    check_finite,
    check_support,
)

__all__ = ["check_data", "checked_data", "choose_device", "evaluating", "isolated_random", "like_parameters",
           "seed_generators", "support_of"]


def choose_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU; ``"cpu"``, ``"cuda"`` or a torch device are themselves.

    Raises:
        InvalidInput: for CUDA on a machine without.
    """
    if isinstance(device, str):
        check_choice("device", device.split(":")[0], ["auto", "cpu", "cuda"])
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device", got="cuda", expected="a device of this machine, which has no usable CUDA GPU",
                           fix="pass device='auto' or 'cpu'")
    return device


def reference_parameter(program: AnyProgram) -> Tensor:
    """A tensor on the device and of the dtype of the program's parameters, or of its constants if it has none."""
    tensors = [*program.parameters(), *program.buffers()]
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(()))


def like_parameters(program: AnyProgram, value: Any) -> Any:
    """The value on the program's device, of its dtype if it is no integer."""
    if value is None:
        return None
    reference = reference_parameter(program)
    return value.to(reference) if value.is_floating_point() else value.to(reference.device)


@contextmanager
def isolated_random(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers from ``seed`` inside; the caller's random state is left as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(device, seed)
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds the host's generator and the device's own; `torch.manual_seed` would seed every GPU of the machine."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def evaluating(program: AnyProgram, seed: int) -> Iterator[None]:
    """Runs a program without gradients or dropout, on random numbers from ``seed``, and restores everything."""
    modes = {module: module.training for module in program.modules()}
    program.eval()
    try:
        with torch.no_grad(), isolated_random(reference_parameter(program).device, seed):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def checked_data(program: AnyProgram, data: Data) -> tuple[Tensor, Tensor | None]:
    """Data as tensors (x, context) on the program's device and of its dtype, after every check of bad input."""
    dataset = as_dataset(data)
    check_data(program, dataset.x, dataset.context)
    return like_parameters(program, dataset.x), like_parameters(program, dataset.context)


def check_data(program: AnyProgram, x: Tensor, context: Tensor | None) -> None:
    """Raises `InvalidInput` on data that the program cannot score: shape, numbers, context, support."""
    if program.event_shape is not None:
        check_event_shape(x, program.event_shape)
    check_finite("x", x)
    check_context(program, x, context)
    support = support_of(program, x, context)
    if support is not None:
        check_support(x.to(reference_parameter(program).device), support)


def support_of(program: AnyProgram, x: Tensor, context: Tensor | None) -> Constraint | None:
    """The support of p(x | z), read off the site ``"x"`` at the first datum; ``None`` if there is no such site."""
    one = slice(0, 1)
    with evaluating(program, seed=0), validation_enabled(False):
        _, model = importance_traces(program, like_parameters(program, x[one]),
                                     like_parameters(program, None if context is None else context[one]))
    site: Any = model.nodes.get("x")
    return None if site is None else site["fn"].support
