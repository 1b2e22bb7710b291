"""An optimiser's step from gradients at hand, without the Python that looks them up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.compilation.cpp import Function, library

__all__ = ["Update"]

ADAM = Path(__file__).with_name("adam.cpp")


VECTORIZE = (
    "-ftree-loop-vectorize",
    "-fno-math-errno",
)  # which Inductor, whose own code is of vectors already, forbids


class Update:
    """A torch optimiser's step from gradients at hand.

    Fused Adam's kernel is called directly on the optimiser's own state, so that its ``state_dict``
    stays what it is; any other optimiser finds the gradients where it looks for them.

    Args:
        optimizer: over ``parameters``.
        parameters: in the order in which gradients are given.
        clip_norm: upper limit of the gradients' global norm.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None = None,
    ):
        self.optimizer, self.parameters, self.clip_norm = optimizer, list(parameters), clip_norm
        self.kernel = self._kernel()
        self.states: list[
            Any
        ] = []  # the optimiser's, as of the last step, and what the kernel takes of them
        self.slots: list[list[Tensor]] = []
        self.count = torch.empty(0)  # of steps, once for each parameter
        self.compiled: Function | None = None
        self.sizes = torch.empty(0)  # of the parameters, for it

    def _kernel(self) -> Any:
        """torch's fused kernel, where it does all that the optimiser would."""
        group = self.optimizer.param_groups[0]
        has_kernel = type(self.optimizer) in (torch.optim.Adam, torch.optim.AdamW) and group.get(
            "fused"
        )
        plain = len(self.optimizer.param_groups) == 1 and not any(
            group.get(flag) for flag in ("amsgrad", "maximize", "capturable", "differentiable")
        )
        if not has_kernel or not plain or not self.parameters:
            return None
        return torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def compile(self) -> None:
        """From here on, Adam's update of float32 parameters on the CPU is one C++ function for all of them, if there is a compiler."""
        if self.kernel is None or not all(_is_plain(p) for p in self.parameters):
            return
        try:
            (self.compiled,) = library([ADAM.read_text()], VECTORIZE)
        except Exception:  # whatever the tool chain raises; torch's own kernel does the same
            return
        self.sizes = torch.tensor([p.numel() for p in self.parameters], device="cpu")

    def __call__(self, gradients: Sequence[Tensor], learning_rate: Tensor | None = None) -> None:
        """One step; ``learning_rate``, a tensor on the device in place of the optimiser's own, is for `Replay`."""
        if self.clip_norm is not None:
            gradients = list(gradients)
            norm = torch.stack(list(torch._foreach_norm(gradients))).norm()
            gradients = torch._foreach_mul(
                gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            )
        if not self.kernel_has_run:
            self.kernel = self._kernel()  # a state that was loaded may have brought other options
            if not self.is_ready:  # the first step makes the state
                for parameter, gradient in zip(self.parameters, gradients):
                    parameter.grad = gradient
                self.optimizer.step()
                self.optimizer.zero_grad()
                return
            self._find_slots()
        (group,) = self.optimizer.param_groups
        rate, (beta1, beta2) = (
            group["lr"] if learning_rate is None else learning_rate,
            group["betas"],
        )
        first, second, steps = self.slots
        if self.compiled is not None:
            self.compiled(
                self.parameters,
                gradients,
                first,
                second,
                steps,
                self.sizes,
                rate,
                beta1,
                beta2,
                group["eps"],
                group["weight_decay"],
                self.kernel is torch._fused_adamw_,
            )
            return
        with torch.no_grad():
            self.count.add_(1.0)
            self.kernel(
                self.parameters,
                gradients,
                first,
                second,
                [],
                steps,
                lr=rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def _find_slots(self) -> None:
        """Looks the optimiser's state up."""
        states = [self.optimizer.state[p] for p in self.parameters]
        # One tensor that the steps are entries of, so that counting is one operation: it took as
        # long as the update of a small net.
        self.count = torch.stack([state["step"] for state in states])
        for state, step in zip(states, self.count.unbind()):
            state["step"] = step
        self.states, self.slots = (
            states,
            [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")],
        )
        if not all(_is_plain(slot) for slots in self.slots for slot in slots):
            self.compiled = None

    @property
    def kernel_has_run(self) -> bool:
        """Whether the fused kernel has run on the state that the optimiser has now: a CUDA graph is recorded of nothing else."""
        return bool(self.states) and all(
            self.optimizer.state.get(p) is known for p, known in zip(self.parameters, self.states)
        )

    @property
    def is_ready(self) -> bool:
        """Whether the next step is the fused kernel alone: the first one makes the state."""
        return self.kernel is not None and all(p in self.optimizer.state for p in self.parameters)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a C++ function may take a tensor for an array of floats."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
