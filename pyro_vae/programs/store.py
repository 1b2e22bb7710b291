"""A program's own share of Pyro's parameter store, kept as parameters of a module.

Each run of a model or guide sees a store with nothing in it, and whatever it registers is examined
afterwards: what a module of the program owns stays there, what `pyro.param` made is adopted. Pyro's
global store stays as it was, so two programs of one class never share a parameter.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import pyro
import torch
from pyro import poutine
from pyro.params.param_store import StateDict
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to
from torch.distributions.constraints import Constraint

from pyro_vae.contracts import EventShape, Tensors
from pyro_vae.programs.names import Names
from pyro_vae.validation import InvalidInput, tensors_of

__all__ = ["Store", "blank", "shapes_of"]

# What a store sets on itself, which no parameter of this name may be in the way of.
ATTRIBUTES = {"training", "event_shape", "names", "blank", "one_draw", "constraints"}

Shapes = Mapping[str, tuple[Sequence[int], str]]  # of one datum, and dtypes, by name


class ParamMessage(TypedDict):
    """The part of a ``pyro.param`` statement's message that is read here."""

    name: str
    args: tuple[object, ...]
    kwargs: dict[str, Constraint]
    value: Tensor | None
    done: bool


class Store(nn.Module):
    """What a pair of Pyro functions makes by `pyro.param`, and what else its first run shows.

    Parameters are kept unconstrained, as Pyro keeps them, under the names that the pair gave them.

    Args:
        event_shape: the shape of one datum, if it is known.
        names: of plates and sites, if they are known, as `Names.to_json` gives them.
        blank: shapes and dtypes of x and the context, as `shapes_of` gives them, if they are known.
        params: the shape of each parameter, whose value is loaded next, and its constraint's name.
    """

    is_added = True  # to a module after its constructor has run

    def __init__(
        self,
        event_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        names: Mapping[str, Mapping] | None = None,
        blank: Mapping[str, Shapes] | None = None,
        params: Mapping[str, tuple[Sequence[int], str | None]] | None = None,
    ):
        super().__init__()
        self.event_shape: EventShape | None = None
        if isinstance(event_shape, Mapping):
            self.event_shape = {name: tuple(shape) for name, shape in event_shape.items()}
        elif event_shape is not None:
            self.event_shape = tuple(event_shape)
        self.names = None if names is None else Names.from_json(names)
        self.blank, self.one_draw = blank, False
        self.constraints: dict[str, Constraint] = {}
        for name, (shape, constraint) in (params or {}).items():
            self.add(name, nn.Parameter(torch.zeros(tuple(shape))))
            if constraint is not None:
                self.constraints[name] = getattr(constraints, constraint)

    def init_args(self) -> dict[str, object]:
        """Arguments of the constructor, for saving."""
        params = {
            _name(key): (tuple(p.shape), _name_of(self.constraints.get(_name(key))))
            for key, p in self._parameters.items()
            if p is not None
        }
        names = None if self.names is None else self.names.to_json()
        return {
            "event_shape": self.event_shape,
            "names": names,
            "blank": self.blank,
            "params": params,
        }

    def add(self, name: str, value: Tensor) -> None:
        """Adopt an unconstrained tensor under a name of `pyro.param`."""
        made = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
        self._parameters[_key(name)] = made  # no name is refused for that of an attribute

    def value(self, name: str, constraint: Constraint) -> Tensor | None:
        """The constrained value of a parameter; ``None`` if there is none of this name."""
        parameter = self._parameters.get(_key(name))
        if parameter is None:
            return None
        value = transform_to(self.constraints.setdefault(name, constraint))(parameter)
        value.unconstrained = weakref.ref(parameter)
        return value

    def check_sizes(self, other: Store) -> None:
        """Raise `InvalidInput` if another run, at fewer data, made a parameter of another size."""
        for name in self.constraints.keys() & other.constraints.keys():
            mine, others = (store._parameters[_key(name)] for store in (self, other))
            if mine is not None and others is not None and mine.shape != others.shape:
                raise InvalidInput(
                    "program",
                    got=f"pyro.param({name!r}) with an entry for each datum",
                    expected="parameters that new data share",
                    fix=f"make {name} the output of a network of x",
                )

    @contextmanager
    def scope(self, owner: nn.Module, *, adopts: bool = False) -> Iterator[None]:
        """Run Pyro functions in an empty store, with what was adopted served to `pyro.param`.

        Args:
            owner: the program, whose parameters are its own.
            adopts: whether what is new is adopted; else it is refused.

        Raises:
            InvalidInput: for a parameter that is new, or belongs to no module of the program.
        """
        kept = {
            name: parameter
            for name in self.constraints
            if (parameter := self._parameters.get(_key(name))) is not None
        }
        before: StateDict = {"params": dict(kept), "constraints": dict(self.constraints)}
        with (
            pyro.get_param_store().scope(before) as state,
            poutine.block(hide_types=["param"]),  # none of our objectives or handlers needs them
            _Serve(self, owner),
        ):
            yield
        made = {name: p for name, p in state["params"].items() if name not in kept}
        if not made:
            return
        owned = {id(p) for module in (owner, self) for p in module.parameters()}
        for name, value in made.items():
            if id(value) in owned:
                continue
            if "$$$" in name:  # pyro.module's mark
                raise _not_held(name.split("$$$")[0])
            if not adopts:
                raise _only_sometimes(name)
            self.add(name, value)
            self.constraints[name] = state["constraints"][name]


class _Serve(Messenger):
    """Give `pyro.param` what is adopted or owned, before Pyro's store is asked."""

    def __init__(self, store: Store, owner: nn.Module):
        super().__init__()
        self.store, self.owned = store, {id(parameter) for parameter in owner.parameters()}

    def _pyro_param(self, msg: ParamMessage) -> None:
        constraint = msg["kwargs"].get("constraint", constraints.real)
        value = self.store.value(msg["name"], constraint)
        given = msg["args"][1] if len(msg["args"]) > 1 else None
        if value is None and id(given) in self.owned and constraint is constraints.real:
            assert isinstance(given, Tensor)
            value = given
        if value is not None:
            msg["value"], msg["done"] = value, True


def shapes_of(values: Tensors | None) -> Shapes:
    """The shape of one datum of each tensor, and its dtype's name; a single one is named ``""``."""
    return {
        name: (tuple(part.shape[1:]), str(part.dtype).removeprefix("torch."))
        for name, part in tensors_of(values).items()
    }


def blank(shapes: Shapes) -> Tensors | None:
    """Three empty data of these shapes; ``None`` if there are none."""
    made = {
        name: torch.zeros(3, *shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in shapes.items()
    }
    return made[""] if made.keys() == {""} else made or None


def _key(name: str) -> str:
    """A name as torch allows it for a parameter: without dots, and no attribute's."""
    key = name.replace("%", "%25").replace(".", "%2E")
    return f"{key}%" if name in ATTRIBUTES else key


def _name(key: str) -> str:
    return key.removesuffix("%").replace("%2E", ".").replace("%25", "%")


def _name_of(constraint: Constraint | None) -> str | None:
    """The name of a constraint without arguments, such as "positive"."""
    known = (name for name in constraints.__all__ if getattr(constraints, name) is constraint)
    return next(known, None)


def _not_held(name: str) -> InvalidInput:
    return InvalidInput(
        "program",
        got=f"pyro.module({name!r}, ...) of a module that the program does not hold",
        expected="modules of the program",
        fix="make it once and not in every run, as an attribute of the module with model and guide "
        "(of several an nn.ModuleList), or pass it in pv.Program(model, guide, modules=[...])",
    )


def _only_sometimes(name: str) -> InvalidInput:
    return InvalidInput(
        "program",
        got=f"pyro.param({name!r}), which only some runs reach",
        expected="parameters that every run reaches, so that they are trained and saved",
        fix=f"move pyro.param({name!r}, ...) before the condition",
    )
