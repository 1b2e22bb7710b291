"""The conditions of a run: device, data type, random numbers, evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from pyro_vae.contracts import ModuleLike, ProgramLike, alone
from pyro_vae.programs import Program
from pyro_vae.runtime.memory import enough_memory
from pyro_vae.validation import InvalidInput, T, check_choice, check_seed, map_tensors

__all__ = [
    "as_by_default",
    "choose_device",
    "evaluating",
    "in_single_precision",
    "isolated_random",
    "like_parameters",
    "modes_put_back",
    "random_state",
    "reference_parameter",
    "seed_generators",
    "set_random_state",
]


def choose_device(device: str | torch.device) -> torch.device:
    """Choose a device: ``"auto"`` is CUDA where there is one, else the CPU.

    ``"cpu"``, ``"cuda"`` and a torch device are themselves.

    Raises:
        InvalidInput: for CUDA on a machine without.
    """
    if isinstance(device, str):
        check_choice("device", device.split(":")[0], ["auto", "cpu", "cuda"])
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            "device",
            got="cuda",
            expected="a device of this machine, which has no usable CUDA GPU",
            fix="pass device='auto' or 'cpu'",
        )
    return device


def reference_parameter(program: ModuleLike) -> Tensor:
    """A tensor on the program's device and of its dtype.

    It is a parameter, or a constant of a program that has none.
    """
    for tensor in chain(program.parameters(), program.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(())


def like_parameters(program: ProgramLike, values: T) -> T:
    """Put data on the program's device, and in its dtype unless they are integers."""
    like = reference_parameter(program)
    return map_tensors(
        lambda value: value.to(like) if value.is_floating_point() else value.to(like.device),
        values,
    )


@contextmanager
def isolated_random(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the random numbers inside, and restore the caller's random state.

    Other threads wait until they can do the same.
    """
    with alone(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(device, seed)
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators of the host and of one device.

    `torch.manual_seed` would seed every GPU of the machine.

    Raises:
        InvalidInput: if the seed is no integer from 0 to 2**63 - 1.
    """
    check_seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def random_state(device: torch.device) -> Tensor:
    """The state of a device's random numbers, for `set_random_state`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Put the state of a device's random numbers back."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


SMALLER = (
    "lower the number of draws (num_samples, --num-samples or --num), or use fewer data (--limit)"
)


@contextmanager
def evaluating(program: ModuleLike, seed: int) -> Iterator[None]:
    """Run a program without gradients or dropout, on random numbers from ``seed``.

    All that is changed is restored.
    """
    device = reference_parameter(program).device
    with (
        enough_memory("a program that is run on data", SMALLER),
        isolated_random(device, seed),
        modes_put_back(program),
        as_by_default(device),
        torch.no_grad(),
    ):
        program.eval()
        yield


@contextmanager
def as_by_default(device: torch.device) -> Iterator[None]:
    """Leave a caller's `torch.autocast`, `torch.no_grad` and `torch.inference_mode` meanwhile.

    Half precision is too coarse for a score, and gradients are needed in more places than training.
    A program's own `torch.autocast` keeps no weight that it has cast: torch would forget it only
    when the outermost one is left, which is this one, at the end of all training.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False, cache_enabled=False),
    ):
        yield


@contextmanager
def modes_put_back(program: ModuleLike) -> Iterator[None]:
    """Leave each module in training or evaluation mode, as it was."""
    modes = {module: module.training for module in program.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def in_single_precision(program: ProgramLike) -> ProgramLike:
    """A copy of a program in half precision, which adds up log-probabilities in float32.

    Half precision has three digits, too few for a sum over the entries of x. A program of plain
    functions, which may make tensors of half precision themselves, stays as it is.
    """
    if reference_parameter(program).dtype not in (torch.bfloat16, torch.float16):
        return program
    if isinstance(program, Program) and not program.is_of_methods:
        return program
    copied = copy.deepcopy(program)
    copied.to(torch.float32)
    return copied
