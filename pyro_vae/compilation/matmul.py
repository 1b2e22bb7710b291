"""Our matrix products in C++ within compiled graphs on the CPU."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.fx import Graph, Node

__all__ = ["can_run_our_products", "our_products"]

PRODUCT = Path(__file__).with_name("matmul.cpp")


def can_run_our_products() -> bool:
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    )


@cache
def our_products() -> Any:
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
            # Where a view begins with its tensor, the tensor does, for sizes and strides are given
            # as numbers.
            pointers = [
                x.codegen_reference() if x.get_layout().offset else x.get_name()
                for x in (*factors, self)
            ]
            if not getattr(wrapper, "has_our_product", False):
                wrapper.has_our_product = True
                wrapper.define_kernel(
                    "product",
                    f"async_compile.cpp_pybinding([], r'''\n{PRODUCT.read_text()}''')",
                    gpu=False,
                )
            wrapper.writeline(
                f"product({', '.join(map(str, (*pointers, m, n, k, *strides, *transposed)))})"
            )

    def lower(a: Any, b: Any) -> Any:
        a, b = (ir.ExternKernel.realize_input(x) for x in (a, b))
        for x in (a, b):
            x.freeze_layout()
        m, n = a.get_size()[0], b.get_size()[1]
        if any(_layout(x.get_size(), x.get_stride()) is None for x in (a, b)):
            a, b = (ir.ExternKernel.require_contiguous(x) for x in (a, b))
        layout = ir.FixedLayout(
            device=a.get_device(), dtype=a.get_dtype(), size=[m, n], stride=[n, 1]
        )
        return ir.TensorBox.create(Product(layout, [a, b]))

    torch.library.define("pyro_vae::product", "(Tensor a, Tensor b) -> Tensor")
    torch.library.impl("pyro_vae::product", "CPU", torch.mm)
    torch.library.register_fake(
        "pyro_vae::product", lambda a, b: a.new_empty(a.shape[0], b.shape[1])
    )
    product, aten = torch.ops.pyro_vae.product.default, torch.ops.aten
    register_lowering(product, type_promotion_kind=None)(lower)

    class OurProducts(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            for node in list(graph.nodes):
                if (
                    node.target not in (aten.mm.default, aten.addmm.default)
                    or node.kwargs
                    or not _can_be_ours(node)
                ):
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
            sources = (
                PRODUCT.read_bytes() + Path(__file__).read_bytes()
            )  # of the function, and of the code that calls it
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
