"""Data that are unlike the first datum: labels out of range, and missing entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from pyro_vae.contracts import ProgramLike, Tensors, Trace
from pyro_vae.datasets.facts import PartFacts
from pyro_vae.datasets.on_disk import blocks_of
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.memory import chunks
from pyro_vae.validation import InvalidInput, tensors_of

__all__ = ["check_extremes"]

BLOCK = 4096  # data that are looked at together

Traces = Callable[[int], tuple[Trace, Trace]]  # guide and model at one datum


def check_extremes(
    program: ProgramLike,
    x: Tensors,
    context: Tensors | None,
    traces_at: Traces,
    facts: Mapping[str, PartFacts],
) -> None:
    """Raise `InvalidInput` if a datum with an extreme number or a missing entry cannot be scored.

    Of data on disk, ``facts`` says which these are. The first datum may be the only one that can
    be scored: an embedding has a row for its label, and none for the largest.
    """
    if any(isinstance(module, nn.Embedding) for module in program.modules()):
        for argument, values in (("context", context), ("x", x)):
            for name, part in tensors_of(values).items():
                is_known = argument == "x" and name in facts
                for place in facts[name].extremes if is_known else _extremes(part):
                    _check_rows(argument, part, place, traces_at)
    for name, part in tensors_of(x).items():
        first = facts[name].nan_at if name in facts else _first_missing(part)
        if first is not None:
            _check_missing(first, traces_at)


def _extremes(values: Tensor) -> Iterator[int]:
    """The data with the least and with the largest number, if all numbers are whole."""
    largest, least = (-math.inf, 0), (math.inf, 0)
    for some in chunks(len(values), BLOCK):  # the places of all numbers take much memory
        rows = values[some].reshape(some.stop - some.start, -1).double()
        hole = torch.isnan(rows)
        if bool(((rows % 1 != 0) & ~hole).any()):
            return
        high = rows.masked_fill(hole, -math.inf).amax(1)
        low = rows.masked_fill(hole, math.inf).amin(1)
        largest = max(largest, (float(high.max()), some.start + int(high.argmax())))
        least = min(least, (float(low.min()), some.start + int(low.argmin())))
    if largest[0] > -math.inf:
        yield largest[1]
        yield least[1]


def _check_rows(argument: str, values: Tensor, place: int, traces_at: Traces) -> None:
    try:
        traces_at(place)
    except IndexError as error:
        numbers = values[place].flatten()
        raise InvalidInput(
            argument,
            got=f"{numbers.max().item():g} in datum {place}, for which an embedding has no row",
            expected="numbers from 0 to below the embedding's size",
            fix="number them anew from 0, or build the embedding for more",
        ) from error


def _first_missing(values: Tensor) -> int | None:
    """The first datum with a missing entry."""
    if not values.is_floating_point():
        return None
    for few, block in blocks_of(values):
        is_missing = torch.isnan(block.reshape(len(block), -1)).any(1)
        if is_missing.any():
            return few.start + int(is_missing.nonzero()[0])
    return None


def _check_missing(first: int, traces_at: Traces) -> None:
    for name, site in latent_sites(traces_at(first)[0]).items():
        if torch.isnan(site["value"]).any():
            raise InvalidInput(
                "x",
                got=f"missing entries (first in datum {first}), of which the guide makes NaN at "
                f"site {name!r}",
                expected="an encoder of data with missing entries",
                fix="wrap its network: pv.networks.WithMask(in_shape, network)",
            )
