"""Watch operations without importing Dynamo, and make optimisers without it.

Torch imports Dynamo to keep it out of what it might trace: a mode's function, an optimiser's
method. That takes a second or more of every start, and nothing here is ever traced by it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Watching", "without_dynamo"]


class Watching(TorchDispatchMode):
    """A mode that sees every operation, and leaves Dynamo alone.

    A network of the user's that `torch.compile` has compiled runs as it was written, meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stances: list[ExitStack] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        self.stances.append(ExitStack())
        if "torch._dynamo" in sys.modules:
            self.stances[-1].enter_context(torch.compiler.set_stance("force_eager"))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.stances.pop().close()


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Within it, making an optimiser does not import Dynamo.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> with without_dynamo():
        ...     optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> len(optimizer.param_groups)
        1
    """
    owner, name = torch.optim.Optimizer, "add_param_group"
    with ExitStack() as stack:
        if "torch._dynamo" not in sys.modules:
            method = vars(owner)[name]
            plain = vars(method).get("__wrapped__", method)
            stack.enter_context(mock.patch.object(owner, name, plain))
        yield
