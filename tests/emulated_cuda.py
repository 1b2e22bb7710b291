"""Emulate a CUDA device, so that machines without a GPU raise the errors of one.

Tensors "on" it are ordinary ones in the host's memory, marked in their storage; arithmetic is the
host's. What is emulated is what goes wrong first on a GPU: tensors of two devices in one operation,
values read while others wait (`torch.cuda.set_sync_debug_mode`), and a CUDA graph, which repeats
what was recorded, on the same memory, and nothing that Python did in between. Kernels are not.
"""

import contextlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from pyro_vae.compilation import capture
from pyro_vae.compilation.capture import Captured

HOST, GPU = torch.device("cpu"), torch.device("cuda", 0)
aten = torch.ops.aten

# What waits for the device, or asks it for a number: by the operation, and by the method in Python.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.equal,
    aten.multinomial,
    aten.bincount,
    aten.repeat_interleave,
    aten._linalg_check_errors,
}
BETWEEN_DEVICES = {aten.copy_, aten._to_copy, aten.set_, aten.index}  # indices may be the host's

SEQUENCES = (list, tuple)

# What Python asks of a tensor whose answer is the same on every device, and no tensor.
DEVICE, IS_CUDA = Tensor.device.__get__, Tensor.is_cuda.__get__
ASKED = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "layout", "requires_grad")),
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.__len__, Tensor.untyped_storage),
}


def storage(tensor: Tensor):
    """The storage of a tensor, or of what `torch.func` has wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def is_on_gpu(tensor: Tensor) -> bool:
    return getattr(storage(tensor), "is_on_gpu", False)


def tensors_in(*values):
    """The tensors in arguments and results, for each operation: torch's pytrees take three times
    as long."""
    return _added([], values)


def _added(found, values):
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, SEQUENCES):
            _added(found, value)
        elif isinstance(value, dict) and value:
            _added(found, value.values())
    return found


def place(out, device):
    """Marks a function's fresh results."""
    for tensor in tensors_in(out):
        storage(tensor).is_on_gpu = device == GPU


class EmulatedCuda:
    """What `emulated_cuda` gives: the device's state."""

    def __init__(self) -> None:
        self.factory = None  # where a new tensor goes that no other tensor gives the device of
        self.target = HOST  # where the results of the operation that runs will be
        self.sync_is_an_error = False
        self.recording: list | None = None

    @contextmanager
    def making(self, device=GPU):
        """Where tensors go in the body that nothing else gives a device."""
        before, self.factory = self.factory, device
        try:
            yield
        finally:
            self.factory = before

    def waits(self, what: str) -> None:
        if self.sync_is_an_error or self.recording is not None:
            raise RuntimeError(f"called a synchronizing CUDA operation ({what})")


class _Operations(TorchDispatchMode):
    """Follows every operation, those of the backward pass and within others too."""

    @classmethod
    def _should_skip_dynamo(cls):  # whose wrapper takes as long as many an operation
        return False

    def __init__(self, gpu: EmulatedCuda):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind, gpu = _Kind.of(func), self.gpu
        given = tensors_in(args, kwargs)
        if kind.lifts and gpu.factory is not None:  # torch.tensor(...)
            place(given, gpu.factory)
        stores = [storage(x) for x in given]
        marks = [getattr(store, "is_on_gpu", False) for store in stores]
        there = any(marks)
        if there:
            if not all(marks) and not kind.is_between_devices:
                self._check_devices(func, given, marks, kind.takes_numbers)
            if kind.waits or (kind.indexes and _is_masked(args)):
                gpu.waits(str(func))
            if kind.copies and any(x.dim() and not mark for x, mark in zip(given, marks)):
                gpu.waits("a copy between host and device")
        recording = gpu.recording
        before = [(x, x.clone()) for x in given] if recording is not None and kind.writes else []
        target = GPU if there else HOST if given else gpu.factory or HOST
        if kind.is_copy:
            target = GPU if marks[0] else HOST
        gpu.target = target
        out = func(*args, **kwargs)
        if recording is not None and (there or gpu.factory == GPU):
            recording.append(_Recorded(func, args, kwargs, out, before))
        if not kind.is_copy:
            known = {store._cdata for store in stores}
            for store in map(storage, tensors_in(out)):
                if store._cdata not in known:
                    store.is_on_gpu = target == GPU
        return out

    def _check_devices(self, func, given, marks, takes_numbers):
        """Raise where a tensor is the other device's, unless a kernel takes it as a number."""
        if any(not mark and (x.dim() > 0 or not takes_numbers) for x, mark in zip(given, marks)):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found cuda:0 and cpu in "
                f"{func}: "
                f"{[(tuple(x.shape), 'cuda' if mark else 'cpu') for x, mark in zip(given, marks)]}"
            )


class _Kind(NamedTuple):
    """What an operation is, looked up once."""

    lifts: bool  # the tensor of numbers of Python
    takes_numbers: bool  # of the host, as tensors without dimensions
    is_between_devices: bool
    waits: bool
    indexes: bool
    copies: bool
    is_copy: bool
    writes: bool

    @staticmethod
    @cache
    def of(func) -> "_Kind":
        packet = func.overloadpacket
        return _Kind(
            lifts=packet in (aten.lift_fresh, aten.lift_fresh_copy),
            takes_numbers=not func.__name__.startswith(("_fused", "_foreach")),
            is_between_devices=packet in BETWEEN_DEVICES,
            waits=packet in WAITING,
            indexes=packet in (aten.index, aten.index_put, aten.index_put_),
            copies=packet in (aten.copy_, aten.index),
            is_copy=packet is aten.copy_,
            writes=func._schema.is_mutable
            or "batch_norm" in func.__name__,  # which does not say so
        )


def _is_masked(args) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


class _Calls(TorchFunctionMode):
    """Answers what Python asks of a tensor's device, and puts results where they were asked for."""

    def __init__(self, gpu: EmulatedCuda):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in ASKED:
            return func(*args, **kwargs)
        if func == DEVICE:
            return GPU if is_on_gpu(args[0]) else HOST
        if func == IS_CUDA:
            return is_on_gpu(args[0])
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__") and is_on_gpu(args[0]):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        if name == "tolist" and is_on_gpu(args[0]):
            self.gpu.waits("tolist")
        target = None
        if func in (Tensor.cuda, Tensor.cpu):
            target, func, args, kwargs = (
                GPU if func is Tensor.cuda else HOST,
                Tensor.to,
                (args[0], HOST),
                {},
            )
        elif func is Tensor.to:
            target, args, kwargs = _destination(args, kwargs)
        elif kwargs.get("device") is not None and not isinstance(
            func, OpOverload
        ):  # a captured graph says the host's
            target = torch.device(kwargs["device"])
            kwargs["device"] = HOST
        if target is not None and target.type == "cuda":
            target = GPU
        there = target or (GPU if any(map(is_on_gpu, tensors_in(args, kwargs))) else None)
        gpu, before = self.gpu, self.gpu.factory
        gpu.factory = there or before  # as `making` has it, which takes longer
        try:
            out = func(*args, **kwargs)
        finally:
            gpu.factory = before
        if func is Tensor.to and target is not None and is_on_gpu(args[0]) != (target == GPU):
            self.gpu.waits("a copy between host and device")
            out = out.clone()
            place(out, target)
        elif target is not None and func is not Tensor.to:
            place(out, target)
        elif func is Tensor.__deepcopy__:
            place(out, GPU if is_on_gpu(args[0]) else HOST)
        return out


def _destination(args, kwargs):
    """The device that ``Tensor.to`` is asked for, if any, and its arguments for the host."""
    self, *rest = args
    target, kept = None, []
    for value in rest:
        if isinstance(value, Tensor):
            target, value = GPU if is_on_gpu(value) else HOST, value.dtype
        elif isinstance(value, str | torch.device):
            target, value = torch.device(value), HOST
        kept.append(value)
    if kwargs.get("device") is not None:
        target, kwargs["device"] = torch.device(kwargs["device"]), HOST
    if "other" in kwargs:
        other = kwargs.pop("other")
        target, kwargs["dtype"] = GPU if is_on_gpu(other) else HOST, other.dtype
    return target, (self, *kept), kwargs


@dataclass
class _Recorded:
    """An operation of a graph, and what it was about to write to."""

    func: Any
    args: Any
    kwargs: Any
    out: Any
    before: list[tuple[Tensor, Tensor]]

    def undo(self) -> None:
        for tensor, value in self.before:
            tensor.copy_(value)

    @cached_property
    def results(self) -> list[tuple[int, Tensor]]:
        """Where its results are that are no views of its arguments, by their number."""
        given = {storage(x)._cdata for x in tensors_in(self.args, self.kwargs)}
        return [
            (number, kept)
            for number, kept in enumerate(tensors_in(self.out))
            if storage(kept)._cdata not in given
        ]

    def run(self) -> None:
        """Again, on the same tensors; its results go where they went."""
        out = self.func(*self.args, **self.kwargs)
        if self.results:
            found = tensors_in(out)
            for number, kept in self.results:
                kept.copy_(found[number])


class Graph:
    """`torch.cuda.CUDAGraph`: recording changes nothing, as on a GPU; each launch draws anew."""

    def __init__(self, gpu: EmulatedCuda) -> None:
        self.gpu, self.operations = gpu, []

    def replay(self) -> None:
        # All devices were checked as it was recorded.
        with torch.no_grad(), torch._C.DisableTorchFunction(), _disable_current_modes():
            for operation in self.operations:
                operation.run()


@contextmanager
def emulated_cuda(monkeypatch):
    """Pretends that there is a GPU, "cuda"."""
    gpu = EmulatedCuda()

    @contextmanager
    def record(graph, stream=None):
        state = torch.get_rng_state()
        gpu.recording = graph.operations
        try:
            yield
        finally:
            gpu.recording = None
            torch.set_rng_state(state)
        with torch.no_grad():
            for operation in reversed(graph.operations):
                operation.undo()

    def strict(mode):
        gpu.sync_is_an_error = mode == "error"

    def interpret(captured, *inputs):
        with gpu.making(GPU if any(map(is_on_gpu, inputs)) else gpu.factory):
            return call(captured, *inputs)

    def extract(value, *args, **kwargs):  # what a captured graph knows of a result
        found = extract_val(value, *args, **kwargs)
        return tree_map(on_gpu, found) if gpu.target == GPU else found

    def on_gpu(found):
        is_result = isinstance(found, capture.Result)
        return replace(found, device=torch.device("cuda")) if is_result else found

    extract_val = proxy_tensor.extract_val
    monkeypatch.setattr(proxy_tensor, "extract_val", extract)
    call, autocast = Captured.__call__, torch.autocast
    for name, value in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: gpu.recording is not None,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "manual_seed": torch.default_generator.manual_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "synchronize": lambda device=None: None,
        "device": lambda device: contextlib.nullcontext(),
        "Stream": lambda device: None,
        "CUDAGraph": partial(Graph, gpu),
        "graph": record,
        "set_sync_debug_mode": strict,
        "mem_get_info": lambda device=None: (2**34, 2**34),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: None
    )  # else optimisers ask for its stream
    monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices=(), fork=torch.random.fork_rng: fork([])
    )
    monkeypatch.setattr(torch, "autocast", lambda kind, **options: autocast("cpu", **options))
    monkeypatch.setattr(
        capture,
        "is_on_host",
        lambda x: x.device.type == "cpu" if isinstance(x, capture.Result) else not is_on_gpu(x),
    )
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)
    monkeypatch.setattr(Captured, "__call__", interpret)

    def run(thread):  # a mode is of one thread
        with _Calls(gpu), _Operations(gpu):
            run_alone(thread)

    run_alone = threading.Thread.run
    monkeypatch.setattr(threading.Thread, "run", run)
    with _Calls(gpu), _Operations(gpu):
        yield gpu
