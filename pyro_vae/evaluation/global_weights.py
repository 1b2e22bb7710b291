r"""Log-weights under several draws of the global latents.

For S draws of :math:`\theta` and K of the local latents under each, datum n has the log-weights

.. math:: \log w_{skn} = \log p(x_n, z_{skn} \mid \theta_s) - \log q(z_{skn} \mid x_n, \theta_s).

All data share the :math:`\theta_s`, which follow from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data
from pyro_vae.evaluation.global_score import PredictiveScore, global_elbo, shared_error
from pyro_vae.evaluation.importance_score import summarize
from pyro_vae.evaluation.log_weights import Blocks, weights_of_block
from pyro_vae.evaluation.proposals import Guide, Proposal, in_one_step, never_reaches_all
from pyro_vae.evaluation.rare_states import WithRareStates
from pyro_vae.evaluation.scores import Score, concatenate, elbo_score
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.global_latents import GlobalDraw, points_among
from pyro_vae.runtime.noise import block_seed
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.settings import Settings

__all__ = ["GlobalDraws", "draws_of_each", "local_bound", "score_with_globals"]

FEWEST_GLOBAL_DRAWS = 100  # of which a Pareto k and an error can be made
LOCAL_DRAWS = 10  # under each, where there are enough
KEPT_BYTES = 2**28  # of draws of global latents; more are drawn again for each block of data


def draws_of_each(num_samples: int, has_local: bool = True) -> tuple[int, int]:
    """Divide a number of draws in S of the global latents and K of the local ones under each.

    Example:
        >>> [draws_of_each(number) for number in (5, 100, 1000, 5000)]
        [(5, 1), (100, 1), (100, 10), (500, 10)]
    """
    if not has_local:
        return num_samples, 1
    outer = min(num_samples, max(FEWEST_GLOBAL_DRAWS, num_samples // LOCAL_DRAWS))
    return outer, math.ceil(num_samples / outer)


def score_with_globals(
    program: ProgramLike, data: Data, num_samples: int, proposal: Proposal, settings: Settings
) -> dict[str, Score]:
    """The scores ``"elbo"`` and ``"log_likelihood"`` of a program with global latents.

    Arguments are those of `pyro_vae.evaluation.evaluate`.
    """
    with conditioned(program, data, settings.seed, has_globals=True) as given:
        draws = GlobalDraws(given, num_samples, settings.seed)
        locals_, inners, bounds, means = [], [], [], []
        label = f"log-weights, {draws.outer} x {draws.inner} draws"
        with progress_bar(label, total=len(given), shown=settings.progress) as advance:
            for weights, with_states in draws.log_weights(proposal):
                local, inner = weights.mean(1), with_states.logsumexp(1) - math.log(draws.inner)
                locals_.append(elbo_score(local))
                inners.append(summarize(inner))
                bounds.append(local.double().sum(-1))
                means.append(inner.double().softmax(0).sum(-1) * draws.outer)
                advance(weights.shape[-1])
        elbo, predictive = concatenate(locals_), concatenate(inners)
        if never_reaches_all(draws.first, proposal):
            predictive = predictive.as_bound()
        num_data = len(given)
        log_ratios = torch.cat([draw.log_q - draw.log_p for draw in draws])
        return {
            "elbo": global_elbo(
                elbo, log_ratios, torch.stack(bounds).sum(0) / num_data, draws.points
            ),
            "log_likelihood": PredictiveScore(
                **vars(predictive),
                local_draws=draws.inner,
                mean_error=shared_error(torch.stack(means).sum(0) / num_data),
            ),
        }


class GlobalDraws:
    """Draws of a program's global latents, made again where they are too large to keep.

    Args:
        given: a program with global latents, given data.
        num_samples: draws of all latents in all, divided by `draws_of_each`.
        seed: seed of the draws.
    """

    def __init__(self, given: Conditioned, num_samples: int, seed: int):
        self.given, self.seed = given, seed
        one, other = given.globals(2, seed)
        self.points = points_among(one, other)
        first = given.at(one.values)
        self.outer, self.inner = draws_of_each(num_samples, not first.plates.is_deterministic)
        self.first, self.kept = first, None
        if one.nbytes * self.outer <= KEPT_BYTES:
            self.kept = [*given.globals(self.outer, seed)]

    def __iter__(self) -> Iterator[GlobalDraw]:
        return iter(self.kept or self.given.globals(self.outer, self.seed))

    def log_weights(self, proposal: Proposal) -> Iterator[tuple[Tensor, Tensor]]:
        """Log-weights (S, K, n) of a few data at a time, in order, and such of the same mean.

        In the latter, all states of discrete latents are summed over where they are no more than
        the K draws.
        """
        blocks = Blocks.of(self.first, in_one_step(proposal), self.inner)
        states = WithRareStates.all_of(proposal, self.first, self.inner)
        for part, few in blocks.over(self.given, self.seed):
            weights = []
            for number, draw in enumerate(self):
                at = part.at(draw.values)
                if part.noise is not None:  # of each draw's own, so that they are independent
                    at = replace(at, noise=block_seed(part.noise, number))
                weights.append(weights_of_block(at, few, states or proposal, blocks.draws))
            drawn = torch.stack(weights)
            yield (drawn, drawn) if states is None else (drawn[:, 0], drawn[:, 1])


def local_bound(program: ProgramLike, data: Data, seed: int) -> float:
    """The mean local part of the ELBO at one draw of all latents, as between epochs.

    It bounds what the program predicts of data that it was not trained on,
    log p(x | training data), in expectation.
    """
    with conditioned(program, data, seed, looked_at=True, has_globals=True) as given:
        draws = GlobalDraws(given, 1, seed)
        return torch.cat([few.flatten() for few, _ in draws.log_weights(Guide())]).mean().item()
