r"""ArviZ data of a program with global latents.

- ``posterior``: global latents without ``obs``, local ones with it, drawn together.
- ``posterior_predictive``: ``x`` drawn from p(x | z, theta) at those draws.
- ``prior``, ``prior_predictive``: the same from the prior.
- ``log_likelihood``: ``x`` is log p(x | theta) of each draw of the global latents and datum, the
  local latents integrated out by importance sampling. So ``arviz.loo``, ``waic`` and ``compare``
  mean what they mean for any model of global parameters: data are independent given theta.
- ``sample_stats``: ``lp`` = log p(x, z, theta) of all data together, and ``log_q``, ``log_weight``
  or ``diverging`` where there are any.
- ``diagnostics``: ``ess`` and ``pareto_k`` of the weights p(theta) p(x | theta) / q(theta), which
  say how near q(theta) is to the posterior given these data. They need the training data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import Tensors, Trace, sites_of
from pyro_vae.diagnostics.global_draws import JointDraw, JointDraws
from pyro_vae.distributions import NoDraws
from pyro_vae.evaluation.arviz_compat import (
    ArvizData,
    as_array,
    effective_draws,
    group_of,
    inference_data,
    r_hat,
)
from pyro_vae.evaluation.importance_score import (
    UnreliableEstimate,
    bias_of_log_mean,
    summarize,
)
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latent_pairs import is_local, latent_sites
from pyro_vae.runtime.latents import in_rows
from pyro_vae.runtime.observed import is_observed, observed_part
from pyro_vae.validation import tensors_of

__all__ = ["global_latents_of", "joint_data"]

INNER = 100  # draws of the local latents, of which log p(x | theta) is made
NOISY = 0.1  # share of the spread of log p(x | theta) that is the error of these draws

MOST_ENTRIES = 6  # of a global latent that is printed whole

MARGINAL = (
    "log p(x | theta) at draws of the global latents, the local ones integrated out: loo, waic and "
    "compare mean what they mean for a model of global parameters. Group diagnostics has "
    "log_likelihood_error, the Monte Carlo error of each datum's terms, which adds to p_loo."
)

Variable = tuple[list[str], np.ndarray]  # names of dimensions, and values
Groups = dict[str, dict[str, Variable]]


def joint_data(
    given: Conditioned,
    joint: JointDraws,
    coordinates: Mapping[str, object],
    attributes: Mapping[str, object],
    memory_budget: int,
) -> ArvizData:
    """ArviZ data of draws of all latents.

    Args:
        given: a program with global latents, given data.
        joint: draws of all of its latents.
        coordinates: what to call the data along ``obs``, and columns along their dimension.
        attributes: of the whole.
        memory_budget: bytes of new data in either of the predictive groups: these hold fewer draws
            where all would take more.
    """
    notes = {"posterior": joint.note, "sample_stats": joint.note, "log_likelihood": MARGINAL}
    groups = _groups(given, joint, max(1, memory_budget // given.nbytes))
    groups |= {
        "observed_data": _by_obs("x", given.x),
        "constant_data": {"index": (["obs"], np.asarray(coordinates["obs"]))}
        | _by_obs("context", given.context),
    }
    return inference_data(
        {
            group: (variables, {"note": notes[group]} if group in notes else {})
            for group, variables in groups.items()
            if variables
        },
        attributes,
        coordinates,
    )


def _by_obs(name: str, values: Tensors | None) -> dict[str, Variable]:
    """Data or contexts by name; a single tensor has the name that is given."""
    named = {key or name: value for key, value in tensors_of(values).items()}
    return {
        key: (["obs", *_named(key, value.dim() - 1)], as_array(value))
        for key, value in named.items()
    }


def _groups(given: Conditioned, joint: JointDraws, most: int) -> Groups:
    """The groups of ArviZ data, each variable with its dimensions.

    Args:
        given: a program with global latents, given data.
        joint: draws of all of its latents.
        most: draws of new data at most.
    """
    rows = _Rows(given, max(1, joint.chains))
    made = [_at(given, draw) for draw in joint.draws]
    marginal = torch.stack([one.marginal for one in made])
    noise = torch.stack([one.noise for one in made])
    _warn_of_noise(noise, marginal)
    log_prior = torch.cat([one.log_prior for one in made])
    stats = {"lp": torch.stack([one.joint for one in made])}
    error = noise.mean(0).sqrt().cpu().numpy()
    diagnostics: dict[str, Variable] = {"log_likelihood_error": (["obs"], error)}
    if joint.log_q is not None:
        log_weight = log_prior + marginal.sum(-1) - joint.log_q
        score = summarize(log_weight.unsqueeze(-1))
        diagnostics |= {
            "ess": ([], score.ess.cpu().numpy()[0]),
            "pareto_k": ([], score.pareto_k.cpu().numpy()[0]),
        }
        stats |= {"log_q": joint.log_q, "log_weight": log_weight}
    if joint.diverging is not None:
        stats["diverging"] = joint.diverging
    posterior = rows.latents(joint.draws)
    if joint.chains:
        for name, (dims, values) in posterior.items():
            lead = values if "obs" in dims else values[:, :, None]
            kept = slice(None) if "obs" in dims else 0
            diagnostics |= {
                f"{name}_r_hat": (dims[2:], r_hat(lead)[kept]),
                f"{name}_ess": (dims[2:], effective_draws(lead)[kept]),
            }
    return {
        "posterior": posterior,
        "posterior_predictive": rows.predictive([one.x for one in made], most),
        "log_likelihood": {"x": rows.of_draws(marginal, ["obs"])},
        "sample_stats": {name: rows.of_draws(value, []) for name, value in stats.items()},
        "diagnostics": diagnostics,
        **_prior(given, len(joint.draws), rows, most),
    }


@dataclass(frozen=True)
class _AtDraw:
    """What is known at one draw of all latents.

    Args:
        x: new data drawn there, in the shape of the data, by observed site.
        marginal: log p(x | theta) (N,).
        noise: the Monte Carlo variance of that (N,), by the delta method.
        log_prior: log p(theta) (1,).
        joint: log p(x, z, theta) of all data, a number.
    """

    x: dict[str, Tensor]
    marginal: Tensor
    noise: Tensor
    log_prior: Tensor
    joint: Tensor


def _at(given: Conditioned, draw: JointDraw) -> _AtDraw:
    at = given.at(draw.globals)
    weights = at.log_weights(1 if at.plates.is_deterministic else INNER).double()
    ess = 2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)
    log_prior = given.log_prior(draw.globals).double()
    new = _new_data(at.drawn_at(draw.local), given)
    latents, rest = at.log_density(at.model, draw.local)
    return _AtDraw(
        {name: in_rows(drawn, at.plates)[0] for name, drawn in new.items()},
        weights.logsumexp(0) - math.log(len(weights)),
        2 * bias_of_log_mean(ess.exp(), len(weights)).clamp(min=0).nan_to_num(),
        log_prior,
        (latents + rest).double().sum() + log_prior.sum(),
    )


def _warn_of_noise(noise: Tensor, marginal: Tensor) -> None:
    """Warn where much of the spread over draws of theta is Monte Carlo error of the local latents.

    Args:
        noise: its variance (S, N).
        marginal: log p(x | theta) (S, N).
    """
    added, spread = noise.mean(0).sum().item(), marginal.var(0).sum().item()
    if len(marginal) > 1 and added > NOISY * spread:
        warnings.warn(
            f"Group log_likelihood: {min(added / spread, 1):.0%} of the spread of log p(x | theta) "
            f"over draws of theta is Monte Carlo error of the {INNER} draws of the local latents "
            f"under each: p_loo of az.loo is too large by some {added:.2g} or more, and elpd_loo "
            "too low. A better guide of the local latents mends it",
            UnreliableEstimate,
            stacklevel=5,
        )


def _new_data(trace: Trace, given: Conditioned) -> dict[str, Tensor]:
    """Data drawn at a model's trace, by observed site."""
    names = [name for name in given.observed_names if is_observed(trace, name)]
    return {name: observed_part(trace, name, at_datum=True)["fn"].sample() for name in names}


def _prior(given: Conditioned, num_samples: int, rows: _Rows, most: int) -> Groups:
    """Draws from the prior; none of a flat one."""
    try:
        traces = [given.prior() for _ in range(num_samples)]
    except NoDraws:
        return {}
    names, runs = rows.names, [sites_of(trace) for trace in traces]
    draws = [
        JointDraw(
            {n: site["value"] for n, site in run.items() if n in names and not is_local(site)},
            {n: site["value"] for n, site in run.items() if n in names and is_local(site)},
        )
        for run in runs
    ]
    new = [_new_data(trace, given) for trace in traces]
    return {
        "prior": rows.latents(draws),
        "prior_predictive": rows.predictive(new, most),
    }


class _Rows:
    """Draws one after another as arrays (chain, draw, ...), with names for the dimensions."""

    def __init__(self, given: Conditioned, chains: int):
        self.given, self.chains = given, chains
        sites = latent_sites(given.prior())
        self.event_dims = {name: len(site["fn"].event_shape) for name, site in sites.items()}

    @property
    def names(self) -> list[str]:
        """The model's latents."""
        return list(self.event_dims)

    def of_draws(self, values: Tensor, dims: list[str]) -> Variable:
        array = values.unflatten(0, (self.chains, -1)).detach().cpu().numpy()
        return ["chain", "draw", *dims], array

    def predictive(self, drawn: list[dict[str, Tensor]], most: int) -> dict[str, Variable]:
        """New data of the first draws of each chain, so many in all."""
        length, kept = len(drawn) // self.chains, max(1, most // self.chains)
        first = [values for i, values in enumerate(drawn) if i % length < kept]
        return {name: self.of_data(name, [values[name] for values in first]) for name in first[0]}

    def of_data(self, name: str, values: list[Tensor]) -> Variable:
        """Values (N, *event) of each draw."""
        stacked = torch.stack(values)
        return self.of_draws(stacked, ["obs", *_named(name, stacked.dim() - 2)])

    def latents(self, draws: list[JointDraw]) -> dict[str, Variable]:
        """The model's latents that were drawn, global ones without ``obs``."""
        found: dict[str, Variable] = {}
        for name in self.names:
            if name in draws[0].globals:
                values = torch.stack([draw.globals[name] for draw in draws])
                found[name] = self.of_draws(values, _named(name, values.dim() - 1))
            elif name in draws[0].local:
                found[name] = self.of_data(
                    name, [self._row(name, draw.local[name]) for draw in draws]
                )
        return found

    def _row(self, name: str, value: Tensor) -> Tensor:
        """A local latent of one draw, as (N, *others)."""
        event_dim = self.event_dims[name]
        batch = value.shape[: value.dim() - event_dim]
        rank = -self.given.plates.particle_dim
        full = value.reshape(*(1,) * (rank - len(batch)), *value.shape)
        return in_rows(full, self.given.plates)[0]


def _named(name: str, count: int) -> list[str]:
    return [f"{name}_dim_{i}" for i in range(count)]


def global_latents_of(idata: ArvizData) -> Iterator[str]:
    """A line for each global latent in ArviZ data: its values and their spread over draws.

    There is none for a program of local latents.
    """
    posterior = group_of(idata, "posterior")
    for name, values in () if posterior is None else posterior.data_vars.items():
        if "obs" in values.dims:
            continue
        mean = np.ravel(values.mean(("chain", "draw")).values)
        sd = np.ravel(values.std(("chain", "draw")).values)
        if mean.size <= MOST_ENTRIES:
            said = ", ".join(f"{m:.3g} +- {s:.2g}" for m, s in zip(mean, sd))
        else:
            size = np.sqrt((mean**2).mean())
            said = f"{mean.size:,} entries of size {size:.3g}, sd {sd.mean():.2g}"
        yield f"global latent {name} {values.shape[2:]}: {said}"
