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
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
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
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(*value)
        elif isinstance(value, dict):
            found += tensors_in(*value.values())
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

    def __init__(self, gpu: EmulatedCuda):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in(args, kwargs)
        if (
            func.overloadpacket in (aten.lift_fresh, aten.lift_fresh_copy)
            and self.gpu.factory is not None
        ):  # torch.tensor(...)
            place(given, self.gpu.factory)
        there = [x for x in given if is_on_gpu(x)]
        takes_numbers = not func.__name__.startswith(
            ("_fused", "_foreach")
        )  # of the host, as tensors without dimensions
        strays = [x for x in given if not is_on_gpu(x) and (x.dim() > 0 or not takes_numbers)]
        if there and strays and func.overloadpacket not in BETWEEN_DEVICES:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found cuda:0 and cpu in "
                f"{func}: "
                f"{[(tuple(x.shape), 'cuda' if is_on_gpu(x) else 'cpu') for x in given]}"
            )
        if there and (func.overloadpacket in WAITING or _is_masked(func, args)):
            self.gpu.waits(str(func))
        if (
            there
            and func.overloadpacket in (aten.copy_, aten.index)
            and any(x.dim() and not is_on_gpu(x) for x in given)
        ):
            self.gpu.waits("a copy between host and device")
        writes = func._schema.is_mutable or "batch_norm" in func.__name__  # which does not say so
        before = (
            [(x, x.clone()) for x in given] if self.gpu.recording is not None and writes else []
        )
        target = GPU if there else HOST if given else self.gpu.factory or HOST
        if func.overloadpacket is aten.copy_:
            target = GPU if is_on_gpu(args[0]) else HOST
        self.gpu.target = target
        out = func(*args, **kwargs)
        if self.gpu.recording is not None and (there or self.gpu.factory == GPU):
            self.gpu.recording.append(_Recorded(func, args, kwargs, out, before))
        if func.overloadpacket is not aten.copy_:
            known = {storage(x)._cdata for x in given}
            place([x for x in tensors_in(out) if storage(x)._cdata not in known], target)
        return out


def _is_masked(func, args) -> bool:
    return func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )


class _Calls(TorchFunctionMode):
    """Answers what Python asks of a tensor's device, and puts results where they were asked for."""

    def __init__(self, gpu: EmulatedCuda):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        given = tensors_in(args, kwargs)
        if func == Tensor.device.__get__:
            return GPU if is_on_gpu(args[0]) else HOST
        if func == Tensor.is_cuda.__get__:
            return is_on_gpu(args[0])
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
        with self.gpu.making(target or (GPU if any(map(is_on_gpu, given)) else self.gpu.factory)):
            out = func(*args, **kwargs)
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

    def run(self) -> None:
        """Again, on the same tensors; its results go where they went."""
        given = {storage(x)._cdata for x in tensors_in(self.args, self.kwargs)}
        for kept, out in zip(
            tensors_in(self.out), tensors_in(self.func(*self.args, **self.kwargs))
        ):
            if storage(kept)._cdata not in given:
                kept.copy_(out)


class Graph:
    """`torch.cuda.CUDAGraph`: recording changes nothing, as on a GPU; each launch draws anew."""

    def __init__(self, gpu: EmulatedCuda) -> None:
        self.gpu, self.operations = gpu, []

    def replay(self) -> None:
        with torch.no_grad(), self.gpu.making():
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
