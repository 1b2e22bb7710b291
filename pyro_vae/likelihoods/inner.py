"""Likelihoods inside others: by name, and on features that are computed once."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TypedDict, cast

from torch import Tensor, nn

from pyro_vae.contracts import Likelihood
from pyro_vae.networks import Size, as_shape, out_shape_of
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["Features", "Inner", "inner_of", "likelihood_on"]


class Features(nn.Module):
    """A network that passes on the features that another module has computed."""

    takes_draws = True

    def __init__(self, out_shape: Size):
        super().__init__()
        self.out_shape = as_shape(out_shape)

    def forward(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        return features


class Inner(TypedDict, total=False):
    """A likelihood in the words of a recipe."""

    class_path: str | type[nn.Module]
    init_args: Mapping[str, object]


def likelihood_on(
    described: str | Inner, event_shape: Size, network: nn.Module, argument: str = "of"
) -> Likelihood:
    """A likelihood on the features that a network computes, which runs outside it.

    Args:
        described: the name of a class of `pyro_vae.likelihoods`; or a mapping with ``class_path``,
            such a name, an import path or a class, and ``init_args``, further arguments.
        event_shape: the shape of x.
        network: the network, of which only the shape of its features is used.
        argument: the argument's name in errors.

    Raises:
        InvalidInput: if there is no such class.
    """
    inner = inner_of(described, argument)
    named = inner.get("class_path", "")
    features = Features(out_shape_of(network))
    if isinstance(named, str):
        named = _class_named(named, argument, with_path=True)
    build: Callable[..., nn.Module] = named
    return cast(Likelihood, build(event_shape, features, **inner.get("init_args", {})))


def inner_of(described: str | Inner, argument: str = "of") -> Inner:
    """A likelihood in the words of a recipe; a text alone names a class of ours, and no path.

    Raises:
        InvalidInput: if a text names no such class.
    """
    if not isinstance(described, str):
        return described
    return Inner(class_path=_class_named(described, argument, with_path=False))


def _class_named(text: str, argument: str, with_path: bool) -> type[nn.Module]:
    family = importlib.import_module("pyro_vae.likelihoods")
    path, _, name = text.rpartition(".") if isinstance(text, str) else ("", "", repr(text))
    try:
        if (path and not with_path) or (not path and name not in family.__all__):
            raise AttributeError(name)
        found = getattr(importlib.import_module(path) if path else family, name)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise AttributeError(name)
        return found
    except (ImportError, AttributeError):
        fix = nearest_name(name, family.__all__)
        if path and not with_path:
            fix = f"pass {{'class_path': {text!r}}}"
        raise InvalidInput(
            argument, got=repr(text), expected="a likelihood or an import path", fix=fix
        ) from None
