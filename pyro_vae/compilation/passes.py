"""Checks and rewrites of a captured graph, and the reasons why a function cannot be captured."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

__all__ = ["CannotCapture", "lift_tensors", "refuse_dynamic_shapes", "warn_not_captured"]


class CannotCapture(RuntimeError):
    """A function that is no static graph of tensor operations.

    Args:
        reason: what stands in the way.
        line: where, as file:line and the source there.
    """

    def __init__(self, reason: str, line: str):
        self.reason, self.line = reason, line
        super().__init__(f"{reason}, at {line}")


def warn_not_captured(error: CannotCapture) -> None:
    """Says once why a program runs eagerly."""
    warnings.warn(f"this program is not compiled, and runs eagerly: {error}", stacklevel=3)


def refuse_dynamic_shapes(graph: GraphModule) -> None:
    """Folds operations whose shape depends on constants, such as the masks of autoregressive networks; refuses others."""
    node: Any
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not _has_dynamic_shape(graph, node):
            continue
        masks = (
            [arg for arg in node.all_input_nodes if arg is not node.args[0]]
            if _is_indexing(node)
            else [node]
        )
        if not all(_is_constant(graph, mask) for mask in masks):
            raise CannotCapture(
                f"the shape of a tensor depends on values ({node.target})", _source_of(node)
            )
        if _is_indexing(node):
            indices = [_positions(graph, node, index) for index in node.args[1]]
            node.args = (
                node.args[0],
                [index for group in indices for index in group],
                *node.args[2:],
            )
        else:
            node.replace_all_uses_with(_constant(graph, node, _evaluate(graph, node)))
            graph.graph.erase_node(node)


def _has_dynamic_shape(graph: GraphModule, node: Any) -> bool:
    if _is_indexing(node):  # integers give a shape that is known
        return any(_is_mask(graph, index) for index in node.args[1])
    return torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ())


def _is_indexing(node: Any) -> bool:
    return node.target is torch.ops.aten.index.Tensor


def _is_mask(graph: GraphModule, index: Any) -> bool:
    if not isinstance(index, Node):
        return False
    value = getattr(graph, str(index.target)) if index.op == "get_attr" else index.meta["val"]
    return value.dtype in (torch.bool, torch.uint8)


def _is_constant(graph: GraphModule, node: Node) -> bool:
    """Whether a node depends on nothing but integers and booleans that no input and no parameter carries."""
    if node.op == "get_attr":
        value = getattr(graph, str(node.target))
        return not (value.is_floating_point() or value.is_complex())
    return node.op == "call_function" and all(
        _is_constant(graph, parent) for parent in node.all_input_nodes
    )


def _positions(graph: GraphModule, before: Node, index: Any) -> list[Any]:
    """The integer indices that a constant mask stands for, one for each of its dimensions."""
    if not _is_mask(graph, index):
        return [index]
    return [
        _constant(graph, before, part) for part in _evaluate(graph, index).nonzero(as_tuple=True)
    ]


def _constant(graph: GraphModule, before: Node, value: Tensor) -> Node:
    name = f"_folded_{sum(1 for _ in graph.buffers())}"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def _source_of(node: Node) -> str:
    trace = (node.meta.get("stack_trace") or "").strip().splitlines()
    return " ".join(line.strip() for line in trace[-2:]) or "an operation of the program"


def _evaluate(graph: GraphModule, node: Node) -> Any:
    if node.op == "get_attr":
        return getattr(graph, str(node.target))
    args, kwargs = tree_map(
        lambda a: _evaluate(graph, a) if isinstance(a, Node) else a, (node.args, node.kwargs)
    )
    return node.target(*args, **kwargs)  # type: ignore[operator]


def lift_tensors(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """The graph with every tensor that it refers to as an input, once each, and those tensors."""
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    inputs: dict[int, Node] = {}
    lifted: list[Tensor] = []
    for node in list(nodes.nodes):
        node.meta.clear()  # fake tensors of several modes: Inductor makes its own
        if node.op != "get_attr":
            continue
        value = getattr(graph, str(node.target))
        if id(value) not in inputs:
            with nodes.inserting_after(last):
                inputs[id(value)] = last = nodes.placeholder(f"lifted_{len(lifted)}")
            lifted.append(value.detach() if value.requires_grad else value)
        node.replace_all_uses_with(inputs[id(value)])
        nodes.erase_node(node)
    return GraphModule({}, nodes), lifted
