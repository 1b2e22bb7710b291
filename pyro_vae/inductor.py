"""Inductor, called for a captured graph: its own callable without Dynamo's guards, and on the CPU our matrix product.

Random numbers are drawn by torch's own generators (``fallback_random``), in the program's order: a compiled step then draws the same
ones as the eager step, and draws them faster, for Inductor's counter-based generator is not vectorised on the CPU.

All kernels of a graph are compiled as one library (`pyro_vae.kernels`). On CPUs with AVX-512, products of float32 matrices are those
of ``product.cpp``: one and a half to four times as fast as the BLAS that torch was built with on such CPUs of AMD, and called from
Inductor's code without torch's dispatcher in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch.fx import Graph, GraphModule, Node

from pyro_vae.kernels import library, widest_vectors, without_warnings

__all__ = ["inductor"]

PRODUCT = Path(__file__).with_name("product.cpp")
FEWEST_ENTRIES_OF_A_THREAD = 1 << 14  # a loop over fewer takes a few microseconds, and waking a thread up takes as many or ten times more


@without_warnings()
def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """Compiles a graph for inputs like the given ones; the callable takes a list, which it empties.

    Example:
        >>> graph = torch.fx.symbolic_trace(torch.nn.Linear(2, 3))
        >>> inductor(graph, [torch.ones(4, 2)])([torch.ones(4, 2)])[0].shape  # doctest: +SKIP
        torch.Size([4, 3])
    """
    from torch._inductor.exc import CppCompileError

    if any(x.is_cuda for x in inputs):
        return _compiled(graph, inputs, {})
    options = {"post_grad_custom_post_pass": _our_products()} if _can_run_our_products() else {}
    try:
        with patch("torch._inductor.async_compile.AsyncCompile", _one_library()), widest_vectors():
            return _compiled(graph, inputs, options)
    except CppCompileError:  # a torch or a compiler that lacks what ours needs
        return _compiled(graph, inputs, {})


def _can_run_our_products() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()


def _compiled(graph: GraphModule, inputs: list[Tensor], options: dict[str, Any]) -> Callable[[list[Tensor]], Any]:
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
    # Operations stay in the program's order, for some versions of torch move draws of random numbers past each other too.
    options = {**options, "fallback_random": True, "size_asserts": False, "cpp.enable_loop_tail_vec": False,
               "cpp.min_chunk_size": FEWEST_ENTRIES_OF_A_THREAD, "reorder_for_locality": False, "reorder_for_peak_memory": False}
    # Without an environment for shapes, which are all static here, Inductor would not look into its cache on disk; where
    # AOTAutograd finds the graph in a cache of its own, it does not call Inductor.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    static = [mode.from_tensor(x, static_shapes=True) for x in inputs]
    with torch.no_grad(), config.patch(options), functorch.patch(enable_autograd_cache=False), tracing(TracingContext(mode)):
        compile_fx(graph, static, inner_compile=keep)
    (inner,) = compiled
    return getattr(inner, "current_callable", None) or inner


@cache
def _one_library() -> type:
    """What Inductor's code compiles its kernels with, all of them when it waits for them."""
    from torch._inductor.async_compile import AsyncCompile

    class OneLibrary(AsyncCompile):
        def __init__(self) -> None:
            super().__init__()
            self.sources: list[_Source] = []

        def cpp_pybinding(self, argtypes: list[str], source_code: str) -> _Source:
            self.sources.append(_Source(source_code))
            return self.sources[-1]

        def wait(self, scope: dict[str, Any]) -> None:
            functions = dict(zip(self.sources, library([source.text for source in self.sources]) if self.sources else []))
            scope.update({name: functions[value] for name, value in scope.items() if isinstance(value, _Source)})
            super().wait(scope)

    return OneLibrary


@dataclass(frozen=True, eq=False)
class _Source:
    """A kernel that is not compiled yet."""

    text: str


@cache
def _our_products() -> Any:
    """A pass over Inductor's graph that replaces its float32 products by ours."""
    from torch._inductor import ir
    from torch._inductor.custom_graph_pass import CustomGraphPass
    from torch._inductor.lowering import register_lowering

    class Product(ir.ExternKernelOut):
        """A call of the kernel in the code that Inductor writes."""

        def codegen(self, wrapper: Any) -> None:
            factors: Any = self.inputs
            (m, n), k = self.get_size(), factors[0].get_size()[1]
            strides, transposed = zip(*(_layout(x.get_size(), x.get_stride()) for x in factors))
            # Where a view begins with its tensor, the tensor does, for sizes and strides are given as numbers.
            pointers = [x.codegen_reference() if x.get_layout().offset else x.get_name() for x in (*factors, self)]
            if not getattr(wrapper, "has_our_product", False):
                wrapper.has_our_product = True
                wrapper.define_kernel("product", f"async_compile.cpp_pybinding([], r'''\n{PRODUCT.read_text()}''')", gpu=False)
            wrapper.writeline(f"product({', '.join(map(str, (*pointers, m, n, k, *strides, *transposed)))})")

    def lower(a: Any, b: Any) -> Any:
        a, b = (ir.ExternKernel.realize_input(x) for x in (a, b))
        for x in (a, b):
            x.freeze_layout()
        m, n = a.get_size()[0], b.get_size()[1]
        if any(_layout(x.get_size(), x.get_stride()) is None for x in (a, b)):
            a, b = (ir.ExternKernel.require_contiguous(x) for x in (a, b))
        layout = ir.FixedLayout(device=a.get_device(), dtype=a.get_dtype(), size=[m, n], stride=[n, 1])
        return ir.TensorBox.create(Product(layout, [a, b]))

    torch.library.define("pyro_vae::product", "(Tensor a, Tensor b) -> Tensor")
    torch.library.impl("pyro_vae::product", "CPU", torch.mm)
    torch.library.register_fake("pyro_vae::product", lambda a, b: a.new_empty(a.shape[0], b.shape[1]))
    product, aten = torch.ops.pyro_vae.product.default, torch.ops.aten
    register_lowering(product, type_promotion_kind=None)(lower)

    class OurProducts(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            for node in list(graph.nodes):
                if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs or not _can_be_ours(node):
                    continue
                arguments: Any = node.args
                *bias, a, b = arguments
                with graph.inserting_before(node):
                    new = graph.call_function(product, (a, b))
                    new.meta = dict(node.meta)
                    for term in bias:  # Inductor fuses the sum with what follows it
                        new.meta["val"] = node.meta["val"].new_empty(node.meta["val"].shape)
                        new = graph.call_function(aten.add.Tensor, (new, term))
                        new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
                graph.erase_node(node)

        def uuid(self) -> str:
            sources = PRODUCT.read_bytes() + Path(__file__).read_bytes()  # of the function, and of the code that calls it
            return f"pyro_vae::product {hashlib.sha256(sources).hexdigest()}"

    return OurProducts()


def _can_be_ours(node: Node) -> bool:
    values = [x.meta["val"] for x in (node, *node.all_input_nodes)]
    return all(value.dtype == torch.float32 and value.numel() > 0 for value in values)


def _layout(size: Any, stride: Any) -> tuple[int, int] | None:
    """The stride between a matrix's rows and 0; or that between its columns and 1, where the columns are contiguous; or ``None``."""
    (rows, columns), (down, right) = map(int, size), map(int, stride)
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return max(down, columns), 0
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return max(right, rows), 1
    return None
