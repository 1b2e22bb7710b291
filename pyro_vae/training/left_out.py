"""Steps that a limit on the gradient's norm leaves out."""

from __future__ import annotations

import warnings

from pyro_vae.compilation.optimizer import Update

__all__ = ["count_left_out"]


def count_left_out(update: Update, before: int, steps: int) -> int:
    """How many steps of an epoch were left out; it warns where all of them were.

    Args:
        update: what takes the steps.
        before: how many it had left out when the epoch began.
        steps: those of the epoch.
    """
    left_out = update.skipped - before
    if left_out == steps:
        warnings.warn(
            f"skip_norm: {update.skip_norm:g} left out all {steps:,} steps of an epoch, so nothing "
            f"was trained: the least norm of a gradient was {update.least_skipped:.3g}. Raise it "
            "above that, or leave it out",
            UserWarning,
            stacklevel=2,
        )
    return left_out
