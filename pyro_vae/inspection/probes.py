"""Probes: how well labels can be read off the latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from pyro_vae.datasets.shown import facts_html
from pyro_vae.evaluation.widening import error_of_share
from pyro_vae.inspection.embedding import as_array, check_embedding
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Accuracy", "knn_accuracy", "linear_probe"]


@dataclass(frozen=True, repr=False)
class Accuracy:
    """The share of labels that a classifier got right, with its standard error.

    Args:
        value: the share.
        num_data: test data.
    """

    value: float
    num_data: int

    @property
    def se(self) -> float:
        """The standard error over test data."""
        return error_of_share(self.value, self.num_data)

    def __str__(self) -> str:
        return f"{self.value:.1%} +- {self.se:.1%} of {self.num_data:,}"

    def __repr__(self) -> str:
        return f"Accuracy({self})"

    def _repr_html_(self) -> str:
        return facts_html(
            "share of labels that were right",
            {
                "share": f"{self.value:.1%}",
                "s.e. over data": f"{self.se:.1%}",
                "data": f"{self.num_data:,}",
            },
        )


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> Accuracy:
    """Measure how well a linear classifier reads the label off an embedding.

    It is multinomial logistic regression, by scikit-learn.

    Args:
        train: the embedding of training data (N, D), which the classifier is fitted on.
        train_labels: their labels (N,).
        test: the embedding of test data.
        test_labels: their labels.

    Raises:
        InvalidInput: on numbers that are not finite, labels that are not one integer for each
            datum, or training data of a single label.

    Example:
        >>> z = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> linear_probe(z, torch.tensor([0, 0, 1, 1]), z, torch.tensor([0, 0, 1, 1])).value
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _check_labelled("train", train, train_labels)
    if (train_labels == train_labels[0]).all():
        raise InvalidInput(
            "train_labels",
            got=f"the label {train_labels[0].item():g} alone",
            expected="two labels or more",
            fix="pass data of several labels",
        )
    return _accuracy(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        train,
        train_labels,
        test,
        test_labels,
    )


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 10
) -> Accuracy:
    """Measure how well the k nearest training data tell a test datum's label.

    The other arguments are those of `linear_probe`.

    Args:
        k: how many neighbours decide.

    Raises:
        InvalidInput: unless 1 <= k <= N, and as `linear_probe` does, but for a single label.

    Example:
        >>> z = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> knn_accuracy(z, torch.tensor([0, 0, 1, 1]), z, torch.tensor([0, 0, 1, 1]), k=1).value
        1.0
    """
    from sklearn.neighbors import KNeighborsClassifier

    check_count("k", k)
    _check_labelled("train", train, train_labels)
    if k > len(train):
        raise InvalidInput(
            "k",
            got=str(k),
            expected=f"at most the {len(train)} training data",
            fix=f"pass k={len(train)} or less",
        )
    return _accuracy(KNeighborsClassifier(k), train, train_labels, test, test_labels)


class Classifier(Protocol):
    """A classifier of scikit-learn: what a probe uses of it."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> object: ...
    def score(self, X: np.ndarray, y: np.ndarray) -> float: ...


def _accuracy(
    classifier: Classifier, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> Accuracy:
    _check_labelled("test", test, test_labels)
    if test.shape[1] != train.shape[1]:
        raise InvalidInput(
            "test",
            got=f"{test.shape[1]} columns",
            expected=f"{train.shape[1]}, as the training data have",
            fix="embed both with the same program",
        )
    classifier.fit(as_array(train), train_labels.cpu().numpy())
    return Accuracy(float(classifier.score(as_array(test), test_labels.cpu().numpy())), len(test))


def _check_labelled(argument: str, embedding: Tensor, labels: Tensor) -> None:
    """Raise `InvalidInput` unless an embedding (N, D) has an integer label for each datum."""
    check_embedding(argument, embedding)
    expected = f"a tensor of {len(embedding)} integers, one for each row of {argument}"
    got = ""
    if not isinstance(labels, Tensor):
        got = f"a {type(labels).__name__}"
    elif labels.shape != embedding.shape[:1]:
        got = f"shape {tuple(labels.shape)}"
    elif labels.is_floating_point() and bool((labels != labels.round()).any()):
        got = "numbers that are not whole"
    if got:
        raise InvalidInput(
            f"{argument}_labels", got=got, expected=expected, fix="pass the labels of these data"
        )
