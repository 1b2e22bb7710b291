"""Embeddings of data in the latent space, and their neighbours.

An embedding is a matrix (N, D), a row for each datum. Where it comes from q(z | x), the caller says
whether it is the mean or a draw: means are what features are made of; the aggregated posterior
q(z), which is to match the prior, is made of draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import in_rows
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.predictive import encode
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_finite

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "Neighbours",
    "as_array",
    "check_embedding",
    "embed",
    "latent_site",
    "neighbours",
    "prior_draws",
    "site_among",
]


@in_fixed_blocks
def embed(
    program: ProgramLike,
    data: Data,
    *,
    draws: bool,
    site: str | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Embed a data set: the mean of q(z | x), or a draw from it, for each datum.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        draws: a draw for each datum instead of the mean: there is no default, for the two look
            alike and mean different things.
        site: the latent site; by default the one that the model draws last, the nearest to x.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        (N, D), a latent of several dimensions flattened.

    Raises:
        InvalidInput: on unusable data, an unknown site, or means that do not exist.

    Example:
        >>> embed(vae, torch.zeros(3, 1, 8, 8), draws=False).shape
        torch.Size([3, 2])
    """
    site = latent_site(program, data, site)
    latents = encode(program, data, draws=draws, seed=seed)[site]
    return latents.reshape(len(latents), -1)


def latent_site(program: ProgramLike, data: Data, site: str | None = None) -> str:
    """The latent site of that name, or by default the one that the model draws last.

    The last one is the nearest to x.
    """
    with conditioned(program, as_dataset(data)[:1], seed=0, scored=False) as given:
        return site_among(given, site)


def site_among(given: Conditioned, site: str | None = None) -> str:
    """As `latent_site`, of a program that has its data."""
    sites = list(latent_sites(given.traces()[1]))
    check_choice("site", site or sites[-1], sites)
    return site or sites[-1]


def prior_draws(
    program: ProgramLike, data: Data, *, site: str | None = None, seed: int = 0
) -> Tensor:
    """Draw from the prior for each datum (N, D): what q(z) is to match.

    Where the prior takes a context, the draw is from p(z | context).

    Example:
        >>> prior_draws(vae, torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])
    """
    site = latent_site(program, data, site)
    with conditioned(program, data, seed, scored=False) as given:
        drawn = given.draw(given.model, 1)[site]
        return in_rows(drawn, given.plates)[0].reshape(len(given), -1)


@dataclass(frozen=True, repr=False)
class Neighbours:
    """The nearest neighbours of each datum in an embedding, nearest first, itself left out.

    Args:
        index: which they are (N, k).
        distance: how far (N, k).
    """

    index: Tensor
    distance: Tensor

    __repr__, _repr_html_ = result_words, result_html

    def of(self, datum: int) -> list[int]:
        """The neighbours of one datum."""
        return self.index[datum].tolist()

    def graph(self) -> csr_matrix:
        """The directed graph of neighbours: a sparse matrix (N, N) of distances.

        Scikit-learn takes it as it is.
        """
        from scipy.sparse import csr_matrix

        rows = np.arange(len(self.index) + 1) * self.index.shape[1]
        return csr_matrix(
            (self.distance.flatten().numpy(), self.index.flatten().numpy(), rows),
            shape=(len(self.index),) * 2,
        )

    def agreement(self, labels: Tensor) -> float:
        """The share of neighbours that have the label of their datum."""
        return (labels.cpu()[self.index] == labels.cpu()[:, None]).double().mean().item()


def neighbours(embedding: Tensor, k: int = 10) -> Neighbours:
    """Find the k nearest neighbours of every row of an embedding (N, D).

    Raises:
        InvalidInput: unless 1 <= k < N, and the rows are numbers.

    Example:
        >>> neighbours(torch.tensor([[0.0], [1.0], [3.0]]), k=2).of(0)
        [1, 2]
    """
    from sklearn.neighbors import NearestNeighbors

    check_count("k", k)
    check_embedding("embedding", embedding)
    if k >= len(embedding):
        raise InvalidInput(
            "k",
            got=str(k),
            expected=f"fewer than the {len(embedding)} data",
            fix=f"pass k={len(embedding) - 1} or less",
        )
    # Without a query no row is a neighbour of its own.
    distance, index = NearestNeighbors(n_neighbors=k).fit(as_array(embedding)).kneighbors()
    return Neighbours(torch.from_numpy(index), torch.from_numpy(distance))


def check_embedding(argument: str, embedding: Tensor) -> None:
    """Raise `InvalidInput` unless it is a tensor (N, D) of finite numbers, with N >= 1."""
    is_tensor = isinstance(embedding, Tensor)
    if not isinstance(embedding, Tensor) or embedding.dim() != 2 or not len(embedding):
        raise InvalidInput(
            argument,
            got=f"shape {tuple(embedding.shape)}" if is_tensor else f"a {type(embedding).__name__}",
            expected="a tensor (N, D), a row for each datum",
            fix="pass what embed gives",
        )
    check_finite(argument, embedding)


def as_array(embedding: Tensor) -> np.ndarray:
    """An embedding as scikit-learn takes it."""
    return embedding.detach().cpu().double().numpy()
