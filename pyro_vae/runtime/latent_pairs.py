"""The latent sites of a model and its guide: which belong together, and what they must be."""

from __future__ import annotations

from collections.abc import Iterator

from pyro.poutine.indep_messenger import CondIndepStackFrame

from pyro_vae.contracts import Site, Trace, sites_of
from pyro_vae.distributions import is_one_way, is_point_mass, stated_support
from pyro_vae.runtime.summed import is_summed
from pyro_vae.validation import InvalidInput

__all__ = [
    "NoBound",
    "check_latents",
    "check_whole",
    "chooses",
    "has_states",
    "is_local",
    "latent_sites",
    "subsampled",
]


class NoBound(InvalidInput):
    """A program without ELBO or log p(x): its guide is a point of a continuous latent."""


def chooses(model: Trace, guide: Trace) -> bool:
    """Whether a latent of the guide is one point among the values of a discrete one."""
    latents = latent_sites(model)
    return any(
        is_local(site)
        and is_point_mass(site["fn"])
        and name in latents
        and not is_point_mass(latents[name]["fn"])
        and stated_support(latents[name]["fn"]).is_discrete
        for name, site in latent_sites(guide).items()
    )


def has_states(guide: Trace) -> bool:
    """Whether a guide draws a discrete latent."""
    return any(
        stated_support(site["fn"]).is_discrete and not is_point_mass(site["fn"])
        for site in latent_sites(guide).values()
    )


def is_local(site: Site) -> bool:
    """Whether a site belongs to one datum each, by lying in the data plate."""
    return any(frame.name == "data" for frame in site["cond_indep_stack"])


def check_latents(model: Trace, guide: Trace, scored: bool, outside: frozenset[str]) -> None:
    for inside in (True, False):
        q, p = (
            {
                n: site
                for n, site in latent_sites(trace).items()
                if (n in outside) != inside and not is_summed(site)
            }
            for trace in (guide, model)
        )
        _check_pairs(q, p, scored and inside)


def _check_pairs(q: dict[str, Site], p: dict[str, Site], scored: bool) -> None:
    """Check latents of the guide and of the model, either all local or all global ones."""
    # An auxiliary site is a latent's source: the latent is then a Delta at a function of it, which
    # carries the Jacobian. One without such a latent would count with nothing in the model against
    # it.
    shared, auxiliary = sorted(q.keys() & p.keys()), sorted(q.keys() - p.keys())
    has_images = any(is_point_mass(q[name]["fn"]) for name in shared)
    for name in auxiliary:
        if not (q[name]["infer"].get("is_auxiliary") and has_images):
            raise InvalidInput(
                name,
                got="a site of the guide that the model does not have",
                expected="the model's latent sites, or an auxiliary site of which a latent is the "
                "image",
                fix="give both sites one name, or sample the latent from "
                "Delta(f(auxiliary), log_density=...)",
            )
    for name in sorted(p.keys() - q.keys()):
        raise InvalidInput(
            name,
            got="a latent site of the model that the guide does not have",
            expected="a guide for every latent",
            fix="sample it in the guide, or, if it is discrete, have the model sum over it: "
            'infer={"enumerate": "parallel"}; if it is to be observed, give the model its value: '
            "pv.Program(model, guide, arguments=lambda x, context: (x, x))",
        )
    for name in shared if scored and not auxiliary else ():
        is_point = is_point_mass(q[name]["fn"])
        if is_point and not stated_support(p[name]["fn"]).is_discrete:
            raise NoBound(
                name,
                got="a Delta guide on a continuous latent",
                expected="a guide with a density",
                fix="it has neither an ELBO nor a log p(x): report the loss and the "
                "reconstruction, or use a posterior with spread such as DiagonalNormal",
            )


def check_density(guide: Trace, model: Trace) -> None:
    """Raise `InvalidInput` if a guide has no density at latents that it has not drawn.

    With sites that the model lacks it is an integral over them.
    """
    sites = latent_sites(guide)
    extra = sites.keys() - latent_sites(model).keys()
    if extra:
        raise InvalidInput(
            min(extra),
            got="an auxiliary site of the guide",
            expected="a guide whose density at z is known",
            fix="use a guide without auxiliary sites, or start annealing from the prior",
        )
    for name, site in sites.items():
        if is_one_way(site["fn"], site["value"]):
            raise InvalidInput(
                name,
                got="a flow without an inverse in the guide, which has a density at its own draws",
                expected="a guide whose density at z is known",
                fix="use a flow with an inverse, such as affine_coupling, or score the guide's own "
                "draws: log_likelihood without proposal=, annealing from the prior",
            )


def check_whole(model: Trace, guide: Trace) -> None:
    for frame in subsampled(model, guide):
        raise InvalidInput(
            f"plate {frame.name!r}",
            got=f"{frame.size} of {frame.full_size} entries inside the data plate",
            expected="all of them in a score, and in a bound made of log-weights",
            fix="pass subsample_size only while training (self.training), with ELBO",
        )


def subsampled(*traces: Trace) -> Iterator[CondIndepStackFrame]:
    """The plates inside the data plate that are run with some of their entries only."""
    for trace in traces:
        for site in sites_of(trace).values():
            for frame in site["cond_indep_stack"]:
                is_inner = frame.full_size is not None and frame.name != "data"
                if is_inner and frame.size != frame.full_size:
                    yield frame


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The sites of a trace that were drawn, in the order in which they were."""
    return {name: site for name, site in sites_of(trace).items() if not site["is_observed"]}
