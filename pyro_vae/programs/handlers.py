"""Handlers around the functions of a pair: under our names, at all states of what is summed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Self

import torch
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK, InferDict, Message
from pyro.poutine.subsample_messenger import _Subsample

from pyro_vae.contracts import Site
from pyro_vae.distributions import as_pyro
from pyro_vae.programs.names import Names

__all__ = ["AllDrawn", "Hidden", "Summed", "Translated", "are_enumerated"]


class Hidden(Messenger):
    """Hide sites from whatever stands outside, and from the scopes of `pyro.markov` too.

    An enumeration outside looks up every site that a scope names.

    Args:
        hides: whether a site is hidden.
    """

    def __init__(self, hides: Callable[[Site], bool]):
        super().__init__()
        self.hides, self.gone = hides, set[str]()

    def __enter__(self) -> Self:
        self.gone = set()
        return super().__enter__()

    def _pyro_sample(self, msg: Site) -> None:
        _rename_scope(msg, lambda name: None if name in self.gone else name)
        if self.hides(msg):
            self.gone.add(msg["name"])
            msg["stop"] = True  # type: ignore[typeddict-unknown-key]


def _rename_scope(msg: Site, renamed: Callable[[str], str | None]) -> None:
    """Give the sites in a message's scope of `pyro.markov` other names, or none."""
    scope = msg["infer"].get("_markov_scope")
    if isinstance(scope, Counter):
        others = {renamed(name): depth for name, depth in scope.items()}
        others.pop(None, None)
        msg["infer"] = {**msg["infer"], "_markov_scope": Counter(others)}


class Translated(Messenger):
    """Show the sites and plates of a pair under our names to whatever stands outside.

    Args:
        names: the names.
        num_data: the number of data in this run.
    """

    def __init__(self, names: Names, num_data: int):
        super().__init__()
        self.names, self.num_data = names, num_data
        self.before: list[tuple[str, tuple[CondIndepStackFrame, ...]]] = []
        self.gone = set[str]()

    def __enter__(self) -> Self:
        self.gone = set()
        return super().__enter__()

    def _pyro_sample(self, msg: Site) -> None:
        name, stack = msg["name"], msg["cond_indep_stack"]
        self.before.append((name, stack))
        if isinstance(fn := msg["fn"], _Subsample):
            if name in self.names.plates and msg["value"] is None and fn.subsample_size is not None:
                # The data are the batch, whose size may be beyond the plate's when they are scored.
                msg["value"] = torch.arange(fn.subsample_size, device=fn.device)
            return
        msg["fn"] = as_pyro(fn)
        _rename_scope(msg, lambda each: None if each in self.gone else self.names.site(each))
        if msg["infer"].get("_deterministic") or name in self.names.hidden:
            self.gone.add(name)
            msg["stop"] = True  # type: ignore[typeddict-unknown-key]
        place = self.names.place(name)
        if place is not None:
            msg["infer"] = {**msg["infer"], "x": place}
        msg["name"] = self.names.site(name)
        msg["cond_indep_stack"] = tuple(self.names.frame(f, self.num_data) for f in stack)

    def _pyro_post_sample(self, msg: Site) -> None:
        # Outer handlers have seen the message; inner ones get their own names back. What they have
        # added in front, such as a plate of draws, stays.
        name, stack = self.before.pop()
        added = msg["cond_indep_stack"][: len(msg["cond_indep_stack"]) - len(stack)]
        msg["name"], msg["cond_indep_stack"] = name, (*added, *stack)


class Summed(EnumMessenger):
    """Run a model at all states of some sites at once.

    Args:
        names: the sites.
        first_dim: the first dimension left of all plates, that of the draws among them.
    """

    def __init__(self, names: Collection[str], first_dim: int):
        super().__init__(first_available_dim=first_dim)
        self.names = names

    def _pyro_sample(self, msg: Message) -> None:
        if msg["name"] not in self.names:
            infer = (msg["infer"] or InferDict()).copy()
            infer.pop("enumerate", None)
            msg["infer"] = infer
        super()._pyro_sample(msg)


class AllDrawn(Messenger):
    """Let models draw what they sum over elsewhere; does nothing else."""


def are_enumerated() -> bool:
    """Whether a handler outside, such as an objective's, enumerates already, or all are drawn."""
    return any(isinstance(messenger, EnumMessenger | AllDrawn) for messenger in _PYRO_STACK)
