"""Wrap a Pyro model and guide as a program."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vae.contracts import StochasticFunction
from pyro_vae.networks import Size, as_shape
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput

__all__ = ["Program"]


class Program(nn.Module):
    """A Pyro model and guide of your own as a program.

    The two keep the contract of `pyro_vae.programs`. Their networks are given as ``modules``,
    which is what makes them trainable, movable and saveable: `pyro.param` and `pyro.module`
    register in a store that all programs of a process share, and are refused. Where the two are
    methods of a module, the program is copied and loaded like any other; plain functions refer to
    the modules that they were written with, so such a program cannot be copied, and is loaded into
    itself, ``pv.load(folder, program=program)``.

    Args:
        model: a Pyro model, called as ``model(x)`` or, where there is one, ``model(x, context)``.
        guide: a Pyro guide, called likewise.
        modules: the modules whose parameters the two functions use: one, a list, or a dictionary of
            them.
        event_shape: the shape of one datum; learned from the first data seen if not given.

    Raises:
        InvalidInput: when the model or the guide runs into `pyro.param` or `pyro.module`, with the
            rewrite.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> encoder = torch.nn.Linear(3, 2)
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.).to_event(1))
        ...         mean = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
        ...         pyro.sample("x", dist.Normal(mean, 1.).to_event(1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(encoder(x), 1.).to_event(1))
        >>> pv.elbo(pv.Program(model, guide, modules=encoder), torch.randn(5, 3)).values.shape
        torch.Size([5])
    """

    def __init__(
        self,
        model: StochasticFunction,
        guide: StochasticFunction,
        modules: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module] = (),
        event_shape: Size | None = None,
    ):
        super().__init__()
        self.model_fn, self.guide_fn = model, guide
        if isinstance(modules, nn.Module):
            modules = [modules]
        self.modules_used = (
            nn.ModuleDict(modules) if isinstance(modules, Mapping) else nn.ModuleList(modules)
        )
        self.event_shape = None if event_shape is None else as_shape(event_shape)

    def init_args(self) -> dict[str, object] | None:
        """Arguments of the constructor, for saving; none for functions tied to their modules."""
        if not self._is_of_methods():
            return None
        used = self.modules_used
        modules = dict(used.items()) if isinstance(used, nn.ModuleDict) else list(used)
        return {
            "model": self.model_fn,
            "guide": self.guide_fn,
            "modules": modules,
            "event_shape": self.event_shape,
        }

    def model(self, x: Tensor, context: Tensor | None = None) -> object:
        warn_of_unmoved(self)
        return self._run(self.model_fn, x, context)

    def guide(self, x: Tensor, context: Tensor | None = None) -> object:
        return self._run(self.guide_fn, x, context)

    def _is_of_methods(self) -> bool:
        pair = (self.model_fn, self.guide_fn)
        return all(inspect.ismethod(fn) and isinstance(fn.__self__, nn.Module) for fn in pair)

    def __deepcopy__(self, memo: dict[int, object]) -> Program:
        if not self._is_of_methods():
            raise InvalidInput(
                "program",
                got="a copy of a Program made of plain functions",
                expected="methods, which are copied together with their module",
                fix="make model and guide methods of one nn.Module that holds the networks",
            )
        copied = object.__new__(Program)
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def _run(self, fn: StochasticFunction, x: Tensor, context: Tensor | None) -> object:
        if self.event_shape is None:
            self.event_shape = tuple(x.shape[1:])
        parameters = list(inspect.signature(fn).parameters.values())
        # A second parameter with a default and another name is an option, not the context.
        takes_context = any(
            p.name == "context"
            or (i == 1 and p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty)
            for i, p in enumerate(parameters)
        )
        with RefuseGlobalParameters():
            return fn(x, context) if takes_context else fn(x)


class RefuseGlobalParameters(Messenger):
    """Stop a program from registering parameters in Pyro's global store."""

    def _pyro_param(self, msg: Mapping[str, object]) -> None:
        raise InvalidInput(
            str(msg["name"]),
            got="pyro.param or pyro.module inside a program",
            expected="parameters in modules of the program",
            fix="make it an nn.Parameter of a module, pass that module in "
            "Program(..., modules=...) and call it directly",
        )
