"""Draws from a program: new data from the prior, latents and reconstructions of given data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Site, Tensors, Trace
from pyro_vae.datasets.dataset import Data, Dataset, as_dataset
from pyro_vae.distributions import representative_of
from pyro_vae.programs import as_program
from pyro_vae.programs.contexts import check_context
from pyro_vae.runtime.blocks import Blocks, Places, with_noise_of
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.contexts import Context, context_for_each
from pyro_vae.runtime.environment import evaluating, like_parameters, reference_parameter
from pyro_vae.runtime.from_prior import (
    at_posterior,
    check_decoding,
    empty_data,
    prior_predictive,
)
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.memory import enough_memory, in_fixed_blocks
from pyro_vae.runtime.observed import (
    GivenData,
    Unconditioned,
    like_parts,
    observed_parts,
    parts_of,
)
from pyro_vae.runtime.summed import with_drawn
from pyro_vae.validation import (
    InvalidInput,
    check_count,
    check_positive,
    count_of,
    rows_of,
    tensors_of,
)

__all__ = [
    "Sites",
    "data_dim",
    "encode",
    "generate",
    "in_blocks",
    "posterior_predictive",
    "reconstruct",
    "representatives",
    "shown_value",
]

Sites = Mapping[str, Site]


@in_fixed_blocks
def generate(
    program: ProgramLike,
    num: int = 1,
    *,
    context: Context = None,
    given: dict[str, Tensor] | None = None,
    draws: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensors:
    r"""Generate new data: run the unconditioned model at ``num`` empty events.

    With ``given``, the other parts of x are generated from some: :math:`x_a \sim p(x_a \mid z), z
    \sim q(z \mid x_b)`. They are as good as q is.

    Global latents are drawn from the guide, not from their prior, and once for all: new data are
    draws of the posterior predictive, and each seed has its own world.

    Args:
        program: any program whose event shape is known.
        num: how many.
        context: one label or vector of covariates for all, or one for each (num, ...); or a
            dictionary of such, with the known quantities that the likelihood takes. A vector of
            ``num`` numbers is one for each, unless the program takes that many features of each.
        given: parts of x by name (num, \*event), or one datum (1, \*event) for all.
        draws: draws of x; by default the mean of p(x | z) for each draw of z, which is what papers
            show; the most likely value where x has none, as sentences and categories; a draw where
            neither is known, as of pixels that depend on one another.
        temperature: what the scales of the prior's normals are multiplied by, at every level; below
            1 new data are more typical and less varied.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        x of shape (num, \*event); a dictionary of such where there are several observed sites.

    Raises:
        InvalidInput: on num < 1, a context that is missing, out of range or of another length,
            given parts that the program does not have, or cannot do without others, or a
            temperature for latents that are neither normal nor mixtures of normals.

    Example:
        >>> pv.generate(vae, 64).shape
        torch.Size([64, 1, 8, 8])
    """
    check_count("num", num)
    check_positive("temperature", temperature)
    if given is not None and temperature != 1.0:
        raise InvalidInput(
            "temperature",
            got=f"{temperature} with given parts",
            expected="1, for latents that are drawn from the guide",
            fix="leave temperature out, or given",
        )
    program = as_program(program)
    num = num if given is None else max(num, count_of(given))
    labels = context_for_each(program, context, num)
    check_context(program, num, labels)
    shape = program.event_shape
    with enough_memory("what is generated", "lower num (--num)"):
        for part in shape.values() if isinstance(shape, dict) else [shape or ()]:
            torch.empty(num, *part)  # none of it is touched
    program = at_posterior(program, rows_of(labels, slice(0, 1)), seed)
    parts = [name for name in parts_of(shape) if not given or name not in given]
    if given is None:
        check_decoding(program, labels)

        def run(rows: Places, seed: int) -> Sites:
            trace = prior_predictive(program, len(rows), rows_of(labels, rows), None, temperature)
            return observed_parts(trace, parts)

    else:
        some = _given_parts(program, given, labels, num, seed)

        def run(rows: Places, seed: int) -> Sites:
            return observed_parts(_completed(with_noise_of(some[rows], seed)), parts)

    value = partial(shown_value, draws=draws)
    return like_parts(in_blocks(program, run, value, num, seed), parts)


@in_fixed_blocks
def reconstruct(
    program: ProgramLike,
    data: Data,
    *,
    draws: bool = False,
    seed: int = 0,
) -> Tensors:
    r"""Reconstruct data: E[x | z] at one draw z ~ q(z | x).

    Where x has no mean, as sentences and categories, it is the mode of p(x | z), or a draw where
    neither is known.

    Data with missing entries are completed instead: what was observed stays, and each missing entry
    becomes a draw of x,
    :math:`x_\mathrm{mis} \sim p(x_\mathrm{mis} \mid z), z \sim q(z \mid x_\mathrm{obs})`. Several
    seeds give several completions (multiple imputation); they are as good as q is.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        draws: draws of x instead of means; missing entries are always draws.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        x of shape (N, \*event), or a dictionary as the data are.

    Raises:
        InvalidInput: on unusable data.

    Example:
        >>> pv.reconstruct(vae, torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 1, 8, 8])
    """
    program, data = as_program(program), as_dataset(data)
    made = representatives(program, data, draws=draws or data.missing, seed=seed)
    if data.missing:
        for name, seen in tensors_of(like_parameters(program, data.x)).items():
            made[name or "x"] = torch.where(torch.isnan(seen), made[name or "x"], seen)
    return like_parts(made, list(tensors_of(data.x)))


@in_fixed_blocks
def representatives(
    program: ProgramLike, data: Dataset, *, draws: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """E[x | z] at one draw z ~ q(z | x), or a draw, by part of x; also of what was observed."""
    program = as_program(program)
    with evaluating(program, seed):
        args = checked_data(program, data)
        given = Conditioned.of(program, *args, scored=False, globals_seed=seed)

    def run(rows: Places, seed: int) -> Sites:
        return observed_parts(posterior_predictive(with_noise_of(given[rows], seed)), x)

    x = tensors_of(given.x)
    return in_blocks(program, run, partial(shown_value, draws=draws), len(given), seed)


@in_fixed_blocks
def encode(
    program: ProgramLike,
    data: Data,
    *,
    draws: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Encode data: the mean of q(z | x), or a draw from it, for each datum.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        draws: draws instead of means; a guide whose density has no mean in closed form gives draws
            only.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        For each latent site its values (N, \*latent).

    Raises:
        InvalidInput: on unusable data, or means that do not exist.

    Example:
        >>> pv.encode(vae, torch.zeros(3, 1, 8, 8))["z"].shape
        torch.Size([3, 2])
    """
    program = as_program(program)
    with evaluating(program, seed):
        args = checked_data(program, data)
        given = Conditioned.of(program, *args, scored=False, globals_seed=seed)

    def run(rows: Places, seed: int) -> Sites:
        return latent_sites(with_noise_of(given[rows], seed).traces()[0])

    return in_blocks(program, run, partial(shown_value, draws=draws), len(given), seed)


def in_blocks(
    program: ProgramLike,
    run: Callable[[Places, int], Sites],
    value: Callable[[Site], Tensor],
    num: int,
    seed: int,
) -> dict[str, Tensor]:
    """Collect the values of the sites that ``run`` gives for all data, a block at a time.

    A datum's draws follow from the seed and its place, as in `pyro_vae.runtime.blocks`.
    """
    device = reference_parameter(program).device
    parts: list[dict[str, Tensor]] = []
    with evaluating(program, seed):
        blocks = Blocks.of_rows(device, lambda count: run([0] * count, seed))
        for own, few in blocks.seeded(device, num, seed):
            sites, count = run(blocks.rows(few), own), few.stop - few.start
            dims = {name: data_dim(site) for name, site in sites.items()}
            parts.append(
                {name: value(sites[name]).narrow(dim, 0, count) for name, dim in dims.items()}
            )
    return {name: torch.cat([part[name] for part in parts], dim=dims[name]) for name in parts[0]}


def data_dim(site: Site) -> int:
    """The dimension of the data in a site's value, counted from the right."""
    if site["name"] == "x":
        return 0
    frames = site["cond_indep_stack"]
    plate_dim = next(f.dim for f in frames if f.name == "data" and f.dim is not None)
    return plate_dim - len(site["fn"].event_shape)


def shown_value(site: Site, draws: bool) -> Tensor:
    """A site's mean, or its draw; what represents x where x has no mean."""
    if draws:
        return site["value"]
    try:
        is_latent = "obs" not in site["infer"]
        return site["fn"].mean if is_latent else representative_of(site["fn"])
    except NotImplementedError:
        raise InvalidInput(
            "draws",
            got=f"False at site {site['name']!r}, whose density has no mean in closed form",
            expected="True",
            fix="pass draws=True (--draws)",
        ) from None


def posterior_predictive(given: Conditioned) -> Trace:
    """A trace of the unconditioned model, its latents drawn from the guide at x."""
    guide = poutine.trace(given.guide).get_trace(*given.args)
    replayed = poutine.replay(given.joint, trace=guide)
    if given.plates.summed:
        values = {name: site["value"] for name, site in latent_sites(guide).items()}
        fixed = poutine.condition(given.joint, data=values)
        first_dim = given.plates.particle_dim - 1
        replayed = with_drawn(fixed, given.args, given.plates.summed, first_dim)
    with GivenData():
        model = Unconditioned(tensors_of(given.x))(replayed)
        return poutine.trace(model).get_trace(*given.args)


def _given_parts(
    program: ProgramLike,
    given: dict[str, Tensor],
    context: Tensors | None,
    num: int,
    seed: int,
) -> Conditioned:
    """The program given some parts of ``num`` data, or of one for all of them."""
    parts = parts_of(program.event_shape)
    if not given or not set(given) < set(parts):
        raise InvalidInput(
            "given",
            got=", ".join(map(repr, given)) or "nothing",
            expected=f"some parts of x, of {', '.join(map(repr, parts))}, but not all",
            fix="pass given={'text': text} to generate the others",
        )
    if count_of(given) == 1:
        given = {name: value.expand(num, *value.shape[1:]) for name, value in given.items()}
    data = Dataset(given, context, missing=True)
    if len(data) != num:
        raise InvalidInput(
            "num",
            got=f"{num} with {len(data)} given",
            expected="one for each of the given, or several for a single one",
            fix="leave num out, or give one datum",
        )
    with evaluating(program, seed):
        return Conditioned.of(program, *checked_data(program, data), scored=False)


def _completed(given: Conditioned) -> Trace:
    """A trace of the unconditioned model with all parts of x, its latents drawn at those given."""
    guide = poutine.trace(given.guide).get_trace(*given.args)
    x = {**tensors_of(empty_data(given.program, len(given))), **tensors_of(given.x)}
    model = Unconditioned(x)(poutine.replay(given.model, trace=guide))
    return poutine.trace(model).get_trace(x, given.context)
