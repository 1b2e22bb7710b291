r"""The posterior of global latents given a whole data set, by adaptive importance sampling.

.. math:: p(\theta \mid x) \propto p(\theta) \prod_n \hat p(x_n \mid \theta), \quad
          \hat p(x_n \mid \theta) = \frac1K \sum_k
          \frac{p(x_n, z_k \mid \theta)}{q(z_k \mid x_n, \theta)}

in unconstrained space. Every :math:`\theta` has the same random numbers for its local latents, so
that what they add cancels between one :math:`\theta` and another. The first draws are from q at
several scales, from half as wide to ten times, so that a q that is too narrow does not hide what
lies beyond it; later ones are from Student t densities fitted to all draws before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor
from torch.distributions import Transform

from pyro_vae.checks.subject import CannotTell, DoesNotApply
from pyro_vae.evaluation.importance_score import share_of_bounds, summarize
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.environment import isolated_random
from pyro_vae.runtime.global_latents import points_among
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values, to_real
from pyro_vae.validation import InvalidInput

__all__ = ["MOST_DIMENSIONS", "Target", "Weighted", "adapted", "target_of"]

MOST_DIMENSIONS = 20
SCALES = (0.5, 1.0, 2.0, 4.0, 10.0)  # of q, in the first round
ROUNDS = 4  # after it
FREEDOM = 4.0  # degrees of freedom of the proposals
WIDER = 1.2  # than the draws that they are fitted to
RIDGE = 1e-6  # of a variance
BLOCK = 2**21  # numbers at a time
FEW, LOCAL_DRAWS = 50, 500  # data whose local weights are looked at, and draws of each


@dataclass(frozen=True)
class Target:
    """The log-density of global latents given data, as vectors of D real numbers.

    Args:
        given: the program given the data that q was fitted to.
        transforms: from real numbers to the support of each site.
        shapes: of each site's real numbers.
        local_draws: K of the local latents, an even number.
        seed: of them, the same for every vector.
    """

    given: Conditioned
    transforms: dict[str, Transform]
    shapes: dict[str, torch.Size]
    local_draws: int
    seed: int

    @property
    def names(self) -> list[str]:
        """What each of the D numbers is called."""
        return [
            f"{name}[{i}]" if shape.numel() > 1 else name
            for name, shape in self.shapes.items()
            for i in range(shape.numel())
        ]

    def vector(self, values: Values) -> Tensor:
        """Values of the sites as one vector (D,)."""
        return torch.cat(
            [each.inv(values[name]).reshape(-1) for name, each in self.transforms.items()]
        )

    def share_of_bounds(self, vector: np.ndarray) -> float:
        """The share of a few data whose local weights have too heavy a tail."""
        given = self.given.at(self._values(vector)[0])[: min(FEW, len(self.given))]
        with isolated_random(given.device, self.seed):
            parts = [few.log_weights(LOCAL_DRAWS) for few, _ in given.in_chunks(5)]
        return share_of_bounds(summarize(torch.cat(parts, 1)))

    def _values(self, vector: np.ndarray) -> tuple[Values, float]:
        """The values of the sites at a vector, and the logarithm of the map's Jacobian."""
        values: Values = {}
        numbers = torch.as_tensor(vector, dtype=self.given.dtype, device=self.given.device)
        log_p = 0.0
        parts = numbers.split([shape.numel() for shape in self.shapes.values()])
        for (name, shape), part in zip(self.shapes.items(), parts):
            real, transform = part.reshape(shape), self.transforms[name]
            values[name] = transform(real)
            jacobian = transform.log_abs_det_jacobian(real, values[name])
            log_p += jacobian.double().sum().item()
        return values, log_p

    def log_density(self, vector: np.ndarray) -> tuple[float, float]:
        """Its logarithm but for a constant, by each half of the local draws."""
        values, log_p = self._values(vector)
        log_p += self.given.log_prior(values).double().item()
        at, half = self.given.at(values), self.local_draws // 2
        size = max(1, BLOCK // (self.local_draws * max(1, self.given.nbytes // len(self.given))))
        both = np.zeros(2)
        with isolated_random(self.given.device, self.seed):
            for few, _ in at.in_chunks(size):
                weights = few.log_weights(self.local_draws).double().unflatten(0, (2, half))
                both += (weights.logsumexp(1) - math.log(half)).sum(-1).cpu().numpy()
        return log_p + float(both[0]), log_p + float(both[1])


def target_of(given: Conditioned, local_draws: int, seed: int) -> Target:
    """The target of a program's global latents.

    Raises:
        DoesNotApply: where q puts them at a point, or one has no map to real numbers.
        CannotTell: where they have too many dimensions.
    """
    one, other = given.globals(2, seed)
    prior = {name: s for name, s in latent_sites(given.prior()).items() if name in one.values}
    if not prior or (points := sorted(points_among(one, other) & prior.keys())):
        named = f" {', '.join(points[:3])}" if prior else "s"
        raise DoesNotApply(f"q puts the global latent{named} at a point, which has no spread")
    try:
        transforms = {name: to_real(name, site["fn"]) for name, site in prior.items()}
    except InvalidInput as no:
        raise DoesNotApply(f"the global latents have no map to real numbers: {no.got}") from None
    shapes = {name: each.inv(one.values[name]).shape for name, each in transforms.items()}
    if (size := sum(shape.numel() for shape in shapes.values())) > MOST_DIMENSIONS:
        raise CannotTell(
            f"the global latents have {size:,} dimensions, and importance weights say nothing of "
            f"more than {MOST_DIMENSIONS}",
            "Compare q with NUTS.",
        )
    return Target(given, transforms, shapes, local_draws, seed)


@dataclass(frozen=True)
class Weighted:
    """Draws with weights, of the posterior of global latents.

    Args:
        draws: (S, D).
        log_weights: (S,).
        log_density: of each draw but for a constant (S,).
        noise: half the difference between both halves of the local draws (S,).
    """

    draws: np.ndarray
    log_weights: np.ndarray
    log_density: np.ndarray
    noise: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Normalised (S,)."""
        return special.softmax(self.log_weights)

    @property
    def ess(self) -> float:
        """The effective number of draws."""
        return float(1 / (self.weights**2).sum())

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations (D,)."""
        mean = self.weights @ self.draws
        return mean, np.sqrt(self.weights @ (self.draws - mean) ** 2)

    @property
    def noise_spread(self) -> float:
        """The standard deviation of what the local draws add to the log-density, in nats."""
        mean = self.weights @ self.noise
        return float(np.sqrt(self.weights @ (self.noise - mean) ** 2))


def adapted(target: Target, of_q: np.ndarray, each: int, seed: int) -> Weighted:
    """Draw from the posterior, starting at draws of q (S, D).

    Weights are over the mixture of all densities that were drawn from.

    Args:
        target: what is drawn from.
        of_q: draws of q.
        each: draws in each round.
        seed: of them.

    Source: Cornuet, Marin, Mira and Robert (2012), Adaptive Multiple Importance Sampling.
    """
    random = np.random.default_rng(seed)
    mean, scale = of_q.mean(0), _covariance(of_q, np.full(len(of_q), 1 / len(of_q)))
    share = -(-each // len(SCALES))
    laws = [(_t(mean, factor**2 * scale), share) for factor in SCALES]
    draws, log_density, noise = np.empty((0, len(mean))), np.empty(0), np.empty(0)
    new = laws
    for step in range(ROUNDS + 1):
        drawn = [np.reshape(law.rvs(many, random), (many, -1)) for law, many in new]
        found = np.array([target.log_density(u) for u in np.concatenate(drawn)])
        draws = np.concatenate([draws, *drawn])
        log_density = np.concatenate([log_density, np.logaddexp(*found.T) - math.log(2)])
        noise = np.concatenate([noise, (found[:, 0] - found[:, 1]) / 2])
        many = np.array([count for _, count in laws])
        mixture = special.logsumexp(
            [np.reshape(law.logpdf(draws), -1) for law, _ in laws],
            axis=0,
            b=(many / many.sum())[:, None],
        )
        weighted = Weighted(draws, log_density - mixture, log_density, noise)
        if step < ROUNDS:
            soft = _tempered(weighted.log_weights, 5 * (draws.shape[1] + 2))
            new = [(_t(soft @ draws, WIDER**2 * _covariance(draws, soft)), each)]
            laws = laws + new
    return weighted


def _t(mean: np.ndarray, scale: np.ndarray):
    """Student's t distribution of a mean and a scale matrix."""
    return stats.multivariate_t(mean, scale, df=FREEDOM)


def _covariance(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The covariance of weighted draws (D, D), kept invertible."""
    centred = draws - weights @ draws
    found = (weights[:, None] * centred).T @ centred
    return found + np.diag(RIDGE * np.diagonal(found) + np.finfo(float).tiny)


def _tempered(log_weights: np.ndarray, least: float) -> np.ndarray:
    """Normalised weights to the largest power of at most 1 that leaves so many effective draws."""
    low, high = 0.0, 1.0
    for _ in range(40):
        power = high if low == 0 and high == 1 else (low + high) / 2
        weights = special.softmax(power * log_weights)
        if 1 / (weights**2).sum() >= least:
            if power == 1:
                return weights
            low = power
        else:
            high = power
    return special.softmax(low * log_weights)
