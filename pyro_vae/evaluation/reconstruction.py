"""Errors of reconstructions: squared error, and log p(x | z) of each datum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.evaluation.scores import Score
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.observed import like_parts
from pyro_vae.runtime.predictive import representatives
from pyro_vae.validation import InvalidInput, flattened, tensors_of

__all__ = ["SquaredError", "reconstruction_score", "squared_error"]


class SquaredError(Score):
    """The mean squared error of each reconstruction (N,), in the units of x squared.

    A datum of which no entry was observed has NaN, and the mean is over the others.
    """

    unit = "squared units of x"

    @property
    def mean(self) -> float:
        return self._known.mean().item()

    @property
    def se(self) -> float:
        known = self._known
        return known.std().item() / math.sqrt(len(known)) if len(known) > 1 else math.nan

    @property
    def _known(self) -> Tensor:
        return self.values[~self.values.isnan()].double()


def squared_error(
    program: ProgramLike, data: Data, target: Data | None = None, *, seed: int = 0
) -> SquaredError:
    r"""The mean squared error of each reconstruction over the observed entries of x.

    It is in the units of x squared; lower is better. Categories of a table have no distance from
    one another and are left out. A datum without entries has the error NaN. Entries that were
    observed are predicted too, by the others and themselves.

    .. math:: \frac1D \|x - \hat x\|^2, \quad \hat x = E[x \mid z], \quad
              z \sim q(z \mid \tilde x)

    Args:
        program: any program.
        data: what is reconstructed from, a data set, a tensor x (N, \*event), or a pair (x,
            context).
        target: what it is compared with; by default the same. Noisy data are compared with those
            without noise.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data, or text or categories alone, whose numbers are names.

    Example:
        >>> squared_error(vae, torch.zeros(3, 1, 8, 8)).values.shape
        torch.Size([3])
    """
    data = as_dataset(data)
    if data.vocabulary is not None:
        raise InvalidInput(
            "data",
            got="text, whose numbers stand for words",
            expected="numbers that can be near one another",
            fix="read the reconstructions, or score them by log_joint or by elbo",
        )
    x = (data if target is None else as_dataset(target)).tensor.cpu()
    made = representatives(program, data, seed=seed)
    mean = only_tensor(like_parts(made, list(tensors_of(data.x)))).cpu()
    errors = flattened((mean - x).square())
    if data.columns is not None:
        errors = errors[:, [column.kind != "category" for column in data.columns]]
    if errors.shape[1] == 0:
        raise InvalidInput(
            "data",
            got="categories alone, whose numbers are names",
            expected="numbers that can be near one another",
            fix="score the reconstructions by log_joint or by elbo",
        )
    errors = errors.nanmean(1)
    unknown = torch.full_like(errors, torch.nan)
    return SquaredError(errors, unknown, 1, seed=seed, sha256=data.sha256)


def reconstruction_score(program: ProgramLike, data: Data, num_samples: int, seed: int) -> Tensor:
    r"""The reconstruction term of each datum (N,): E_q[log p(x | z)], in nats."""

    def reconstruction(part: Conditioned) -> Callable[[int], Tensor]:
        return lambda count: part.log_density(part.model, part.draw(part.guide, count))[1]

    parts = []
    with conditioned(program, data, seed, scored=False) as given:
        blocks = Blocks.of(given, reconstruction, num_samples)
        for part, few in blocks.over(given, seed):
            terms = torch.cat([reconstruction(part)(count) for count in blocks.draws])
            parts.append(terms[:, : few.stop - few.start].double().mean(0))
    return torch.cat(parts)
