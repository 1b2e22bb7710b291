"""Findings: the numbers that an inspection of a program yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Findings", "LabelProbe", "LocalDimension", "Outliers", "Reference", "TwoSample"]


@dataclass(frozen=True)
class TwoSample:
    """The accuracy of a classifier of the aggregated posterior against the prior.

    Args:
        accuracy: on draws that it was not fitted on; 0.5 if the two are one distribution.
        se: the standard error of the accuracy if they are.
    """

    accuracy: float
    se: float


@dataclass(frozen=True)
class LabelProbe:
    """The accuracy with which a classifier predicts labels from the latent.

    Args:
        classifier: its name.
        accuracy: the share of test labels that it gets right.
        se: the standard error of that share over test data.
        num_data: test data.
        num_train: training data that it was fitted on.
    """

    classifier: str
    accuracy: float
    se: float
    num_data: int
    num_train: int


@dataclass(frozen=True)
class LocalDimension:
    """The number of directions in which the decoder moves x.

    Args:
        median: over test data.
        num_data: test data.
        dim: dimensions of the latent.
        label: the label that the decoder was given, if any.
    """

    median: float
    num_data: int
    dim: int
    label: int | None


@dataclass(frozen=True)
class Outliers:
    """The AUROC of a score that separates test data from other data.

    Args:
        score: ``"elbo"`` or ``"reconstruction"``.
        inside: the name of the test data.
        outside: the name of the other data.
        auroc: the probability that a test datum scores above one of the others.
        se: its standard error.
        num_inside: test data.
        num_outside: other data.
    """

    score: str
    inside: str
    outside: str
    auroc: float
    se: float
    num_inside: int
    num_outside: int


@dataclass(frozen=True)
class Reference:
    """The difference between q(z | x) and draws of NUTS.

    Args:
        r_hat: the largest R-hat of chains that start from dispersed points.
        r_hat_compared: the largest R-hat of the chains that q was compared with.
        met: whether the chains from dispersed points met; if not, q was compared with chains that
            start where q is.
        num_data: data whose posteriors were compared.
        distinguishable: of these, data whose q a classifier tells from NUTS.
        accuracy: the mean accuracy of those classifiers; 0.5 is indistinguishable.
        wasserstein: the mean Wasserstein-1 distance, in standard deviations of the reference.
        noise: that distance between two halves of the reference.
    """

    r_hat: float | None
    r_hat_compared: float | None
    met: bool
    num_data: int
    distinguishable: int
    accuracy: float
    wasserstein: float
    noise: float


@dataclass
class Findings:
    """Everything that an inspection measured; ``None`` where a program leaves it undefined.

    Args:
        latent_dims: dimensions of the latent nearest to x.
        active_dims: of these, dimensions that move with the data.
        has_means: whether q(z | x) has a mean in closed form; if not, embeddings are draws.
        is_given_labels: whether the encoder takes the labels that the probes predict.
        aggregate: the aggregated posterior against the prior.
        probes: how well labels can be read off the latent.
        local_dimension: in how many directions the decoder moves x.
        outliers: how well scores tell test data from other data.
        reference: how q(z | x) differs from NUTS.
    """

    latent_dims: int = 0
    active_dims: int = 0
    has_means: bool = True
    is_given_labels: bool = False
    aggregate: TwoSample | None = None
    probes: list[LabelProbe] = field(default_factory=list)
    local_dimension: LocalDimension | None = None
    outliers: list[Outliers] = field(default_factory=list)
    reference: Reference | None = None

    @classmethod
    def from_json(cls, values: Mapping) -> Findings:
        """The findings from the values that ``dataclasses.asdict`` made."""
        made = dict(values)
        for name, kind in (
            ("aggregate", TwoSample),
            ("local_dimension", LocalDimension),
            ("reference", Reference),
        ):
            made[name] = None if made[name] is None else kind(**made[name])
        made["probes"] = [LabelProbe(**each) for each in made["probes"]]
        made["outliers"] = [Outliers(**each) for each in made["outliers"]]
        return cls(**made)
