"""The distribution of x in a trace, whichever sites observe it.

A program of ours observes x at one site of x's own shape. A pair of Pyro functions may observe
(N, 784) of an image, or the steps of a sequence one by one, in plates of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.contracts import PLATE_OF_DRAWS, EventShape, Place, Site, Tensors, Trace, sites_of
from pyro_vae.distributions import NoDraws, entries_of, given_datum, representative_of
from pyro_vae.validation import InvalidInput

__all__ = [
    "AnyDraws",
    "EntriesOfSites",
    "GivenData",
    "NotObserved",
    "Unconditioned",
    "is_observed",
    "like_parts",
    "observed_data",
    "observed_of",
    "observed_part",
    "observed_parts",
    "parts_of",
]


class NotObserved(InvalidInput):
    """A model of which no site observes x as it is: it is scored, and x is not made from it."""


def observed_of(trace: Trace, *, at_datum: bool = False) -> Site:
    r"""The site of x of a model's trace, its value and its distribution (\*draws, N, \*event).

    Args:
        trace: of a model.
        at_datum: whether what each datum fixes of its distribution is fixed, such as a total.

    Raises:
        NotObserved: if no site observes x as it is.
    """
    pieces = [
        _Piece.of(site, at_datum) for site in sites_of(trace).values() if "x" in site["infer"]
    ]
    if not pieces and "x" in sites_of(trace):
        pieces = [_Piece.of(sites_of(trace)["x"], at_datum)]
    if not pieces:
        raise NotObserved(
            "model",
            got="no site that observes x as it is",
            expected="pyro.sample('x', ..., obs=x)",
            fix="observe x itself: a change of its scale belongs into the data set or a transform "
            "of the distribution; what is given and not modelled belongs into the context",
        )
    for piece in pieces:
        piece.check_size()
    site = pieces[0].site.copy()
    site["name"] = "x"
    if len(pieces) > 1 or not pieces[0].is_whole:
        site["fn"] = _Joined(pieces)
        site["value"] = _joined(pieces, lambda piece: piece.site["value"])
    return site


@dataclass(frozen=True)
class _Piece:
    """A site that observes x or a part of it."""

    site: Site
    place: Place | None

    @classmethod
    def of(cls, site: Site, at_datum: bool) -> _Piece:
        if at_datum:
            site = site.copy()
            site["fn"] = given_datum(site["fn"], site["value"])
        return cls(site, site["infer"].get("x"))  # type: ignore[arg-type]

    @property
    def is_whole(self) -> bool:
        """Whether the site's values are x itself, the data in front."""
        if self.place is None:
            return True
        fn, (dims, data) = self.site["fn"], self.dims
        right = (*fn.batch_shape[len(fn.batch_shape) + data :][1:], *fn.event_shape)
        return (
            self.place.axis is None
            and right == self.place.event
            and not any(d < data for d in dims)
        )

    def check_size(self) -> None:
        """Raise `NotObserved` if the site's density draws another number of entries."""
        order, _ = self.order
        sizes = [self.site["fn"].batch_shape[d] for d in order[len(order) - len(self.dims[0]) :]]
        event = (*sizes, *self.site["fn"].event_shape)
        if self.place is not None and math.prod(event) != math.prod(self.place.shape):
            raise NotObserved(
                "model",
                got=f"a density over {event} at the site that observes x of shape "
                f"{self.place.shape}",
                expected="a density that draws x whole",
                fix="give it the event shape of x; scores need none",
            )

    @property
    def dims(self) -> tuple[list[int], int]:
        """The dimensions of the site's plates in a datum, from the left, and that of the data."""
        found = {f.name: f.dim for f in self.site["cond_indep_stack"] if f.dim is not None}
        return sorted(d for n, d in found.items() if n not in ("data", PLATE_OF_DRAWS)), found[
            "data"
        ]

    @property
    def order(self) -> tuple[list[int], tuple[int, ...]]:
        """The batch dimensions of the site as draws, data, plates in a datum; the draws' sizes."""
        (dims, data), sizes = self.dims, self.site["fn"].batch_shape
        rank = len(sizes)
        inner = [rank + d for d in dims if rank + d >= 0]
        first = [d for d in range(rank) if d not in inner and d != rank + data]
        draws = tuple(sizes[d] for d in first if sizes[d] != 1)
        if any(f.name == PLATE_OF_DRAWS for f in self.site["cond_indep_stack"]):
            draws = (sizes[first[0]],)
        return [*first, rank + data, *inner], (*draws, sizes[data])

    def in_rows(self, value: Tensor) -> Tensor:
        r"""A value of the site as (\*draws, N, \*part of x)."""
        fn, (order, rows) = self.site["fn"], self.order
        assert self.place is not None
        value = value.expand(*fn.batch_shape, *fn.event_shape)
        value = value.permute(*order, *range(len(order), value.dim()))
        return value.reshape(*rows, *self.place.shape)

    def from_rows(self, value: Tensor) -> Tensor:
        r"""A value (\*draws, N, \*part of x) or (N, \*part of x) as the site has it."""
        fn, (order, rows) = self.site["fn"], self.order
        assert self.place is not None
        value = value.expand(*rows, *self.place.shape)
        value = value.reshape(*(fn.batch_shape[d] for d in order), *fn.event_shape)
        places = sorted(range(len(order)), key=order.__getitem__)
        return value.permute(*places, *range(len(order), value.dim()))


class _Joined(TorchDistribution):
    """The distributions of sites that observe pieces of x, as one of x."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real

    def __init__(self, pieces: Sequence[_Piece]):
        self.pieces = pieces
        mean = _joined(pieces, lambda piece: piece.site["fn"].sample())
        place = pieces[0].place
        event = place.event if place is not None else ()
        rank = mean.dim() - len(event)
        super().__init__(mean.shape[:rank], mean.shape[rank:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return _joined(self.pieces, lambda piece: piece.site["fn"].mean)

    @property
    def representative(self) -> Tensor:
        return _joined(self.pieces, lambda piece: representative_of(piece.site["fn"]))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        draws = [
            _joined(self.pieces, lambda piece: piece.site["fn"].sample())
            for _ in range(torch.Size(sample_shape).numel())
        ]
        return torch.stack(draws).reshape(*sample_shape, *draws[0].shape)

    def entries(self) -> EntriesOfSites:
        """The distribution of single entries.

        Raises:
            InvalidInput: if entries of a site depend on one another.
        """
        return EntriesOfSites(self.pieces, self.batch_shape + self.event_shape)


class EntriesOfSites(TorchDistribution):
    """The distributions of single entries of x, whichever sites observe them."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real

    def __init__(self, pieces: Sequence[_Piece], shape: torch.Size):
        self.pieces = pieces
        self.parts = [entries_of(piece.site["fn"], "model") for piece in pieces]
        super().__init__(shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        parts = zip(self.parts, self.split(value))
        return self.joined([part.log_prob(few) for part, few in parts])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return _Joined(self.pieces).sample(sample_shape)

    def split(self, value: Tensor) -> list[Tensor]:
        """What each site sees of x."""
        return [piece.from_rows(_part_of(value, piece.place)) for piece in self.pieces]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """What each site has for its entries, in the order of x."""
        found = dict(zip(map(id, self.pieces), parts))
        return _joined(self.pieces, lambda piece: found[id(piece)])


def _part_of(value: Tensor, place: Place | None) -> Tensor:
    if place is None or place.axis is None:
        return value
    return value.narrow(place.axis - len(place.event) - 1, place.start, place.count)


def _joined(pieces: Sequence[_Piece], value: Callable[[_Piece], Tensor]) -> Tensor:
    r"""Values of the pieces put together as x (\*draws, N, \*event)."""
    rows = [(piece.in_rows(value(piece)), piece.place) for piece in pieces]
    first, place = rows[0]
    assert place is not None
    if place.axis is None:
        return first
    axis = place.axis - len(place.event) - 1
    ordered = sorted(rows, key=lambda row: 0 if row[1] is None else row[1].start)
    return torch.cat([value for value, _ in ordered], dim=axis)


def observed_parts(trace: Trace, parts: Iterable[str]) -> dict[str, Site]:
    """The observed sites of a trace by name, those of some parts of x; of a tensor it is "x"."""
    return {name or "x": observed_part(trace, name) for name in parts}


def observed_part(trace: Trace, name: str, *, at_datum: bool = False) -> Site:
    """The site of a part of x in a model's trace; of a single tensor as `observed_of`.

    Args:
        trace: of a model.
        name: of the part; ``""`` or ``"x"`` of a single tensor.
        at_datum: whether what each datum fixes of its distribution is fixed, such as a total.

    Raises:
        NotObserved: if no site observes it.
    """
    site = sites_of(trace).get(name)
    if name in ("", "x") and (site is None or not name or "x" in site["infer"]):
        return observed_of(trace, at_datum=at_datum)
    if site is None:
        raise NotObserved(
            f"x[{name!r}]",
            got="a part of x that no site of the model observes",
            expected="parts that sites observe as they are",
            fix=f"pass it as the context: the data ({{...}}, {{{name!r}: ...}}), and "
            "pv.Program(model, guide, arguments=lambda x, context: ({**x, **context},))",
        )
    if at_datum:
        site = site.copy()
        site["fn"] = given_datum(site["fn"], site["value"])
    return site


def is_observed(trace: Trace, name: str) -> bool:
    """Whether a site of a model's trace observes a part of x as it is."""
    try:
        return bool(observed_part(trace, name))
    except NotObserved:
        return False


def observed_data(trace: Trace, shape: EventShape | None) -> Tensors:
    """The data of a model's trace, x or its parts by name, as the program takes them."""
    parts = parts_of(shape)
    made = {name: site["value"] for name, site in observed_parts(trace, parts).items()}
    return like_parts(made, parts)


def parts_of(shape: EventShape | None) -> list[str]:
    """The names of the parts of x; of a single tensor, the empty one."""
    return list(shape) if isinstance(shape, dict) else [""]


def like_parts(made: dict[str, Tensor], parts: Sequence[str]) -> Tensors:
    """What was made of x in the form of x: a dictionary, or the only tensor."""
    return made["x"] if list(parts) == [""] else made


class AnyDraws(Messenger):
    """Give zeros for what nothing can be drawn from, where only a model's sites are asked for.

    Args:
        like: a tensor of the program, for their device and dtype.
    """

    def __init__(self, like: Tensor):
        super().__init__()
        self.like = like

    def _pyro_sample(self, msg: Site) -> None:
        if msg["value"] is None and msg["infer"].get("_do_not_trace") is None:
            try:
                msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
            except NoDraws:  # of a flat prior
                msg["value"] = self.like.new_zeros(msg["fn"].shape())


class Unconditioned(Messenger):
    """Draw x instead of observing it; what else is observed, such as labels, is given.

    Args:
        parts: the names of the parts of x.
    """

    def __init__(self, parts: Iterable[str]):
        super().__init__()
        self.names = {name or "x" for name in parts}

    def _pyro_sample(self, msg: Site) -> None:
        if msg["is_observed"] and (msg["name"] in self.names or "x" in msg["infer"]):
            msg["infer"] = {**msg["infer"], "obs": msg["value"]}
            msg["is_observed"] = False
            msg["value"], msg["done"] = None, False  # type: ignore[typeddict-item, typeddict-unknown-key]


class GivenData(Messenger):
    """Give an unconditioned site what `given_datum` fixes of its datum, before it is drawn."""

    def _pyro_sample(self, site: Site) -> None:
        datum = site["infer"].get("obs")  # left there by Unconditioned
        if isinstance(datum, Tensor):
            site["fn"] = given_datum(site["fn"], datum)
