"""Factories: classes with what a recipe gave them, and what they get when they are built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from pyro_vae.programs.parts import takes_input
from pyro_vae.runtime.memory import is_out_of_memory
from pyro_vae.validation import InvalidInput

__all__ = [
    "Factory", "call_factory", "call_level_prior", "calling", "given_to", "settings_of",
    "target_of",
]  # fmt: skip

Factory = Callable[..., nn.Module]


def call_factory(argument: str, factory: Factory, *sizes: object, **offers: object) -> nn.Module:
    """Build a component from its sizes and those offered arguments that it accepts."""
    target = target_of(factory)
    parameters = inspect.signature(target).parameters
    wanted = {name: value for name, value in offers.items() if name in parameters}
    for name, value in wanted.items():
        _check_not_contradicted(argument, factory, name, value)
    may_ignore_it = argument in {"prior", "level_prior"}
    if offers.get("context") and not may_ignore_it and "context" not in wanted:
        raise InvalidInput(
            argument,
            got="a network that takes no context",
            expected="context= in its signature",
            fix="choose MLP, or add that argument",
        )
    try:
        return factory(*sizes, **wanted)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        shapes = [str(size) for size in sizes if isinstance(size, tuple)]
        first = f"the shape {' and '.join(shapes)}" if shapes else "a network"
        is_ours = target.__module__.startswith("pyro_vae.")
        path = target.__name__ if is_ours else f"{target.__module__}.{target.__qualname__}"
        raise InvalidInput(
            argument,
            got=f"{target.__name__}, which cannot be built with {first} and its arguments "
            f"({error})",
            expected="arguments as its docstring says"
            if is_ours
            else "a class that takes sizes as shapes: pv.networks.as_shape",
            fix=f"see --{argument}.help {path}",
        ) from error


def call_level_prior(
    factory: Factory, latent: Sequence[int], network: nn.Module, context: int
) -> nn.Module:
    """Build p(z_l | h_l) with a network for h_l, or p(z_l) of a prior that takes none.

    Args:
        factory: makes the prior.
        latent: event shape of z_l.
        network: maps what is above to features.
        context: number of context features, for a prior without a network.
    """
    target = target_of(factory)
    if list(inspect.signature(target).parameters) == ["latent"]:  # such as uniform codes
        return call_factory("level_prior", factory, latent)
    if isinstance(target, type) and issubclass(target, nn.Module) and not takes_input(target):
        return call_factory("level_prior", factory, latent, context=context)
    return call_factory("level_prior", factory, latent, network)


def _check_not_contradicted(argument: str, factory: Factory, name: str, value: object) -> None:
    """Raise `InvalidInput` if a user's value contradicts the one that the data imply."""
    own = given_to(factory).get(name)
    is_default = own == inspect.signature(target_of(factory)).parameters[name].default
    if own and not is_default and (tuple(own) if isinstance(own, list) else own) != value:
        about_context = "; --context says whether there is a context" if name == "context" else ""
        raise InvalidInput(
            f"{argument}.{name}",
            got=repr(own),
            expected=f"{value!r}, which follows from the data",
            fix=f"leave it out{about_context}",
        )


def calling(function: Factory, **given: object) -> nn.Module:
    """What a function makes; `partial(calling, function, **given)` is its factory."""
    return function(**given)


def target_of(factory: Callable[..., object]) -> Callable[..., object]:
    """The class or function behind a factory, which is a partial's last argument."""
    return factory.args[-1] if isinstance(factory, partial) and factory.args else factory


def settings_of(factory: Callable[..., object]) -> dict[str, object]:
    """The arguments that a factory's class will be built with, defaults included."""
    parameters = inspect.signature(target_of(factory)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {**defaults, **given_to(factory)}


def given_to(factory: Callable[..., object]) -> Mapping[str, object]:
    """The arguments that the user gave to a factory."""
    return factory.keywords if isinstance(factory, partial) else {}
