"""Check data against a program before it is trained or scored."""

from __future__ import annotations

import re
from typing import Any

import torch
from pyro import poutine, validation_enabled
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, Dataset, as_dataset
from pyro_vae.distributions import is_point_mass, is_thin, measure_of, points_of
from pyro_vae.runtime.environment import (
    evaluating,
    isolated_random,
    like_parameters,
    reference_parameter,
)
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.validation import (
    InvalidInput,
    check_context,
    check_event_shape,
    check_finite,
    check_support,
)

__all__ = ["check_data", "checked_data", "support_of"]


def checked_data(program: ProgramLike, data: Data) -> tuple[Tensor, Tensor | None]:
    """Data as tensors (x, context) on the program's device and of its dtype, after every check of bad input."""
    dataset = as_dataset(data)
    check_data(program, dataset)
    return like_parameters(program, dataset.x), like_parameters(program, dataset.context)


def check_data(program: ProgramLike, data: Dataset) -> None:
    """Raises `InvalidInput` on data that the program cannot score: shape, numbers, context, support."""
    x, context = data.x, data.context
    if program.event_shape is not None:
        check_event_shape(x, program.event_shape)
    check_finite("x", x, missing=data.missing)
    check_context(program, x, context)
    guide, model = _traces_at_first_datum(program, x, context)
    if "x" in model.nodes:
        site: Any = model.nodes["x"]
        check_support(x.to(reference_parameter(program).device), site["fn"].support)
    check_latent_supports(guide, model)


def check_latent_supports(guide: Any, model: Any) -> None:
    """Raises `InvalidInput` if a latent of the guide can lie where the model gives it no density of the same kind."""
    with torch.no_grad(), isolated_random(torch.device("cpu"), seed=0):
        has_sources = any(
            site["type"] == "sample" and site["infer"].get("is_auxiliary")
            for site in guide.nodes.values()
        )
        for name in guide.nodes.keys() & model.nodes.keys():
            site, prior = guide.nodes[name], model.nodes[name]
            if site["type"] != "sample" or site["is_observed"] or prior["is_observed"]:
                continue
            q, p = site["fn"], prior["fn"]
            if q.event_shape != p.event_shape:
                raise InvalidInput(
                    name,
                    got=f"a posterior over {tuple(q.event_shape)} under a prior over {tuple(p.event_shape)}",
                    expected="the same latent shape for both",
                    fix="give both the same latent",
                )
            if is_point_mass(
                q
            ):  # it has no density to compare, but a place: nowhere near a thin set by chance
                # The image of an auxiliary site is where the function takes it, not anywhere on the
                # line.
                points = site["value"] if has_sources or is_thin(p.support) else points_of(q)
            elif measure_of(q.support) != measure_of(p.support):
                raise InvalidInput(
                    name,
                    got=f"a posterior with a density over {measure_of(q.support)} under a prior with one over "
                    f"{measure_of(p.support)}",
                    expected="densities of one kind, for their ratio is what every bound is made of",
                    fix="choose a prior and a posterior on the same space",
                )
            else:
                points = points_of(q)
            if not p.support.check(points).all():
                raise InvalidInput(
                    name,
                    got=f"a posterior on {_words(q.support)} under a prior on {_words(p.support)}, which gives "
                    "some of its draws no density",
                    expected="a posterior whose support lies inside the prior's",
                    fix="choose a prior and a posterior on the same space",
                )


def _words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return str(support).removesuffix("()")


def support_of(program: ProgramLike, x: Tensor, context: Tensor | None) -> Constraint | None:
    """The support of p(x | z), read off the site ``"x"`` at the first datum; ``None`` if there is no such site."""
    site: Any = _traces_at_first_datum(program, x, context)[1].nodes.get("x")
    return None if site is None else site["fn"].support


def _traces_at_first_datum(
    program: ProgramLike, x: Tensor, context: Tensor | None
) -> tuple[poutine.Trace, poutine.Trace]:
    one = slice(0, 1)
    with evaluating(program, seed=0), validation_enabled(False):
        try:
            return importance_traces(
                program,
                like_parameters(program, x[one]),
                like_parameters(program, None if context is None else context[one]),
            )
        except (RuntimeError, ValueError) as error:
            if isinstance(error, InvalidInput) or not re.search(
                "shape|size|broadcast", str(error), re.IGNORECASE
            ):
                raise
            raise InvalidInput(
                "program",
                got=f"parts that do not fit one another or x ({str(error).splitlines()[0]})",
                expected="networks built for the shapes of x, latent and context that they are given",
                fix="check latent, in_shape and context= of each part, and that a density's event shape is the latent's "
                "(Independent)",
            ) from error
