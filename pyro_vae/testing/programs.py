"""Check the contract of a program."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.objectives import ELBO
from pyro_vae.runtime.predictive import generate
from pyro_vae.testing.laws import check_copies, check_gradients, say_ok, unchanged_globals
from pyro_vae.validation import InvalidInput

__all__ = ["check_program"]

CHECKED = (
    "gradients", "a score for each datum", "independence of data and draws", "new data", "copies",
    "files", "global state",
)  # fmt: skip


def check_program(program: ProgramLike, x: Tensor, *, context: Tensors | None = None) -> None:
    r"""Check the contract of a program: it trains, scores, generates, copies, saves and loads.

    The score of a datum must depend on no other datum, and on no number of draws.

    Args:
        program: the program.
        x: data (N, \*event) in the likelihood's support.
        context: labels or covariates (N, ...) for a program that takes them.

    Raises:
        AssertionError: if the contract is broken.

    Example:
        >>> check_program(vae, torch.zeros(4, 1, 8, 8))
        ok: VAE: gradients, a score for each datum, independence of data and draws, new data,
        copies, files, global state
    """
    assert program.event_shape is not None, "it must state event_shape, the shape of one datum"
    with unchanged_globals():
        check_gradients(program, _loss_of(x, context))
        try:
            scores = evaluate(program, (x, context), num_samples=5)
        except InvalidInput as refusal:
            raise AssertionError(str(refusal)) from refusal
        for name, score in scores.items():
            assert score.values.shape == (len(x),), f"{name} must have one value for each datum"
        new = only_tensor(generate(program, len(x), context=context, draws=True))
        assert new.shape == x.shape, f"generated {tuple(new.shape)} for data of {tuple(x.shape)}"
        check_copies(program, lambda other: evaluate(other, (x, context), 5)["elbo"].values)
    say_ok(program, CHECKED)


def _loss_of(x: Tensor, context: Tensors | None) -> Callable[[ProgramLike], Tensor]:
    return lambda program: ELBO().differentiable_loss(program.model, program.guide, x, context)
