"""Inductor, called for a captured graph: its own callable without Dynamo's guards, and on the CPU our matrix product.

Random numbers are drawn by torch's own generators (``fallback_random``): a compiled step then draws the same ones as the eager
step, and draws them faster, for Inductor's counter-based generator is not vectorised on the CPU.

On CPUs with AVX-512, products of float32 matrices are those of ``product.cpp``: one and a half to four times as fast as the BLAS
that torch was built with on such CPUs of AMD, and called from Inductor's code without torch's dispatcher in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch.fx import Graph, GraphModule, Node

__all__ = ["inductor", "product_kernel"]


def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """Compiles a graph for inputs like the given ones; the callable takes a list, which it empties.

    Example:
        >>> graph = torch.fx.symbolic_trace(torch.nn.Linear(2, 3))
        >>> inductor(graph, [torch.ones(4, 2)])([torch.ones(4, 2)])[0].shape  # doctest: +SKIP
        torch.Size([4, 3])
    """
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list
    from torch._inductor.exc import CppCompileError

    try:
        return _compiled(graph, inputs, {"cpp.vec_isa_ok": True} if _uses_wide_vectors() else {})
    except CppCompileError:
        valid_vec_isa_list.cache_clear()
        return _compiled(graph, inputs, {})


def _uses_wide_vectors() -> bool:
    """Whether torch's own code runs on this processor's widest vectors: then Inductor's will, and need not try each kind of them
    first, which took half of the first compilation's time."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


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
    options = {**options, "fallback_random": True, "size_asserts": False, "cpp.enable_loop_tail_vec": False}
    # Without an environment for shapes, which are all static here, Inductor would not look into its cache on disk; where
    # AOTAutograd finds the graph in a cache of its own, it does not call Inductor.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    static = [mode.from_tensor(x, static_shapes=True) for x in inputs]
    with torch.no_grad(), config.patch(options), functorch.patch(enable_autograd_cache=False), tracing(TracingContext(mode)):
        has_our_products = all(x.device.type == "cpu" for x in inputs) and product_kernel() is not None
        with config.patch({"post_grad_custom_post_pass": _our_products()} if has_our_products else {}):
            compile_fx(graph, static, inner_compile=keep)
    (inner,) = compiled
    return getattr(inner, "current_callable", None) or inner


@cache
def product_kernel() -> Callable[..., None] | None:
    """``product.cpp``, compiled: of pointers to a, b and out, m, n, k, strides and whether transposed; ``None`` where it cannot run."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.exc import CppCompileError

    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None

    class Bindings(CppPythonBindingsCodeCache):
        cpp_compile_command_flags = {"include_pytorch": True, "shared": True}
        cache: dict[str, Any] = {}

    source = Path(__file__).with_name("product.cpp").read_text()
    try:
        return Bindings.load_pybinding(["const float*", "const float*", "float*", *["int64_t"] * 7], source)
    except CppCompileError:  # a torch without the kernel for small matrices: its own products do
        return None


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
            pointers = [x.codegen_reference() for x in (*factors, self)]
            wrapper.add_import_once("from pyro_vae.inductor import product_kernel\nproduct = product_kernel()")
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
            return "pyro_vae::product 1"

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
