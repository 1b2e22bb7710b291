"""The aggregate posterior: what the latents of a data set carry together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.contracts import ProgramLike, Site, sites_of
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.evaluation.first_graph import FirstGraph
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latents import Values, draws_in, in_rows, out_of_rows
from pyro_vae.runtime.memory import DEFAULT_MEMORY, chunks, rows_within
from pyro_vae.runtime.settings import COMPILE, Compile
from pyro_vae.runtime.traces import Plates, site_log_prob
from pyro_vae.validation import check_choice, check_count

__all__ = ["AggregatePosterior", "aggregate_posterior"]

SAVED_BY_AN_ENTRY = 1.5e-8  # seconds on two cores that compiling saves for an entry of z at a datum


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
    compile: Compile = "auto",
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
        compile: ``"auto"`` compiles the densities as one graph where that pays; equal within
            rounding.

    Raises:
        InvalidInput: on unusable data or settings, or a program without a bound.

    Source: Hoffman and Johnson (2016), ELBO Surgery; Chen, Li, Grosse and Duvenaud (2018) for the
    total correlation.

    Example:
        >>> parts = aggregate_posterior(vae, torch.rand(20, 1, 8, 8).round(), 5)
        >>> abs(parts.kl - parts.mutual_information - parts.marginal_kl) < 1e-6
        True
    """
    check_count("num_samples", num_samples)
    check_choice("compile", compile, COMPILE)
    data = as_dataset(data)
    rows: dict[str, list[Tensor]] = {}
    with conditioned(program, data, seed) as given:
        given.check_no_auxiliary()
        values = given.draw(given.guide, num_samples)
        prior, _ = given.log_density(given.model, values)
        own, _ = given.log_density(given.guide, values)
        points = {name: _all_points(value, given.plates) for name, value in values.items()}
        densities = _Densities(given, points, memory_budget, compile)
        for few in chunks(num_samples * len(given), densities.at_once):
            for name, part in densities(points, few).items():
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


def _some(points: Values, few: slice, count: int) -> Values:
    """Some of the points, the last of them repeated until there are so many."""
    rows = Blocks(count, (1,)).rows(few)
    return {name: value[rows] for name, value in points.items()}


class _Densities:
    """The densities of the aggregate posterior at points, always so many at once.

    They are log q(z), and of the dimensions log q(z_d) and log p(z_d), where these exist.
    """

    def __init__(self, given: Conditioned, points: Values, memory_budget: int, compile: Compile):
        one, total = slice(0, 1), draws_in(points)
        replayed = given.noise is not None or given.plates.one_draw
        self.given, self.sites = given, None
        if len(points) == 1 and not replayed and not given.plates.summed:
            # A single latent has the same densities at every point.
            self.sites = self._sites_at(_some(points, one, 1))
        self.latents, self.found = [*points], [*self._at(_some(points, one, 1))]
        self.at_once = min(
            total, rows_within(memory_budget, lambda count: self._at(_some(points, one, count)))
        )
        entries = sum(value[0].numel() for value in points.values()) * len(given)
        self.first = FirstGraph(
            "off" if replayed else compile,
            saved=SAVED_BY_AN_ENTRY * entries * self.at_once,
            runs=-(-total // self.at_once),
        )

    def __call__(self, points: Values, few: slice) -> dict[str, Tensor]:
        some = _some(points, few, self.at_once)
        inputs = [some[name].contiguous() for name in self.latents]

        def at(*tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(self._at(dict(zip(self.latents, tensors))).values())

        graph = self.first.of(at, inputs, self.at_once)
        own = slice(0, few.stop - few.start)
        return {name: part[own] for name, part in zip(self.found, (graph or at)(*inputs))}

    def _at(self, points: Values) -> dict[str, Tensor]:
        """Log-densities (count,) and of dimensions (count, D)."""
        given, shape = self.given, (draws_in(points), len(self.given))
        if self.sites is None:
            log_q, _ = given.log_density(given.guide, points)
        else:
            (value,) = points.values()
            log_q = site_log_prob({**self.sites[0], "value": value}, given.plates, shape)
        found = {"mixture": log_q.logsumexp(1) - math.log(len(given))}
        if len(points) == 1:
            found |= _dimensions(given, *(self.sites or self._sites_at(points)), points)
        return found

    def _sites_at(self, points: Values) -> tuple[Site, Site]:
        """The only latent's site in the guide and in the model."""
        (name,), given = points, self.given
        guide, prior = (
            sites_of(given.trace(fn, draws_in(points), points))[name]
            for fn in (given.guide, given.model)
        )
        return guide, prior


def _dimensions(given: Conditioned, guide: Site, prior: Site, points: Values) -> dict[str, Tensor]:
    """log q(z_d) under the mixture over data, and log p(z_d), both (count, D), where they exist."""
    (value,), found = points.values(), {}
    for key, density in (("marginals", guide["fn"]), ("prior_marginals", prior["fn"])):
        marginals = _marginals(density)
        if marginals is None or _is_of_states(density, given.plates):
            continue
        is_prior = key == "prior_marginals"
        if is_prior and (given.context is not None or _is_correlated(density)):
            continue
        scores = in_rows(marginals.log_prob(value), given.plates)
        shape = len(value), len(given)
        scores = scores.expand(*shape, *scores.shape[2:]).reshape(*shape, -1)
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
