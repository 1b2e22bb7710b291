"""Apply an optimiser's step directly to a list of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from unittest.mock import patch

import torch
from torch import Tensor, optim
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["Update"]

Function = Callable[..., None]

ADAM = Path(__file__).with_name("adam.cpp")

# Which Inductor forbids, whose own code consists of vectors already.
VECTORIZE = ("-ftree-loop-vectorize", "-fno-math-errno")


class Update:
    """An optimiser's step, applied directly to a list of gradients.

    Fused Adam's kernel is called on the optimiser's own state, so that its ``state_dict`` stays as
    it is. Any other optimiser finds the gradients where it looks for them.

    Args:
        optimizer: an optimiser of ``parameters``.
        parameters: in the order in which gradients are given.
        clip_norm: upper limit of the gradients' global norm.
        skip_norm: of gradients whose global norm is above it no step is taken.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None = None,
        skip_norm: float | None = None,
    ):
        self.optimizer, self.parameters = optimizer, list(parameters)
        self.clip_norm, self.skip_norm = clip_norm, skip_norm
        self.skipped, self.least_skipped = 0, math.inf  # steps so far, and their least norm
        self.kernel = self._kernel()
        # The optimiser's state of the last step, and what of it the kernel takes.
        self.states: list[dict[str, Tensor]] = []
        self.slots: list[list[Tensor]] = []
        self.count = torch.empty(0)  # of steps, once for each parameter
        self.compiled: Function | None = None
        # The parameters' sizes and the learning rate, for the compiled function.
        self.sizes, self.rate = torch.empty(0), torch.empty((), dtype=torch.float64)

    def _kernel(self) -> Callable[..., object] | None:
        """Torch's fused kernel, if it does everything that the optimiser does."""
        group = self.optimizer.param_groups[0]
        is_adam = any(_steps_as(self.optimizer, kind) for kind in (optim.Adam, optim.AdamW))
        plain = len(self.optimizer.param_groups) == 1 and not any(
            group.get(flag) for flag in ("amsgrad", "maximize", "capturable", "differentiable")
        )
        plain = plain and not _has_hooks(self.optimizer)
        if not is_adam or not group.get("fused") or not plain or not self.parameters:
            return None
        return torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def compile(self) -> None:
        """Use one C++ function from here on for Adam's update of all float32 parameters on the CPU.

        Without a compiler, or with ``PYRO_VAE_CPP=off``, torch's own kernel does the same.
        """
        if self.kernel is None or not all(_is_plain(p) for p in self.parameters):
            return
        try:
            # Imported here, so that the library runs where this file is missing.
            from pyro_vae.compilation.cpp import is_on, library
        except ImportError:
            return
        if not is_on():
            return
        try:
            (self.compiled,) = library([ADAM.read_text()], VECTORIZE)
        except Exception:  # whatever the tool chain raises
            return
        self.sizes = torch.tensor([p.numel() for p in self.parameters], device="cpu")

    def __call__(self, gradients: Sequence[Tensor], learning_rate: Tensor | None = None) -> None:
        """Take one step.

        Args:
            gradients: one for each parameter.
            learning_rate: a tensor in place of the optimiser's own number, float64 on the CPU.
        """
        if self.skip_norm is not None and (norm := norm_of(gradients).item()) > self.skip_norm:
            self.skipped, self.least_skipped = self.skipped + 1, min(self.least_skipped, norm)
            return
        if self.clip_norm is not None:
            gradients = _clipped(gradients, self.clip_norm)
        if not self.kernel_has_run:
            self.kernel = self._kernel()  # a state that was loaded may have brought other options
            if self.kernel is None:
                for parameter, gradient in zip(self.parameters, gradients):
                    parameter.grad = gradient
                self.optimizer.step()
                self.optimizer.zero_grad()
                return
            self._find_slots()
        (group,) = self.optimizer.param_groups
        eps, decay = group["eps"], group["weight_decay"]
        (beta1, beta2), (first, second, steps) = group["betas"], self.slots
        if self.compiled is not None:
            rate = self.rate.fill_(group["lr"]) if learning_rate is None else learning_rate
            decoupled = self.kernel is torch._fused_adamw_
            self.compiled(
                self.parameters, gradients, first, second, steps, self.sizes,
                rate, beta1, beta2, eps, decay, decoupled,
            )  # fmt: skip
        elif self.kernel is not None:
            rate = group["lr"] if learning_rate is None else learning_rate
            with torch.no_grad():
                self.count.add_(1.0)
                self.kernel(
                    self.parameters, gradients, first, second, [], steps,
                    lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps,
                    amsgrad=False, maximize=False,
                )  # fmt: skip

    def _find_slots(self) -> None:
        """Look up the optimiser's state; what it lacks is made as Adam makes it."""
        for p in self.parameters:
            if not self.optimizer.state[p]:
                slots = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.optimizer.state[p].update(step=step, **slots)
        self.states = [self.optimizer.state[p] for p in self.parameters]
        # The steps become entries of one tensor, so that counting is one operation: it took as
        # long as the update of a small net.
        self.count = torch.stack([state["step"] for state in self.states])
        for state, step in zip(self.states, self.count.unbind()):
            state["step"] = step
        names = ("exp_avg", "exp_avg_sq", "step")
        self.slots = [[state[name] for state in self.states] for name in names]
        if not all(_is_plain(slot) for slots in self.slots for slot in slots):
            self.compiled = None

    @contextmanager
    def calling(self, wrapped: Callable[[Function], Function]) -> Iterator[None]:
        """Within it, steps call what wraps the compiled function."""
        assert self.compiled is not None
        with patch.object(self, "compiled", wrapped(self.compiled)):
            yield

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that the kernel changes, in place."""
        return [*self.parameters, *(slot for slots in self.slots for slot in slots)]

    @property
    def kernel_has_run(self) -> bool:
        """Whether the fused kernel has run on the optimiser's present state.

        Only then a CUDA graph can be recorded of it.
        """
        return bool(self.states) and all(
            self.optimizer.state.get(p) is known for p, known in zip(self.parameters, self.states)
        )

    @property
    def is_ready(self) -> bool:
        """Whether the next step is the fused kernel alone: the first one makes the state."""
        return self.kernel is not None and all(p in self.optimizer.state for p in self.parameters)


def _steps_as(optimizer: optim.Optimizer, kind: type[optim.Adam]) -> bool:
    """Whether it steps as a class of torch does, be it one that only starts otherwise."""
    own = type(optimizer)
    if not issubclass(own, kind) or own._init_group is not kind._init_group:
        return False
    return _without_hooks(own.step) is _without_hooks(kind.step)


def _has_hooks(optimizer: optim.Optimizer) -> bool:
    """Whether something is called before or after each step."""
    before = _global_optimizer_pre_hooks or optimizer._optimizer_step_pre_hooks
    return bool(before or _global_optimizer_post_hooks or optimizer._optimizer_step_post_hooks)


def _without_hooks(step: object) -> object:
    """A step without the wrapper that torch puts around that of each class that is used."""
    wrapper = optim.Optimizer.profile_hook_step(lambda: None).__code__
    while isinstance(step, FunctionType) and step.__code__ is wrapper:
        step = vars(step)["__wrapped__"]
    return step


def _clipped(gradients: Sequence[Tensor], limit: float) -> Sequence[Tensor]:
    """The gradients, scaled so that their global norm is at most the limit."""
    return torch._foreach_mul(list(gradients), (limit / (norm_of(gradients) + 1e-6)).clamp(max=1.0))


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """The gradients' global norm."""
    return torch.stack(list(torch._foreach_norm(list(gradients)))).norm()


def _is_plain(tensor: Tensor) -> bool:
    """Whether C++ can treat a tensor as a plain array of floats."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
