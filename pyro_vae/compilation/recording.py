"""Several compiled steps on the CPU in one call: the calls of one step, recorded and repeated.

A compiled step is a list of calls of C++ functions on tensors whose places in memory stay, with
few operations of torch's in between, such as draws of random numbers. Written down once as
addresses and arguments, the list is repeated by a loop in C++, for any number of steps, as a CUDA
graph is on a GPU. Nothing is compiled for it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cpp import Function, library, words_of
from pyro_vae.compilation.optimizer import Update
from pyro_vae.compilation.passes import CannotCapture

__all__ = ["Recording"]

# Of what a step changes, and of its intermediate tensors, which are all kept. Steps with more take
# so long that nothing is gained.
MOST_BYTES = 2**26

aten = torch.ops.aten

# Draws that fill a tensor, in place of those that make one.
IN_PLACE = {aten.normal_functional.default: aten.normal_.default}

# The functions that a recording consists of besides a step's own: the loop over steps and their
# calls, each of which is an address, the number of its words, and its arguments; a call of Python;
# and a copy from or to the row of the present step.
LOOP = """
#include <Python.h>
extern "C" void kernel(const int64_t* words, int64_t length, int64_t steps, int64_t* step) {
    for (*step = 0; *step < steps; ++*step) {
        if (PyErr_CheckSignals()) throw std::runtime_error("interrupted");
        for (const int64_t* call = words; call < words + length; call += call[1])
            reinterpret_cast<void (*)(const int64_t*)>(call[0])(call + 2);
    }
}
"""
PYTHON = """
#include <Python.h>
extern "C" void kernel(int64_t function) {
    PyObject* result = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(function));
    if (!result) throw std::runtime_error("a call of Python failed");
    Py_DECREF(result);
}
"""
COPY = """
extern "C" void kernel(char* to, const char* from, int64_t bytes, int64_t to_row, int64_t from_row,
                       const int64_t* step) {
    std::memcpy(to + *step * to_row, from + *step * from_row, bytes);
}
"""


class Recording:
    """Steps of one shape, many in one call, with the bits of single ones.

    The first call takes single steps, and looks whether the recording gives the same bits. Where it
    does not, steps stay single.

    Args:
        step: a function from tensors (or ``None``) to a scalar tensor. It has run before, so that
            whatever a first run makes is there.
        inputs: the inputs of some steps, stacked.
        graph: the compiled loss and gradients that the step calls.
        update: the compiled update that it calls, which has run.
        buffers: what a step changes in place besides the parameters and the update's state.
        most: how many steps there may be in a call.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        inputs: Sequence[Tensor | None],
        graph: Captured,
        update: Update,
        buffers: Sequence[Tensor],
        most: int,
    ):
        self.step, self.graph, self.update = step, graph, update
        self.inputs = [None if x is None else x.new_empty(most, *x.shape[1:]) for x in inputs]
        self.changes = [x.detach() for x in (*update.tensors, *buffers)]
        self.number = torch.zeros((), dtype=torch.int64)  # of the present step
        self.words: Tensor | None = None
        self.kept: list[object] = []
        self.loop: Function | None = None
        self.is_sound: bool | None = None  # not known before the first call

    def __call__(self, inputs: Sequence[Tensor | None]) -> Tensor:
        if self.is_sound is None:
            return self._first(inputs)
        return self._repeated(inputs) if self.is_sound else self._one_by_one(inputs)

    def _one_by_one(self, inputs: Sequence[Tensor | None]) -> Tensor:
        return torch.stack([self.step(*row) for row in _rows(inputs)])

    def _repeated(self, inputs: Sequence[Tensor | None]) -> Tensor:
        assert self.loop is not None and self.words is not None
        number = 0
        for own, x in zip(self.inputs, inputs):
            if own is not None and x is not None:
                number = len(x)
                own[:number] = x
        with torch.no_grad():
            self.loop(self.words, len(self.words), number, self.number)
        return self.losses[:number].clone()

    def _first(self, inputs: Sequence[Tensor | None]) -> Tensor:
        """Take single steps; then repeat them as recorded, and compare all that they change."""
        if _bytes_of(self.changes) > MOST_BYTES:
            self.is_sound = False
            return self._one_by_one(inputs)
        before = self._state()
        try:
            self._record(next(_rows(inputs)))
        except CannotCapture:
            self.is_sound = False
        self._restore(before)
        losses = self._one_by_one(inputs)
        if self.is_sound is None:
            after = self._state()
            self._restore(before)
            again = self._repeated(inputs)
            now = self._state()
            self.is_sound = all(map(_same_bits, [again, *now], [losses, *after]))
            if not self.is_sound:
                self.words, self.kept = None, []
                self._restore(after)
        return losses

    def _record(self, row: Sequence[Tensor | None]) -> None:
        self.loop, call, copy = library([LOOP, PYTHON, COPY])
        inputs = [x for x in self.inputs if x is not None]
        held = [*inputs, *self.changes, *self.graph.lifted]
        recorder = Recorder(call, held)
        own = [None if x is None else x.clone() for x in row]
        for x, stacked in zip(own, self.inputs):
            if x is not None and stacked is not None:
                width = _bytes_of([x])
                recorder.add(copy, x, stacked, width, 0, width, self.number)
        wrapped = recorder.wrapped
        with self.graph.calling(wrapped), self.update.calling(wrapped), recorder:
            loss = self.step(*own)
        self.losses = torch.empty(len(inputs[0]), dtype=loss.dtype)
        width = _bytes_of([loss])
        recorder.add(copy, self.losses, loss, width, width, 0, self.number)
        self.words, self.kept = torch.tensor(recorder.words), recorder.kept

    def _state(self) -> list[Tensor]:
        return [x.clone() for x in (*self.changes, torch.get_rng_state())]

    def _restore(self, state: Sequence[Tensor]) -> None:
        *values, random = state
        for own, value in zip(self.changes, values):
            own.copy_(value)
        torch.set_rng_state(random)


class Recorder(TorchDispatchMode):
    """Write down the compiled functions that are called, and torch's operations in between.

    Args:
        call: the compiled function that calls one of Python.
        held: tensors that are in memory anyway.
    """

    def __init__(self, call: Function, held: Sequence[Tensor]):
        super().__init__()
        self.call = call
        self.words: list[int] = []
        self.kept: list[object] = []
        self.places = {x.untyped_storage().data_ptr() for x in held}
        self.bytes = 0

    def wrapped(self, function: Function) -> Function:
        """A function that is called and written down."""

        def call(*arguments: object) -> None:
            self.add(function, *arguments)
            function(*arguments)

        return call

    def add(self, function: Function, *arguments: object) -> None:
        """Write down a call, and keep its tensors where they are."""
        self.words += words_of(function, *arguments)
        self.keep(arguments)

    def keep(self, values: object) -> None:
        """Keep tensors where they are.

        Raises:
            CannotCapture: if there are too many of them.
        """
        self.kept.append(values)
        for x in tree_leaves(values):
            memory = x.untyped_storage() if isinstance(x, Tensor) else None
            if memory is not None and memory.data_ptr() not in self.places:
                self.places.add(memory.data_ptr())
                self.bytes += memory.nbytes()
        if self.bytes > MOST_BYTES:
            raise CannotCapture("its tensors need too much memory", "its compiled code")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            raise CannotCapture("it reads a number", str(func))
        out = func(*args, **kwargs)
        again = _repeat(func, args, kwargs, out)
        self.words += words_of(self.call, id(again))
        self.keep((again, args, kwargs, out))
        return out


def _repeat(
    func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object], out: object
) -> Callable[[], object]:
    """An operation again, its results written to the places of the recorded ones."""
    if func in IN_PLACE:
        return partial(IN_PLACE[func], out, *args[1:], **kwargs)
    kept = [x for x in tree_leaves(out) if isinstance(x, Tensor)]

    def again() -> None:
        fresh = (x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor))
        for old, new in zip(kept, fresh):
            if old.data_ptr() != new.data_ptr():
                old.copy_(new)

    return again


def _rows(inputs: Sequence[Tensor | None]) -> Iterator[list[Tensor | None]]:
    number = next(len(x) for x in inputs if x is not None)
    for i in range(number):
        yield [None if x is None else x[i] for x in inputs]


def _bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
