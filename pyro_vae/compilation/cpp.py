"""Compile C++ functions into one library and call them from Python.

In one library, the compiler reads torch's headers once and not for each function.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from types import BuiltinFunctionType
from unittest.mock import patch

import torch

from pyro_vae.validation import check_choice

__all__ = [
    "Function",
    "is_on",
    "is_ours",
    "library",
    "widest_vectors",
    "without_warnings",
    "words_of",
]

# Reading the headers takes as long as compiling this many kernels; more are shared among the cores.
FEWEST_IN_A_LIBRARY = 16

SWITCH = "PYRO_VAE_CPP"  # in the environment: "on", as if it were not there, or "off"

Function = Callable[..., None]


# Inductor's own template binds one function; this one binds any number of them, reads their types
# from the compiler and takes sequences of tensors. Its namespace has no name, for the dynamic
# linker merges what templates make under the same name in two libraries. A function's ``__self__``
# gives a call of it as words, for `pyro_vae.compilation.recording`.
BINDINGS = """
namespace {
template <typename Argument> Argument argument(PyObject* given) {
    if constexpr (std::is_pointer_v<Argument>) {
        return static_cast<Argument>(_torchinductor_pyobject_tensor_data_ptr(given));
    } else if constexpr (!std::is_arithmetic_v<Argument>) {
        if (!PyList_Check(given) && !PyTuple_Check(given))
            throw std::runtime_error("expected a list or tuple of tensors");
        Argument pointers(PySequence_Fast_GET_SIZE(given));
        for (size_t i = 0; i < pointers.size(); i++)
            pointers[i] =
                argument<typename Argument::value_type>(PySequence_Fast_GET_ITEM(given, i));
        return pointers;
    } else {
        Argument number;
        if constexpr (std::is_integral_v<Argument>)
            number = static_cast<Argument>(PyLong_AsLongLong(given));
        else number = static_cast<Argument>(PyFloat_AsDouble(given));
        if (number == -1 && PyErr_Occurred()) throw std::runtime_error("expected a number");
        return number;
    }
}
template <typename Argument> void add(std::vector<int64_t>& words, const Argument& given) {
    if constexpr (std::is_pointer_v<Argument>) {
        words.push_back(reinterpret_cast<int64_t>(given));
    } else if constexpr (!std::is_arithmetic_v<Argument>) {
        words.push_back(given.size());
        for (auto pointer : given) add(words, pointer);
    } else {
        words.push_back(0);
        std::memcpy(&words.back(), &given, sizeof given);
    }
}
template <typename Argument> Argument taken(const int64_t*& words) {
    if constexpr (std::is_pointer_v<Argument>) {
        return reinterpret_cast<Argument>(*words++);
    } else if constexpr (!std::is_arithmetic_v<Argument>) {
        Argument pointers(*words++);
        for (auto& pointer : pointers) pointer = taken<typename Argument::value_type>(words);
        return pointers;
    } else {
        Argument number;
        std::memcpy(&number, words++, sizeof number);
        return number;
    }
}
template <auto kernel> struct Binding;
template <typename... Arguments, void (*kernel)(Arguments...)> struct Binding<kernel> {
    using Given = std::tuple<std::decay_t<Arguments>...>;
    template <size_t... i> static Given given(PyObject* const* all, std::index_sequence<i...>) {
        return Given{argument<std::decay_t<Arguments>>(all[i])...};
    }
    template <bool as_words> static PyObject* call(PyObject*, PyObject* const* all, Py_ssize_t n) {
        try {
            if (n != sizeof...(Arguments)) throw std::runtime_error("wrong number of arguments");
            Given arguments = given(all, std::index_sequence_for<Arguments...>());
            if constexpr (as_words) return words(arguments);
            std::apply(kernel, std::move(arguments));
        } catch (const std::exception& error) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, error.what());
            return nullptr;
        }
        Py_RETURN_NONE;
    }
    static PyObject* words(const Given& arguments) {
        std::vector<int64_t> all{reinterpret_cast<int64_t>(&run), 0};
        std::apply([&](const auto&... each) { (add(all, each), ...); }, arguments);
        all[1] = all.size();
        PyObject* list = PyList_New(all.size());
        for (size_t i = 0; i < all.size(); i++)
            PyList_SET_ITEM(list, i, PyLong_FromLongLong(all[i]));
        return list;
    }
    static void run(const int64_t* words) {
        std::apply(kernel, Given{taken<std::decay_t<Arguments>>(words)...});
    }
    template <bool as_words> static inline PyMethodDef method = {
        "kernel", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call<as_words>)),
        METH_FASTCALL, ""};
    static PyObject* function() {
        PyObject* as_words = PyCFunction_New(&method<true>, nullptr);
        PyObject* plain = PyCFunction_New(&method<false>, as_words);
        Py_DECREF(as_words);
        return plain;
    }
};
}
"""


def is_on() -> bool:
    """Whether our own C++ is used; the environment variable ``PYRO_VAE_CPP=off`` disables it.

    Raises:
        InvalidInput: if it is neither ``on`` nor ``off``.
    """
    wanted = os.environ.get(SWITCH, "on")
    check_choice(SWITCH, wanted, ["on", "off"])
    return wanted == "on"


def is_ours(value: object) -> bool:
    """Whether something is a function of a library that `library` made."""
    return isinstance(value, BuiltinFunctionType) and isinstance(
        value.__self__, BuiltinFunctionType
    )


def words_of(function: Function, *arguments: object) -> list[int]:
    """A call of such a function as words: its address, their number, and the arguments."""
    assert isinstance(function, BuiltinFunctionType)
    as_words = function.__self__
    assert callable(as_words)
    return list[int](as_words(*arguments))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence torch's own deprecation warnings while compiling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@without_warnings()
def library(sources: Sequence[str], flags: Sequence[str] = ()) -> list[Function]:
    r"""Compile C++ sources, each with a function ``kernel``, and return these functions.

    A kernel returns nothing and takes pointers (given as tensors), vectors of pointers (sequences
    of tensors) and numbers.

    Args:
        sources: C++ with its own ``#include`` lines.
        flags: for the compiler, after Inductor's own.

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
    compiled = partial(_compiled, flags=["-w", *flags])  # torch's headers give many warnings
    with widest_vectors(), ThreadPoolExecutor(number) as pool:  # each thread waits for a compiler
        functions = list(pool.map(compiled, parts))
    return [functions[i % number][i // number] for i in range(len(sources))]


@contextmanager
def widest_vectors() -> Iterator[None]:
    """Tell Inductor the processor's vector width, to spare it slow test compilations."""
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
def _without_trial(vectors: type) -> object:
    return type(vectors.__name__, (vectors,), {"__bool__": lambda self: True})()


def _compiled(sources: Sequence[str], flags: Sequence[str]) -> Sequence[Function]:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    headers = ("cstdint", "cstring", "stdexcept", "tuple", "type_traits", "utility", "vector")
    includes, bodies = [f"#include <{header}>" for header in headers], []
    for i, source in enumerate(sources):
        lines = source.splitlines()
        includes += [line for line in lines if line.startswith("#include") and line not in includes]
        body = "\n".join(line for line in lines if not line.startswith("#include"))
        bodies.append(
            f"#define kernel kernel_{i}\nnamespace source_{i} {{\n{body}\n}}\n#undef kernel"
        )
    made = [f"Binding<source_{i}::kernel_{i}>::function()" for i in range(len(sources))]

    class Bindings(CppPythonBindingsCodeCache):
        cpp_compile_command_flags = {"include_pytorch": True, "shared": True}
        cache = {}
        entry_function = "functions"
        extra_parse_arg = BINDINGS.replace("{", "{{").replace("}", "}}")
        call_entry_function = f"""
            PyObject* all = PyTuple_New({len(sources)});
            Py_ssize_t i = 0;
            for (PyObject* function : {{{", ".join(made)}}})
                PyTuple_SET_ITEM(all, i++, function);
            return all;""".replace("{", "{{").replace("}", "}}")

        @classmethod
        def _get_uncompiled_header(cls, device: str) -> None:
            """Skip precompiling a header, which would take longer than it saves."""

    return Bindings.load_pybinding([], "\n".join([*includes, *bodies]), extra_flags=flags)()
