"""Given latents decoded: what a program makes of them, under any context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from pyro import validation_enabled
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.contracts import ProgramLike, SumsLatents, Tensors, Trace, sites_of
from pyro_vae.distributions import stated_support
from pyro_vae.programs import as_program
from pyro_vae.programs.contexts import check_context
from pyro_vae.runtime.blocks import Places
from pyro_vae.runtime.contexts import Context, context_for_each
from pyro_vae.runtime.environment import evaluating, like_parameters, reference_parameter
from pyro_vae.runtime.from_prior import at_posterior, check_decoding, prior_predictive, states_given
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.observed import AnyDraws, like_parts, observed_parts, parts_of
from pyro_vae.runtime.predictive import (
    Sites,
    data_dim,
    in_blocks,
    shown_value,
)
from pyro_vae.validation import InvalidInput, rows_of, tensors_of

__all__ = ["decode"]


@in_fixed_blocks
def decode(
    program: ProgramLike,
    z: Tensors,
    context: Context = None,
    *,
    draws: bool = False,
    seed: int = 0,
) -> Tensors:
    r"""Decode given latents: the mean of p(x | z, c), or draws from it.

    "As if from another batch" is this of the latents of one context under another::

        z = pv.encode(program, data)["z"]
        other = pv.decode(program, z, context={**context, "batch": torch.zeros(len(z))})

    Args:
        program: any program whose event shape is known.
        z: latents (N, \*latent) or (K, N, \*latent); for several latent sites a dictionary of them
            by name, as `encode` gives it. Those that the model sums over may be left out: they are
            drawn from p(y | z), which ``seed`` decides.
        context: one label or vector of covariates for all, or one for each (N, ...); or a
            dictionary of such, with the known quantities that the likelihood takes. A vector of N
            numbers is one for each, unless the program takes N features of each.
        draws: draws of x; by default the mean of p(x | z), or what `generate` shows without one.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        x of shape (N, \*event) or (K, N, \*event); a dictionary of such where there are several
        observed sites.

    Raises:
        InvalidInput: on latents of another shape or name, a context that is missing, or a discrete
            latent that the context rules out, as a label y under another label.

    Example:
        >>> pv.decode(vae, torch.zeros(3, 2)).shape
        torch.Size([3, 1, 8, 8])
    """
    program = as_program(program)
    counts = next(iter(tensors_of(z).values())).shape[:2]  # N, or K and N, are among them
    program, trace = _trace_of_one(program, context, counts, seed)
    parts = parts_of(program.event_shape)
    drawn = latent_sites(trace).items()
    sites = {name: site for name, site in drawn if "obs" not in site["infer"]}  # but x
    summed = program.summed if isinstance(program, SumsLatents) else ()
    needed = [name for name in sites if name not in summed]
    values: dict[str, Tensor] = z if isinstance(z, dict) else dict.fromkeys(needed[:1], z)
    if not set(needed) <= values.keys() <= sites.keys():
        raise InvalidInput(
            "z",
            got=f"latents of {', '.join(z)}" if isinstance(z, dict) else "a tensor",
            expected=f"a dictionary of {', '.join(needed)}",
            fix="pass the latents by name, as pv.encode gives them",
        )
    first = next(iter(values))
    leading = values[first].dim() - sites[first]["value"].dim()
    rows: dict[str, Tensor] = {}
    for name, site_value in values.items():
        value = like_parameters(program, site_value)
        shape = sites[name]["value"].movedim(data_dim(sites[name]), 0).shape[1:]
        if value.dim() != len(shape) + 1 + leading or leading not in (0, 1):
            raise _other_shape(name, value, shape)
        moved = value.movedim(data_dim(sites[name]), leading)
        if moved.shape[leading + 1 :] != shape:
            raise _other_shape(name, value, shape)
        lead = moved.shape[: leading + 1]
        rows[name] = moved.reshape(-1, *shape)
    num, total = lead[-1], lead.numel()
    given = context_for_each(program, context, num)
    check_context(program, num, given)
    spread = rows_of(given, torch.arange(total) % num)

    depth = max(-f.dim for site in sites.values() for f in site["cond_indep_stack"] if f.dim)

    def run(few: Places, seed: int) -> Sites:
        at = {name: row[few].movedim(0, data_dim(sites[name])) for name, row in rows.items()}
        part = rows_of(spread, few)
        at |= states_given(program, at, len(few), part, depth)
        trace = prior_predictive(program, len(few), part, at)
        if part is not None:
            _check_states(trace, values)
        return observed_parts(trace, parts)

    made = in_blocks(program, run, partial(shown_value, draws=draws), total, seed)
    return like_parts({name: x.reshape(*lead, *x.shape[1:]) for name, x in made.items()}, parts)


def _trace_of_one(
    program: ProgramLike, context: Context, counts: Sequence[int], seed: int
) -> tuple[ProgramLike, Trace]:
    """The program with its global latents, and a trace of one datum of so many, or of so many."""
    entries = context.values() if isinstance(context, Mapping) else [context]
    tensors = [torch.as_tensor(entry) for entry in entries if entry is not None]
    lengths = {len(entry) for entry in tensors if entry.dim()}
    errors: list[Exception] = []
    # The number that the context has entries of comes first.
    for num in sorted(counts, key=lambda count: count not in lengths):
        try:
            given = context_for_each(program, context, num)
            check_context(program, num, given)
            one = rows_of(given, slice(0, 1))
            fixed = at_posterior(program, one, seed)
            check_decoding(fixed, one)
            with (
                evaluating(fixed, seed),
                validation_enabled(False),
                AnyDraws(reference_parameter(fixed)),
            ):
                return fixed, prune_subsample_sites(prior_predictive(fixed, 1, one))
        except (InvalidInput, RuntimeError) as error:
            errors.append(error)
    raise errors[0]


def _check_states(trace: Trace, names: Iterable[str]) -> None:
    """Raise `InvalidInput` where the model gives a discrete latent no probability."""
    for name in names:
        fn, value = sites_of(trace)[name]["fn"], sites_of(trace)[name]["value"]
        support = stated_support(fn)
        is_state = support.is_discrete and support.check(value).all()  # and not a mean of states
        if is_state and (fn.log_prob(value) == -torch.inf).any():
            raise InvalidInput(
                f"z[{name!r}]",
                got="a value that the model rules out, given this context",
                expected="one that it allows",
                fix=f"pass {name} and the context of one datum, or change both",
            )


def _other_shape(name: str, value: Tensor, shape: torch.Size) -> InvalidInput:
    words = ", ".join(map(str, shape))
    return InvalidInput(
        f"z[{name!r}]",
        got=f"shape {tuple(value.shape)}",
        expected=f"(N, {words}) or (K, N, {words})",
        fix="pass latents as pv.encode gives them",
    )
