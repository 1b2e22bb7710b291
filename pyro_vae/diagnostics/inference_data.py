r"""Draws of a program as ArviZ data, for ArviZ's own summaries and figures, and for netCDF.

- ``posterior``: draws of each latent site (chain, draw, obs, latent).
- ``posterior_predictive``: ``x`` drawn from p(x | z) at those draws, as many of them as the memory
  budget allows.
- ``prior``: draws of p(z), or p(z | context), of the same shape. A flat prior has none.
- ``prior_predictive``: ``x`` drawn from p(x | z) at those.
- ``log_likelihood``: ``x`` is log p(x | z) of each draw and datum (ours of that name is log p(x)).
- ``sample_stats``: ``lp`` = log p(x, z), ``log_q`` = log q(z | x), ``log_weight`` = their
  difference, and ``diverging``.
- ``observed_data``: ``x``.
- ``constant_data``: the ``index`` of each datum, and its ``context``.
- ``diagnostics``: for each datum ``ess`` and ``pareto_k`` of importance weights, or R-hat and ESS
  of chains.

Several observed sites have their own names in place of ``x``, but for ``log_likelihood``, where
``x`` is all of them together.

**What ArviZ's diagnostics say about these draws.** R-hat, ESS, MCSE, autocorrelation and rank plots
are about Markov chains. Draws of NUTS have them; draws of q are independent, so R-hat is 1 (or
absent, with one chain) and ESS the number of draws however wrong q is: they mean nothing, and the
attribute ``note`` of the group says so. ``az.summary(idata, kind="stats")`` leaves them out, with
the warnings about a single chain. Whether q is near p(z | x) is what ``pareto_k`` and ``ess`` of
the group ``diagnostics`` say, and, where a mode may be missed, `compare_posteriors` with draws
of NUTS. ``arviz.loo``, ``waic`` and ``compare`` on ``log_likelihood`` average 1 / p(x | z) over a
*local* latent: an estimate of 1 / p(x) whose variance is mostly infinite, and biased besides where
q is not the exact posterior. They run, and their Pareto k says how bad it is; for a comparison that
means something hand `to_elpd` of two scores to ``arviz.compare``.

A program with global latents has other groups: `pyro_vae.diagnostics.global_data`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.diagnostics.global_data import joint_data
from pyro_vae.diagnostics.global_draws import draw_jointly
from pyro_vae.diagnostics.samplers import NUTS, Drawn, FromGuide, Sampler
from pyro_vae.distributions import NoDraws, is_one_way, is_point_mass, stated_support
from pyro_vae.evaluation.arviz_compat import (
    ArvizData,
    as_array,
    effective_draws,
    inference_data,
    r_hat,
)
from pyro_vae.evaluation.importance_score import summarize
from pyro_vae.evaluation.scores import versions
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values, draws_in, in_rows
from pyro_vae.runtime.memory import DEFAULT_MEMORY, chunks, rows_within
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.validation import InvalidInput, check_count, tensors_of

__all__ = ["LARGEST_R_HAT", "UnreliableDraws", "to_inference_data"]

Arrays = dict[str, dict[str, np.ndarray]]  # by group and name

LARGEST_R_HAT = 1.05

LOCAL = (
    "log p(x | z) at draws of a local latent: loo, waic and compare on this group average "
    "1 / p(x | z), which seldom has a finite variance. For log p(x) and comparisons use "
    "pyro_vae.log_likelihood and to_elpd."
)


def to_inference_data(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    sampler: Sampler = FromGuide(),
    indices: Sequence[int] | Tensor | None = None,
    run: str = "",
    seed: int = 0,
    memory_budget: int = DEFAULT_MEMORY,
    progress: bool = False,
) -> ArvizData:
    r"""Draw the latents of data, and return them with all diagnostics as ArviZ data.

    An ``arviz.InferenceData`` with ArviZ 0.x, an ``xarray.DataTree`` with 1.x; the head of this
    module has the groups, and which of ArviZ's diagnostics mean something for them. Dimensions are
    ``chain, draw, obs, latent``, with more than one latent site ``SITE_latent``, and those of x
    ``x_dim_0``, ... Attributes hold the data's name and SHA-256, the seed, the way of drawing, the
    versions of the libraries, and the run.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws of each datum, over all chains.
        sampler: where the draws come from: `pyro_vae.diagnostics.FromGuide`, `Resampled` or
            `NUTS`.
        indices: what to call the data along ``obs``, such as their places in the test set; by
            default 0, 1, ...
        run: the run that the program comes from, for the attributes.
        seed: seed of the draws; the caller's random state is left as it was.
        memory_budget: bytes of densities allowed at once, and bytes of x in either of the
            predictive groups: these hold fewer draws where all would take more. The latents and
            their numbers follow from the seed and a datum's place alone.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data or settings.

    Warns:
        UnreliableDraws: where chains have not met.

    Example:
        >>> idata = pv.to_inference_data(vae, torch.zeros(3, 1, 8, 8), num_samples=50)
        >>> idata.posterior["z"].dims, idata.posterior["z"].shape
        (('chain', 'draw', 'obs', 'latent'), (1, 50, 3, 2))
        >>> idata.sample_stats["log_weight"].shape
        (1, 50, 3)
    """
    check_count("num_samples", num_samples)
    data = as_dataset(data)
    labels = np.arange(len(data)) if indices is None else np.asarray(indices)
    if labels.shape != (len(data),):
        raise InvalidInput(
            "indices",
            got=f"shape {labels.shape}",
            expected=f"({len(data)},), one for each datum",
            fix="align them with x",
        )
    attributes = (
        {
            "run": run,
            "seed": seed,
            "data": data.name,
            "split": data.split,
            "binarize": data.binarize,
            "sha256": data.sha256,
            "draws": type(sampler).__name__,
            "label_names": ",".join(data.label_names),
        }
        | {f"draws_{name}": value for name, value in _settings(sampler).items()}
        | versions()
    )
    coordinates: dict[str, object] = {"obs": labels}
    named = data.parts or {"x": data}
    coordinates |= {f"{n}_dim_0": p.columns.names for n, p in named.items() if p.columns}
    bar = progress_bar(f"draws, {num_samples} a datum", total=len(data), shown=progress)
    parts = []
    opened = conditioned(program, data, seed, scored=False, has_globals=True)
    with opened as given, bar as advance:
        if given.plates.globals:
            joint = draw_jointly(given, num_samples, sampler, seed)
            return joint_data(given, joint, coordinates, attributes, memory_budget)
        blocks = Blocks.of(given, lambda part: partial(_decoded, part), num_samples)
        if isinstance(sampler, NUTS):  # which runs datum by datum: padding would cost its chains
            blocks = replace(blocks, size=1)
        predictive = max(1, memory_budget // given.nbytes)
        for part, few in blocks.over(given, seed):
            drawn, count = sampler(part, num_samples), few.stop - few.start
            arrays = _Groups(part, drawn, predictive, memory_budget).arrays()
            parts.append(_without_padding(arrays, count))
            advance(count)
    return _assembled(parts, drawn, coordinates, attributes)


class UnreliableDraws(UserWarning):
    """Draws that do not stand for their posterior, by their own diagnostics."""


def _decoded(given: Conditioned, num_samples: int) -> list[Tensor]:
    drawn = given.draw(given.guide, num_samples)
    return [given.predictive(drawn, n).sample() for n in given.drawn_names] or [*drawn.values()]


@dataclass(frozen=True)
class _Groups:
    """The groups of a few data.

    Args:
        given: the program given these data.
        drawn: their draws.
        predictive: draws of each datum at which x is drawn, at most.
        memory_budget: bytes of activations allowed at once.
    """

    given: Conditioned
    drawn: Drawn
    predictive: int
    memory_budget: int

    @property
    def chains(self) -> int:
        return max(1, self.drawn.chains)

    def arrays(self) -> Arrays:
        """Everything by group and name, as (chain, draw, obs, ...) or (obs, ...)."""
        given = self.given
        values = {
            name: value.to(given.dtype) if value.is_floating_point() else value
            for name, value in self.drawn.values.items()
        }
        try:
            prior = {
                name: value
                for name, value in given.draw(given.model, draws_in(values)).items()
                if name in values
            }
        except NoDraws:  # of a flat prior: the groups of its draws stay empty, and are left out
            prior = {}
        guide = given.guide if _has_density(given) else None
        densities = given.densities(values, guide, memory_budget=self.memory_budget)
        stats, diagnostics = self._statistics(*densities)
        arrays: Arrays = {
            "posterior": {name: self._site(value) for name, value in values.items()},
            "posterior_predictive": self._draws_of_x(values),
            "prior": {name: self._site(value) for name, value in prior.items()},
            "prior_predictive": self._draws_of_x(prior) if prior else {},
            "log_likelihood": {"x": self._by_chain(densities[1])},
            "sample_stats": {name: self._by_chain(value) for name, value in stats.items()},
            "observed_data": _named("x", given.x),
            "constant_data": _named("context", given.context),
            "diagnostics": {name: as_array(value) for name, value in diagnostics.items()},
        }
        return arrays

    def _statistics(
        self, log_prior: Tensor, log_x: Tensor, log_q: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Numbers of each draw, and of each datum."""
        stats = {"lp": log_prior + log_x, **self.drawn.per_draw}
        diagnostics = dict(self.drawn.per_datum)
        if log_q is not None:
            stats |= {"log_q": log_q, "log_weight": log_prior + log_x - log_q}
            if not self.drawn.chains and not diagnostics:
                score = summarize(stats["log_weight"])
                diagnostics = {"ess": score.ess, "pareto_k": score.pareto_k}
        return stats, diagnostics

    def _by_chain(self, value: Tensor) -> np.ndarray:
        return as_array(value.unflatten(0, (self.chains, len(value) // self.chains)))

    def _site(self, value: Tensor) -> np.ndarray:
        return self._by_chain(in_rows(value, self.given.plates))

    def _draws_of_x(self, latents: Values) -> dict[str, np.ndarray]:
        """x drawn at the first draws of each chain, as many of them as there is memory for.

        By the name of the observed site.
        """
        per_chain = draws_in(latents) // self.chains
        kept = min(per_chain, max(1, self.predictive // self.chains))
        first = {
            name: value.unflatten(0, (self.chains, -1))[:, :kept].flatten(0, 1)
            for name, value in latents.items()
        }
        return {name: self._draws_at(first, name) for name in self.given.drawn_names}

    def _draws_at(self, latents: Values, name: str) -> np.ndarray:
        """Draws of one observed site, one at each of the given latents."""

        def at(few: slice) -> Tensor:
            some = {site: value[few] for site, value in latents.items()}
            return self.given.predictive(some, name).sample()

        total, step = draws_in(latents), 1
        if total > 1:
            step = rows_within(self.memory_budget, lambda count: at(slice(0, count)))
        drawn = torch.cat([at(few) for few in chunks(total, step)])
        return self._by_chain(drawn) if name == "x" else self._site(drawn)


def _has_density(given: Conditioned) -> bool:
    """Whether q(z | x) has a density at latents of one's choice.

    It has none with auxiliary sites, as a point mass on a continuum or a flow that runs one way.
    """
    guide, model = given[:1].traces()
    sites, latents = latent_sites(guide), latent_sites(model)
    return sites.keys() == latents.keys() - given.plates.summed and not any(
        (is_point_mass(site["fn"]) and not stated_support(latents[name]["fn"]).is_discrete)
        or is_one_way(site["fn"], site["value"])
        for name, site in sites.items()
    )


BY_DRAW = {
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
}


def _axis_of_data(group: str) -> int:
    return 2 if group in BY_DRAW else 0


def _without_padding(arrays: Arrays, count: int) -> Arrays:
    """The numbers of the data of a block, which are its first ones."""
    return {
        group: {
            name: value[:, :, :count] if group in BY_DRAW else value[:count]
            for name, value in variables.items()
        }
        for group, variables in arrays.items()
    }


def _assembled(
    parts: list[Arrays],
    drawn: Drawn,
    coordinates: dict[str, object],
    attributes: dict[str, object],
) -> ArvizData:
    """The parts of all data put together along ``obs``, with names for every dimension."""
    arrays = {
        group: {
            name: np.concatenate([part[group][name] for part in parts], axis=_axis_of_data(group))
            for name in variables
        }
        for group, variables in parts[0].items()
    }
    single = len(drawn.values) == 1
    arrays["constant_data"]["index"] = np.asarray(coordinates["obs"])
    if drawn.chains:
        for name, chains in arrays["posterior"].items():
            prefix = "" if single else f"{name}_"
            arrays["diagnostics"] |= {
                f"{prefix}r_hat": r_hat(chains),
                f"{prefix}ess": effective_draws(chains),
            }
    _warn_if_unreliable(arrays["diagnostics"])

    def dimensions(group: str, name: str, rank: int) -> list[str]:
        lead = ["chain", "draw", "obs"] if group in BY_DRAW else ["obs"]
        site = name.removesuffix("_r_hat").removesuffix("_ess")
        word = (
            f"{name}_dim"
            if group not in ("posterior", "prior", "diagnostics")
            else "latent"
            if single and site != "latent"
            else f"{site}_latent"
        )
        count = rank - len(lead)
        return [
            *lead,
            *([word] if count == 1 and "latent" in word else [f"{word}_{i}" for i in range(count)]),
        ]

    notes = {"posterior": drawn.note, "sample_stats": drawn.note, "log_likelihood": LOCAL}
    groups = {
        group: (
            {
                name: (dimensions(group, name, array.ndim), array)
                for name, array in variables.items()
            },
            {"note": notes[group]} if group in notes else {},
        )
        for group, variables in arrays.items()
        if variables
    }
    return inference_data(groups, attributes, coordinates)


def _warn_if_unreliable(diagnostics: dict[str, np.ndarray]) -> None:
    for name, values in diagnostics.items():
        if name.endswith("r_hat"):
            worst = values.reshape(len(values), -1).max(1)
            if (worst > LARGEST_R_HAT).any():
                warnings.warn(
                    f"R-hat is above {LARGEST_R_HAT} for {(worst > LARGEST_R_HAT).sum()} of "
                    f"{len(worst)} data (largest {worst.max():.2f}): their chains are too short, "
                    "or sit on different modes of the posterior",
                    UnreliableDraws,
                    stacklevel=4,
                )


def _settings(sampler: Sampler) -> dict[str, str | int | float]:
    """The settings of a sampler, as attributes of netCDF can be."""
    settings = vars(sampler) if is_dataclass(sampler) else {}
    return {
        name: value if type(value) in (str, int, float) else str(value)
        for name, value in settings.items()
    }


def _named(name: str, values: Tensors | None) -> dict[str, np.ndarray]:
    """Data or contexts as arrays by name; a single tensor has the name that is given."""
    return {key or name: as_array(value) for key, value in tensors_of(values).items()}
