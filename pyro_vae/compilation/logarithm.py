r"""A faster logarithm in compiled losses of logits on the CPU.

Cross entropies of logits and softplus hold :math:`\log(1 + t)` of :math:`t = e^{-|x|}`, between 0
and 1. There

.. math:: \log(1 + t) = 2 \operatorname{artanh} s, \quad s = \frac{t}{t + 2} \le \frac13,

whose series in :math:`s^2` ends soon. It is written in operations that Inductor turns into vectors.
It is right to two units of the last place. The library's function, for all t, takes longer.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.fx import Graph, Node

if TYPE_CHECKING:  # Inductor is imported when a graph is compiled
    from torch._inductor.custom_graph_pass import CustomGraphPass

__all__ = ["our_logarithm"]

# Of artanh(s) / s as a polynomial in s^2 up to 1/9, by least squares at Chebyshev's nodes.
COEFFICIENTS = (1.000000004, 0.333331602, 0.200123257, 0.139821724, 0.140807269)

aten = torch.ops.aten


@cache
def our_logarithm() -> CustomGraphPass:
    """A pass over Inductor's graph that writes these logarithms as a short series."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class OurLogarithm(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            for node in list(graph.nodes):
                if _is_of_small_argument(node):
                    with graph.inserting_before(node):
                        node.replace_all_uses_with(_series(graph, node))
                    graph.erase_node(node)

        def uuid(self) -> str:
            return f"pyro_vae::logarithm {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"

    return OurLogarithm()


def _is_of_small_argument(node: Node) -> bool:
    """Whether a node is log(1 + exp(-|x|)) of float32 numbers on the CPU."""
    for target in (aten.log1p, aten.exp, aten.neg, aten.abs):
        if node.op != "call_function" or node.target is not target.default:
            return False
        (node,) = node.all_input_nodes
    value = node.meta["val"]
    return value.dtype == torch.float32 and value.device.type == "cpu"


def _series(graph: Graph, node: Node) -> Node:
    def apply(target: torch._ops.OpOverload, a: Node, b: Node | float) -> Node:
        new = graph.call_function(target, (a, b))
        new.meta = dict(node.meta)
        return new

    add, mul, div = aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor
    (t,) = node.all_input_nodes
    s = apply(div, t, apply(add, t, 2.0))
    square = apply(mul, s, s)
    *rest, last = COEFFICIENTS
    total = apply(mul, square, last)
    for coefficient in reversed(rest[1:]):
        total = apply(mul, apply(add, total, coefficient), square)
    return apply(mul, apply(add, total, rest[0]), apply(mul, s, 2.0))
