"""How the functions of a pair are called: with x, with a context too, or as an adapter says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import cast

from pyro.poutine.messenger import _bound_partial
from torch import nn

from pyro_vae.contracts import StochasticFunction
from pyro_vae.validation import InvalidInput

__all__ = ["Arguments", "by_keyword", "takes_context"]

Arguments = Callable[..., tuple[object, ...]]  # from x and a context to a function's arguments


def takes_context(name: str, fn: StochasticFunction) -> bool | None:
    """Whether a function takes a context after x; ``None`` for one that takes anything.

    A second parameter with a default is an option and not the context, unless it is called
    ``context`` or its default is ``None``.

    Raises:
        InvalidInput: if it needs more arguments than these two.

    Example:
        >>> takes_context("model", lambda x, labels: None)
        True
        >>> takes_context("model", lambda x, temperature=1.0: None)
        False
    """
    parameters = _parameters_of(fn)
    others = [
        p.name
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != "context"
    ]
    if others:
        given = ", ".join(f"{each}=context[{each!r}]" for each in others)
        raise InvalidInput(
            name,
            got=f"a function that needs {', '.join(others)} by keyword",
            expected=f"{name}(x) or {name}(x, context)",
            fix=f"pass lambda x, context: {name}(x, {given}) as the {name}",
        )
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 2:
        rest = ", ".join(f"context[{name!r}]" for name in needed[1:])
        raise InvalidInput(
            name,
            got=f"a function of {len(needed)} arguments ({', '.join(needed)})",
            expected=f"{name}(x) or {name}(x, context)",
            fix=f"pass pv.Program(model, guide, arguments=lambda x, context: (x, {rest}))",
        )
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return any(
        p.name == "context"
        or (i == 1 and p.kind is p.POSITIONAL_OR_KEYWORD and p.default in (p.empty, None))
        for i, p in enumerate(parameters)
    )


def by_keyword(fn: StochasticFunction) -> bool:
    """Whether a function takes its context by keyword alone.

    Example:
        >>> def model(x, *, context=None): ...
        >>> by_keyword(model), by_keyword(lambda x, context: None)
        (True, False)
    """
    return any(p.name == "context" and p.kind is p.KEYWORD_ONLY for p in _parameters_of(fn))


def _parameters_of(fn: StochasticFunction) -> list[inspect.Parameter]:
    while isinstance(fn, _bound_partial):  # what a handler of Pyro makes of a function
        fn = cast(partial, fn.func).args[1]
    return list(
        inspect.signature(fn.forward if isinstance(fn, nn.Module) else fn).parameters.values()
    )
