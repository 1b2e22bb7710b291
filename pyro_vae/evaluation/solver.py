"""The error of densities that are solved for in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, as_module
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.evaluation.scores import Score
from pyro_vae.programs import as_program
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned, conditioned

__all__ = ["SolvedInSteps", "solver_error"]


@runtime_checkable
class SolvedInSteps(Protocol):
    """A part whose density is an ODE's, solved in steps by a method of order four."""

    steps: int

    def solver_error(self, z: Tensor, context: Tensor | None = None) -> Tensor: ...


def solver_error(
    program: ProgramLike, data: Data, num_samples: int = 10, *, seed: int = 0
) -> Score | None:
    r"""How far log p(z) is off because an ODE is solved in steps, for each datum in nats.

    .. math:: \tfrac{16}{15}\, \mathbb{E}_{q(z \mid x)} |\log p_n(z) - \log p_{2n}(z)|

    with n the number of steps: Richardson's estimate for a method of order four. The ELBO
    of a datum is off by no more than that, as far as the estimate holds; log p(x) by its mean under
    the posterior in place of q.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws of z for each datum.
        seed: of the draws; the caller's random state is left as it was.

    Returns:
        An error for each datum, not negative; ``None`` for a program without an ODE.

    Raises:
        InvalidInput: on unusable data.

    Example:
        >>> solver_error(vae, torch.zeros(3, 1, 8, 8)) is None
        True
    """

    def errors(part: Conditioned) -> Callable[[int], Tensor]:
        solved = _solved_in_steps(part.program)

        def error(count: int) -> Tensor:
            values = part.draw(part.guide, count)
            once = part.log_density(part.model, values)[0]
            with _twice_the_steps(solved):
                twice = part.log_density(part.model, values)[0]
            return 16 / 15 * (once - twice).abs()

        return error

    if not _solved_in_steps(program):
        return None
    data, parts = as_dataset(data), []
    fixed = at_globals(program, data, seed)
    with conditioned(fixed, data, seed) as given, torch.no_grad():
        blocks = Blocks.of(given, errors, num_samples)
        for part, few in blocks.over(given, seed):
            found = torch.cat([errors(part)(count) for count in blocks.draws])
            parts.append(found[:, : few.stop - few.start].double().mean(0).cpu())
    each = torch.cat(parts)
    unknown = torch.full_like(each, torch.nan)
    return Score(each, unknown, num_samples, seed=seed, sha256=data.sha256)


def _solved_in_steps(program: ProgramLike) -> list[SolvedInSteps]:
    modules = as_module(as_program(program)).modules()
    return [part for part in modules if isinstance(part, SolvedInSteps)]


@contextmanager
def _twice_the_steps(parts: Sequence[SolvedInSteps]) -> Iterator[None]:
    before = [part.steps for part in parts]
    try:
        for part, steps in zip(parts, before):
            part.steps = 2 * steps
        yield
    finally:
        for part, steps in zip(parts, before):
            part.steps = steps
