"""What the latent space holds: embeddings and their neighbours, what they predict, and which data do not belong.

An embedding is a matrix (N, D), a row for each datum. Where it comes from q(z | x), the caller says whether it is the mean
or a draw: means are what features are made of; the aggregated posterior q(z), which is to match the prior, is made of draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.datasets import Data, as_dataset
from pyro_vae.draws import densities
from pyro_vae.evaluation import evaluate
from pyro_vae.execution import checked_data, evaluating, isolated_random
from pyro_vae.latents import draw, in_rows
from pyro_vae.memory import DEFAULT_MEMORY
from pyro_vae.programs import AnyProgram
from pyro_vae.sampling import encode
from pyro_vae.traces import importance_traces, latent_sites, structure
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["SCORES", "Accuracy", "Anomaly", "Neighbours", "anomaly", "embed", "knn_accuracy", "latent_site", "linear_probe", "neighbours",
           "prior_draws", "reconstruction_score"]


# ------------------------------------------------------------------------------------------------------- embeddings

def embed(program: AnyProgram, data: Data, *, draws: bool, site: str | None = None, seed: int = 0,
          memory_budget: int = DEFAULT_MEMORY) -> Tensor:
    r"""The embedding of a data set: the mean of q(z | x), or a draw from it, for each datum.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        draws: a draw for each datum instead of the mean: there is no default, for the two look alike and mean different things.
        site: the latent site; by default the one that the model draws last, the nearest to x.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of activations allowed at once.

    Returns:
        (N, D), a latent of several dimensions flattened.

    Raises:
        InvalidInput: on unusable data, an unknown site, or means that do not exist.

    Example:
        >>> embed(vae, torch.zeros(3, 1, 8, 8), draws=False).shape
        torch.Size([3, 2])
    """
    site = latent_site(program, data, site)
    latents = encode(program, data, draws=draws, seed=seed, memory_budget=memory_budget)[site]
    return latents.reshape(len(latents), -1)


def latent_site(program: AnyProgram, data: Data, site: str | None = None) -> str:
    """The latent site that is meant: the one named, or the last that the model draws, which is the nearest to x."""
    with evaluating(program, seed=0):
        x, context = checked_data(program, as_dataset(data)[:1])
        sites = list(latent_sites(importance_traces(program, x, context)[1]))
    check_choice("site", site or sites[-1], sites)
    return site or sites[-1]


def prior_draws(program: AnyProgram, data: Data, *, site: str | None = None, seed: int = 0) -> Tensor:
    """A draw from the prior for each datum (N, D), from p(z | context) where the prior takes one: what q(z) is to match.

    Example:
        >>> prior_draws(vae, torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])
    """
    site = latent_site(program, data, site)
    with evaluating(program, seed):
        x, context = checked_data(program, data)
        where = structure(program, x, context, scored=False)
        return in_rows(draw(program.model, x, context, 1, where)[site], where)[0].reshape(len(x), -1)


# ------------------------------------------------------------------------------------------------------ neighbours

@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each datum in an embedding, nearest first, itself left out.

    Args:
        index: which they are (N, k).
        distance: how far (N, k).
    """

    index: Tensor
    distance: Tensor

    def of(self, datum: int) -> list[int]:
        """The neighbours of one datum."""
        return self.index[datum].tolist()

    def graph(self) -> Any:
        """The directed graph of neighbours, a `scipy.sparse.csr_matrix` (N, N) of distances, as scikit-learn takes it."""
        from scipy.sparse import csr_matrix

        rows = np.arange(len(self.index) + 1) * self.index.shape[1]
        return csr_matrix((self.distance.flatten().numpy(), self.index.flatten().numpy(), rows), shape=(len(self.index),) * 2)

    def agreement(self, labels: Tensor) -> float:
        """The share of neighbours that have the label of their datum."""
        return (labels.cpu()[self.index] == labels.cpu()[:, None]).double().mean().item()


def neighbours(embedding: Tensor, k: int = 10) -> Neighbours:
    """The k nearest neighbours of every row of an embedding (N, D), by scikit-learn.

    Raises:
        InvalidInput: unless 1 <= k < N.

    Example:
        >>> neighbours(torch.tensor([[0.0], [1.0], [3.0]]), k=2).of(0)
        [1, 2]
    """
    from sklearn.neighbors import NearestNeighbors

    check_count("k", k)
    if k >= len(embedding):
        raise InvalidInput("k", got=str(k), expected=f"fewer than the {len(embedding)} data", fix=f"pass k={len(embedding) - 1} or less")
    distance, index = NearestNeighbors(n_neighbors=k).fit(_array(embedding)).kneighbors()  # without a query each row is no own neighbour
    return Neighbours(torch.from_numpy(index), torch.from_numpy(distance))


# ---------------------------------------------------------------------------------------------------- what is predicted

@dataclass(frozen=True)
class Accuracy:
    """The share of labels that a classifier got right, with its standard error over the test data.

    Args:
        value: the share.
        num_data: test data.
    """

    value: float
    num_data: int

    @property
    def se(self) -> float:
        """The standard error over test data."""
        return math.sqrt(self.value * (1 - self.value) / self.num_data)

    def __str__(self) -> str:
        return f"{self.value:.1%} +- {self.se:.1%} of {self.num_data:,}"


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> Accuracy:
    """How well a linear classifier reads the label off an embedding: multinomial logistic regression, by scikit-learn.

    Args:
        train: the embedding of training data (N, D), which the classifier is fitted on.
        train_labels: their labels (N,).
        test: the embedding of test data.
        test_labels: their labels.

    Example:
        >>> z = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> linear_probe(z, torch.tensor([0, 0, 1, 1]), z, torch.tensor([0, 0, 1, 1])).value
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _accuracy(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), train, train_labels, test, test_labels)


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 10) -> Accuracy:
    """How well the k nearest training data tell a test datum's label; arguments as of `linear_probe`.

    Example:
        >>> z = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> knn_accuracy(z, torch.tensor([0, 0, 1, 1]), z, torch.tensor([0, 0, 1, 1]), k=1).value
        1.0
    """
    from sklearn.neighbors import KNeighborsClassifier

    check_count("k", k)
    return _accuracy(KNeighborsClassifier(k), train, train_labels, test, test_labels)


def _accuracy(classifier: Any, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> Accuracy:
    classifier.fit(_array(train), train_labels.cpu().numpy())
    return Accuracy(float(classifier.score(_array(test), test_labels.cpu().numpy())), len(test))


def _array(embedding: Tensor) -> np.ndarray:
    return embedding.detach().cpu().double().numpy()


# ------------------------------------------------------------------------------------------------------- anomalies

@dataclass(frozen=True)
class Anomaly:
    """How well a score tells data that belong from data that do not.

    Args:
        inside: the scores of data like those trained on (N,), higher for what belongs.
        outside: those of other data (M,).
        auroc: the probability that one of the former scores above one of the latter, a tie counting half.
        se: its standard error over both sets of data, by DeLong's method.
    """

    inside: Tensor
    outside: Tensor
    auroc: float
    se: float

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.4f} +- {self.se:.4f} ({len(self.inside):,} inside, {len(self.outside):,} outside)"


def reconstruction_score(program: AnyProgram, data: Data, num_samples: int, seed: int) -> Tensor:
    r"""The reconstruction term of each datum (N,), in nats: :math:`\mathrm{E}_q \log p(x \mid z)`."""
    data = as_dataset(data)
    parts = []
    with evaluating(program, seed), validation_enabled(False):
        x, context = checked_data(program, data)
        where = structure(program, x, context, scored=False)
        size = max(1, 10_000 // num_samples)
        for start in range(0, len(x), size):
            few = slice(start, start + size)
            given = x[few], None if context is None else context[few]
            with isolated_random(x.device, seed + start):
                values = draw(program.guide, *given, num_samples, where)
            parts.append(densities(program, values, *given, where)[1].double().mean(0))
    return torch.cat(parts)


Scorer = Callable[[AnyProgram, Data, int, int], Tensor]

SCORES: dict[str, Scorer] = {
    "elbo": lambda program, data, num_samples, seed: evaluate(program, data, num_samples, seed=seed)["elbo"].values,
    "log_likelihood": lambda program, data, num_samples, seed: evaluate(program, data, num_samples, seed=seed)["log_likelihood"].values,
    "reconstruction": reconstruction_score,
}


def anomaly(program: AnyProgram, inside: Data, outside: Data, score: str | Scorer = "elbo", *, num_samples: int = 50,
            seed: int = 0) -> Anomaly:
    """How well a program's score tells data like its own from others, as an AUROC.

    A density need not be low where data are foreign: models of clothes give digits a higher one than their own test data.
    The score says what this program does with these two sets, no more.

    Args:
        program: any program.
        inside: data like those trained on, but not trained on.
        outside: other data of the same event shape.
        score: ``"elbo"``, ``"log_likelihood"``, ``"reconstruction"``, or a function (program, data, num_samples, seed) -> (N,).
        num_samples: draws for each datum.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data or an unknown score.

    Source: Nalisnick et al. (2019), Do Deep Generative Models Know What They Don't Know?; DeLong et al. (1988) for the error.

    Example:
        >>> anomaly(vae, torch.zeros(5, 1, 8, 8), torch.ones(4, 1, 8, 8), num_samples=5).inside.shape
        torch.Size([5])
    """
    if isinstance(score, str):
        check_choice("score", score, SCORES)
        score = SCORES[score]
    own, foreign = (score(program, data, num_samples, seed).double().cpu() for data in (inside, outside))
    auroc, se = _auroc(own, foreign)
    return Anomaly(own, foreign, auroc, se)


def _auroc(high: Tensor, low: Tensor) -> tuple[float, float]:
    below = torch.searchsorted(low.sort().values, high).double()
    ties = torch.searchsorted(low.sort().values, high, right=True).double() - below
    wins = (below + ties / 2) / len(low)  # of each datum inside
    under = torch.searchsorted(high.sort().values, low).double()
    equal = torch.searchsorted(high.sort().values, low, right=True).double() - under
    losses = 1 - (under + equal / 2) / len(high)  # of each datum outside
    variance = sum(part.var().item() / len(part) for part in (wins, losses) if len(part) > 1)
    return wins.mean().item(), math.sqrt(variance)
