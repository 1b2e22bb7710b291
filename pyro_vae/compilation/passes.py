"""Checks and rewrites of a captured graph, and the reasons why a capture fails."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import Argument
from torch.utils._pytree import tree_map

__all__ = [
    "CannotCapture",
    "lift_tensors",
    "refuse_dynamic_shapes",
    "shared_arguments",
    "tags_of",
    "tensor_at",
    "warn_not_captured",
]


class CannotCapture(RuntimeError):
    """A function that cannot be captured as a static graph of tensor operations.

    Args:
        reason: what stands in the way.
        line: where, as file:line and the source there.
    """

    def __init__(self, reason: str, line: str):
        self.reason, self.line = reason, line
        super().__init__(f"{reason}, at {line}")


def warn_not_captured(error: CannotCapture) -> None:
    """Warn that a program runs eagerly, and why."""
    warnings.warn(f"this program is not compiled, and runs eagerly: {error}", stacklevel=3)


def tensor_at(graph: GraphModule, node: Node) -> Tensor:
    """The tensor that a node reads from the graph's own attributes."""
    value = getattr(graph, str(node.target))
    assert isinstance(value, Tensor)
    return value


def tags_of(node: Node) -> Collection[torch.Tag]:
    """Torch's tags for a node's operation, such as "output shape depends on data"."""
    return node.target.tags if isinstance(node.target, OpOverload) else ()


def shared_arguments(
    func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
) -> Iterator[tuple[object, bool]]:
    """The arguments whose memory an operation writes to or gives on, and whether it writes."""
    # The signature of a batch normalisation does not say that it writes its statistics in training.
    name, signature = func.__name__, func._schema.arguments
    given = {**dict(zip((argument.name for argument in signature), args)), **kwargs}
    normalises = "batch_norm" in name and "backward" not in name and "_no_" not in name
    normalises = normalises and bool(given.get("training", True))
    for argument in signature:
        value = given.get(argument.name)
        if normalises and argument.name in ("running_mean", "running_var"):
            yield value, True
        elif argument.alias_info is not None:
            yield value, argument.alias_info.is_write


def refuse_dynamic_shapes(graph: GraphModule) -> None:
    """Refuse shapes that depend on data; fold operations whose shape depends on constants.

    The latter are the masks of autoregressive networks, for example.

    Raises:
        CannotCapture: if the shape of a tensor depends on data.
    """
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not _has_dynamic_shape(graph, node):
            continue
        selects = _is_indexing(node)
        masks = [n for n in node.all_input_nodes if n is not node.args[0]] if selects else [node]
        if not all(_is_constant(graph, mask) for mask in masks):
            raise CannotCapture(
                f"the shape of a tensor depends on values ({node.target})", _source_of(node)
            )
        if selects:
            places = [place for i in _indices(node) for place in _positions(graph, node, i)]
            node.args = (node.args[0], places, *node.args[2:])
        else:
            node.replace_all_uses_with(_constant(graph, node, _value_of(graph, node)))
            graph.graph.erase_node(node)


def _has_dynamic_shape(graph: GraphModule, node: Node) -> bool:
    if _is_indexing(node):  # by integers the shape is known
        return any(_is_mask(graph, index) for index in _indices(node))
    return torch.Tag.dynamic_output_shape in tags_of(node)


def _is_indexing(node: Node) -> bool:
    return node.target is torch.ops.aten.index.Tensor


def _indices(node: Node) -> list[Argument]:
    """The indices of an indexing operation, ``None`` for each dimension that is kept."""
    indices = node.args[1]
    assert isinstance(indices, list | tuple)
    return list(indices)


def _is_mask(graph: GraphModule, index: Argument) -> bool:
    if not isinstance(index, Node):
        return False
    value = tensor_at(graph, index) if index.op == "get_attr" else index.meta["val"]
    return value.dtype in (torch.bool, torch.uint8)


def _is_constant(graph: GraphModule, node: Node) -> bool:
    """Whether a node depends on constant integers and booleans alone."""
    if node.op == "get_attr":
        value = tensor_at(graph, node)
        return not (value.is_floating_point() or value.is_complex())
    return node.op == "call_function" and all(
        _is_constant(graph, parent) for parent in node.all_input_nodes
    )


def _positions(graph: GraphModule, before: Node, index: Argument) -> list[Argument]:
    """The integer indices that a constant mask stands for, one for each of its dimensions."""
    if not isinstance(index, Node) or not _is_mask(graph, index):
        return [index]
    places = _value_of(graph, index).nonzero(as_tuple=True)
    return [_constant(graph, before, place) for place in places]


def _constant(graph: GraphModule, before: Node, value: Tensor) -> Node:
    name = f"_folded_{sum(1 for _ in graph.buffers())}"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def _source_of(node: Node) -> str:
    trace = (node.meta.get("stack_trace") or "").strip().splitlines()
    return " ".join(line.strip() for line in trace[-2:]) or "an operation of the program"


def _value_of(graph: GraphModule, node: Node) -> Tensor:
    """The value of a constant node, by computing it."""
    if node.op == "get_attr":
        return tensor_at(graph, node)
    assert callable(node.target)
    args, kwargs = tree_map(
        lambda a: _value_of(graph, a) if isinstance(a, Node) else a, (node.args, node.kwargs)
    )
    return node.target(*args, **kwargs)


def lift_tensors(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """Turn each tensor that the graph refers to into an input; return graph and tensors."""
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    inputs: dict[int, Node] = {}
    lifted: list[Tensor] = []
    for node in list(nodes.nodes):
        node.meta.clear()  # fake tensors of several modes: Inductor makes its own
        if node.op != "get_attr":
            continue
        value = tensor_at(graph, node)
        if id(value) not in inputs:
            with nodes.inserting_after(last):
                inputs[id(value)] = last = nodes.placeholder(f"lifted_{len(lifted)}")
            lifted.append(value.detach() if value.requires_grad else value)
        node.replace_all_uses_with(inputs[id(value)])
        nodes.erase_node(node)
    return GraphModule({}, nodes), lifted
