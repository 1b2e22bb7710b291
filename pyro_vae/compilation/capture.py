"""A Pyro program as one static graph: captured once, with no handler left in it, then compiled.

`make_fx` runs model, guide and objective once and records the tensor operations, the backward pass
included. What is not an argument (parameters, buffers, constants) is found in the graph by identity
and becomes an input of it, so any closure can be captured, an optimiser may update the parameters
in place, and a buffer that the forward pass writes to is written to by the graph. Inductor compiles
the graph; where there is no compiler it is interpreted, to the same bits as eager.

A branch on data cannot be recorded and a shape that depends on data would be frozen: both are
found, and such a program runs eagerly instead.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro.infer
import torch
from pyro import validation_enabled
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.inductor import inductor
from pyro_vae.compilation.passes import CannotCapture, lift_tensors, refuse_dynamic_shapes

__all__ = ["Captured", "TensorFunction", "same_buffers", "without_writes"]

TensorFunction = Callable[..., Any]


class Captured:
    """A function of tensors as a static graph.

    Args:
        fn: a function of tensors that returns a tensor or a tuple of them; it is run once, and what
            that run changes (buffers, the random state) is put back.
        inputs: example inputs; their shapes, dtypes and devices become the graph's.

    Raises:
        CannotCapture: on data-dependent control flow or shapes.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> captured = Captured(lambda x: (x * weight).sum(), [torch.ones(3, 2)])
        >>> captured(torch.ones(3, 2))
        (tensor(6.),)
    """

    def __init__(self, fn: TensorFunction, inputs: Sequence[Tensor]):
        graph = _trace(fn, inputs)
        refuse_dynamic_shapes(graph)
        graph.graph.eliminate_dead_code()
        self.uses_host = any(_is_of_host(graph, node) for node in graph.graph.nodes)
        self.graph, self.lifted = lift_tensors(graph)
        self.call: Callable[[list[Tensor]], Any] = lambda values: self.graph(*values)
        self.is_compiled = False

    @property
    def size(self) -> int:
        """The number of operations."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)

    @property
    def fits_cuda_graph(self) -> bool:
        """Whether a CUDA graph can hold it: nothing of it on the host, where it would be frozen, and nothing that asks for a value,
        as do a draw of categories and a factorisation, which check their arguments."""
        waiting = (torch.ops.aten.multinomial.default, torch.ops.aten._linalg_check_errors.default)
        return not self.uses_host and not any(
            node.target in waiting for node in self.graph.graph.nodes
        )

    def compile(self, inputs: Sequence[Tensor]) -> None:
        """Compiles the graph with Inductor; a machine without a compiler keeps interpreting it, and is told so once."""
        try:
            self.call, self.is_compiled = inductor(self.graph, [*inputs, *self.lifted]), True
        except Exception as error:  # Inductor raises whatever its tool chain does
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            warnings.warn(
                f"the captured graph could not be compiled and is interpreted instead ({reason}); a C++ "
                "compiler such as g++ makes training faster",
                stacklevel=2,
            )

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.call([*inputs, *self.lifted])
        return (out,) if isinstance(out, Tensor) else tuple(out)


def _trace(fn: TensorFunction, inputs: Sequence[Tensor]) -> GraphModule:
    devices = [x.device for x in inputs if x.is_cuda]
    try:
        with (
            torch.random.fork_rng(devices),
            validation_enabled(False),
            without_writes(),
            _WithoutReading(),
        ):
            return make_fx(fn)(*inputs)
    except RuntimeError as error:
        if "data-dependent" not in str(error) and "tracing tensor" not in str(error):
            raise
        raise CannotCapture(
            "its control flow depends on the values of tensors", _line_at_fault(error)
        ) from None


@contextmanager
def without_writes(module: nn.Module | None = None) -> Iterator[None]:
    """Puts back what the body writes into tensors, such as running statistics, and the module's buffers that it replaces."""
    writes = _Writes()
    try:
        with same_buffers(module), writes:
            yield
    finally:
        writes.undo()


@contextmanager
def same_buffers(module: nn.Module | None) -> Iterator[list[str]]:
    """Puts back the module's buffers that the body replaces by another tensor, whose names are in the list then."""
    module = nn.Module() if module is None else module
    before, replaced = dict(module.named_buffers()), list[str]()
    try:
        yield replaced
    finally:
        for name, buffer in before.items():
            if module.get_buffer(name) is not buffer:
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, buffer)
                replaced.append(name)


class _Writes(TorchDispatchMode):
    """Remembers what tensors held before they were first written to, so that a capture changes no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for leaf in tree_leaves(_written(func, args, kwargs)):
            if isinstance(leaf, Tensor) and not leaf.requires_grad:
                self.before.setdefault(id(leaf), (leaf, leaf.detach().clone()))
        return func(*args, **kwargs)

    def undo(self) -> None:
        for tensor, value in reversed(
            self.before.values()
        ):  # of views of one tensor the first has what was there first
            if tensor.shape == value.shape:  # a temporary may have been resized since
                tensor.detach().copy_(value)


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation writes to, by its signature."""
    if (
        "batch_norm" in func.__name__
    ):  # which does not say there that it writes its running statistics
        return [args, kwargs]
    return [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _is_of_host(graph: GraphModule, node: Node) -> bool:
    """Whether a node is a tensor in the host's memory; a number there that does not change is none, for a kernel may be given it."""
    if node.op == "get_attr":
        value = getattr(graph, str(node.target))
        return is_on_host(value) and value.dim() > 0
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and any(
        is_on_host(x) and (x.dim() > 0 or torch.Tag.nondeterministic_seeded in tags)
        for x in tree_leaves(node.meta.get("val"))
        if isinstance(x, Tensor)
    )


def is_on_host(tensor: Tensor) -> bool:
    """Whether a tensor is in the host's memory."""
    return tensor.device.type == "cpu"


class _WithoutReading(TorchFunctionMode):
    """Replaces a function that looks at its argument's values to check them by one that only computes the same."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:  # then the number of classes depends on the values
        return torch.nn.functional.one_hot(tensor)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _line_at_fault(error: BaseException) -> str:
    """The innermost line of the user's code, or of this package's components, in a traceback."""
    libraries = (str(Path(torch.__file__).parent), str(Path(pyro.__file__).parent), __file__)
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((*libraries, "<"))
    ]
    return (
        f"{frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})"
        if frames
        else "an unknown line"
    )
