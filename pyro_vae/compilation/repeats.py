"""Cut a large graph into parts, so that what repeats in it is compiled once.

A hierarchy of many levels does the same operations on the same shapes at each level, forwards and
backwards. Compiling takes time for each operation; of twelve levels two thirds are repetitions.
Parts of equal form share one compiled function, so compiling takes hardly longer as depth grows.
Kernels are not fused across the ends of a part, which costs little where a part is large.

Repetitions are found in the sequence of operations: again and again the run of operations is cut
out that saves most, which is the one with the largest product of length and further occurrences.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import getitem

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.passes import shared_arguments
from pyro_vae.compilation.writes import without_writes

__all__ = ["Parts", "parts_of"]

FEWEST_OPERATIONS = 1000  # of a graph that is cut; a smaller one compiles in some seconds
LARGEST_SHARE = 0.7  # of its operations that may be left to compile; cutting saves too little else
SHORTEST, LONGEST = 16, 400  # operations of a part that repeats

Run = slice
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
Call = Callable[[list[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Layout:
    """Where the entries of a tensor lie, as a part takes and gives it."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """That of a tensor, or of its copy where its entries overlap or have gaps between them."""
        dense = torch.empty_like(tensor, device="meta")  # which keeps the strides of a dense tensor
        return cls(tensor.shape, dense.stride(), tensor.dtype, tensor.device)

    def empty(self) -> Tensor:
        """A tensor laid out so, without values."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)

    def applied(self, tensor: Tensor) -> Tensor:
        """The tensor if it is laid out so, else a copy that is."""
        return tensor if tensor.stride() == self.stride else self.empty().copy_(tensor)


@dataclass(eq=False)
class Part:
    """Operations that are compiled as one, for all places where they stand.

    Args:
        graph: the operations.
        inputs: how its inputs are laid out.
        call: the compiled function, once there is one.
    """

    graph: GraphModule
    inputs: list[Layout]
    call: Call | None = None


@dataclass(frozen=True, eq=False)
class Place:
    """One place of a part in the whole graph.

    Args:
        part: what stands there.
        takes: the nodes that are its inputs.
        gives: the nodes that it computes, in order, and how they are laid out; ``None`` for one
            that is needed at another place alone.
        frees: the nodes that no later place needs.
    """

    part: Part
    takes: list[Node]
    gives: list[tuple[Node, Layout] | None]
    frees: list[Node]


@dataclass(eq=False)
class Parts:
    """A graph as parts that are called in turn. The call empties the list that it takes.

    Args:
        inputs: the graph's inputs.
        places: its parts where they stand.
        outputs: what it returns.
    """

    inputs: list[Node]
    places: list[Place]
    outputs: list[Node]

    @property
    def different(self) -> list[Part]:
        """Each part once."""
        return list(dict.fromkeys(place.part for place in self.places))

    def __call__(self, values: list[Tensor]) -> list[Tensor]:
        known = dict(zip(self.inputs, values, strict=True))
        values.clear()
        for place in self.places:
            taken = [known[node] for node in place.takes]
            for node in place.frees:
                del known[node]
            assert place.part.call is not None
            for given, value in zip(place.gives, place.part.call(taken), strict=True):
                if given is not None:
                    node, layout = given
                    known[node] = layout.applied(value)
        return [known[node] for node in self.outputs]


def parts_of(graph: GraphModule, inputs: Sequence[Tensor]) -> Parts | None:
    """The graph in parts of which some repeat, ``None`` if too little of it does.

    The graph is run once, to see how its tensors are laid out; what it writes is put back.
    """
    units = _units(graph)
    if len(units) < FEWEST_OPERATIONS:
        return None
    layouts = _layouts(graph, inputs)
    runs = _closed(_runs(_numbers(units, layouts)), units)
    parts = _Cut(graph, units, layouts).into(runs)
    left = sum(len(part.graph.graph.nodes) - len(part.inputs) for part in parts.different)
    return parts if left < LARGEST_SHARE * len(graph.graph.nodes) else None


# what is cut: an operation together with the results that are taken out of its tuple


def _units(graph: GraphModule) -> list[list[Node]]:
    """The operations in order, each followed by those that take one result out of several."""
    units: dict[Node, list[Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function":
            whole = node.args[0] if node.target is getitem else node
            assert isinstance(whole, Node)
            units.setdefault(whole, []).append(node)
    return list(units.values())


def _layouts(graph: GraphModule, inputs: Sequence[Tensor]) -> dict[Node, Layout]:
    """How the results of a graph are laid out, by running it."""
    found: dict[Node, Layout] = {}

    class Watched(Interpreter):
        def run_node(self, n: Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                found[n] = Layout.of(result)
                if n.op == "placeholder":  # comes as it is; the others can be laid out anew
                    found[n] = replace(found[n], stride=result.stride())
            return result

    devices = {x.device.index for x in inputs if x.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices), without_writes():
        Watched(graph).run(*inputs)
    return found


# what repeats


def _numbers(units: list[list[Node]], layouts: Mapping[Node, Layout]) -> Numbers:
    """A number for each unit, the same for the same operation on tensors of the same layout."""

    def described(value: object) -> Hashable:
        if isinstance(value, Node):
            return layouts.get(value)
        if isinstance(value, list | tuple):
            return tuple(described(each) for each in value)
        return repr(value)

    def form(unit: list[Node]) -> Hashable:
        return tuple(
            (
                node.target,
                layouts.get(node),
                described(node.args),
                described([*node.kwargs.items()]),
            )
            for node in unit
        )

    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(form(unit), len(known)) for unit in units])


def _runs(numbers: Numbers) -> list[Run]:
    """Cut a sequence into runs, of which those that repeat are as many and as long as possible."""
    places, left = np.arange(len(numbers)), numbers.astype(np.int64)
    cuts = {0, len(numbers)}
    while True:
        length, starts = _best_repetition(left)
        if not starts:
            break
        separator = left.max() + 1
        keep = np.ones(len(left), dtype=bool)
        for i, start in enumerate(starts):
            cuts |= {int(places[start]), int(places[start]) + length}
            keep[start + 1 : start + length] = False
            left[start] = separator + i
        places, left = places[keep], left[keep]
    ends = sorted(cuts)
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _best_repetition(numbers: Numbers) -> tuple[int, list[int]]:
    """The run that saves most where it is compiled once: its length, and where it starts."""
    draw = np.random.default_rng(0).integers(1 << 62, size=int(numbers.max()) + 1, dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)  # odd: a polynomial hash modulo 2^64
    hashes = np.zeros(max(0, len(numbers) - SHORTEST + 1), dtype=np.uint64)
    for i in range(SHORTEST):
        hashes = hashes * factor + draw[numbers[i : i + len(hashes)]]
    saved, best = 0, (0, list[int]())
    for length in range(SHORTEST, min(LONGEST, len(numbers) // 2) + 1):
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counts = np.diff(begins, append=len(order))
        if counts.max() == 1:
            break
        for i in np.flatnonzero((counts - 1) * length > saved).tolist():
            starts = list(_apart(order[begins[i] : begins[i] + counts[i]].tolist(), length))
            if (len(starts) - 1) * length > saved:
                saved, best = (len(starts) - 1) * length, (length, starts)
        hashes = hashes[:-1] * factor + draw[numbers[length : length + len(hashes) - 1]]
    return best


def _apart(starts: list[int], length: int) -> Iterator[int]:
    """Those of ascending starts whose runs do not overlap."""
    free = 0
    for start in starts:
        if start >= free:
            yield start
            free = start + length


def _closed(runs: list[Run], units: list[list[Node]]) -> list[Run]:
    """Join runs so that no tensor that is written to has views or values in two of them.

    Until the last operation that writes to it, all that share its memory must be in one run. What
    the graph itself takes may be written to anywhere, as long as nothing is a view of it.
    """
    position = {node: i for i, unit in enumerate(units) for node in unit}
    owner: dict[Node, Node] = {}
    first: dict[Node, int] = {}
    last_write: dict[Node, int] = {}
    for node, i in position.items():
        for source, is_written in _shared(node):
            root = owner.get(source, source)
            owner.setdefault(node, root)
            start = position.get(root, i)
            first[root] = min(first.get(root, start), start)
            if is_written:
                last_write[root] = i
    return _joined(runs, [(first[root], last) for root, last in last_write.items()])


def _shared(node: Node) -> Iterator[tuple[Node, bool]]:
    """The arguments whose memory a result may share, and whether they are written to."""
    if node.target is getitem:
        yield from ((source, False) for source in node.all_input_nodes)
    if isinstance(node.target, OpOverload):
        shared = shared_arguments(node.target, node.args, node.kwargs)
        for given, is_written in shared:
            yield from ((each, is_written) for each in tree_leaves(given) if isinstance(each, Node))


def _joined(runs: list[Run], together: list[tuple[int, int]]) -> list[Run]:
    """The runs, without the ends that stand between two positions which belong together."""
    ends = [
        run.stop for run in runs if not any(first < run.stop <= last for first, last in together)
    ]
    return [slice(start, stop) for start, stop in pairwise([0, *ends])]


# from runs of operations to parts


class _Cut:
    """Cuts a graph into parts, where runs of equal form are one part."""

    def __init__(self, graph: GraphModule, units: list[list[Node]], layouts: Mapping[Node, Layout]):
        self.units, self.layouts = units, layouts
        nodes = list(graph.graph.nodes)
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        self.outputs: list[Node] = tree_leaves(nodes[-1].args[0])
        self.run_of: dict[Node, int] = {}

    def into(self, runs: list[Run]) -> Parts:
        """The parts, each where it stands."""
        nodes = [[node for unit in self.units[run] for node in unit] for run in runs]
        self.run_of = {node: i for i, run in enumerate(nodes) for node in run}
        forms = [self._form(run) for run in nodes]
        used = [self._used(i, run) for i, run in enumerate(nodes)]
        places_of: dict[Hashable, list[int]] = {}
        for i, (form, _) in enumerate(forms):
            places_of.setdefault(form, []).append(i)
        parts: dict[int, tuple[Part, list[int]]] = {}
        for same in places_of.values():
            # What is needed of one of them is computed by all.
            needed = sorted(set().union(*(used[i] for i in same)))
            part = self._part(nodes[same[0]], forms[same[0]][1], needed)
            parts.update((i, (part, needed)) for i in same)
        last = {node: i for i, (_, takes) in enumerate(forms) for node in takes}
        kept, places = set(self.outputs), []
        for i, (_, takes) in enumerate(forms):
            part, needed = parts[i]
            gives = [
                (nodes[i][j], self.layouts[nodes[i][j]]) if j in used[i] else None for j in needed
            ]
            frees = [node for node in takes if last[node] == i and node not in kept]
            places.append(Place(part, takes, gives, frees))
        return Parts(self.inputs, places, self.outputs)

    def _form(self, run: list[Node]) -> tuple[Hashable, list[Node]]:
        """What a run computes of what, in words that are the same for the same; its inputs."""
        own = {node: i for i, node in enumerate(run)}
        takes: dict[Node, int] = {}

        def described(value: object) -> Hashable:
            if isinstance(value, Node):
                if value in own:
                    return "own", own[value]
                return "taken", takes.setdefault(value, len(takes)), self.layouts[value]
            if isinstance(value, list | tuple):
                return tuple(described(each) for each in value)
            return repr(value)

        form = [(n.target, described(n.args), described([*n.kwargs.items()])) for n in run]
        return tuple(form), list(takes)

    def _used(self, number: int, run: list[Node]) -> set[int]:
        """Which operations of a run have results that are used outside of it."""
        return {
            i
            for i, node in enumerate(run)
            if any(self.run_of.get(user) != number for user in node.users)
        }

    def _part(self, run: list[Node], takes: list[Node], needed: list[int]) -> Part:
        graph = Graph()
        own = {node: graph.placeholder(f"taken_{i}") for i, node in enumerate(takes)}
        for node in run:
            own[node] = graph.node_copy(node, own.__getitem__)
        graph.output(tuple(own[run[i]] for i in needed))
        return Part(GraphModule(nn.Module(), graph), [self.layouts[node] for node in takes])
