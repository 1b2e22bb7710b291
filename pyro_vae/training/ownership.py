"""Refuse a program whose loss depends on parameters that it does not own.

What is trained is what is saved is what is scored. A parameter that belongs to no module of the
program gets no step of the optimiser, is in no checkpoint, and moves to no other device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType

from torch import Tensor, nn
from torch.autograd.graph import Node

from pyro_vae.contracts import ProgramLike
from pyro_vae.programs import Program
from pyro_vae.validation import InvalidInput

__all__ = ["leaves_of", "refuse_foreign"]


def leaves_of(loss: Tensor) -> dict[int, Tensor]:
    """The leaves of a loss's graph, which receive gradients, by identity."""
    leaves: dict[int, Tensor] = {}
    seen: set[Node] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad":
            leaf: Tensor = node.variable  # type: ignore[attr-defined]  # this kind of node has one
            leaves[id(leaf)] = leaf
        waiting += [parent for parent, _ in node.next_functions]
    return leaves


def refuse_foreign(program: ProgramLike, leaves: Iterable[Tensor]) -> None:
    """Raise `InvalidInput` if the loss reaches a leaf that the program does not own.

    The error names the module that has it, if the functions of the program or an attribute of one
    of its modules refer to that module.

    Args:
        program: any program.
        leaves: the leaves of its loss, without those that each run makes for itself.
    """
    own = {id(parameter) for parameter in program.parameters()}
    foreign = {id(leaf): leaf for leaf in leaves if id(leaf) not in own}
    if not foreign:
        return
    found = dict(_referred_to_by(program))
    modules = {name: value for name, value in found.items() if isinstance(value, nn.Module)}
    used = [name for name, module in modules.items() if any(True for _ in module.parameters())]
    reached = [
        name
        for name, module in modules.items()
        if any(id(parameter) in foreign for parameter in module.parameters())
    ]
    bare = [name for name, value in found.items() if id(value) in foreign]
    if reached:
        what = f"parameters of {' and '.join(map(repr, reached))}"
        line = f"write pv.Program(model, guide, modules=[{', '.join(used)}])"
    elif bare:
        what = f"the tensor {bare[0]!r}"
        line = f"make {bare[0]} an nn.Parameter of a module, and pass it in modules=[...]"
    else:
        what = f"a parameter of shape {tuple(next(iter(foreign.values())).shape)}"
        line = "write pv.Program(model, guide, modules=[...]) with the module that has it"
    raise InvalidInput(
        "program",
        got=f"a loss that depends on {what}, which the program does not own",
        expected="only parameters of the program, which are trained, saved and scored with it",
        fix=line if isinstance(program, Program) else "make it an attribute of the program",
    )


def _referred_to_by(program: ProgramLike) -> Iterator[tuple[str, object]]:
    """The modules and tensors to which the program's code refers, by one name each."""
    internal = vars(nn.Module()).keys()
    seen: dict[int, object] = {id(program): program}
    yield from _within("model", program.model, seen)
    yield from _within("guide", program.guide, seen)
    for path, module in program.named_modules():
        for name, value in vars(module).items():
            if name not in internal:
                full = f"{path}.{name}" if path else name.removesuffix("_fn")
                yield from _within(full, value, seen)


def _within(name: str, value: object, seen: dict[int, object]) -> Iterator[tuple[str, object]]:
    """A value and everything it refers to: closures, globals, bound objects, containers."""
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its identity
    parts: dict[str, object] = {}
    if isinstance(value, nn.Module | Tensor):
        yield name, value
    elif isinstance(value, MethodType):
        owner = value.__self__
        parts = {f"{name}.__self__": owner, name: value.__func__}
        if not isinstance(owner, nn.Module | type):  # a plain object that holds the networks
            parts |= {f"{name}.__self__.{key}": item for key, item in vars(owner).items()}
    elif isinstance(value, partial):
        arguments = {f"{name}.args[{i}]": given for i, given in enumerate(value.args)}
        parts = {name: value.func, **arguments, **value.keywords}
    elif isinstance(value, FunctionType):
        parts = _names_used_by(value)
    elif isinstance(value, list | tuple):
        parts = {f"{name}[{i}]": item for i, item in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"{name}[{key!r}]": item for key, item in value.items()}
    for part, item in parts.items():
        yield from _within(part, item, seen)


def _names_used_by(function: FunctionType) -> dict[str, object]:
    """The objects that a function's code refers to from outside it, by name."""
    used: dict[str, object] = {}
    codes = [function.__code__]
    for code in codes:  # which grows by the functions defined within
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        used |= {n: function.__globals__[n] for n in code.co_names if n in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            used[name] = cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    wrapped = vars(function).get("__wrapped__")
    return used if wrapped is None else {**used, "__wrapped__": wrapped}
