"""Inductor, called for a captured graph: its own callable without Dynamo's guards, and on the CPU the faster matrix product.

Random numbers are drawn by torch's own generators (``fallback_random``): a compiled step then draws the same ones as the eager
step, and draws them faster, for Inductor's counter-based generator is not vectorised on the CPU.

On CPUs with AVX-512, oneDNN multiplies large float32 matrices up to twice as fast as the BLAS that torch was built with, so
those products go there. Which do is decided by their shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch.fx import Graph, GraphModule

__all__ = ["inductor"]

# Measured: below so many multiplications oneDNN's call costs more than it saves, and a product whose first factor is
# transposed, a weight's gradient, is only faster where its result is large.
FEWEST_MULTIPLICATIONS, FEWEST_ENTRIES_OF_A_GRADIENT = 2**22, 2**16


def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """Compiles a graph for inputs like the given ones; the callable takes a list, which it empties.

    Example:
        >>> graph = torch.fx.symbolic_trace(torch.nn.Linear(2, 3))
        >>> inductor(graph, [torch.ones(4, 2)])([torch.ones(4, 2)])[0].shape  # doctest: +SKIP
        torch.Size([4, 3])
    """
    from torch._functorch import config as functorch
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    compiled: list[Any] = []

    def keep(*args: Any, **kwargs: Any) -> Any:
        compiled.append(compile_fx_inner(*args, **kwargs))
        return compiled[-1]

    # Without vectorised ends of loops, the C++ compiler has a third less to do, and the code is as fast.
    options: dict[str, Any] = {"fallback_random": True, "size_asserts": False, "cpp.enable_loop_tail_vec": False}
    if all(x.device.type == "cpu" for x in inputs) and torch.backends.cpu.get_cpu_capability() == "AVX512" \
            and torch.backends.mkldnn.is_available():
        options["post_grad_custom_post_pass"] = _products_by_onednn()
    # Without an environment for shapes, which are all static here, Inductor would not look into its cache on disk; where
    # AOTAutograd finds the graph in a cache of its own, it does not call Inductor.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    static = [mode.from_tensor(x, static_shapes=True) for x in inputs]
    with torch.no_grad(), config.patch(options), functorch.patch(enable_autograd_cache=False), tracing(TracingContext(mode)):
        compile_fx(graph, static, inner_compile=keep)
    (inner,) = compiled
    return getattr(inner, "current_callable", None) or inner


@cache
def _products_by_onednn() -> Any:
    """A pass over Inductor's graph that sends its large products to oneDNN."""
    from torch._inductor.custom_graph_pass import CustomGraphPass
    from torch._inductor.lowering import fallback_handler, lowerings, register_lowering

    aten = torch.ops.aten
    onednn = torch.ops.mkldnn._linear_pointwise.default

    def product(bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        return onednn(a, b.t(), bias, "none", [], "")

    # An operation of our own, because Inductor's lowering of oneDNN's takes constant weights only.
    name, signature = "pyro_vae::product", "(Tensor? bias, Tensor a, Tensor b) -> Tensor"
    torch.library.define(name, signature)
    torch.library.impl(name, "CPU", product)
    torch.library.register_fake(name, lambda bias, a, b: a.new_empty(a.shape[0], b.shape[1]))
    operation = torch.ops.pyro_vae.product.default
    call = fallback_handler(onednn, add_to_fallback_set=False)
    register_lowering(operation, type_promotion_kind=None)(
        lambda bias, a, b: call(a, lowerings[aten.permute.default](b, [1, 0]), bias, "none", [], ""))

    class ProductsByOneDNN(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            for node in list(graph.nodes):
                if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
                    continue
                arguments: Any = node.args
                *bias, a, b = arguments
                if any(term.meta["val"].dim() != 1 for term in bias):
                    continue
                if _is_faster_by_onednn(a.meta["val"], b.meta["val"]):
                    with graph.inserting_before(node):
                        new = graph.call_function(operation, (*(bias or [None]), a, b))
                    new.meta = dict(node.meta)
                    node.replace_all_uses_with(new)
                    graph.erase_node(node)

        def uuid(self) -> str:
            return f"products by oneDNN from {FEWEST_MULTIPLICATIONS}, {FEWEST_ENTRIES_OF_A_GRADIENT}"

    return ProductsByOneDNN()


def _is_faster_by_onednn(a: Tensor, b: Tensor) -> bool:
    rows, inner, columns = *a.shape, b.shape[1]
    is_gradient_of_weights = a.stride(1) != 1
    return (a.dtype == torch.float32 and rows * inner * columns >= FEWEST_MULTIPLICATIONS
            and not (is_gradient_of_weights and rows * columns < FEWEST_ENTRIES_OF_A_GRADIENT))
