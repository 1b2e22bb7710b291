"""C++ functions compiled into one library, callable from Python: a compiler then reads torch's headers once, not for each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["library"]

# Reading the headers takes as long as compiling so many kernels; more than that are shared among the cores.
FEWEST_IN_A_LIBRARY = 16

Function = Callable[..., None]

# What Inductor's own template for one function does, for any number, whose types the compiler knows. In a namespace without a name,
# for the dynamic linker merges what templates make under the same name in two libraries.
BINDINGS = """
namespace {
template <typename Argument> Argument argument(PyObject* given) {
    if constexpr (std::is_pointer_v<Argument>) {
        return static_cast<Argument>(_torchinductor_pyobject_tensor_data_ptr(given));
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
        kernel(argument<Arguments>(given[i])...);
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


def library(sources: Sequence[str]) -> list[Function]:
    r"""The function ``kernel`` of each C++ source, of pointers, for which tensors are given, and integers; it returns nothing.

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
    with ThreadPoolExecutor(number) as pool:  # of which each waits for a compiler
        functions = list(pool.map(_compiled, parts))
    return [functions[i % number][i // number] for i in range(len(sources))]


def _compiled(sources: Sequence[str]) -> Sequence[Function]:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    includes, bodies = ["#include <torch/csrc/inductor/cpp_prefix.h>"], []
    for i, source in enumerate(sources):
        lines = source.splitlines()
        includes += [line for line in lines if line.startswith("#include") and line not in includes]
        body = "\n".join(line for line in lines if not line.startswith("#include"))
        bodies.append(f"#define kernel kernel_{i}\nnamespace source_{i} {{\n{body}\n}}\n#undef kernel")
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

    return Bindings.load_pybinding([], "\n".join([*includes, *bodies]), extra_flags=["-w"])()  # torch's headers have many to warn of
