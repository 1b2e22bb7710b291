r"""Joint draws of global and local latents: from the guide, or by NUTS.

One draw is a :math:`\theta_s` and, given it, a :math:`z_{sn}` for each of the N data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyro.infer
import torch
from torch import Tensor

from pyro_vae.diagnostics.samplers import NUTS, FromGuide, Sampler, in_double
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values, frozen, to_real
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.validation import InvalidInput

__all__ = ["JointDraw", "JointDraws", "draw_jointly"]

INDEPENDENT = (
    "Independent draws of q(theta) q(z | x, theta): R-hat, ESS, MCSE and autocorrelation are those "
    "of perfect chains whatever q is. Group diagnostics (ess, pareto_k) says how near q(theta) is "
    "to p(theta | these data)."
)

CHAINS = (
    "Markov chains of global and local latents together, given these data: R-hat, ESS and MCSE "
    "mean what they usually do."
)


@dataclass(frozen=True)
class JointDraw:
    """One draw of all latents.

    Args:
        globals: the global ones, of their own shapes.
        local: the local ones, of the shapes that they have under a plate of one draw.
    """

    globals: Values
    local: Values


@dataclass(frozen=True)
class JointDraws:
    """Draws of all latents of N data.

    Args:
        draws: S of them, one chain after the other.
        note: what ArviZ's diagnostics say about them.
        chains: Markov chains that they come from; 0 for independent draws.
        log_q: log q(theta) (S,) of independent draws.
        diverging: whether the step to each draw of a chain diverged (S,).
    """

    draws: list[JointDraw]
    note: str
    chains: int = 0
    log_q: Tensor | None = None
    diverging: Tensor | None = field(default=None)


def draw_jointly(given: Conditioned, num_samples: int, sampler: Sampler, seed: int) -> JointDraws:
    """Draw global and local latents of data together.

    Raises:
        InvalidInput: for a sampler that draws each datum's latents by themselves.
    """
    if isinstance(sampler, FromGuide):
        draws, log_q = [], []
        for drawn in given.globals(num_samples, seed):
            at = given.at(drawn.values)
            draws.append(JointDraw(drawn.values, at.draw(at.guide, 1)))
            log_q.append(drawn.log_q)
        return JointDraws(draws, INDEPENDENT, log_q=torch.cat(log_q))
    if isinstance(sampler, NUTS):
        return _chains(given, num_samples, sampler)
    raise InvalidInput(
        "sampler",
        got=f"{type(sampler).__name__}, which draws the latents of each datum by themselves",
        expected="FromGuide or NUTS for a program with global latents",
        fix="pass sampler=FromGuide(), or take one draw of the global latents by pv.at_globals",
    )


def _chains(given: Conditioned, num_samples: int, settings: NUTS) -> JointDraws:
    """NUTS on the joint posterior of all latents given the data, in double precision."""
    per_chain = settings.steps_of_chains(num_samples)
    double, paths, diverging = in_double(given), [], []
    bar = progress_bar(
        "NUTS",
        total=(settings.warmup + per_chain) * settings.num_chains,
        shown=settings.progress,
    )
    with bar as advance, frozen(double.program):
        for _ in range(settings.num_chains):
            start = _start(double, settings)
            chain = pyro.infer.MCMC(
                pyro.infer.NUTS(
                    double.program.model,
                    target_accept_prob=settings.target_acceptance,
                    max_tree_depth=settings.max_tree_depth,
                ),
                per_chain,
                settings.warmup,
                initial_params=start,
                disable_progbar=True,
                hook_fn=lambda *_: advance(1),
            )
            chain.run(*double.args)
            paths.append(chain.get_samples())
            diverged = torch.zeros(per_chain, dtype=torch.bool)
            diverged[chain.diagnostics()["divergences"]["chain 0"]] = True
            diverging.append(diverged)
    return JointDraws(
        [draw for path in paths for draw in _split(path, given)],
        CHAINS,
        settings.num_chains,
        diverging=torch.cat(diverging),
    )


def _start(given: Conditioned, settings: NUTS) -> Values:
    """A chain's starting point, on the real line."""
    with torch.no_grad():
        _, model = given.traces() if settings.start == "guide" else (None, given.prior())
    sites = latent_sites(model).items()
    return {name: to_real(name, site["fn"]).inv(site["value"]) for name, site in sites}


def _split(path: Values, given: Conditioned) -> Iterator[JointDraw]:
    """The draws of a chain one by one, in the program's own precision and shapes."""
    (first,) = given.globals(1, seed=0)
    at = given.at(first.values)
    shapes = {name: value.shape for name, value in at.draw(at.model, 1).items()}
    for number in range(len(next(iter(path.values())))):
        one = {name: value[number].to(given.dtype) for name, value in path.items()}
        yield JointDraw(
            {name: value for name, value in one.items() if name not in shapes},
            {name: value.reshape(shapes[name]) for name, value in one.items() if name in shapes},
        )
