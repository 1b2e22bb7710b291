"""Compile a captured graph with Inductor: its own callable, without Dynamo's guards.

Random numbers are drawn by torch's own generators (``fallback_random``), in the program's order. A
compiled step so draws the same ones as the eager step, and draws them faster, for Inductor's
counter-based generator is not vectorised on the CPU.

On the CPU all kernels of a graph are compiled as one library (`pyro_vae.compilation.cpp`). On CPUs
with AVX-512, products of float32 matrices are those of ``matmul.cpp``: one and a half to four times
as fast as the BLAS that torch was built with on such CPUs of AMD, and called from Inductor's code
without torch's dispatcher in between. ``PYRO_VAE_CPP=off`` turns both off.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch.fx import GraphModule

from pyro_vae.compilation.cpp import (
    Function,
    is_on,
    is_ours,
    library,
    widest_vectors,
    without_warnings,
)
from pyro_vae.compilation.logarithm import our_logarithm
from pyro_vae.compilation.matmul import can_run_our_products, our_products
from pyro_vae.compilation.passes import CannotCapture
from pyro_vae.compilation.repeats import parts_of

__all__ = ["inductor", "with_functions"]

# A loop over fewer takes a few microseconds; waking a thread up takes as many or ten times more.
FEWEST_ENTRIES_OF_A_THREAD = 1 << 14

CompiledGraph = Callable[[list[Tensor]], Sequence[Tensor]]  # it empties the list
P = ParamSpec("P")
Result = TypeVar("Result")


@without_warnings()
def inductor(
    graph: GraphModule, inputs: list[Tensor], *, vectorised_ends: bool = False
) -> CompiledGraph:
    """Compile a graph for inputs like the given ones.

    The callable empties the list that it takes. A loop's last numbers, too few for a vector, are
    computed one by one: the C++ compiler then has a third less to do, and the code is as fast,
    unless the loops are short and many.

    Example:
        >>> graph = torch.fx.symbolic_trace(torch.nn.Linear(2, 3))
        >>> inductor(graph, [torch.ones(4, 2)])([torch.ones(4, 2)])[0].shape  # doctest: +SKIP
        torch.Size([4, 3])
    """
    with _said_to_nobody("torch.utils.cpp_extension"):  # that there is no GPU
        importlib.import_module("torch.utils.cpp_extension")
    from torch._inductor.exc import CppCompileError

    options: dict[str, object] = {"cpp.enable_loop_tail_vec": vectorised_ends}
    if any(x.is_cuda for x in inputs):
        return _in_parts(graph, inputs, options)
    try:
        with widest_vectors():
            compile = _with_ours if is_on() else _in_parts
            return compile(graph, inputs, options)
    except CppCompileError:  # a torch or a compiler that lacks what ours, or the vectors, need
        return _in_parts(graph, inputs, options)


def _with_ours(
    graph: GraphModule, inputs: list[Tensor], options: dict[str, object]
) -> CompiledGraph:
    """Compile a graph for the CPU, our own C++ in place of some of torch's operations."""
    ours: dict[str, object] = {"post_grad_custom_pre_pass": our_logarithm()}
    if can_run_our_products():
        ours["post_grad_custom_post_pass"] = our_products()
    with _kernels_at_once():
        return _in_parts(graph, inputs, {**options, **ours})


def _in_parts(
    graph: GraphModule, inputs: list[Tensor], options: dict[str, object]
) -> CompiledGraph:
    """Compile a graph; a large one in parts, where some of them repeat."""
    parts = parts_of(graph, inputs)
    if parts is None:
        return _compiled(graph, inputs, options)
    for part in parts.different:
        part.call = _compiled(part.graph, [layout.empty() for layout in part.inputs], options)
    return parts


@contextmanager
def _said_to_nobody(name: str) -> Iterator[None]:
    """Keep warnings of a library's logger from the user, to whom they say nothing."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _compiled(
    graph: GraphModule, inputs: list[Tensor], options: dict[str, object]
) -> CompiledGraph:
    from torch._functorch import config as functorch
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    inner_compile, compiled = _kept(compile_fx_inner)
    # Operations stay in the program's order, for some versions of torch move draws of random
    # numbers past each other too.
    options = {
        **options,
        "fallback_random": True,
        "size_asserts": False,
        "cpp.min_chunk_size": FEWEST_ENTRIES_OF_A_THREAD,
        "reorder_for_locality": False,
        "reorder_for_peak_memory": False,
    }
    # Without an environment for shapes, which are all static here, Inductor would not look into its
    # cache on disk; where AOTAutograd finds the graph in a cache of its own, it does not call
    # Inductor.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    static = [mode.from_tensor(x, static_shapes=True) for x in inputs]
    with (
        torch.no_grad(),
        config.patch(options),
        functorch.patch(enable_autograd_cache=False),
        tracing(TracingContext(mode)),
    ):
        compile_fx(graph, static, inner_compile=inner_compile)
    (inner,) = compiled
    return getattr(inner, "current_callable", None) or inner


def with_functions(call: object, wrapped: Callable[[Function], Function]) -> MethodType:
    """The same generated code, which calls what wraps the functions of its library.

    Raises:
        CannotCapture: if it is no such code.
    """
    if not isinstance(call, MethodType) or not isinstance(call.__func__, FunctionType):
        raise CannotCapture("it is not code that calls functions of one library", str(call))
    names = call.__func__.__globals__
    known = {name: wrapped(value) for name, value in names.items() if is_ours(value)}
    return MethodType(FunctionType(call.__func__.__code__, {**names, **known}), call.__self__)


def _kept(fn: Callable[P, Result]) -> tuple[Callable[P, Result], list[Result]]:
    """The same function, and a list that collects its results."""
    results: list[Result] = []

    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        results.append(fn(*args, **kwargs))
        return results[-1]

    return call, results


@contextmanager
def _kernels_at_once() -> Iterator[None]:
    """Within it, kernels of Inductor's code are kept; at its end they are compiled, all at once."""
    from torch._inductor.async_compile import AsyncCompile

    kept: list[tuple[dict[str, object], str, str]] = []  # who calls it, by which name; its code

    class Kept(AsyncCompile):
        def cpp_pybinding(self, argtypes: list[str], source_code: str) -> _Source:
            return _Source(source_code)

        def wait(self, scope: dict[str, object]) -> None:
            for name, value in scope.items():
                if isinstance(value, _Source):
                    kept.append((scope, name, value.text))
            super().wait(scope)

    with patch("torch._inductor.async_compile.AsyncCompile", Kept):
        yield
    sources = list(dict.fromkeys(text for _, _, text in kept))
    functions = dict(zip(sources, library(sources) if sources else []))
    for scope, name, text in kept:
        scope[name] = functions[text]


@dataclass(frozen=True)
class _Source:
    """A kernel that is not compiled yet."""

    text: str
