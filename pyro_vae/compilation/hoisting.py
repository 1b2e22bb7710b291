"""Take out of a graph what it computes from weights alone, to compute it once for many runs.

A VampPrior, for one, encodes its pseudo-inputs in every run of a model, and no datum changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import getitem

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vae.compilation.cost import PRODUCTS
from pyro_vae.compilation.passes import shared_arguments, tags_of

__all__ = ["Hoisted", "hoisted"]


class Hoisted:
    """A graph in two parts: what it computes from weights alone, and the rest.

    Args:
        before: from the weights to what the rest takes besides them.
        rest: from the inputs, the weights and the results of the former to those of the graph.
    """

    def __init__(self, before: GraphModule, rest: GraphModule):
        self.before, self.rest = before, rest

    @torch.no_grad()
    def of(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """What the rest takes after its inputs."""
        return [*weights, *self.before(*weights)]


def hoisted(graph: GraphModule, weights: Sequence[Tensor]) -> Hoisted | None:
    """Divide a graph whose last inputs are weights; ``None`` where that would save no product.

    What is larger than what it is made of stays in the rest, where kernels make it on their way.
    So do views.

    Example:
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> x, weight = torch.ones(3, 2), torch.eye(2)
        >>> graph = make_fx(lambda x, weight: x + (weight @ weight).sum(0))(x, weight)
        >>> parts = hoisted(graph, [weight])
        >>> parts.rest(x, *parts.of([weight])).equal(graph(x, weight))
        True
        >>> graph = make_fx(lambda x, weight: x @ weight)(x, weight)
        >>> hoisted(graph, [weight]) is None
        True
    """
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    known = dict(zip(placeholders[len(placeholders) - len(weights) :], weights))
    of_weights = _made_of(known, graph)
    if not any(_is_product(node) for node in of_weights):
        return None
    values = _without_growth(of_weights, known)
    taken = [node for node in values if _is_taken(node, values)]
    return Hoisted(_before(values, taken), _rest(graph, taken)) if taken else None


def _made_of(known: Mapping[Node, Tensor], graph: GraphModule) -> list[Node]:
    """The operations on known tensors alone; none where the graph writes to any."""
    made = dict.fromkeys(known)
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        if any(_origin(each) in made for each in _written(node)):
            return []
        is_random = torch.Tag.nondeterministic_seeded in tags_of(node)
        if node.all_input_nodes and not is_random and made.keys() >= {*node.all_input_nodes}:
            made[node] = None
    return [node for node in made if node not in known]


def _without_growth(nodes: Sequence[Node], known: Mapping[Node, Tensor]) -> dict[Node, object]:
    """The known tensors and those of the operations to hoist, without their memory."""
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode()
    values: dict[Node, object] = {node: mode.from_tensor(x) for node, x in known.items()}
    with mode, torch.no_grad():
        for node in nodes:
            sources = node.all_input_nodes
            if not values.keys() >= {*sources}:
                continue
            value = _value_of(node, values)
            if _is_product(node) or _size(value) <= sum(_size(values[x]) for x in sources):
                values[node] = value
    return values


def _written(node: Node) -> list[Node]:
    """The nodes that an operation writes to."""
    if not isinstance(node.target, OpOverload):
        return []
    shared = shared_arguments(node.target, node.args, node.kwargs)
    written = [tree_leaves(each) for each, writes in shared if writes]
    return [each for leaves in written for each in leaves if isinstance(each, Node)]


def _origin(node: Node) -> Node:
    """What a node is a view of, in the end; else the node itself."""
    return _origin(node.all_input_nodes[0]) if _is_view(node) else node


def _is_product(node: Node) -> bool:
    layers = (*PRODUCTS, torch.ops.aten.convolution)
    return isinstance(node.target, OpOverload) and node.target.overloadpacket in layers


def _value_of(node: Node, values: dict[Node, object]) -> object:
    assert callable(node.target)
    args, kwargs = tree_map(
        lambda each: values[each] if isinstance(each, Node) else each, (node.args, node.kwargs)
    )
    return node.target(*args, **kwargs)


def _size(value: object) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _is_view(node: Node) -> bool:
    """Whether a node is a view of another, or one of several results."""
    if node.target is getitem:
        return _is_view(node.all_input_nodes[0])
    return isinstance(node.target, OpOverload) and node.target.is_view


def _is_taken(node: Node, values: dict[Node, object]) -> bool:
    """Whether the rest takes a node's value: it, or a view of it there, is used there."""
    return (
        node.op == "call_function"
        and isinstance(values[node], Tensor)
        and not _is_view(node)
        and _is_used_by_rest(node, values)
    )


def _is_used_by_rest(node: Node, values: dict[Node, object]) -> bool:
    return any(
        user not in values or (_is_view(user) and _is_used_by_rest(user, values))
        for user in node.users
    )


def _before(values: dict[Node, object], taken: Sequence[Node]) -> GraphModule:
    nodes, copies = Graph(), dict[Node, Node]()
    for node in values:
        copies[node] = nodes.node_copy(node, copies.__getitem__)
    nodes.output(tuple(copies[node] for node in taken))
    nodes.eliminate_dead_code()
    return GraphModule({}, nodes)


def _rest(graph: GraphModule, taken: Sequence[Node]) -> GraphModule:
    nodes, copies = Graph(), dict[Node, Node]()
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in inputs:
        copies[node] = nodes.node_copy(node)
    for i, node in enumerate(taken):
        copies[node] = nodes.placeholder(f"hoisted_{i}")
    for node in graph.graph.nodes:
        if node not in copies:
            copies[node] = nodes.node_copy(node, copies.__getitem__)
    nodes.eliminate_dead_code()
    return GraphModule({}, nodes)
