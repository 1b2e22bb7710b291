"""Put our C++ matrix product into compiled graphs on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.fx import Graph, Node

if TYPE_CHECKING:  # Inductor is imported when a graph is compiled
    from sympy import Expr
    from torch._inductor.codegen.wrapper import PythonWrapperCodegen
    from torch._inductor.custom_graph_pass import CustomGraphPass
    from torch._inductor.ir import IRNode, TensorBox

__all__ = ["can_run_our_products", "our_products"]

PRODUCT = Path(__file__).with_name("matmul.cpp")


def can_run_our_products() -> bool:
    """Whether this machine supports our matrix product: AVX-512 and oneDNN."""
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_avx512 and torch.backends.mkldnn.is_available()


@cache
def our_products() -> CustomGraphPass:
    """A pass over Inductor's graph that replaces its float32 products by ours."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    product, aten = _product(), torch.ops.aten

    class OurProducts(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            for node in list(graph.nodes):
                is_product = node.target in (aten.mm.default, aten.addmm.default)
                if not is_product or node.kwargs or not _can_be_ours(node):
                    continue
                *bias, a, b = node.args
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
            # The key of Inductor's cache: our product, and the code here that calls it.
            sources = PRODUCT.read_bytes() + Path(__file__).read_bytes()
            return f"pyro_vae::product {hashlib.sha256(sources).hexdigest()}"

    return OurProducts()


def _product() -> torch._ops.OpOverload:
    """Our product as an operation of torch's that Inductor knows how to call."""
    from torch._inductor import ir
    from torch._inductor.lowering import register_lowering

    class Product(ir.ExternKernelOut):
        """A call of the kernel in the code that Inductor writes."""

        def codegen(self, wrapper: PythonWrapperCodegen) -> None:
            factors = [x for x in self.inputs if isinstance(x, ir.IRNode)]
            (m, n), k = self.get_size(), factors[0].get_size()[1]
            layouts = [_layout(x.get_size(), x.get_stride()) for x in factors]
            strides, transposed = zip(*(layout for layout in layouts if layout is not None))
            # A view that begins where its tensor begins is given as the tensor: sizes and strides
            # are given as numbers.
            pointers = [
                x.codegen_reference() if x.get_layout().offset else x.get_name()
                for x in (*factors, self)
            ]
            if "has_our_product" not in vars(wrapper):
                vars(wrapper)["has_our_product"] = True
                source = f"async_compile.cpp_pybinding([], r'''\n{PRODUCT.read_text()}''')"
                wrapper.define_kernel("product", source, gpu=False)
            numbers = map(str, (*pointers, m, n, k, *strides, *transposed))
            wrapper.writeline(f"product({', '.join(numbers)})")

    def lower(a: TensorBox, b: TensorBox) -> TensorBox:
        factors: list[IRNode] = [ir.ExternKernel.realize_input(x) for x in (a, b)]
        for x in factors:
            x.freeze_layout()
        if any(_layout(x.get_size(), x.get_stride()) is None for x in factors):
            factors = [ir.ExternKernel.require_contiguous(x) for x in factors]
        (m, _), (_, n) = (x.get_size() for x in factors)
        layout = ir.FixedLayout(torch.device("cpu"), factors[0].get_dtype(), [m, n], [n, 1])
        return ir.TensorBox.create(Product(layout, factors))

    torch.library.define("pyro_vae::product", "(Tensor a, Tensor b) -> Tensor")
    torch.library.impl("pyro_vae::product", "CPU", torch.mm)
    torch.library.register_fake(
        "pyro_vae::product", lambda a, b: a.new_empty(a.shape[0], b.shape[1])
    )
    product = torch.ops.pyro_vae.product.default
    register_lowering(product, type_promotion_kind=None)(lower)
    return product


def _can_be_ours(node: Node) -> bool:
    values = [x.meta["val"] for x in (node, *node.all_input_nodes)]
    return all(value.dtype == torch.float32 and value.numel() > 0 for value in values)


def _layout(size: Sequence[Expr], stride: Sequence[Expr]) -> tuple[int, int] | None:
    """A matrix's layout: the stride between rows and 0, or between columns and 1.

    The latter where columns are contiguous; ``None`` where neither rows nor columns are.
    """
    (rows, columns), (down, right) = map(int, size), map(int, stride)
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return max(down, columns), 0
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return max(right, rows), 1
    return None
