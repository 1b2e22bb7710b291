"""The aggregate posterior: what the latents of a data set carry together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.contracts import ProgramLike, sites_of
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latents import Values, draws_in, in_rows, out_of_rows
from pyro_vae.runtime.memory import DEFAULT_MEMORY, chunks, rows_within
from pyro_vae.runtime.traces import Plates
from pyro_vae.validation import check_count

__all__ = ["AggregatePosterior", "aggregate_posterior"]


@dataclass(frozen=True, repr=False)
class AggregatePosterior:
    r"""The mean KL of a guide to its prior, split in two: information and mismatch.

    .. math:: \frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p) = I_q(x; z) + \mathrm{KL}(q(z)
              \,\|\, p), \quad q(z) = \frac1N \sum_n q(z \mid x_n)

    All in nats, each with the Monte Carlo error of its draws; the data are taken as they are, so
    that the mutual information is that of a datum's index and at most log N.

    Args:
        kl: the mean KL.
        mutual_information: :math:`I_q(x; z)`.
        marginal_kl: :math:`\mathrm{KL}(q(z) \,\|\, p)`.
        total_correlation: :math:`\mathrm{KL}(q(z) \,\|\, \prod_d q(z_d))`; ``None`` where the
            guide's density has no dimensions of its own, or the program more than one latent site.
        dimension_kl: :math:`\mathrm{KL}(q(z_d) \,\|\, p(z_d))` (D,), which with the total
            correlation adds up to ``marginal_kl``; ``None`` unless the prior's dimensions, too, are
            independent, and no discrete latent is summed over on which they depend.
        errors: the Monte Carlo error of each of these, by name.
        num_samples: the number of draws K for each datum.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data.
    """

    kl: float
    mutual_information: float
    marginal_kl: float
    total_correlation: float | None
    dimension_kl: Tensor | None
    errors: dict[str, float | Tensor]
    num_samples: int
    seed: int
    sha256: str

    __repr__, _repr_html_ = result_words, result_html


def aggregate_posterior(
    program: ProgramLike,
    data: Data,
    num_samples: int = 10,
    *,
    seed: int = 0,
    memory_budget: int = DEFAULT_MEMORY,
) -> AggregatePosterior:
    r"""Split the mean KL into mutual information and KL(q(z) || p(z)), on given data.

    The total correlation and the KL of each dimension come with them.

    Draws :math:`z_{kn} \sim q(z \mid x_n)`, the same number for every datum, are scored under the
    guide at *every* datum, so q(z) is the exact mixture and nothing is biased by a minibatch; the
    cost is K N^2 densities. With a context, p is p(z | context) of the datum that z was drawn for;
    the sum holds, but the second term is then no KL of two marginals. All draws are made at once:
    these are numbers of the whole data set, and the draws of one datum depend on how many there
    are.

    Args:
        program: any program whose guide has no auxiliary sites.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws K for each datum; at least 2 for the errors.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of densities allowed at once.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a bound.

    Source: Hoffman and Johnson (2016), ELBO Surgery; Chen, Li, Grosse and Duvenaud (2018) for the
    total correlation.

    Example:
        >>> parts = aggregate_posterior(vae, torch.rand(20, 1, 8, 8).round(), 5)
        >>> abs(parts.kl - parts.mutual_information - parts.marginal_kl) < 1e-6
        True
    """
    check_count("num_samples", num_samples)
    data = as_dataset(data)
    rows: dict[str, list[Tensor]] = {}
    with conditioned(program, data, seed) as given:
        given.check_no_auxiliary()
        guide = given.guide
        values = given.draw(guide, num_samples)
        prior, _ = given.log_density(given.model, values)
        own, _ = given.log_density(guide, values)
        points = {name: _all_points(value, given.plates) for name, value in values.items()}
        one = slice(0, 1)
        step = rows_within(
            memory_budget, lambda count: given.log_density(guide, _some(points, one, count))
        )
        for few in chunks(num_samples * len(given), step):
            some = _some(points, few)
            mixture, _ = given.log_density(guide, some)
            rows.setdefault("mixture", []).append(mixture.logsumexp(1) - math.log(len(given)))
            for name, part in _dimensions(given, some).items():
                rows.setdefault(name, []).append(part)
    parts = {
        name: torch.cat(part).unflatten(0, (num_samples, len(given))).double()
        for name, part in rows.items()
    }
    prior, own, mixture = prior.double(), own.double(), parts.pop("mixture")
    terms = {"kl": own - prior, "mutual_information": own - mixture, "marginal_kl": mixture - prior}
    if "marginals" in parts:
        terms["total_correlation"] = mixture - parts["marginals"].sum(-1)
        if "prior_marginals" in parts:
            terms["dimension_kl"] = parts["marginals"] - parts["prior_marginals"]
    means = {name: term.mean((0, 1)) for name, term in terms.items()}
    errors = {}
    if num_samples > 1:  # the data are fixed: only each datum's own draws are random
        errors = {
            name: (term.var(0).sum(0) / num_samples).sqrt() / len(given)
            for name, term in terms.items()
        }
    dimension_kl = means.pop("dimension_kl", None)
    numbers = {name: mean.item() for name, mean in means.items()}
    return AggregatePosterior(
        numbers["kl"],
        numbers["mutual_information"],
        numbers["marginal_kl"],
        numbers.get("total_correlation"),
        dimension_kl,
        {name: error if error.dim() else error.item() for name, error in errors.items()},
        num_samples,
        seed,
        data.sha256,
    )


def _all_points(value: Tensor, plates: Plates) -> Tensor:
    """A site's K draws for N data as K N draws, each to be scored at every datum.

    The data dimension has size one.
    """
    return out_of_rows(in_rows(value, plates).flatten(0, 1)[:, None], plates)


def _some(points: Values, few: slice, repeat: int = 1) -> Values:
    return {name: torch.cat([value[few]] * repeat) for name, value in points.items()}


def _dimensions(given: Conditioned, points: Values) -> dict[str, Tensor]:
    """log q(z_d) under the mixture over data, and log p(z_d), both (count, D), where they exist."""
    if len(points) != 1:
        return {}
    ((name, value),) = points.items()
    count, found = draws_in(points), {}
    for key, fn in (("marginals", given.guide), ("prior_marginals", given.model)):
        density = sites_of(given.trace(fn, count, points))[name]["fn"]
        marginals = _marginals(density)
        if marginals is None or _is_of_states(density, given.plates):
            continue
        is_prior = key == "prior_marginals"
        if is_prior and (given.context is not None or _is_correlated(density)):
            continue
        scores = in_rows(marginals.log_prob(value), given.plates)
        scores = scores.expand(count, len(given), *scores.shape[2:]).reshape(count, len(given), -1)
        found[key] = scores.logsumexp(1) - math.log(len(given))
    return found


def _is_of_states(fn: Distribution, plates: Plates) -> bool:
    """Whether a density is one for each state of a discrete latent that the program sums over."""
    return any(size > 1 for size in fn.batch_shape[: plates.particle_dim])


def _innermost(fn: Distribution) -> Distribution:
    while isinstance(
        fn, dist.Independent | torch.distributions.Independent | dist.ExpandedDistribution
    ):
        fn = fn.base_dist
    return fn


def _is_correlated(fn: Distribution) -> bool:
    """Whether a normal distribution's dimensions are correlated."""
    fn = _innermost(fn)
    if not isinstance(fn, torch.distributions.MultivariateNormal):
        return False
    covariance = fn.covariance_matrix
    return not torch.equal(covariance, torch.diag_embed(fn.variance).expand_as(covariance))


def _marginals(fn: Distribution) -> Distribution | None:
    """The densities of a distribution's dimensions as a batch; ``None`` if they are not known."""
    fn = _innermost(fn)
    if isinstance(fn, torch.distributions.MultivariateNormal):
        return dist.Normal(fn.loc, fn.variance.sqrt())
    return fn if not fn.event_shape else None
