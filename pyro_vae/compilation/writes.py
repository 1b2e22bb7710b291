"""What a function writes into tensors, and how it is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.passes import shared_arguments
from pyro_vae.compilation.watching import Watching

__all__ = ["same_buffers", "without_writes"]


@contextmanager
def without_writes(module: nn.Module | None = None) -> Iterator[None]:
    """Undo what the body writes into tensors, and restore the buffers it replaces."""
    writes = _Writes()
    try:
        with same_buffers(module), writes:
            yield
    finally:
        writes.undo()


@contextmanager
def same_buffers(module: nn.Module | None) -> Iterator[list[str]]:
    """Restore the buffers that the body replaces by new tensors; list their names at the end."""
    module = nn.Module() if module is None else module
    before, replaced = dict(module.named_buffers()), list[str]()
    try:
        yield replaced
    finally:
        for name, buffer in before.items():
            if module.get_buffer(name) is not buffer:
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, buffer)
                replaced.append(name)


class _Writes(Watching):
    """Record tensors' values before the first write, so that they can be restored."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        shared = shared_arguments(func, args, kwargs)
        for leaf in tree_leaves([value for value, is_written in shared if is_written]):
            if isinstance(leaf, Tensor) and not leaf.requires_grad:
                self.before.setdefault(id(leaf), (leaf, leaf.detach().clone()))
        return func(*args, **kwargs)

    def undo(self) -> None:
        # In reverse: of several views of one tensor, the first one holds what was there first.
        for tensor, value in reversed(self.before.values()):
            if tensor.shape == value.shape:  # a temporary may have been resized since
                tensor.detach().copy_(value)
