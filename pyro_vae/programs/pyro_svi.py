"""Warn if Pyro's own `SVI` runs one of our programs, whose parameters it cannot find."""

from __future__ import annotations

import warnings

from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

__all__ = ["warn_of_unmoved"]


def warn_of_unmoved(program: nn.Module) -> None:
    """Warn if `pyro.infer.SVI` runs this program without training all its parameters.

    `SVI` moves the parameters that a trace of ``pyro.param`` sites shows it, and those of our
    programs are in no such site. Programs call this in their model, which runs after the guide.
    """
    for messenger in reversed(_PYRO_STACK):
        if isinstance(messenger, BlockMessenger):
            return  # a run that SVI does not see, such as the one that finds the plates
        if isinstance(messenger, TraceMessenger) and messenger.param_only:
            sites = messenger.trace.nodes.values()
            values = [site["value"] for site in sites if site["type"] == "param"]
            moved = {id(value.unconstrained()) for value in values if value is not None}
            trained = {name: p for name, p in program.named_parameters() if p.requires_grad}
            left = [name for name, parameter in trained.items() if id(parameter) not in moved]
            if left:
                all_of_it = len(left) == len(trained)
                what = "no parameter of this program" if all_of_it else "only some parameters"
                warnings.warn(
                    f"pyro.infer.SVI moves {what}: {left[0]!r} is not in Pyro's parameter store; "
                    "train it with pv.fit, or with pv.CompiledSVI(model, guide, "
                    "torch.optim.Adam(program.parameters()), loss)",
                    stacklevel=2,
                )
            return
