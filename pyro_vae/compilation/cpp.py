"""C++ functions compiled into one library, callable from Python: a compiler then reads torch's headers once, not for each of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch

__all__ = ["Function", "library", "widest_vectors", "without_warnings"]

# Reading the headers takes as long as compiling so many kernels; more than that are shared among
# the cores.
FEWEST_IN_A_LIBRARY = 16


Function = Callable[..., None]


# What Inductor's own template for one function does, for any number, whose types the compiler
# knows, and for sequences of tensors. In a namespace without a name, for the dynamic linker merges
# what templates make under the same name in two libraries.
BINDINGS = """
namespace {
template <typename Argument> Argument argument(PyObject* given) {
    if constexpr (std::is_pointer_v<Argument>) {
        return static_cast<Argument>(_torchinductor_pyobject_tensor_data_ptr(given));
    } else if constexpr (!std::is_arithmetic_v<Argument>) {
        if (!PyList_Check(given) && !PyTuple_Check(given)) throw std::runtime_error("expected a list or tuple of tensors");
        Argument pointers(PySequence_Fast_GET_SIZE(given));
        for (size_t i = 0; i < pointers.size(); i++)
            pointers[i] = argument<typename Argument::value_type>(PySequence_Fast_GET_ITEM(given, i));
        return pointers;
    } else {
        Argument number;
        if constexpr (std::is_integral_v<Argument>) number = static_cast<Argument>(PyLong_AsLongLong(given));
        else number = static_cast<Argument>(PyFloat_AsDouble(given));
        if (number == -1 && PyErr_Occurred()) throw std::runtime_error("expected a number");
        return number;
    }
}
template <auto kernel> struct Binding;
template <typename... Arguments, void (*kernel)(Arguments...)> struct Binding<kernel> {
    template <size_t... i> static void unpack(PyObject* const* given, std::index_sequence<i...>) {
        kernel(argument<std::decay_t<Arguments>>(given[i])...);
    }
    static PyObject* call(PyObject*, PyObject* const* given, Py_ssize_t number) {
        try {
            if (number != sizeof...(Arguments)) throw std::runtime_error("wrong number of arguments");
            unpack(given, std::index_sequence_for<Arguments...>());
        } catch (const std::exception& error) {
            PyErr_SetString(PyExc_RuntimeError, error.what());
            return nullptr;
        }
        Py_RETURN_NONE;
    }
    static inline PyMethodDef method = {"kernel", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL, ""};
};
}
"""


@contextmanager
def without_warnings() -> Iterator[None]:
    """What torch deprecates within itself is no concern of who compiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@without_warnings()
def library(sources: Sequence[str], flags: Sequence[str] = ()) -> list[Function]:
    r"""The function ``kernel`` of each C++ source, which returns nothing, of pointers (given as tensors), vectors of pointers, and numbers.

    Args:
        sources: with all that they include.
        flags: for the compiler, after those of Inductor's own.

    Raises:
        torch._inductor.exc.CppCompileError: if the compiler refuses a source.

    Example:
        >>> source = 'extern "C" void kernel(const float* x, float* out) { out[0] = 2 * x[0]; }'
        >>> (double,) = library([source])  # doctest: +SKIP
        >>> double(torch.tensor([3.0]), out := torch.empty(1))  # doctest: +SKIP
        >>> out  # doctest: +SKIP
        tensor([6.])
    """
    number = max(1, min(len(sources) // FEWEST_IN_A_LIBRARY, os.cpu_count() or 1))
    parts = [sources[i::number] for i in range(number)]
    with widest_vectors(), ThreadPoolExecutor(number) as pool:  # of which each waits for a compiler
        functions = list(
            pool.map(partial(_compiled, flags=["-w", *flags]), parts)
        )  # torch's headers have much to warn of
    return [functions[i % number][i // number] for i in range(len(sources))]


@contextmanager
def widest_vectors() -> Iterator[None]:
    """Inductor with the widest vectors that torch runs on this processor: it finds them by compilations, as long as the rest of it."""
    from torch._inductor import cpu_vec_isa

    known = {"AVX2": cpu_vec_isa.VecAVX2, "AVX512": cpu_vec_isa.VecAVX512}
    name = torch.backends.cpu.get_cpu_capability()
    if name not in known:
        yield
        return
    vectors = [_without_trial(known[name])]
    with patch.object(cpu_vec_isa, "valid_vec_isa_list", lambda: vectors):
        yield


@cache
def _without_trial(vectors: type) -> Any:
    return type(vectors.__name__, (vectors,), {"__bool__": lambda self: True})()


def _compiled(sources: Sequence[str], flags: Sequence[str]) -> Sequence[Function]:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    includes, bodies = ["#include <stdexcept>", "#include <type_traits>", "#include <utility>"], []
    for i, source in enumerate(sources):
        lines = source.splitlines()
        includes += [line for line in lines if line.startswith("#include") and line not in includes]
        body = "\n".join(line for line in lines if not line.startswith("#include"))
        bodies.append(
            f"#define kernel kernel_{i}\nnamespace source_{i} {{\n{body}\n}}\n#undef kernel"
        )
    methods = ", ".join(f"&Binding<source_{i}::kernel_{i}>::method" for i in range(len(sources)))

    class Bindings(CppPythonBindingsCodeCache):
        cpp_compile_command_flags = {"include_pytorch": True, "shared": True}
        cache: dict[str, Any] = {}
        entry_function = "functions"
        extra_parse_arg = BINDINGS.replace("{", "{{").replace("}", "}}")
        call_entry_function = f"""
            PyObject* all = PyTuple_New({len(sources)});
            Py_ssize_t i = 0;
            for (PyMethodDef* method : {{{methods}}}) PyTuple_SET_ITEM(all, i++, PyCFunction_New(method, nullptr));
            return all;""".replace("{", "{{").replace("}", "}}")

        @classmethod
        def _get_uncompiled_header(cls, device: str) -> None:
            """None to compile beforehand: it would be used once, and takes longer than the rest."""

    return Bindings.load_pybinding([], "\n".join([*includes, *bodies]), extra_flags=flags)()
