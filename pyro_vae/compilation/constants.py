"""What a captured graph has as constants: the parts of a module, their tensors, their numbers."""

from __future__ import annotations

from operator import is_

from torch import Tensor, nn

__all__ = ["Constants"]

VALUES = (bool, int, float, str, tuple)  # compared by what they are, all else by identity


class Constants:
    """The parts, tensors and attributes of a module, as they were when this was made.

    A graph goes on computing with them when a part is replaced, a tensor moved in memory, or a mode
    or a number changed.

    Args:
        module: the module.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> constants = Constants(layer)
        >>> constants.hold()
        True
        >>> _ = layer.eval()
        >>> constants.hold()
        False
    """

    def __init__(self, module: nn.Module):
        self.parts = list(module.modules())
        self.things = self._things()
        self.tensors = [thing for thing in self.things if isinstance(thing, Tensor)]
        self.places = self._places()

    def hold(self) -> bool:
        """Whether all is as it was."""
        now = self._things()
        return (
            len(now) == len(self.things)
            and (all(map(is_, now, self.things)) or all(map(_same, now, self.things)))
            and self._places() == self.places
        )

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor was there."""
        return any(tensor is each for each in self.tensors)

    def _things(self) -> list[object]:
        things: list[object] = []
        for part in self.parts:
            things += part._modules.values()
            things += part._parameters.values()
            things += part._buffers.values()
            things += vars(part).values()
        return things

    def _places(self) -> list[tuple[int, bool]]:
        return [(tensor.data_ptr(), tensor.requires_grad) for tensor in self.tensors]


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, VALUES) and a == b)
