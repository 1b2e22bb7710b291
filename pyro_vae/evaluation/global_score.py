r"""Scores of programs with global latents, of which there is one draw for all data.

.. math:: \mathcal{L} = \sum_n \mathrm{E}\, \log \frac{p(x_n, z_n \mid \theta)}{q(z_n \mid x_n,
          \theta)} - \mathrm{KL}(q(\theta) \,\|\, p(\theta)), \qquad
          \log p(x_n \mid \mathcal{D}) \approx \log \mathrm{E}_{q(\theta)}\, p(x_n \mid \theta)

The first is a bound on the log-evidence of all data together, and has a part of each datum and one
of the global latents. The second is the predictive density of one datum that was held out: data
share :math:`\theta`, so such marginals do not add up to the log-density of all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.evaluation.scores import MeanScore
from pyro_vae.evaluation.widening import widening

__all__ = ["GlobalELBO", "PredictiveScore", "global_elbo", "shared_error"]


@dataclass(frozen=True, repr=False)
class GlobalELBO(MeanScore):
    r"""The ELBO of a program with global latents: a part of each datum and one of all together.

    ``values`` holds the local parts, :math:`\mathrm{E}\,[\log p(x_n, z \mid \theta) - \log q(z \mid
    x_n, \theta)]` over :math:`\theta \sim q` and z. ``mean`` is the bound on the log-evidence of
    these data together, per datum: the mean of the local parts less ``global_kl`` / N, with N the
    number of data that were scored. Its :math:`\mathrm{KL}(q \| p)` is to the prior, so it is what
    was maximised where these are the training data; what the program predicts of held-out data is
    `pyro_vae.log_likelihood`.

    Args:
        global_kl: :math:`\mathrm{KL}(q(\theta) \| p(\theta))` in nats, for all data together; NaN
            where a guide puts global latents at points, which have no such number: ``mean`` is then
            that of the local parts alone.
        global_kl_se: its Monte Carlo error.
        mean_error: the Monte Carlo error of ``mean``, whose draws of :math:`\theta` all data share.
        points: the global latents that are points, their names joined by commas.
    """

    global_kl: float
    global_kl_se: float
    mean_error: float
    points: str = ""

    @property
    def local_mean(self) -> float:
        """The mean of the local parts."""
        return self.values.double().mean().item()

    @property
    def mean(self) -> float:
        shared = 0.0 if math.isnan(self.global_kl) else self.global_kl / len(self.values)
        return self.local_mean - shared

    @property
    def mean_mc_se(self) -> float:
        return self.mean_error

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {"local_mean": self.local_mean}

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.note}"

    def _more_facts(self) -> dict[str, str]:
        return {"made of": self.note}

    @property
    def note(self) -> str:
        """What the mean is made of, in words."""
        if self.points:
            return f"global latents at points ({self.points}), whose prior is not scored"
        return (
            f"local part {self.local_mean:.2f} less the KL of the global latents, "
            f"{self.global_kl:.2f} +- {self.global_kl_se:.2g} nats over {len(self.values)} data"
        )


@dataclass(frozen=True, repr=False)
class PredictiveScore(ImportanceScore):
    r"""log p(x) of each datum under the posterior of the global latents, with its errors.

    .. math:: \log \frac1S \sum_s \hat p(x \mid \theta_s), \quad \theta_s \sim q(\theta), \qquad
              \hat p(x \mid \theta) = \frac1K \sum_k \frac{p(x, z_k \mid \theta)}{q(z_k \mid x,
              \theta)}

    Each :math:`\hat p` is unbiased, so the whole is one importance sampler with S independent
    draws, ``num_samples``: errors, ESS and Pareto k are those of the S inner means, and cover both
    levels.

    Args:
        local_draws: draws K of the local latents under each.
        mean_error: the Monte Carlo error of the mean over data, which share the draws.
    """

    local_draws: int
    mean_error: float

    @property
    def mean_mc_se(self) -> float:
        return math.hypot(self.mean_error, self.bias.double().mean().item())

    def __str__(self) -> str:
        return (
            f"{super().__str__()}; {self.num_samples} draws of the global latents, each with "
            f"{self.local_draws} of the local ones"
        )

    def _more_facts(self) -> dict[str, str]:
        return super()._more_facts() | {"draws of local latents": f"{self.local_draws:,}"}


def global_elbo(
    local: MeanScore, log_ratios: Tensor, shares: Tensor, points: frozenset[str]
) -> GlobalELBO:
    """Put the local parts and the global one together.

    Args:
        local: the local parts, each a mean over S draws.
        log_ratios: log q - log p (S,) of the draws of global latents.
        shares: the mean over data (S,) of the local parts under each draw.
        points: the names of global latents that are points.
    """
    settings = {name: value for name, value in vars(local).items()}
    if points:
        return GlobalELBO(
            **settings,
            global_kl=math.nan,
            global_kl_se=math.nan,
            mean_error=shared_error(shares),
            points=", ".join(sorted(points)),
        )
    return GlobalELBO(
        **settings,
        global_kl=log_ratios.double().mean().item(),
        global_kl_se=shared_error(log_ratios),
        mean_error=shared_error(shares - log_ratios.double() / len(local.values)),
    )


def shared_error(draws: Tensor) -> float:
    """The Monte Carlo error of the mean of S independent draws; NaN for one."""
    num = len(draws)
    if num < 2:
        return math.nan
    return draws.double().std().item() * widening(num) / math.sqrt(num)
