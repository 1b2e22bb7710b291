r"""Where the nats go: what a bound is made of, what the latents carry, and what the gap to log p(x) is due to.

All of it is made of draws from the guide and of the densities of model and guide at them, so it
works for any program; what needs more, densities of single dimensions, says so and is ``None``
where there are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.contracts import ProgramLike, sites_of
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.evaluation.importance import evaluate, log_likelihood
from pyro_vae.evaluation.proposals import Guide, Proposal, Refitted
from pyro_vae.evaluation.scores import Score
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latents import Values, draws_in, in_rows, out_of_rows
from pyro_vae.runtime.memory import DEFAULT_MEMORY, chunks, rows_within
from pyro_vae.runtime.traces import Plates, latent_sites, site_log_prob
from pyro_vae.validation import check_count

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "InferenceGap",
    "active_units",
    "aggregate_posterior",
    "decompose",
    "inference_gap",
]


def decompose(
    program: ProgramLike, data: Data, num_samples: int = 100, *, seed: int = 0
) -> dict[str, Score]:
    r"""The ELBO of each datum as its parts.

    .. math:: \mathrm{ELBO} = \underbrace{\mathrm{E}_q \log p(x \mid z)}_{\text{reconstruction}}
              - \sum_s \underbrace{\mathrm{E}_q \log \frac{q_s}{p_s}}_{\text{kl of site } s}

    The sites are the latents of the program, each given those before it: levels of a hierarchy one
    by one. Factors of the model count as reconstruction; an auxiliary site of the guide as a KL
    whose p is 1.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: number of draws K, taken a datum at a time.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        Scores ``"elbo"``, ``"reconstruction"``, ``"kl"`` and, for each latent site, ``"kl/NAME"``.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a bound.

    Example:
        >>> sorted(decompose(vae, torch.zeros(3, 1, 8, 8), 10))
        ['elbo', 'kl', 'kl/z', 'reconstruction']
    """
    check_count("num_samples", num_samples)
    data = as_dataset(data)
    columns: dict[str, list[Tensor]] = {}
    with conditioned(program, data, seed) as given:
        for one, _ in given.in_chunks(1):
            for name, terms in _terms(one, num_samples).items():
                columns.setdefault(name, []).append(terms)
    return {
        name: _score(torch.cat(parts, dim=1), seed, data.sha256) for name, parts in columns.items()
    }


def _terms(given: Conditioned, num_samples: int) -> dict[str, Tensor]:
    """The ELBO's parts at K draws (K, N), by name."""
    guide, model = given.traces(num_samples)
    shape = (num_samples, len(given))
    latents = latent_sites(guide)
    terms = {
        f"kl/{name}": site_log_prob(site, given.plates, shape) for name, site in latents.items()
    }
    reconstruction = given.x.new_zeros(shape)
    for name, site in sites_of(model).items():
        value = site_log_prob(site, given.plates, shape)
        if name in latents:
            terms[f"kl/{name}"] = terms[f"kl/{name}"] - value
        else:
            reconstruction = reconstruction + value
    kl = sum(terms.values(), start=given.x.new_zeros(shape))
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl} | terms


def _score(terms: Tensor, seed: int, sha256: str) -> Score:
    """The mean over draws (K, N) of each datum."""
    terms = terms.double()
    error = (
        terms.std(0) / math.sqrt(len(terms))
        if len(terms) > 1
        else torch.full_like(terms[0], math.nan)
    )
    return Score(terms.mean(0), error, len(terms), seed=seed, sha256=sha256)


@dataclass(frozen=True)
class AggregatePosterior:
    r"""The KL of a guide to its prior, averaged over data, as what z says about x and what q(z) differs from p(z).

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
            independent.
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


def aggregate_posterior(
    program: ProgramLike,
    data: Data,
    num_samples: int = 10,
    *,
    seed: int = 0,
    memory_budget: int = DEFAULT_MEMORY,
) -> AggregatePosterior:
    r"""Mutual information, KL(q(z) || p(z)), total correlation and dimension-wise KL, on given data.

    Draws :math:`z_{kn} \sim q(z \mid x_n)`, the same number for every datum, are scored under the
    guide at *every* datum, so q(z) is the exact mixture and nothing is biased by a minibatch; the
    cost is K N^2 densities. With a context, p is p(z | context) of the datum that z was drawn for;
    the sum holds, but the second term is then no KL of two marginals.

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
    # The data are fixed: what is random is each datum's own draws.
    errors = (
        {
            name: (term.var(0).sum(0) / num_samples).sqrt() / len(given)
            for name, term in terms.items()
        }
        if num_samples > 1
        else {}
    )
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
    """A site's K draws for N data as K N draws, of which each is put to every datum.

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
        marginals = _marginals(sites_of(given.trace(fn, count, points))[name]["fn"])
        if marginals is None or (given.context is not None and key == "prior_marginals"):
            continue
        scores = in_rows(marginals.log_prob(value), given.plates)
        scores = scores.expand(count, len(given), *scores.shape[2:]).reshape(count, len(given), -1)
        found[key] = scores.logsumexp(1) - math.log(len(given))
    return found


def _marginals(fn: Distribution) -> Distribution | None:
    """The densities of a distribution's dimensions as a batch; ``None`` if they are not known."""
    while isinstance(
        fn, dist.Independent | torch.distributions.Independent | dist.ExpandedDistribution
    ):
        fn = fn.base_dist
    if isinstance(fn, torch.distributions.MultivariateNormal):
        return dist.Normal(fn.loc, fn.variance.sqrt())
    return fn if not fn.event_shape else None


@dataclass(frozen=True)
class ActiveUnits:
    r"""How much the posterior mean of each latent dimension moves with the data.

    Args:
        variance: for each latent site :math:`\mathrm{Var}_x\, \mathrm{E}_q[z_d]`, in the shape of
            that latent.
        threshold: above which a dimension counts as active.
        num_samples: the number of draws K for each datum.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data.
    """

    variance: dict[str, Tensor]
    threshold: float
    num_samples: int
    seed: int
    sha256: str

    @property
    def active(self) -> int:
        """How many dimensions are active."""
        return sum(int((value > self.threshold).sum()) for value in self.variance.values())

    @property
    def total(self) -> int:
        """How many dimensions there are."""
        return sum(value.numel() for value in self.variance.values())


def active_units(
    program: ProgramLike,
    data: Data,
    num_samples: int = 100,
    *,
    threshold: float = 0.01,
    seed: int = 0,
) -> ActiveUnits:
    r"""The variance over data of each latent's posterior mean, and how many exceed a threshold.

    The mean is that of K draws, and the variance that their noise adds is subtracted, so no closed
    form is needed and levels of a hierarchy count alike; it can come out slightly negative where
    nothing moves.

    Args:
        program: any program; dimensions of discrete latents are taken as numbers.
        data: a data set, a tensor x (N, \*event), or a pair (x, context), of at least two data.
        num_samples: draws K for each datum, at least 2.
        threshold: above which a dimension counts as active.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data or K < 2.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.

    Example:
        >>> units = active_units(vae, torch.rand(20, 1, 8, 8).round())
        >>> units.total, units.variance["z"].shape
        (2, torch.Size([2]))
    """
    check_count("num_samples", num_samples, minimum=2)
    data = as_dataset(data)
    check_count("data", len(data), minimum=2)
    # A point's mean moves too, so the guide needs no density.
    with conditioned(program, data, seed, scored=False) as given:
        values = given.draw(given.guide, num_samples)
    rows = {name: in_rows(value, given.plates).double() for name, value in values.items()}
    return ActiveUnits(
        {name: row.mean(0).var(0) - row.var(0).mean(0) / num_samples for name, row in rows.items()},
        threshold,
        num_samples,
        seed,
        data.sha256,
    )


@dataclass(frozen=True)
class InferenceGap:
    r"""What lies between log p(x) and the ELBO, for each datum, in nats.

    .. math:: \log p(x) - \mathrm{ELBO}(q) = \underbrace{\log p(x) -
              \mathrm{ELBO}(q^*)}_{\text{approximation}} + \underbrace{\mathrm{ELBO}(q^*) -
              \mathrm{ELBO}(q)}_{\text{amortisation}}

    Args:
        inference: the whole.
        approximation: what the best member q* of the guide's family still lacks.
        amortization: what the encoder loses against that.
    """

    inference: Score
    approximation: Score
    amortization: Score


def inference_gap(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    refinement: Refitted = Refitted(steps=300),
    log_p: Score | None = None,
    proposal: Proposal | None = None,
    seed: int = 0,
) -> InferenceGap:
    r"""The inference gap of each datum, split by refining the guide for that datum.

    How good q* is depends on ``refinement``; too few steps make the approximation gap too large and
    the amortisation gap too small, never the reverse but for Monte Carlo error.

    Args:
        program: any program with continuous, reparametrised latents.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws K for each of the three scores.
        refinement: how q* is found; see `pyro_vae.evaluation.proposals.Refitted` for what its family
            is.
        log_p: log p(x) of the same data if it is known better, by `ais` for instance.
        proposal: what log p(x) is estimated with otherwise; by default the refined guide.
        seed: seed of the draws; the caller's random state is left as it was.

    Raises:
        InvalidInput: on unusable data or K < 1.

    Warns:
        UnreliableEstimate: where the estimate of log p(x) is.

    Source: Cremer, Li and Duvenaud (2018), Inference Suboptimality in Variational Autoencoders.

    Example:
        >>> gap = inference_gap(vae, torch.zeros(2, 1, 8, 8), 100, refinement=Refitted(steps=5))
        >>> gap.inference.values.shape
        torch.Size([2])
    """
    data = as_dataset(data)
    own = evaluate(program, data, num_samples, proposal=Guide(), seed=seed)["elbo"]
    best = evaluate(program, data, num_samples, proposal=refinement, seed=seed + 1)["elbo"]
    log_p = log_p or log_likelihood(
        program, data, num_samples, proposal=proposal or refinement, seed=seed + 2
    )

    def difference(a: Score, b: Score) -> Score:
        return Score(
            a.values - b.values,
            (a.mc_se.square() + b.mc_se.square()).sqrt(),
            num_samples,
            seed=seed,
            sha256=data.sha256,
        )

    return InferenceGap(difference(log_p, own), difference(log_p, best), difference(best, own))
