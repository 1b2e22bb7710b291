"""Compile what Inductor writes of a captured step for a GPU, on any machine.

The GPU is an H100.

Triton and its assembler run anywhere; only what asks a driver is answered here, and nothing is
launched. What a run on a GPU then still has to show is that the kernels compute what they should.
"""

import contextlib
import types
from unittest.mock import patch

import pytest
import torch
from cases import CASES, PROGRAMS, case

import pyro_vae as pv
from pyro_vae.compilation import inductor
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cpp import without_warnings
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.products
triton = pytest.importorskip("triton")

H100 = types.SimpleNamespace(
    name="H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    warp_size=32,
    total_memory=80 * 2**30,
    shared_memory_per_block=48 * 2**10,
    shared_memory_per_block_optin=227 * 2**10,
    shared_memory_per_multiprocessor=228 * 2**10,
    L2_cache_size=50 * 2**20,
)


class Driver:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_active_torch_device(self):
        return torch.device("cuda", 0)


@contextlib.contextmanager
def h100(binaries):
    """Answers of an H100's driver; collects the compiled kernels."""
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import config
    from torch._inductor.runtime import triton_heuristics
    from torch._subclasses import FakeTensorMode, fake_tensor
    from torch.utils._pytree import tree_unflatten
    from triton.runtime import driver

    def compile_only(self, *args, **kwargs):
        self._precompile_worker()
        for kernel in (result.kernel for result in self.compile_results):
            binaries.append(kernel.asm["cubin"] if hasattr(kernel, "asm") else kernel.cubin_raw)

    def on_gpu(mode, tensor, **options):
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda:0"
            )

    def without_running(mode, func, flat_args, spec, error):
        args, _ = tree_unflatten(
            flat_args, spec
        )  # a draw of Dirichlet, or its gradient: of its arguments' shape
        with mode:
            return torch.empty_like(args[0])

    interface = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "synchronize": None,
        "get_device_properties": H100,
        "get_compute_capability": 90,
        "get_raw_stream": 0,
    }
    functions = {
        "torch.cuda._lazy_init": None,
        "torch.cuda.get_device_capability": (9, 0),
        "torch.cuda._exchange_device": 0,
        "torch.cuda._maybe_exchange_device": 0,
        "torch.cuda.set_rng_state": None,
        "torch._C._cuda_getDevice": 0,
        "torch._C._cuda_getCurrentRawStream": 0,
        "torch._inductor.runtime.triton_helpers.set_driver_to_gpu": None,
        "torch._inductor.fx_passes.fuse_attention._sfdp_init": None,
        "torch._inductor.fx_passes.pad_mm._pad_mm_init": None,
    }
    functions |= {
        f"torch.cuda.{name}": interface[name]
        for name in ("is_available", "device_count", "current_device", "get_device_properties")
    }
    if hasattr(fake_tensor, "init_gpu_context"):  # before torch 2.12
        functions["torch._subclasses.fake_tensor.init_gpu_context"] = None
    before = driver._active
    with contextlib.ExitStack() as stack:
        for name, answer in functions.items():
            stack.enter_context(patch(name, lambda *args, answer=answer, **kwargs: answer))
        for owner, name, new in [
            *(
                (CudaInterface, name, staticmethod(lambda *args, answer=answer: answer))
                for name, answer in interface.items()
            ),
            *(
                (
                    CudaInterface.Worker,
                    name,
                    staticmethod(lambda *args, answer=interface[name]: answer),
                )
                for name in ("get_device_properties", "current_device")
            ),
            (torch.cuda, "get_rng_state", lambda *args: torch.get_rng_state()),
            (FakeTensorMode, "from_tensor", on_gpu),
            (fake_tensor, "run_fallback_kernel", without_running),
            (triton_heuristics.CachingAutotuner, "precompile", compile_only),
        ]:
            stack.enter_context(patch.object(owner, name, new))
        # Folding constants would compute them on the device.
        stack.enter_context(
            config.patch(
                compile_threads=1, force_disable_caches=True, joint_graph_constant_folding=False
            )
        )
        driver.set_active(Driver())
        try:
            yield
        finally:
            driver._active = before


def on_cuda(graph):
    """A graph that was captured on the host, as it would be on a GPU."""
    for node in graph.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
    graph.recompile()
    return graph


@pytest.mark.parametrize(
    "objective, family, name",
    [
        *(("ELBO", *part) for part in CASES),
        *(
            (objective, "program", name)
            for objective in pv.objectives.__all__
            if objective != "ELBO"
            for name in PROGRAMS
        ),
    ],
)
def test_every_step_becomes_kernels_of_a_gpu(objective, family, name):
    program, data = case(family, name)
    bound = getattr(pv.objectives, objective)()
    try:
        bound.loss(program.model, program.guide, *data)
    except InvalidInput as refusal:
        assert objective != "ELBO"
        pytest.skip(f"refused: {refusal}")
    step = LossAndGradients(
        lambda *x: bound.differentiable_loss(program.model, program.guide, *x),
        list(program.parameters()),
    )
    captured = Captured(step._of_tensors(data), data)
    binaries = []
    with h100(binaries), without_warnings():
        inductor._compiled(on_cuda(captured.graph), [*data, *captured.lifted], {})
    assert binaries and all(binary.startswith(b"\x7fELF") for binary in binaries)
