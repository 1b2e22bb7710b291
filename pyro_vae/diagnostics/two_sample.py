r"""How far a guide is from a reference posterior, datum by datum.

The reference is draws of NUTS (`pyro_vae.diagnostics.samplers.NUTS`), or any others that are
trusted. What is compared are draws, so any guide and any latent will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pyro_vae.datasets.shown import facts_html, result_html, result_words
from pyro_vae.evaluation.arviz_compat import ArvizData, effective_draws, group_of
from pyro_vae.validation import InvalidInput

__all__ = [
    "PosteriorComparison",
    "TwoSampleTest",
    "compare_posteriors",
    "draws_of",
    "largest_r_hat",
    "two_sample_test",
]

FEWEST_DRAWS = 10


class Classifier(Protocol):
    """A classifier of scikit-learn: what `two_sample_test` uses of it."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> object: ...
    def predict(self, X: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, repr=False)
class TwoSampleTest:
    """A classifier two-sample test: how often a classifier tells two samples apart.

    The classifier is asked about draws that it was not fitted on.

    Args:
        accuracy: 0.5 if the two are indistinguishable, 1 if they do not overlap.
        se: the standard error of the accuracy if they are: :math:`1 / (2 \\sqrt{n})` for n draws
            that it was asked about.
        num_samples: draws of each sample that took part; the classifier was fitted on half of them.
    """

    accuracy: float
    se: float
    num_samples: int

    __repr__, _repr_html_ = result_words, result_html

    @property
    def z_score(self) -> float:
        """The accuracy less 0.5, in standard errors: above 3 the samples differ beyond doubt."""
        return (self.accuracy - 0.5) / self.se


@dataclass(frozen=True, repr=False)
class PosteriorComparison:
    """Distances of a posterior from a reference, for N data.

    Each latent dimension is compared on its own, and all of them together.

    Args:
        obs: what the data are called.
        names: what each latent dimension is called.
        shift: difference of the means (N, D), in standard deviations of the reference.
        log_scale: logarithm of the ratio of the standard deviations (N, D); below 0 the posterior
            is too narrow.
        wasserstein: the Wasserstein-1 distance (N, D), in standard deviations of the reference.
        noise: the Wasserstein-1 distance (N, D) between two halves of the reference: what no
            distance at all looks like.
        tests: a `TwoSampleTest` of all dimensions together for each datum.
    """

    obs: np.ndarray
    names: list[str]
    shift: np.ndarray
    log_scale: np.ndarray
    wasserstein: np.ndarray
    noise: np.ndarray
    tests: list[TwoSampleTest]

    @property
    def accuracy(self) -> np.ndarray:
        """The accuracies of the two-sample tests (N,)."""
        return np.array([test.accuracy for test in self.tests])

    @property
    def distinguishable(self) -> np.ndarray:
        """Which data's posteriors differ from their references by 3 standard errors (N,)."""
        return np.array([test.z_score > 3 for test in self.tests])

    def rows(self) -> list[dict[str, float | int | str]]:
        """A row for each datum, worst first: for tables."""
        order = np.argsort(-self.accuracy)
        worst = self.wasserstein.argmax(1)
        return [
            {
                "datum": self.obs[n].item(),
                "C2ST": self.tests[n].accuracy,
                "s.e.": self.tests[n].se,
                "draws": self.tests[n].num_samples,
                "largest W1": float(self.wasserstein[n].max()),
                "at": self.names[worst[n]],
                "its noise": float(self.noise[n, worst[n]]),
                "largest |shift|": float(np.abs(self.shift[n]).max()),
                "mean sd ratio": float(np.exp(self.log_scale[n].mean())),
            }
            for n in order
        ]

    def __str__(self) -> str:
        return (
            f"{int(self.distinguishable.sum())} of {len(self.tests)} data distinguishable from the "
            f"reference; a classifier is right about {self.accuracy.mean():.1%} of draws (50% by "
            f"chance); distance {self.wasserstein.mean():.3f} sd "
            f"({self.noise.mean():.3f} by chance)"
        )

    def __repr__(self) -> str:
        return f"PosteriorComparison({self})"

    def _repr_html_(self) -> str:
        return facts_html(
            "draws of q against the reference",
            {
                "data": f"{len(self.tests):,}",
                "distinguishable": f"{int(self.distinguishable.sum()):,}",
                "mean accuracy of a classifier": f"{self.accuracy.mean():.3f} (0.5: no difference)",
                "mean distance": f"{self.wasserstein.mean():.3f} sd",
                "of two halves of the reference": f"{self.noise.mean():.3f} sd",
            },
        )


def compare_posteriors(
    q: ArvizData,
    reference: ArvizData,
    *,
    classifier: Classifier | None = None,
    seed: int = 0,
) -> PosteriorComparison:
    r"""Compare draws of a guide with those of a reference posterior, datum by datum.

    Markov chains are thinned to their effective number of draws first, for the tests take draws as
    independent.

    Args:
        q: ArviZ data by `pyro_vae.to_inference_data`, with draws of the guide.
        reference: the same with draws of `pyro_vae.diagnostics.samplers.NUTS`, of the same data.
        classifier: a scikit-learn classifier for the two-sample tests; by default a support vector
            machine with a Gaussian kernel, which sees differences of means, scales, correlations
            and modes alike.
        seed: of which draws take part, where one has more, and of which half the classifiers are
            fitted on.

    Raises:
        InvalidInput: if the two are not of the same data and latents.

    Source: Lopez-Paz and Oquab (2017), Revisiting Classifier Two-Sample Tests.

    Example:
        >>> few = torch.zeros(1, 1, 8, 8)
        >>> nuts = pv.diagnostics.NUTS(num_chains=2, warmup=50)
        >>> chains = pv.to_inference_data(vae, few, 240, sampler=nuts)
        >>> compare_posteriors(pv.to_inference_data(vae, few, 200), chains).wasserstein.shape
        (1, 2)
    """
    ours, names, obs = draws_of(q)
    theirs, their_names, their_obs = draws_of(reference)
    if names != their_names or list(obs) != list(their_obs):
        raise InvalidInput(
            "reference",
            got=f"{len(their_obs)} data, latents {', '.join(their_names[:4])}, ...",
            expected=f"the {len(obs)} data and latents of q: {', '.join(names[:4])}, ...",
            fix="draw both from the same data with the same indices",
        )
    names_of_distances = ("shift", "log_scale", "wasserstein", "noise")
    distances: dict[str, list[np.ndarray]] = {name: [] for name in names_of_distances}
    tests = []
    for n in range(len(obs)):
        a, b = (_independent(draws[:, :, n]) for draws in (ours, theirs))
        scale = b.std(0)
        distances["shift"].append((a.mean(0) - b.mean(0)) / scale)
        distances["log_scale"].append(np.log(a.std(0) / scale))
        distances["wasserstein"].append(_wasserstein(a, b) / scale)
        distances["noise"].append(_wasserstein(b[::2], b[1::2]) / scale)
        tests.append(two_sample_test(a, b, classifier=classifier, seed=seed))
    return PosteriorComparison(
        obs, names, **{name: np.stack(rows) for name, rows in distances.items()}, tests=tests
    )


def two_sample_test(
    a: np.ndarray,
    b: np.ndarray,
    *,
    classifier: Classifier | None = None,
    paired: bool = False,
    seed: int = 0,
) -> TwoSampleTest:
    """Test whether two samples of vectors (S, D) come from one distribution.

    The draws of each sample are taken as independent.

    Args:
        a: one sample.
        b: the other; of the larger one as many draws take part as the smaller has.
        classifier: a scikit-learn classifier; see `compare_posteriors`.
        paired: whether a[i] and b[i] share something that tells them from other pairs, such as a
            context. They are in one half then: a classifier that was fitted on one of them would
            take the other for its like.
        seed: of which draws take part and of which half the classifier is fitted on.

    Raises:
        InvalidInput: if a sample has fewer than ten draws, or pairs are not as many.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(2, 300, 2))
        >>> abs(two_sample_test(*draws).z_score) < 3
        True
        >>> two_sample_test(draws[0], draws[1] + 9).accuracy
        1.0
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    count = min(len(a), len(b))
    if count < FEWEST_DRAWS:
        raise InvalidInput(
            "draws",
            got=f"{count} independent ones",
            expected=f"{FEWEST_DRAWS} or more of each sample",
            fix="take more draws, of longer chains where they come from NUTS",
        )
    if paired and len(a) != len(b):
        raise InvalidInput(
            "b",
            got=f"{len(b)} draws beside {len(a)}",
            expected="as many, for they are paired",
            fix="leave paired out, or hand over the same number",
        )
    random = np.random.default_rng(seed)
    first = random.choice(len(a), count, replace=False)
    second = first if paired else random.choice(len(b), count, replace=False)
    a, b = a[first], b[second]
    # Halves, not cross-validation: the folds' accuracies depend on one another, and no simple error
    # is right for their mean.
    half = count // 2
    model = make_pipeline(StandardScaler(), classifier or SVC()).fit(
        np.concatenate([a[:half], b[:half]]), np.repeat([0, 1], half)
    )
    right = model.predict(np.concatenate([a[half:], b[half:]])) == np.repeat([0, 1], count - half)
    return TwoSampleTest(float(right.mean()), 0.5 / float(np.sqrt(len(right))), count)


def draws_of(data: ArvizData) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Collect all latents of ArviZ data in one array (chain, draw, obs, D).

    The names of the D dimensions and of the data come with it. Latents are in the order of their
    names, for a guide may draw them in another order than the model does.
    """
    posterior = group_of(data, "posterior")
    if posterior is None:
        raise InvalidInput(
            "data",
            got="no group posterior",
            expected="draws",
            fix="make them with pyro_vae.to_inference_data",
        )
    columns, names = [], []
    for name in sorted(posterior.data_vars, key=lambda name: (len(str(name)), str(name))):
        values = posterior[name]
        array = values.values.reshape(*values.shape[:3], -1)
        columns.append(array)
        names += (
            [f"{name}[{i}]" for i in range(array.shape[-1])] if values.ndim > 3 else [str(name)]
        )
    return np.concatenate(columns, axis=-1).astype(np.float64), names, posterior["obs"].values


def largest_r_hat(data: ArvizData) -> float:
    """The largest R-hat of all latents and data, of those that have one; NaN where none has.

    Each latent has its own, ``z1_r_hat`` and the like, where there are several.
    """
    diagnostics = group_of(data, "diagnostics")
    known = {} if diagnostics is None else diagnostics.data_vars
    each = [float(known[name].max()) for name in known if str(name).endswith("r_hat")]
    return max((value for value in each if not np.isnan(value)), default=np.nan)


def _independent(chains: np.ndarray) -> np.ndarray:
    """Thin each chain of draws (chain, draw, D) to its effective number, as draws (S, D).

    The dimension that mixes slowest decides.

    Each by itself: chains that sit on different modes are worth little together, and yet have draws
    of every mode.
    """
    if len(chains) == 1:
        return chains[0]
    thinned = []
    for chain in chains:
        halves = chain[: len(chain) // 2 * 2].reshape(2, -1, chain.shape[-1])
        # What is worth little for the mean may be worth less for the scale: both have to be
        # estimated.
        worth = min(
            np.nanmin(effective_draws(values))
            for values in (halves, np.square(halves - halves.mean((0, 1))))
        )
        thinned.append(chain[:: max(1, round(len(chain) / worth))])
    return np.concatenate(thinned)


def _wasserstein(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Wasserstein-1 distance of each column (D,): the mean distance of quantiles."""
    levels = (np.arange(1000) + 0.5) / 1000
    return np.abs(np.quantile(a, levels, axis=0) - np.quantile(b, levels, axis=0)).mean(0)
