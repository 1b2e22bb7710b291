"""An optimiser's state as tensors and numbers, for a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from pyro_vae.compilation.watching import without_dynamo
from pyro_vae.validation import InvalidInput

__all__ = ["MakeOptimizer", "OptimizerState", "Scalars", "new_optimizer"]

MakeOptimizer = Callable[..., torch.optim.Optimizer]  # from parameters and lr=

PREFIX = "optimizer."


class Scalars(TypedDict):
    """The values besides tensors that an optimiser keeps, by group and by parameter."""

    groups: list[dict[str, object]]
    slots: list[dict[str, object]]


class OptimizerState:
    """The state of a torch optimiser, with names that follow the order of its parameters.

    Args:
        optimizer: the optimiser.
        parameters: its parameters, in the order that gives them their names.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]):
        self.optimizer, self.parameters = optimizer, parameters

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, not copied."""
        return {
            f"{PREFIX}{index}.{name}": value
            for index, slots in enumerate(self._slots())
            for name, value in slots.items()
            if isinstance(value, Tensor)
        }

    def scalars(self) -> Scalars:
        """Everything except tensors."""
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        slots = [
            {name: value for name, value in slots.items() if not isinstance(value, Tensor)}
            for slots in self._slots()
        ]
        return {"groups": groups, "slots": slots}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; other names are ignored."""
        groups = self.optimizer.param_groups
        # Kernels count steps on the device, other optimisers on the host.
        on_device = any(group.get("fused") or group.get("capturable") for group in groups)
        for index, parameter in enumerate(self.parameters):
            prefix = f"{PREFIX}{index}."
            # As they were: the optimiser's own load_state_dict would cast its counters to the
            # parameters' dtype.
            slots: dict[str, Tensor] = {}
            for key, value in tensors.items():
                if key.startswith(prefix):
                    name, value = key.removeprefix(prefix), _like(value, parameter)
                    keeps = name == "step" and not on_device
                    slots[name] = value if keeps else value.to(parameter.device)
            if slots:
                known = self.optimizer.state.get(parameter, {})
                self.optimizer.state[parameter] = {**known, **slots}
            elif parameter in self.optimizer.state:
                del self.optimizer.state[parameter]

    def restore_scalars(self, scalars: Scalars) -> None:
        """Put back what `scalars` gave.

        Raises:
            ValueError: for a setting that the optimiser does not have, or of another type.
        """
        for group, values in zip(self.optimizer.param_groups, scalars["groups"], strict=True):
            for key, value in values.items():
                put = tuple(value) if isinstance(value, list) else value
                if key not in group or not _are_alike(put, group[key]):
                    raise ValueError(f"no setting {key} = {value!r} of this optimiser")
                group[key] = put
        for parameter, values in zip(self.parameters, scalars["slots"]):
            if values:
                self.optimizer.state[parameter].update(values)

    def _slots(self) -> Iterable[Mapping[str, object]]:
        return (self.optimizer.state.get(parameter, {}) for parameter in self.parameters)


def _are_alike(value: object, other: object) -> bool:
    """Whether two settings are of one type; ``None`` and a flag mean that torch chooses."""
    if value is None or other is None:
        return isinstance(value, bool | int | float | str | None)
    if isinstance(value, bool) or isinstance(other, bool):
        return isinstance(value, bool) and isinstance(other, bool)
    if isinstance(value, int | float):
        return isinstance(other, int | float)
    return type(value) is type(other)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy, with the parameter's memory layout if it has the parameter's shape.

    A file does not tell the layout, and a fused update relies on it.
    """
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def new_optimizer(
    make: MakeOptimizer, parameters: Sequence[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """An optimiser of these parameters.

    Raises:
        InvalidInput: if it refuses them, or needs the loss several times in a step.
    """
    try:
        with without_dynamo():
            optimizer = make(parameters, lr=learning_rate)
    except ValueError as error:
        raise InvalidInput(
            "optimizer",
            got=f"one that refuses these parameters or settings ({error})",
            expected="one that takes all trainable parameters",
            fix="choose Adam, or change its settings",
        ) from None
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InvalidInput(
            "optimizer",
            got=f"{type(optimizer).__name__}, which needs the loss several times a step",
            expected="one that takes a step from gradients",
            fix="choose Adam, or another such class of torch.optim",
        )
    return optimizer
