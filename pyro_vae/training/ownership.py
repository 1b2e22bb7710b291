"""Refuse a program whose loss depends on parameters that it does not own.

What is trained is what is saved is what is scored. A parameter that belongs to no module of the
program gets no step of the optimiser, is in no checkpoint, and moves to no other device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.autograd.graph import Node

from pyro_vae.checkpoint.references import referred_to_by
from pyro_vae.contracts import Initializable, ProgramLike, as_module
from pyro_vae.programs import Program
from pyro_vae.validation import InvalidInput

__all__ = ["hands_on", "leaves_of", "refuse_foreign"]


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
    found = dict(referred_to_by(program))
    modules = {name: value for name, value in found.items() if isinstance(value, nn.Module)}
    used = [name for name, module in modules.items() if any(True for _ in module.parameters())]
    reached = [
        name
        for name, module in modules.items()
        if any(id(parameter) in foreign for parameter in module.parameters())
    ]
    is_pair = isinstance(program, Program)
    if reached:
        what = f"parameters of {' and '.join(map(repr, reached))}"
        line = f"write pv.Program(model, guide, modules=[{', '.join(used)}])"
        line = line if is_pair else "make it an attribute of the program"
        if lists := [name.split("[")[0] for name in reached if _is_in_container(name, program)]:
            line = f"make {lists[0]} an nn.ModuleList (or an nn.ModuleDict)"
    elif buffers := [name for name, buffer in _buffers(program, modules) if id(buffer) in foreign]:
        what = f"the buffer {buffers[0]!r}, which requires a gradient"
        line = "register it as an nn.Parameter to train it, or else detach it"
    elif bare := [name for name, value in found.items() if _reaches(value, foreign)]:
        what = f"the tensor {bare[0]!r}"
        line = f"make {bare[0]} an nn.Parameter of a module" + (
            ", and pass it in modules=[...]" if is_pair else " of the program"
        )
    else:
        what = f"a parameter of shape {tuple(next(iter(foreign.values())).shape)}"
        line = "write pv.Program(model, guide, modules=[...]) with the module that has it"
        line = line if is_pair else "make it an attribute of the program"
    raise InvalidInput(
        "program",
        got=f"a loss that depends on {what}, which the program does not own",
        expected="only parameters of the program, which are trained, saved and scored with it",
        fix=line,
    )


def _is_in_container(name: str, program: ProgramLike) -> bool:
    """Whether that is the name of a module in a plain list or dictionary of a program's module."""
    holder = name.split("[")[0].rpartition(".")[0]
    return "[" in name and holder in dict(program.named_modules())


def _buffers(program: ProgramLike, modules: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """The buffers of a program and of modules that it does not own, by name."""
    yield from program.named_buffers()
    for name, module in modules.items():
        for inner, buffer in module.named_buffers():
            yield f"{name}.{inner}", buffer


def _reaches(value: object, leaves: dict[int, Tensor]) -> bool:
    """Whether something is one of the leaves, or a tensor computed from one."""
    return id(value) in leaves or (
        isinstance(value, Tensor) and not leaves.keys().isdisjoint(leaves_of(value))
    )


def hands_on(program: ProgramLike) -> bool:
    """Whether a program hands data on to its parts, none of which starts from data."""
    takers = [part for part in as_module(program).modules() if isinstance(part, Initializable)]
    return all(type(part).__module__.startswith("pyro_vae.programs.") for part in takers)
