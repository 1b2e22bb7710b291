"""The conditions under which a program is run: on which device, on which data, with which random numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine, validation_enabled
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_vae.datasets import Data, Dataset, as_dataset
from pyro_vae.distributions import is_point_mass, is_thin, measure_of, points_of
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
           "random_state", "seed_generators", "set_random_state", "support_of"]


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


def random_state(device: torch.device) -> Tensor:
    """The state of a device's random numbers, for `set_random_state`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Puts the state of a device's random numbers back."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


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
    check_data(program, dataset)
    return like_parameters(program, dataset.x), like_parameters(program, dataset.context)


def check_data(program: AnyProgram, data: Dataset) -> None:
    """Raises `InvalidInput` on data that the program cannot score: shape, numbers, context, support."""
    x, context = data.x, data.context
    if program.event_shape is not None:
        check_event_shape(x, program.event_shape)
    check_finite("x", x, missing=data.missing)
    check_context(program, x, context)
    guide, model = _traces_at_first_datum(program, x, context)
    if "x" in model.nodes:
        site: Any = model.nodes["x"]
        check_support(x.to(reference_parameter(program).device), site["fn"].support)
    check_latent_supports(guide, model)


def check_latent_supports(guide: Any, model: Any) -> None:
    """Raises `InvalidInput` if a latent of the guide can lie where the model gives it no density of the same kind."""
    with torch.no_grad(), isolated_random(torch.device("cpu"), seed=0):
        has_sources = any(site["type"] == "sample" and site["infer"].get("is_auxiliary") for site in guide.nodes.values())
        for name in guide.nodes.keys() & model.nodes.keys():
            site, prior = guide.nodes[name], model.nodes[name]
            if site["type"] != "sample" or site["is_observed"] or prior["is_observed"]:
                continue
            q, p = site["fn"], prior["fn"]
            if q.event_shape != p.event_shape:
                raise InvalidInput(name, got=f"a posterior over {tuple(q.event_shape)} under a prior over {tuple(p.event_shape)}",
                                   expected="the same latent shape for both", fix="give both the same latent")
            if is_point_mass(q):  # it has no density to compare, but a place: nowhere near a thin set by chance
                # The image of an auxiliary site is where the function takes it, not anywhere on the line.
                points = site["value"] if has_sources or is_thin(p.support) else points_of(q)
            elif measure_of(q.support) != measure_of(p.support):
                raise InvalidInput(
                    name, got=f"a posterior with a density over {measure_of(q.support)} under a prior with one over "
                    f"{measure_of(p.support)}", expected="densities of one kind, for their ratio is what every bound is made of",
                    fix="choose a prior and a posterior on the same space")
            else:
                points = points_of(q)
            if not p.support.check(points).all():
                raise InvalidInput(name, got=f"a posterior on {_words(q.support)} under a prior on {_words(p.support)}, which gives "
                                   "some of its draws no density", expected="a posterior whose support lies inside the prior's",
                                   fix="choose a prior and a posterior on the same space")


def _words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return str(support).removesuffix("()")


def support_of(program: AnyProgram, x: Tensor, context: Tensor | None) -> Constraint | None:
    """The support of p(x | z), read off the site ``"x"`` at the first datum; ``None`` if there is no such site."""
    site: Any = _traces_at_first_datum(program, x, context)[1].nodes.get("x")
    return None if site is None else site["fn"].support


def _traces_at_first_datum(program: AnyProgram, x: Tensor, context: Tensor | None) -> tuple[poutine.Trace, poutine.Trace]:
    one = slice(0, 1)
    with evaluating(program, seed=0), validation_enabled(False):
        try:
            return importance_traces(program, like_parameters(program, x[one]),
                                     like_parameters(program, None if context is None else context[one]))
        except (RuntimeError, ValueError) as error:
            if isinstance(error, InvalidInput) or not re.search("shape|size|broadcast", str(error), re.IGNORECASE):
                raise
            raise InvalidInput("program", got=f"parts that do not fit one another or x ({str(error).splitlines()[0]})",
                               expected="networks built for the shapes of x, latent and context that they are given",
                               fix="check latent, in_shape and context= of each part, and that a density's event shape is the latent's "
                                   "(Independent)") from error
