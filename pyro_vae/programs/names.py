"""The names of a pair of Pyro functions, and this library's: the plate "data", the site "x".

What stands outside of a pair reads the contract's names. A pair may have others: its data plate is
found by its size, which is that of the data whatever their number, and the site that observes x by
its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from pyro.distributions import Unit
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor, nn

from pyro_vae.contracts import Place, Site, Trace, sites_of
from pyro_vae.validation import InvalidInput

__all__ = ["Names", "check_autoguides", "told_if_picked"]

Traces = tuple[Trace, Trace]  # of a guide and a model


@dataclass(frozen=True)
class Names:
    """What the plates and sites of a pair are called here.

    Args:
        plates: the pair's names of its data plate, which model and guide may name differently.
        sites: from a name of the pair to ours, for sites that observe x as it is.
        pieces: of a site that observes a part of x: the axis, the first index and how many.
        hidden: latents that only ``obs_mask`` makes. They are drawn from the model and count on
            neither side.
        event: the shape of one datum; ``None`` of several parts.
        summed: discrete latents of the model that are marked for enumeration and that the guide
            leaves to it: they are summed over.
        depth: the number of dimensions of all plates.
    """

    plates: tuple[str, ...]
    sites: Mapping[str, str]
    pieces: Mapping[str, tuple[int, int, int]]
    hidden: tuple[str, ...] = ()
    event: tuple[int, ...] | None = ()
    summed: tuple[str, ...] = ()
    depth: int = 1

    @classmethod
    def of(cls, three: Traces, two: Traces, x: Tensor | dict[str, Tensor]) -> Self:
        """The names of a pair, from traces (guide, model) at three data and at two.

        Args:
            three: traces at three data.
            two: traces at two of them.
            x: the three data.

        Raises:
            InvalidInput: if there is no data plate, or several.
        """
        dims: dict[str, int] = {}
        for a, b in zip(three, two):
            dims |= _data_plates(a, b)
        if len(set(dims.values())) != 1:
            raise _not_one_plate(dims, three[1])
        _check_both_inside(dims, *three)
        sites, pieces = _observed(three[1], dims, x)
        drawn, in_guide = _latents(three[1]), _latents(three[0])
        hidden = [
            name
            for name in drawn
            if name not in in_guide
            and name.endswith("_unobserved")
            and f"{name.removesuffix('_unobserved')}_observed" in sites_of(three[1])
        ]
        summed = [
            name
            for name in drawn
            if name not in in_guide
            and sites_of(three[1])[name]["infer"].get("enumerate") == "parallel"
            and any(f.name in dims for f in sites_of(three[1])[name]["cond_indep_stack"])
        ]
        event = None if isinstance(x, dict) else tuple(x.shape[1:])
        plates = tuple(sorted(dims))
        depth = max(
            -frame.dim
            for trace in three
            for site in sites_of(trace).values()
            for frame in site["cond_indep_stack"]
            if frame.dim is not None
        )
        return cls(plates, sites, pieces, tuple(hidden), event, tuple(summed), depth)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The names that `to_json` gave."""
        pieces = {name: (a, b, c) for name, (a, b, c) in value["pieces"].items()}
        plates, hidden, summed = (tuple(value[key]) for key in ("plates", "hidden", "summed"))
        event = None if value["event"] is None else tuple(value["event"])
        sites, depth = dict(value["sites"]), int(value["depth"])
        return cls(plates, sites, pieces, hidden, event, summed, depth)

    def to_json(self) -> dict[str, object]:
        """The same as JSON holds it."""
        return asdict(self)

    def site(self, name: str) -> str:
        """Our name for a site."""
        if name in self.sites:
            return self.sites[name]
        return f"{name}_" if name in self.sites.values() or name == "x" else name

    def place(self, name: str) -> Place | None:
        """Which part of x a site observes; of several parts each has its site's own name."""
        if self.event is None:
            return None
        if self.sites.get(name) == "x":
            return Place(self.event)
        return Place(self.event, *self.pieces[name]) if name in self.pieces else None

    def frame(self, frame: CondIndepStackFrame, num_data: int) -> CondIndepStackFrame:
        """A plate's frame under our name.

        Raises:
            InvalidInput: for a data plate of another size than the data.
        """
        if frame.name in self.plates:
            if frame.size not in (-1, num_data):
                raise _picks(frame, num_data)
            full = num_data if frame.size == -1 else frame.full_size
            return frame._replace(name="data", size=num_data, full_size=full)
        return frame._replace(name="data_") if frame.name == "data" else frame


def check_autoguides(modules: Iterator[nn.Module], three: Trace, two: Trace) -> None:
    """Raise `InvalidInput` if an AutoGuide holds a latent of the data plate.

    Args:
        modules: those of the program.
        three: a trace of the model at three data.
        two: another at two.
    """
    plates, sites = _data_plates(three, two), sites_of(three)
    local = [
        name
        for name in _latents(three)
        if any(frame.name in plates for frame in sites[name]["cond_indep_stack"])
    ]
    for guide in modules:
        if not isinstance(guide, AutoGuide) or guide.prototype_trace is None:
            continue
        # AutoStructured keeps the names alone.
        held = [name for name in local if name in guide.prototype_trace.nodes]
        if held:
            kind, words = type(guide).__name__, ", ".join(held)
            raise InvalidInput(
                held[0],
                got=f"a latent of the data plate in an {kind}, whose size is that of the first "
                "data it sees",
                expected="AutoGuides for latents outside of the data plate",
                fix=f"write q({words} | x) as a guide with a network, and keep the AutoGuide for "
                f"the rest, if there is any: {kind}(poutine.block(model, hide={held!r}))",
            )


def _latents(trace: Trace) -> list[str]:
    return [name for name, site in sites_of(trace).items() if not site["is_observed"]]


def _data_plates(three: Trace, two: Trace) -> dict[str, int]:
    """The plates whose size is the number of data, at three and at two, with their dimensions."""
    found: dict[str, int] = {}
    for name, site in sites_of(three).items():
        again = sites_of(two).get(name)
        if again is None:
            continue
        sizes = {frame.name: _size(again, frame) for frame in again["cond_indep_stack"]}
        for frame in site["cond_indep_stack"]:
            if (_size(site, frame), sizes.get(frame.name)) != (3, 2):
                continue
            if frame.dim is None:
                raise InvalidInput(
                    f"plate {frame.name!r}",
                    got="a loop over the data",
                    expected="a plate that runs all data at once",
                    fix=f"write with pyro.plate({frame.name!r}, len(x)):",
                )
            found[frame.name] = frame.dim
    return found


def _size(site: Site, frame: CondIndepStackFrame) -> int:
    """The size of a plate at a site; of one without a size, that of the site's batch."""
    if frame.size != -1 or frame.dim is None:
        return frame.size
    batch = site["fn"].batch_shape
    return batch[frame.dim] if len(batch) >= -frame.dim else 1


def _not_one_plate(dims: dict[str, int], model: Trace) -> InvalidInput:
    if dims:
        words = ", ".join(f"{name!r} in dimension {dim}" for name, dim in dims.items())
        return InvalidInput(
            "model",
            got=f"several plates of the size of the data: {words}",
            expected="one dimension for the data",
            fix="give the plate of the data the same dim= wherever it is written",
        )
    for site in sites_of(model).values():
        for frame in site["cond_indep_stack"]:
            if frame.full_size is not None and frame.full_size != frame.size:
                return _picks(frame, None)
    return InvalidInput(
        "model",
        got="no plate of the size of the data",
        expected="the sites of each datum inside pyro.plate('data', len(x))",
        fix="write with pyro.plate('data', len(x)): around them",
    )


def _check_both_inside(dims: dict[str, int], guide: Trace, model: Trace) -> None:
    """Raise `InvalidInput` if a latent is one of each datum in the guide or the model alone."""
    for name in _latents(guide):
        if name not in sites_of(model):
            continue
        plates = {
            part: [f.name for f in sites_of(trace)[name]["cond_indep_stack"] if f.name in dims]
            for part, trace in (("guide", guide), ("model", model))
        }
        if bool(plates["guide"]) == bool(plates["model"]):
            continue
        lacks, has = ("model", "guide") if plates["guide"] else ("guide", "model")
        (plate, *_) = plates[has]
        raise InvalidInput(
            lacks,
            got=f"{name!r} outside of plate {plate!r}, in which the {has} has it",
            expected="a latent of each datum in both, or in neither",
            fix=f"write with pyro.plate({plate!r}, len(x)): around it in the {lacks}",
        )


def _picks(frame: CondIndepStackFrame, num_data: int | None) -> InvalidInput:
    given = "" if num_data is None else f" for {num_data} data"
    return InvalidInput(
        f"plate {frame.name!r}",
        got=f"{frame.size} of {frame.full_size} data{given}, picked by the plate itself",
        expected="one entry for each datum of the batch that the model is given",
        fix=f"write pyro.plate({frame.name!r}, len(x)); fit makes the batches (batch_size=)",
    )


@contextmanager
def told_if_picked() -> Iterator[None]:
    """Turn Pyro's error for a plate that asks for more data than there are into the refusal."""
    try:
        yield
    except ValueError as error:
        sizes = re.search(r"subsample_size does not match len\(subsample\), (\d+) vs", str(error))
        if sizes is None:
            raise
        raise InvalidInput(
            "model",
            got=f"a plate with subsample_size={sizes[1]}: data picked by the plate itself",
            expected="one entry for each datum of the batch that the model is given",
            fix="write with pyro.plate('data', len(x)):; fit makes the batches (batch_size=)",
        ) from error


def _observed(
    model: Trace, dims: dict[str, int], x: Tensor | dict[str, Tensor]
) -> tuple[dict[str, str], dict[str, tuple[int, int, int]]]:
    """The sites that observe x as it is, with our names, and those that observe pieces of it."""
    parts = x if isinstance(x, dict) else {"x": x}
    values = {
        name: value
        for name, site in sites_of(model).items()
        if site["is_observed"] and not isinstance(site["fn"], Unit)
        if not site["infer"].get("_deterministic")
        if (value := _in_rows(site, dims)) is not None
    }
    sites: dict[str, str] = {}
    for key, part in parts.items():
        same = [name for name, value in values.items() if _equal(value, part)]
        # A site of this name first, for the contract's own programs.
        same.sort(key=lambda name: name != key)
        fresh = [name for name in same if name not in sites]
        if fresh:
            sites[fresh[0]] = key
        elif key in values and key not in sites:
            sites[key] = key
    if sites or isinstance(x, dict):
        return sites, {}
    taken: dict[str, tuple[int, int, int]] = {}
    for name, value in values.items():
        place = next((p for p in _places(value, x) if p not in taken.values()), None)
        if place is not None:
            taken[name] = place
    return {}, taken if sum(values[n].numel() for n in taken) == x.numel() else {}


def _in_rows(site: Site, dims: dict[str, int]) -> Tensor | None:
    """An observed value (n, *others), or ``None`` if it has no dimension of the data."""
    value, frames = site["value"], site["cond_indep_stack"]
    dim = next((f.dim for f in frames if f.name in dims and f.dim is not None), None)
    if dim is None or not isinstance(value, Tensor):
        return None
    axis = dim - len(site["fn"].event_shape)
    return value.movedim(axis, 0) if value.dim() >= -axis else None


def _equal(value: Tensor, part: Tensor) -> bool:
    """Whether a site observes x as it is, but for its shape and for what is missing of it."""
    if value.shape[0] != part.shape[0] or value.numel() != part.numel():
        return False
    rows = part.reshape(len(part), -1)
    return bool(((value.reshape(len(part), -1) == rows) | rows.isnan()).all())


def _places(value: Tensor, x: Tensor) -> Iterator[tuple[int, int, int]]:
    """The slices (axis, first index, how many) of x that a value equals."""
    for axis in range(1, x.dim()):
        row = x[0].numel() // x.shape[axis]
        count, rest = divmod(value.numel() // len(x), row)
        for start in range(x.shape[axis] - count + 1 if not rest and count else 0):
            if _equal(value, x.narrow(axis, start, count)):
                yield axis, start, count
