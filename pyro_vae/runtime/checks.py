"""Check data against a program before it is trained or scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from pyro import validation_enabled
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from pyro_vae.contracts import (
    EventShape,
    Preparable,
    ProgramLike,
    Site,
    TakesMissingParts,
    Tensors,
    Trace,
    known_by,
    sites_of,
)
from pyro_vae.datasets.dataset import Data, Dataset, as_dataset
from pyro_vae.datasets.facts import PartFacts, check_facts
from pyro_vae.datasets.on_disk import OnDisk, blocks_of
from pyro_vae.datasets.units import OF_X
from pyro_vae.distributions import (
    Unstated,
    is_interval,
    is_point_mass,
    is_same_support,
    is_thin,
    measure_of,
    points_of,
    stated_support,
    words_of,
)
from pyro_vae.programs.contexts import check_context
from pyro_vae.runtime.environment import (
    evaluating,
    isolated_random,
    like_parameters,
    reference_parameter,
)
from pyro_vae.runtime.extremes import check_extremes
from pyro_vae.runtime.fitting import check_support, partners
from pyro_vae.runtime.latent_pairs import is_local, latent_sites
from pyro_vae.runtime.memory import is_out_of_memory
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.validation import (
    InvalidInput,
    check_event_shape,
    check_finite,
    rows_of,
    tensors_of,
)

__all__ = ["check_data", "checked_data", "inside_supports", "support_of", "traces_at"]


def checked_data(program: ProgramLike, data: Data) -> tuple[Tensors, Tensors | None]:
    """Check data, and put them on the program's device as tensors (x, context) of its dtype."""
    dataset = as_dataset(data)
    check_data(program, dataset)
    return like_parameters(program, dataset.x), like_parameters(program, dataset.context)


def check_data(program: ProgramLike, data: Dataset) -> None:
    """Raise `InvalidInput` on data of a wrong shape, value, context or support."""
    x, context = data.looked_at, data.context
    if program.event_shape is not None:
        check_event_shape(x, _shape_of_parts(program.event_shape, program, x))
    facts = {} if data.in_one_piece else data.facts.parts
    if facts:
        check_facts(facts, data.missing)
    else:
        check_finite("x", x, missing=data.missing)
    check_context(program, len(data), context, x)
    _check_units(program, data)
    if isinstance(program, Preparable):
        few = slice(0, 3)
        with _explaining(program):
            program.prepare(
                like_parameters(program, rows_of(x, few)),
                like_parameters(program, rows_of(context, few)),
            )
    guide, model = traces_at(program, x, context)
    for name in tensors_of(x):
        site = sites_of(model).get(name or "x")
        if site is not None and not (name in facts and _telling_inside(x, name, facts, site)):
            _check_support(program, (x, context), name, site, data)
    check_extremes(program, x, context, partial(traces_at, program, x, context), facts)
    with _explaining(program):
        check_latent_supports(guide, model)


def _check_units(program: ProgramLike, data: Dataset) -> None:
    """Raise `InvalidInput` on a known quantity in the units that x had before it was rescaled."""
    for name, quantity in known_by(program).items():
        if quantity.has_units and name in data.in_old_units:
            raise InvalidInput(
                f"context[{name!r}]",
                got="numbers as they were read, for x in other units (standardize, scale)",
                expected=f"a quantity in the units of x, which is known of {', '.join(OF_X)}",
                fix="convert it, data.with_context({...}), or say Quantity(..., has_units=False)",
            )


def _check_support(
    program: ProgramLike,
    args: tuple[Tensors, Tensors | None],
    name: str,
    site: Site,
    data: Dataset,
) -> None:
    """Check a part of x against its density at the first datum, and what lies outside at its own.

    A support may depend on the data, as the total of a multinomial does. Where it depends on the
    latents, data outside of it at one draw may be inside at another: then the scores tell.
    """
    part, device = tensors_of(args[0])[name], reference_parameter(program).device
    columns = data.columns.names if data.columns is not None else None
    refuse = partial(
        check_support,
        names=columns,
        is_text=data.vocabulary is not None,
        argument=f"x[{name!r}]" if name else "x",
    )
    support, shape = stated_support(site["fn"]), site["value"].shape[1:]
    for few, values in blocks_of(part):
        values = values.to(device)
        if shape.numel() == values[0].numel():  # as a pair observes x
            values = values.reshape(len(values), *shape)
        inside = support.check(values).reshape(len(values), -1).all(1)
        if inside.all():
            continue
        rows = (~inside).nonzero().flatten().cpu()

        def at_draw(seed: int, chosen: Tensor = rows + few.start) -> Site:
            outside = rows_of(args[0], chosen), rows_of(args[1], chosen)
            return sites_of(_traces_at(program, *outside, seed)[1])[name or "x"]

        # Of the values that the model observes: it may mask what is missing, and fill that in.
        site = at_draw(0)
        own = stated_support(site["fn"])
        if not own.check(site["value"]).all() and all(
            is_same_support(own, stated_support(at_draw(seed)["fn"])) for seed in (1, 2, 3)
        ):
            if isinstance(part, OnDisk):
                refuse(values, support, start=few.start)
            whole = part.to(device)  # in memory: all of them are counted
            shaped = values.shape[1:]
            refuse(whole.reshape(len(part), *shaped), support)


def _telling_inside(x: Tensors, name: str, facts: Mapping[str, PartFacts], site: Site) -> bool:
    """Whether the data that tell of all others lie inside the support.

    They tell of them if it is one interval for all entries, of numbers or of whole numbers.
    """
    support, places = stated_support(site["fn"]), facts[name].telling
    if not is_interval(support) or not places:
        return False
    few = tensors_of(x)[name][places].to(site["value"].device)
    shape = site["value"].shape[1:]
    few = few.reshape(len(few), *shape) if shape.numel() == few[0].numel() else few
    return bool(support.check(few).all())


def _shape_of_parts(shape: EventShape, program: ProgramLike, x: Tensors) -> EventShape:
    """The shape of a datum, without the parts that x may lack."""
    if isinstance(shape, dict) and isinstance(x, dict) and isinstance(program, TakesMissingParts):
        present = {name: part for name, part in shape.items() if name in x}
        return present if present.keys() == x.keys() and present else shape
    return shape


def check_latent_supports(guide: Trace, model: Trace) -> None:
    """Raise `InvalidInput` if the guide draws a latent where the prior has no density for it."""
    with torch.no_grad(), isolated_random(torch.device("cpu"), seed=0):
        in_guide, in_model = latent_sites(guide), latent_sites(model)
        has_sources = any(site["infer"].get("is_auxiliary") for site in in_guide.values())
        for name in in_guide.keys() & in_model.keys():
            _check_latent_support(name, in_guide[name], in_model[name]["fn"], has_sources)


def _check_latent_support(name: str, site: Site, p: TorchDistribution, has_sources: bool) -> None:
    q = site["fn"]
    if q.event_shape != p.event_shape:
        got = f"a posterior over {tuple(q.event_shape)} under a prior over {tuple(p.event_shape)}"
        raise InvalidInput(
            name,
            got=got,
            expected="the same latent shape for both",
            fix="give both the same latent",
        )
    q_support, p_support = stated_support(q), stated_support(p)
    are_known = not (isinstance(q_support, Unstated) or isinstance(p_support, Unstated))
    is_other = are_known and measure_of(q_support) != measure_of(p_support)
    if is_other and not is_point_mass(q):
        raise InvalidInput(
            name,
            got=f"a posterior with a density over {measure_of(q_support)} under a prior with one "
            f"over {measure_of(p_support)}",
            expected="a posterior on the same set as the prior, for the ratio of their densities",
            fix=partners(q_support, p_support),
        )
    # A point mass has no density to compare, but a place: nowhere near a thin set by chance. The
    # image of an auxiliary site is where the function takes it, not anywhere on the line.
    # So is a global latent's point, which follows from no data.
    is_placed = is_point_mass(q) and (has_sources or is_thin(p_support) or not is_local(site))
    points = site["value"] if is_placed else points_of(q)
    if not p_support.check(points).all():
        raise InvalidInput(
            name,
            got=f"a posterior on {words_of(q_support)} under a prior on {words_of(p_support)}, "
            "which gives some of its draws no density",
            expected="a posterior whose support lies inside the prior's",
            fix=partners(q_support, p_support),
        )


def support_of(program: ProgramLike, x: Tensors, context: Tensors | None) -> Constraint | None:
    """The support of p(x | z) at the first datum; ``None`` without a site ``"x"``."""
    site = sites_of(traces_at(program, x, context)[1]).get("x")
    return None if site is None else site["fn"].support


def traces_at(
    program: ProgramLike, x: Tensors, context: Tensors | None, place: int = 0
) -> tuple[Trace, Trace]:
    """Traces of guide and model at one datum."""
    few = slice(place, place + 1)
    return _traces_at(program, rows_of(x, few), rows_of(context, few))


def _traces_at(
    program: ProgramLike, x: Tensors, context: Tensors | None, seed: int = 0
) -> tuple[Trace, Trace]:
    with evaluating(program, seed), validation_enabled(False), _explaining(program):
        return importance_traces(
            program, like_parameters(program, x), like_parameters(program, context)
        )


AS_INDEX = re.compile(
    r"argument #1 'indices'|one_hot is only applicable to index|used as indices must be long"
    r"|dtype (int64|int32/int64|int32 or int64) for index",
)
OUTSIDE_OF_PLATE = r"Shape mismatch inside plate\('(.+)'\) at site (.+) dim (-\d+), (\d+) vs (\d+)"


@contextmanager
def _explaining(program: ProgramLike) -> Iterator[None]:
    """Turn what torch and Pyro raise on parts that do not fit into one line."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if "more than 1 value per channel" in str(error):
            raise InvalidInput(
                "program",
                got="a BatchNorm that uses the statistics of its batch in evaluation mode"
                + "".join(f", module {name!r}" for name in _without_statistics(program)[:1]),
                expected="a score of each datum that is its own",
                fix="keep running statistics (track_running_stats=True), or use LayerNorm; if it "
                "keeps them, pass its module in pv.Program(model, guide, modules=[...])",
            ) from error
        # Pyro adds a table of shapes below any error's first line.
        first = (str(error).splitlines() or [""])[0]
        if AS_INDEX.search(first) and not isinstance(error, InvalidInput):
            raise InvalidInput(
                "program",
                got=f"numbers with a decimal point as an index ({first})",
                expected="x.long() where it is an index: whole numbers come as torch's default "
                "numbers, like all data",
                fix="pass pv.Program(model, guide, arguments=lambda x, context: (x.long(),))",
            ) from error
        if "dtype" in first and not isinstance(error, InvalidInput):
            raise InvalidInput(
                "program",
                got=f"parts of different dtypes ({first})",
                expected="one dtype in all parts",
                fix="convert the program, program.double(), or build its tensors from its inputs, "
                "as z.new_zeros does",
            ) from error
        if "expects all elements of std >= 0" in first:
            raise InvalidInput(
                "program",
                got="a normal density whose scale is NaN or negative for a datum by itself",
                expected="scales above zero",
                fix="check the parameters, and that no module takes a statistic over the data, "
                "such as std(0)",
            ) from error
        if outside := re.search(OUTSIDE_OF_PLATE, first):
            plate, site, dim, size, found = outside.groups()
            raise InvalidInput(
                site,
                got=f"a density of {found} along dimension {dim}, where plate {plate!r} has {size}",
                expected="the data along the plate, and what one datum has to the right of it",
                fix=f"add .to_event(1) to the density of a vector, or write len(x) for {found} if "
                "that is a number of data; of parts, check latent, in_shape and context=",
            ) from error
        is_of_shapes = re.search("shape|size|broadcast", first, re.IGNORECASE)
        if isinstance(error, InvalidInput) or is_out_of_memory(error) or not is_of_shapes:
            raise
        raise InvalidInput(
            "program",
            got=f"parts that do not fit one another or x ({first})",
            expected="networks built for the shapes of x, latent and context that they get",
            fix="check latent, in_shape and context= of each part, and that a density's event "
            "shape is the latent's (Independent)",
        ) from error


def _without_statistics(program: ProgramLike) -> list[str]:
    """The names of the BatchNorms of a program that keep no running statistics."""
    return [
        name
        for name, module in program.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]


@contextmanager
def inside_supports() -> Iterator[None]:
    """Raise `InvalidInput` if some draws of the latents give a datum no density.

    A bound is -inf there, or its gradient lacks how the ends of the support move.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, InvalidInput) or "to be within the support" not in str(error):
            raise
        site = re.search("at site '(.*)'", str(error))
        raise InvalidInput(
            site[1] if site else "x",
            got="values outside of the support that some draws of the latents give their density",
            expected="a density at every draw of the guide",
            fix="choose a likelihood whose support does not depend on the latents, or a guide that "
            "stays where the density is",
        ) from error
