"""Wrap a Pyro model and guide as a program."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from pyro import poutine, validation_enabled
from torch import nn

from pyro_vae.checkpoint.references import modules_of, referred_to
from pyro_vae.contracts import (
    EventShape,
    ProgramLike,
    PyroPair,
    StatesEvent,
    StochasticFunction,
    Tensors,
    Trace,
)
from pyro_vae.networks import Size, as_shape
from pyro_vae.programs.arguments import Arguments, by_keyword, takes_context
from pyro_vae.programs.copying import copied
from pyro_vae.programs.handlers import AllDrawn, Summed, Translated, are_enumerated
from pyro_vae.programs.names import Names, check_autoguides, told_if_picked
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.programs.sizes import check_sizes_follow
from pyro_vae.programs.store import Store, blank, shapes_of
from pyro_vae.validation import InvalidInput, count_of, rows_of, tensors_of

__all__ = ["Program", "as_program"]

STORE = "pyro_store"  # the attribute of a module with model and guide that holds what it learns


class Program(nn.Module):
    """A Pyro model and guide as their author wrote them, as a program.

    The two may use `pyro.module`, `pyro.param`, `PyroModule` and AutoGuides of global latents.
    Their data plate, whose size is the number of data, and the site that observes x may have any
    name: outside, the plate is ``"data"`` and the site ``"x"``. Modules are found through what the
    two functions refer to; what `pyro.param` makes is adopted at the first run, `prepare`. Nothing
    enters Pyro's global store, so two programs share no parameter.

    Where the two are methods of a module, the program is loaded like any other; no file can hold
    plain functions, so such a program is loaded into one that is built first,
    ``pv.load(folder, program=program)``. `copy.deepcopy` copies the functions with their networks.

    Args:
        model: a Pyro model, called as ``model(x)`` or, where there is one, ``model(x, context)``.
        guide: a Pyro guide, called likewise.
        modules: the modules whose parameters the two functions use: one, a list, or a dictionary of
            them; by default those that the two refer to.
        event_shape: the shape of one datum; learned from the first data seen if not given.
        arguments: a function from x and a context to the tuple of arguments of model and guide,
            where these are others.

    Raises:
        InvalidInput: for functions of more arguments than x and a context.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> encoder = torch.nn.Linear(3, 2)
        >>> def model(x):
        ...     scale = pyro.param("scale", torch.ones(()), dist.constraints.positive)
        ...     with pyro.plate("batch", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.).to_event(1))
        ...         mean = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
        ...         pyro.sample("obs", dist.Normal(mean, scale).to_event(1), obs=x)
        >>> def guide(x):
        ...     pyro.module("encoder", encoder)
        ...     with pyro.plate("batch", len(x)):
        ...         pyro.sample("z", dist.Normal(encoder(x), 1.).to_event(1))
        >>> pv.elbo(pv.Program(model, guide), torch.randn(5, 3)).values.shape
        torch.Size([5])
    """

    def __init__(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        modules: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module] = (),
        event_shape: Size | None = None,
        arguments: Arguments | None = None,
    ):
        super().__init__()
        self.model_fn: StochasticFunction
        self.guide_fn: StochasticFunction
        if isinstance(modules, nn.Module):
            modules = [modules]
        self.finds_modules = not modules
        if not modules:
            modules = modules_of(model, guide)
        self.modules_used = (
            nn.ModuleDict(modules) if isinstance(modules, Mapping) else nn.ModuleList(modules)
        )
        # In the dictionary, where a function that is itself a module is not registered again.
        self.__dict__["model_fn"], self.__dict__["guide_fn"] = model, guide
        self.arguments = arguments
        self.takes_context = (False, False) if arguments else _take_context(model, guide)
        self.store = Store(None if event_shape is None else as_shape(event_shape))

    @classmethod
    def of(cls, pair: PyroPair) -> Program:
        """A module that has a model and a guide as a program.

        What it learns stays with the module, so that another call goes on from there.
        """
        module = cast(nn.Module, pair)
        program = cls(pair.model, pair.guide, [module])
        store = module._modules.get(STORE)
        if not isinstance(store, Store):
            store = program.store
            module.add_module(STORE, store)
        del program._modules["store"]
        program.__dict__["store"] = store
        return program

    @property
    def event_shape(self) -> EventShape | None:
        """The shape of one datum, once it is known."""
        return self.store.event_shape

    @property
    def one_draw(self) -> bool:
        """Whether it is run for one draw of its latents at a time."""
        return self.store.one_draw

    @one_draw.setter
    def one_draw(self, value: bool) -> None:
        self.store.one_draw = value

    def init_args(self) -> dict[str, object] | None:
        """Arguments of the constructor, for saving; none for functions tied to their modules."""
        if not self.is_of_methods or self.arguments is not None:
            return None
        used = self.modules_used
        modules = dict(used.items()) if isinstance(used, nn.ModuleDict) else list(used)
        return {
            "model": self.model_fn,
            "guide": self.guide_fn,
            "modules": modules,
            "event_shape": self.event_shape,
        }

    def model(self, x: Tensors, context: Tensors | None = None) -> object:
        warn_of_unmoved(self)
        return self._translated(0, x, context)

    def joint(self, x: Tensors, context: Tensors | None = None) -> object:
        """The model with every latent drawn, those among them that `model` sums over."""
        with AllDrawn():
            return self._translated(0, x, context)

    @property
    def summed(self) -> tuple[str, ...]:
        """The model's discrete latents that are summed over, once they are known."""
        return () if self.store.names is None else self.store.names.summed

    def guide(self, x: Tensors, context: Tensors | None = None) -> object:
        return self._translated(1, x, context)

    def prepare(self, x: Tensors, context: Tensors | None = None) -> None:
        r"""Run guide and model once: what is lazy is made, what belongs to no module is adopted.

        The names of the data plate and of the site of x are found. It runs once, before anything
        reads the parameters.

        Args:
            x: data (N, \*event).
            context: context (N, ...) or ``None``.

        Raises:
            InvalidInput: for a pair that cannot be taken, with the line to change.
        """
        if self.store.names is not None:
            return
        number = count_of(x)
        three, two = (
            (rows_of(x, rows), rows_of(context, rows))
            for rows in (_first(3, number), _first(2, number))
        )
        with self._aside(_device_of(x)):
            try:
                guide, model = self._first_run(self.store, *three)
            except (RuntimeError, ValueError) as error:
                check_sizes_follow(error, lambda: self._first_run(Store(), *two))
                raise
            again = Store()  # made anew, for parameters whose size is that of the data
            with again.scope(self, adopts=True):
                model_again = poutine.trace(self._call).get_trace(0, *two)
                check_autoguides(self.modules(), model, model_again)
                guide_again = poutine.trace(self._call).get_trace(1, *two)
        self.store.check_sizes(again)
        self.store.names = Names.of((guide, model), (guide_again, model_again), three[0])
        if self.store.event_shape is None:
            self.store.event_shape = (
                {name: tuple(part.shape[1:]) for name, part in x.items()}
                if isinstance(x, dict)
                else tuple(x.shape[1:])
            )
        self.store.blank = {"x": shapes_of(x), "context": shapes_of(context)}

    def run_once(self) -> None:
        """Run on empty data of the shapes seen before, to make what is lazy before it is loaded."""
        if self.store.blank is None:
            return
        x, context = (blank(self.store.blank[key]) for key in ("x", "context"))
        try:
            with self._aside(torch.device("cpu")):
                self._first_run(self.store, x, context)
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                "program",
                got=f"functions that do not run at zeros ({str(error).splitlines()[0]}), so that "
                "what their first run makes is not there",
                expected="a program with all its parameters, into which they are read",
                fix="run it once on data, such as pv.elbo(program, data), and load then",
            ) from error

    def _first_run(
        self, store: Store, x: Tensors | None, context: Tensors | None
    ) -> tuple[Trace, Trace]:
        """Traces (guide, model) of a run whose new parameters and modules are adopted."""
        with store.scope(self, adopts=True), told_if_picked():
            guide = poutine.trace(self._call).get_trace(1, x, context)
            model = poutine.trace(poutine.replay(self._call, trace=guide)).get_trace(0, x, context)
            found = modules_of(self.model_fn, self.guide_fn) if self.finds_modules else []
            held = {id(module) for module in self.modules_used.children()}
            if not all(id(module) in held for module in found):  # made by this run
                self.modules_used = nn.ModuleList(found)
        return guide, model

    def _call(self, which: int, x: Tensors | None, context: Tensors | None) -> object:
        fn = (self.model_fn, self.guide_fn)[which]
        if self.arguments is not None:
            return fn(*self.arguments(x, context))
        if not self.takes_context[which]:
            return fn(x)
        return fn(x, context=context) if by_keyword(fn) else fn(x, context)

    def _translated(self, which: int, x: Tensors, context: Tensors | None) -> object:
        self.prepare(x, context)
        names = self.store.names
        assert names is not None
        with self.store.scope(self), Translated(names, count_of(x)), ExitStack() as inner:
            if names.summed and which == 0 and not are_enumerated():
                # Left of the plates, and of the plate of draws that may stand around them.
                inner.enter_context(Summed(names.summed, -names.depth - 2))
            return self._call(which, x, context)

    @contextmanager
    def _aside(self, device: torch.device) -> Iterator[None]:
        """Run without a trace of it: in evaluation mode, on random numbers that are put back."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with (
                torch.random.fork_rng([device] if device.type == "cuda" else []),
                torch.no_grad(),
                validation_enabled(False),
                poutine.block(),
            ):
                yield
        finally:
            for module in self.modules():
                module.training = modes.get(module, self.training)

    @property
    def is_of_methods(self) -> bool:
        """Whether model and guide are methods of a module, and not plain functions."""
        pair = (self.model_fn, self.guide_fn)
        return all(inspect.ismethod(fn) and isinstance(fn.__self__, nn.Module) for fn in pair)

    def _check_functions_have_their_modules(self) -> None:
        """Raise `InvalidInput` if plain functions use modules in a way that cannot be followed."""
        if self.is_of_methods:
            return
        functions = [self.model_fn, self.guide_fn, self.arguments]
        found = {id(part) for _, part in referred_to(functions)}
        if not all(id(module) in found for module in self.modules_used.children()):
            raise InvalidInput(
                "program",
                got="a copy of a Program of plain functions that do not refer to their modules",
                expected="functions that name them, or methods, which are copied with their module",
                fix="make model and guide methods of one nn.Module that holds the networks",
            )

    def __deepcopy__(self, memo: dict[int, object]) -> Program:
        self._check_functions_have_their_modules()
        made = object.__new__(type(self))
        memo[id(self)] = made
        of_functions = {"model_fn", "guide_fn", "arguments"}
        rest = {name: v for name, v in self.__dict__.items() if name not in of_functions}
        made.__dict__ = copy.deepcopy(rest, memo)
        for name in of_functions:
            made.__dict__[name] = copied(self.__dict__[name], memo)
        return made


def as_program(module: ProgramLike | PyroPair) -> ProgramLike:
    """A program as it is, and a module with a Pyro model and guide as a program.

    Raises:
        InvalidInput: for anything else.
    """
    if not isinstance(module, PyroPair):
        raise InvalidInput(
            "program",
            got=type(module).__name__,
            expected="a module with model and guide",
            fix="write pv.Program(model, guide)",
        )
    if not isinstance(module, nn.Module):
        raise InvalidInput(
            "program",
            got=f"{type(module).__name__}, a class with model and guide that is no nn.Module",
            expected="a program, which keeps its parameters from one call to the next",
            fix="write program = pv.Program(it.model, it.guide), or let the class be an nn.Module",
        )
    if isinstance(module, StatesEvent) and _may_get_context(module):
        return module
    return Program.of(module)


def _may_get_context(pair: PyroPair) -> bool:
    """Whether both functions take a context by this name, as those of a program do.

    A pair that has an ``event_shape`` for its own use has functions of x alone, or of x and labels.
    """
    return all("context" in inspect.signature(fn).parameters for fn in (pair.model, pair.guide))


def _take_context(model: StochasticFunction, guide: StochasticFunction) -> tuple[bool, bool]:
    """Whether model and guide take a context; one that takes anything gets what the other does."""
    of_model, of_guide = takes_context("model", model), takes_context("guide", guide)
    found = of_guide if of_model is None else of_model
    return bool(found), bool(found if of_guide is None else of_guide)


def _device_of(x: Tensors) -> torch.device:
    return next(iter(tensors_of(x).values())).device


def _first(count: int, num_data: int) -> list[int]:
    """The first data, some of them twice where there are too few."""
    return [i % num_data for i in range(count)]
