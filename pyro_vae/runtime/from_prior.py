"""A program without data: its latents and its data drawn from the model, or latents given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from pyro import poutine, validation_enabled
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.contracts import (
    ProgramLike,
    StochasticFunction,
    SumsLatents,
    Tensors,
    Trace,
    joint_of,
    sites_of,
)
from pyro_vae.programs import AtGlobals
from pyro_vae.programs.handlers import Hidden
from pyro_vae.runtime.environment import evaluating, reference_parameter
from pyro_vae.runtime.independence import MOST_DATA, Look, check_independence
from pyro_vae.runtime.latent_pairs import is_local, latent_sites
from pyro_vae.runtime.noise import has_own_noise
from pyro_vae.runtime.observed import AnyDraws, GivenData, Unconditioned, observed_data
from pyro_vae.runtime.summed import drawn_states
from pyro_vae.runtime.temperature import Tempered
from pyro_vae.runtime.traces import paired_traces, plates_of
from pyro_vae.validation import InvalidInput, count_of, rows_of, tensors_of

__all__ = ["at_posterior", "check_decoding", "empty_data", "prior_predictive", "states_given"]


def check_decoding(program: ProgramLike, context: Tensors | None) -> None:
    """Raise `InvalidInput` if what a program makes of a datum's latents depends on other data.

    It is the look that is taken before scoring, at data of the model's own: latents are drawn from
    the prior, and what is compared is log p(x | z).

    Args:
        program: a program of local latents.
        context: the context of some of what is to be made.
    """
    like = reference_parameter(program)
    with evaluating(program, 0), validation_enabled(False), AnyDraws(like):
        num = None if context is None else count_of(context)
        given = rows_of(context, [i % (num or 1) for i in range(MOST_DATA)])
        x = observed_data(prior_predictive(program, MOST_DATA, given), program.event_shape)
        prior = _prior_of(program)
        plates = plates_of(*paired_traces(program.model, prior, x, given), scored=False)
        look = Look(program, prior, x, given, replace(plates, one_draw=True))
        noise = has_own_noise(prior, like.device, x, given)
        check_independence(look, has_noise=noise, drawn=look.run(list(range(MOST_DATA))))


def _prior_of(program: ProgramLike) -> StochasticFunction:
    """A program's model as a guide: the latents alone, each drawn from the prior."""
    return poutine.block(joint_of(program), hide_fn=lambda site: site["is_observed"])


def at_posterior(program: ProgramLike, context: Tensors | None, seed: int) -> ProgramLike:
    """The program at a draw of its global latents from the guide; itself if it has none."""
    with evaluating(program, seed), AnyDraws(reference_parameter(program)):
        model = prune_subsample_sites(prior_predictive(program, 1, context))
        outside = [name for name, site in sites_of(model).items() if not is_local(site)]
        if not outside:
            return program
        guide = poutine.trace(program.guide).get_trace(empty_data(program, 1), context)
        drawn = latent_sites(prune_subsample_sites(guide)).items()
        values = {name: site["value"] for name, site in drawn if not is_local(site)}
        return AtGlobals(program, values, outside)


def states_given(
    program: ProgramLike,
    latents: Mapping[str, Tensor],
    num: int,
    context: Tensors | None,
    depth: int,
) -> dict[str, Tensor]:
    """Draws from p(y | z) of the latents y that a model sums over, given its other latents z.

    Args:
        program: any program.
        latents: z of ``num`` data by name; a y among them stays as it is.
        num: how many data.
        context: their context.
        depth: how many dimensions the plates take.
    """
    summed = program.summed if isinstance(program, SumsLatents) else ()
    names = [name for name in summed if name not in latents]
    if not names:
        return {}
    empty = empty_data(program, num)
    model = poutine.condition(Unconditioned(tensors_of(empty))(joint_of(program)), dict(latents))
    alone = Hidden(lambda site: "obs" in site["infer"])(model)  # x, which Unconditioned has marked
    return drawn_states(alone, (empty, context), names, -depth - 1)


def prior_predictive(
    program: ProgramLike,
    num: int,
    context: Tensors | None = None,
    latents: Mapping[str, Tensor] | None = None,
    temperature: float = 1.0,
    like: Tensors | None = None,
) -> Trace:
    """A trace of the unconditioned model at ``num`` empty events, its latents drawn or given.

    Of ``like`` each datum fixes what it has that is not modelled, such as a total.
    """
    empty, joint = empty_data(program, num) if like is None else like, joint_of(program)
    if temperature != 1.0:
        joint = Tempered(temperature)(joint)
    drawn = Unconditioned(tensors_of(empty))(joint)
    model = poutine.condition(drawn, data=dict(latents or {}))
    try:
        with nullcontext() if like is None else GivenData():
            return poutine.trace(model).get_trace(empty, context)
    except InvalidInput:
        raise
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(
            "model",
            got=f"one that cannot run at empty events ({str(error).splitlines()[0]})",
            expected="a model that reads nothing off x but the number of data",
            fix="give it what it reads, such as a total, by a context: model(x, context)",
        ) from error


def empty_data(program: ProgramLike, num: int) -> Tensors:
    """So many empty events."""
    shape = program.event_shape
    if shape is None:
        raise InvalidInput(
            "event_shape",
            got="none",
            expected="the shape of one datum",
            fix="pass event_shape= to Program, or run it on data first",
        )
    reference = next(program.parameters(), torch.empty(()))
    if isinstance(shape, dict):
        return {name: reference.new_zeros(num, *part) for name, part in shape.items()}
    return reference.new_zeros(num, *shape)
