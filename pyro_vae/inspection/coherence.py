"""Whether what is generated across modalities is of the same class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.arrays import as_tensor
from pyro_vae.datasets.shown import facts_html
from pyro_vae.evaluation.widening import error_of_share
from pyro_vae.runtime.predictive import generate
from pyro_vae.validation import InvalidInput, tensors_of

__all__ = ["Coherence", "coherence"]


@dataclass(frozen=True, repr=False)
class Coherence:
    """The share of generated data whose class is that of what they were generated from.

    Args:
        agrees: whether each is (N,).
    """

    agrees: Tensor

    @property
    def share(self) -> float:
        return self.agrees.double().mean().item()

    @property
    def se(self) -> float:
        """The standard error of the share over data."""
        return error_of_share(self.share, len(self.agrees))

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} +- {100 * self.se:.1f} % of {len(self.agrees)}"

    def __repr__(self) -> str:
        return f"Coherence({self})"

    def _repr_html_(self) -> str:
        return facts_html(
            "share of generated data that are of their class",
            {
                "share": f"{self.share:.1%}",
                "s.e. over data": f"{self.se:.1%}",
                "data": f"{len(self.agrees):,}",
            },
        )


def coherence(
    program: ProgramLike,
    given: dict[str, Tensor],
    labels: Tensor | Sequence[int],
    classify: dict[str, Callable[[Tensor], Tensor]],
    *,
    draws: bool = False,
    seed: int = 0,
) -> dict[str, Coherence]:
    r"""Measure whether modalities generated from others are of their class.

    .. math:: \frac1N \sum_n [c(x_{a,n}) = y_n], \quad x_{a,n} \sim p(x_a \mid z),\; z \sim q(z \mid
              x_{b,n})

    A classifier errs too: its accuracy on real data is what a perfect program would reach.

    Args:
        program: a program of several modalities.
        given: the modalities that are there (N, \*event), by name.
        labels: the classes of the data (N,).
        classify: for each modality to generate, a function from data (N, \*event) to classes (N,).
        draws: classify draws of x; by default means of p(x | z).
        seed: seed of the draws.

    Returns:
        The coherence of each modality in ``classify``, by name.

    Raises:
        InvalidInput: on labels of another number than the data.

    Source: Shi, Siddharth, Paige and Torr (2019), Variational mixture-of-experts autoencoders for
    multi-modal deep generative models.

    Example:
        >>> str(Coherence(torch.tensor([True, True, True, False])))
        '75.0 +- 21.7 % of 4'
    """
    made = tensors_of(generate(program, given=given, draws=draws, seed=seed))
    truth = as_tensor("labels", torch.as_tensor(labels)).cpu()
    found = {}
    for name, function in classify.items():
        classes = torch.as_tensor(function(made[name])).cpu()
        if classes.shape != truth.shape:
            raise InvalidInput(
                "labels",
                got=f"shape {tuple(truth.shape)} for classes of shape {tuple(classes.shape)}",
                expected="one class for each datum",
                fix="pass the labels of the given data",
            )
        found[name] = Coherence(classes == truth)
    return found
