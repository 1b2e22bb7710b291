"""Capture a function of tensors as one static graph, without Pyro, and compile it.

`make_fx` runs the function once, say model, guide and objective, and records the tensor operations,
the backward pass included. Whatever is not an argument (parameters, buffers, constants) is found in
the graph by identity and becomes an input of it. So any closure can be captured, an optimiser may
update the parameters in place, and the graph writes to the buffers that the forward pass writes to.
Inductor compiles the graph; without a compiler it is interpreted, to the same bits as eager.

A branch on data cannot be recorded, and a shape that depends on data would be frozen. Both are
found, and such a program runs eagerly instead.
"""

from __future__ import annotations

import math
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pyro.infer
import torch
from pyro import validation_enabled
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch.distributions import Distribution
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import (
    _ProxyTensor,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.hoisting import Hoisted, hoisted
from pyro_vae.compilation.passes import (
    CannotCapture,
    lift_tensors,
    refuse_dynamic_shapes,
    tags_of,
    tensor_at,
)
from pyro_vae.compilation.writes import without_writes
from pyro_vae.validation import InvalidInput

__all__ = ["Captured", "TensorFunction"]

TensorFunction = Callable[..., Tensor | tuple[Tensor, ...]]
Function = Callable[..., None]

# Operations that read a value back from the device: a draw of categories and a factorisation check
# their arguments.
WAITING = (torch.ops.aten.multinomial.default, torch.ops.aten._linalg_check_errors.default)

VECTOR = {"AVX2": 8, "AVX512": 16}  # numbers in a vector of the processor
MANY_ENTRIES = 2**18  # of a tensor whose rows' ends take more time than compiling them as vectors


class Captured:
    """A function of tensors as a static graph.

    Args:
        fn: a function of tensors that returns a tensor or a tuple of them. It is run once; what
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
        results = (result for node in graph.graph.nodes for result in _results_of(node))
        self.has_odd_rows = any(map(_has_odd_rows, results))
        self.graph, self.lifted = lift_tensors(graph)
        self.weights = self.lifted
        self.hoisted: Hoisted | None = None
        self.call: Callable[[list[Tensor]], Tensor | Sequence[Tensor]] = self._interpret
        self.is_compiled = False

    @property
    def size(self) -> int:
        """The number of operations."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)

    @property
    def fits_cuda_graph(self) -> bool:
        """Whether a CUDA graph can hold it.

        It cannot where a tensor is on the host, which a CUDA graph would freeze, or where an
        operation waits for a value.
        """
        return not self.uses_host and not any(n.target in WAITING for n in self.graph.graph.nodes)

    def hoist(self) -> None:
        """Compute now, once, what depends on no input; `refresh` after the weights have changed."""
        self.hoisted = hoisted(self.graph, self.weights)
        if self.hoisted is not None:
            self.graph = self.hoisted.rest
            self.refresh()

    def refresh(self) -> None:
        """Compute anew what `hoist` took out, from the weights as they are."""
        if self.hoisted is not None:
            self.lifted = self.hoisted.of(self.weights)

    def compile(self, inputs: Sequence[Tensor]) -> None:
        """Compile the graph with Inductor; without a compiler, warn once and go on interpreting."""
        try:
            # Imported here, so that the library runs where these files are missing.
            from pyro_vae.compilation.inductor import inductor

            values = [*inputs, *self.lifted]
            self.call = inductor(self.graph, values, vectorised_ends=self.has_odd_rows)
            self.is_compiled = True
        except (InvalidInput, NotADirectoryError):  # the latter of a cache that cannot be made
            raise
        except Exception as error:  # Inductor raises whatever its tool chain raises
            (reason, *_) = [*str(error).strip().splitlines(), type(error).__name__]
            warnings.warn(
                "the captured graph could not be compiled and is interpreted instead "
                f"({reason}); a C++ compiler such as g++ makes training faster",
                stacklevel=2,
            )

    @contextmanager
    def calling(self, wrapped: Callable[[Function], Function]) -> Iterator[None]:
        """Within it, the compiled code calls what wraps the functions of its library.

        Raises:
            CannotCapture: if it is no code that calls such functions.
        """
        from pyro_vae.compilation.inductor import with_functions

        with mock.patch.object(self, "call", with_functions(self.call, wrapped)):
            yield

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.call([*inputs, *self.lifted])
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def _interpret(self, values: list[Tensor]) -> Tensor | Sequence[Tensor]:
        return self.graph(*values)


@dataclass(frozen=True)
class Result:
    """What the passes over a graph look up of an operation's result, under ``meta["val"]``."""

    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...]


class _Results(TorchFunctionMode):
    """Stands where torch expects a mode of fake tensors, of which it makes one for each result.

    They would take a third of the time of a capture, and Inductor makes its own.
    """

    shape_env, epoch = None, 0
    in_kernel_invocation = True  # so what `torch.compile` was applied to is called as it was before

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.empty_strided:
            return Result(kwargs["dtype"], kwargs["device"], tuple(args[0]))
        return func(*args, **kwargs)


def _trace(fn: TensorFunction, inputs: Sequence[Tensor]) -> GraphModule:
    devices = [x.device for x in inputs if x.is_cuda]
    try:
        with (
            torch.random.fork_rng(devices),
            validation_enabled(False),
            without_writes(),
            _without_checks(),
            _WithoutReading(),
            tracing(TracingContext(_Results())),  # type: ignore[arg-type]
        ):
            return make_fx(fn)(*inputs)
    except RuntimeError as error:
        if "data-dependent" not in str(error) and "tracing tensor" not in str(error):
            raise
        raise CannotCapture(
            "its control flow depends on the values of tensors", _line_at_fault(error)
        ) from None
    except AssertionError as error:  # of torch's about an operation that is not one of its own
        if "to be unreachable" not in str(error):
            raise
        line = _line_at_fault(error)
        raise CannotCapture("torch cannot trace an operation of it", line) from None


def _is_of_host(graph: GraphModule, node: Node) -> bool:
    """Whether a node is a tensor in the host's memory.

    Constant 0-d host tensors do not count: a kernel takes them as arguments.
    """
    if node.op == "get_attr":
        value = tensor_at(graph, node)
        return is_on_host(value) and value.dim() > 0
    is_random = torch.Tag.nondeterministic_seeded in tags_of(node)
    return node.op == "call_function" and any(
        is_on_host(x) and (len(x.shape) > 0 or is_random) for x in _results_of(node)
    )


def _results_of(node: Node) -> list[Result]:
    return [leaf for leaf in tree_leaves(node.meta.get("val")) if isinstance(leaf, Result)]


def _has_odd_rows(result: Result) -> bool:
    """Whether vectors leave a tenth or more of a large tensor's rows, each left by itself."""
    (*_, row) = (1, *result.shape)
    left = row % VECTOR.get(torch.backends.cpu.get_cpu_capability(), 1)
    return math.prod(result.shape) >= MANY_ENTRIES and 10 * left >= row


def is_on_host(tensor: Tensor | Result) -> bool:
    """Whether a tensor is in the host's memory."""
    return tensor.device.type == "cpu"


@contextmanager
def _without_checks() -> Iterator[None]:
    """Leave values unchecked by distributions that were made before validation was turned off.

    A prior that is made beside a model, as `PyroSample` has it, keeps the setting of its making.
    """
    with mock.patch.object(Distribution, "_validate_sample", lambda self, value: None):
        yield


class _WithoutReading(TorchFunctionMode):
    """Replace a function that checks values by one that only computes the result.

    Where the program itself reads a value, of which the graph would make a constant, it is refused.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        if func in READING and any(_may_change(x) for x in args if isinstance(x, Tensor)):
            raise RuntimeError("a data-dependent number")
        return func(*args, **(kwargs or {}))


# What reads the values of a tensor.
READING = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__contains__),
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__complex__, Tensor.__index__),
    *(Tensor.is_nonzero, Tensor.equal, Tensor.allclose),
    *(torch.is_nonzero, torch.equal, torch.allclose),
}


def _may_change(tensor: Tensor) -> bool:
    """Whether a tensor may have other values when the graph runs again.

    Only one that the traced function makes of numbers does not: data are inputs, draws differ, and
    whatever was there before, such as a buffer, may be written to.
    """
    mode = get_proxy_mode()
    if mode is None:
        return False
    traced = get_proxy_slot(tensor, mode.tracer, None)
    if not isinstance(traced, _ProxyTensor):
        return True
    nodes, seen = [traced.proxy.node], set[Node]()
    for node in nodes:  # which grows by what went into it
        from_outside = node.op == "get_attr" and any(
            user.target not in MADE_OF_NUMBERS for user in node.users
        )
        is_random = torch.Tag.nondeterministic_seeded in tags_of(node)
        if node.op == "placeholder" or from_outside or is_random:
            return True
        nodes += [each for each in node.all_input_nodes if each not in seen]
        seen |= set(node.all_input_nodes)
    return False


MADE_OF_NUMBERS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:  # then the number of classes depends on the values
        return torch.nn.functional.one_hot(tensor)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _line_at_fault(error: BaseException) -> str:
    """The innermost line of the user's code, or of this package's components, in a traceback."""
    folders = (Path(torch.__file__).parent, Path(pyro.__file__).parent, Path(__file__).parent)
    libraries = (*(f"{folder}/" for folder in folders), typing.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*libraries, "<")):
            return f"{frame.filename}:{frame.lineno} ({frame.line})"
    return "an unknown line"
