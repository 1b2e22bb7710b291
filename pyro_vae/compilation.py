"""A Pyro program as one static graph: captured once, with no handler left in it, then compiled.

`make_fx` runs model, guide and objective once and records the tensor operations, the backward pass included. What
is not an argument (parameters, buffers, constants) is found in the graph by identity and becomes an input of it, so any
closure can be captured, an optimiser may update the parameters in place, and a buffer that the forward pass writes to is
written to by the graph. Inductor compiles the graph; where there is no compiler it is interpreted, to the same bits as eager.

A branch on data cannot be recorded and a shape that depends on data would be frozen: both are found, and such a
program runs eagerly instead.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.infer
import torch
from pyro import validation_enabled
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from pyro_vae.inductor import inductor
from pyro_vae.objectives import ELBO
from pyro_vae.updates import Update
from pyro_vae.validation import InvalidInput

__all__ = ["CannotCapture", "Captured", "CompiledSVI", "LossAndGradients", "Replay", "Work", "is_worth_compiling"]

TensorFunction = Callable[..., Any]


class CannotCapture(RuntimeError):
    """A function that is no static graph of tensor operations.

    Args:
        reason: what stands in the way.
        line: where, as file:line and the source there.
    """

    def __init__(self, reason: str, line: str):
        self.reason, self.line = reason, line
        super().__init__(f"{reason}, at {line}")


class Captured:
    """A function of tensors as a static graph.

    Args:
        fn: a function of tensors that returns a tensor or a tuple of them; it is run once, and what that run changes
            (buffers, the random state) is put back.
        inputs: example inputs; their shapes, dtypes and devices become the graph's.

    Raises:
        CannotCapture: on data-dependent control flow or shapes.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> captured = Captured(lambda x: (x * weight).sum(), [torch.ones(3, 2)])
        >>> captured(torch.ones(3, 2))
        (tensor(6.),)
    """

    def __init__(self, fn: TensorFunction, inputs: Sequence[Tensor]):
        graph = _trace(fn, inputs)
        _refuse_dynamic_shapes(graph)
        graph.graph.eliminate_dead_code()
        self.uses_host = any(_is_of_host(graph, node) for node in graph.graph.nodes)
        self.graph, self.lifted = _lift_tensors(graph)
        self.call: Callable[[list[Tensor]], Any] = lambda values: self.graph(*values)
        self.is_compiled = False

    @property
    def size(self) -> int:
        """The number of operations."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)

    @property
    def fits_cuda_graph(self) -> bool:
        """Whether a CUDA graph can hold it: nothing of it on the host, where it would be frozen, and nothing that asks for a value,
        as do a draw of categories and a factorisation, which check their arguments."""
        waiting = (torch.ops.aten.multinomial.default, torch.ops.aten._linalg_check_errors.default)
        return not self.uses_host and not any(node.target in waiting for node in self.graph.graph.nodes)

    def compile(self, inputs: Sequence[Tensor]) -> None:
        """Compiles the graph with Inductor; a machine without a compiler keeps interpreting it, and is told so once."""
        try:
            self.call, self.is_compiled = inductor(self.graph, [*inputs, *self.lifted]), True
        except Exception as error:  # Inductor raises whatever its tool chain does
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"the captured graph could not be compiled and is interpreted instead ({reason}); a C++ "
                          "compiler such as g++ makes training faster", stacklevel=2)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.call([*inputs, *self.lifted])
        return (out,) if isinstance(out, Tensor) else tuple(out)


def _trace(fn: TensorFunction, inputs: Sequence[Tensor]) -> GraphModule:
    devices = [x.device for x in inputs if x.is_cuda]
    try:
        with torch.random.fork_rng(devices), validation_enabled(False), without_writes(), _WithoutReading():
            return make_fx(fn)(*inputs)
    except RuntimeError as error:
        if "data-dependent" not in str(error) and "tracing tensor" not in str(error):
            raise
        raise CannotCapture("its control flow depends on the values of tensors", _line_at_fault(error)) from None


@contextmanager
def without_writes(module: nn.Module | None = None) -> Iterator[None]:
    """Puts back what the body writes into tensors, such as running statistics, and the module's buffers that it replaces."""
    writes = _Writes()
    try:
        with _same_buffers(module), writes:
            yield
    finally:
        writes.undo()


@contextmanager
def _same_buffers(module: nn.Module | None) -> Iterator[list[str]]:
    """Puts back the module's buffers that the body replaces by another tensor, whose names are in the list then."""
    module = nn.Module() if module is None else module
    before, replaced = dict(module.named_buffers()), list[str]()
    try:
        yield replaced
    finally:
        for name, buffer in before.items():
            if module.get_buffer(name) is not buffer:
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, buffer)
                replaced.append(name)


def warn_not_captured(error: CannotCapture) -> None:
    """Says once why a program runs eagerly."""
    warnings.warn(f"this program is not compiled, and runs eagerly: {error}", stacklevel=3)


class _Writes(TorchDispatchMode):
    """Remembers what tensors held before they were first written to, so that a capture changes no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for leaf in tree_leaves(_written(func, args, kwargs)):
            if isinstance(leaf, Tensor) and not leaf.requires_grad:
                self.before.setdefault(id(leaf), (leaf, leaf.detach().clone()))
        return func(*args, **kwargs)

    def undo(self) -> None:
        for tensor, value in reversed(self.before.values()):  # of views of one tensor the first has what was there first
            if tensor.shape == value.shape:  # a temporary may have been resized since
                tensor.detach().copy_(value)


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation writes to, by its signature."""
    if "batch_norm" in func.__name__:  # which does not say there that it writes its running statistics
        return [args, kwargs]
    return [args[i] if i < len(args) else kwargs.get(argument.name) for i, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write]


def _is_of_host(graph: GraphModule, node: Node) -> bool:
    """Whether a node is a tensor in the host's memory; a number there that does not change is none, for a kernel may be given it."""
    if node.op == "get_attr":
        value = getattr(graph, str(node.target))
        return is_on_host(value) and value.dim() > 0
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and any(
        is_on_host(x) and (x.dim() > 0 or torch.Tag.nondeterministic_seeded in tags)
        for x in tree_leaves(node.meta.get("val")) if isinstance(x, Tensor))


def is_on_host(tensor: Tensor) -> bool:
    """Whether a tensor is in the host's memory."""
    return tensor.device.type == "cpu"


class _WithoutReading(TorchFunctionMode):
    """Replaces a function that looks at its argument's values to check them by one that only computes the same."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:  # then the number of classes depends on the values
        return torch.nn.functional.one_hot(tensor)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


class _Count(TorchDispatchMode):
    """Counts operations, and the multiplications of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.multiplications = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            self.multiplications += out.numel() * args[-1].shape[-2]
        return out


def _line_at_fault(error: BaseException) -> str:
    """The innermost line of the user's code, or of this package's components, in a traceback."""
    libraries = (str(Path(torch.__file__).parent), str(Path(pyro.__file__).parent), __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*libraries, "<"))]
    return f"{frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else "an unknown line"


def _refuse_dynamic_shapes(graph: GraphModule) -> None:
    """Folds operations whose shape depends on constants, such as the masks of autoregressive networks; refuses others."""
    node: Any
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not _has_dynamic_shape(graph, node):
            continue
        masks = [arg for arg in node.all_input_nodes if arg is not node.args[0]] if _is_indexing(node) else [node]
        if not all(_is_constant(graph, mask) for mask in masks):
            raise CannotCapture(f"the shape of a tensor depends on values ({node.target})", _source_of(node))
        if _is_indexing(node):
            indices = [_positions(graph, node, index) for index in node.args[1]]
            node.args = (node.args[0], [index for group in indices for index in group], *node.args[2:])
        else:
            node.replace_all_uses_with(_constant(graph, node, _evaluate(graph, node)))
            graph.graph.erase_node(node)


def _has_dynamic_shape(graph: GraphModule, node: Any) -> bool:
    if _is_indexing(node):  # integers give a shape that is known
        return any(_is_mask(graph, index) for index in node.args[1])
    return torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ())


def _is_indexing(node: Any) -> bool:
    return node.target is torch.ops.aten.index.Tensor


def _is_mask(graph: GraphModule, index: Any) -> bool:
    if not isinstance(index, Node):
        return False
    value = getattr(graph, str(index.target)) if index.op == "get_attr" else index.meta["val"]
    return value.dtype in (torch.bool, torch.uint8)


def _is_constant(graph: GraphModule, node: Node) -> bool:
    """Whether a node depends on nothing but integers and booleans that no input and no parameter carries."""
    if node.op == "get_attr":
        value = getattr(graph, str(node.target))
        return not (value.is_floating_point() or value.is_complex())
    return node.op == "call_function" and all(_is_constant(graph, parent) for parent in node.all_input_nodes)


def _positions(graph: GraphModule, before: Node, index: Any) -> list[Any]:
    """The integer indices that a constant mask stands for, one for each of its dimensions."""
    if not _is_mask(graph, index):
        return [index]
    return [_constant(graph, before, part) for part in _evaluate(graph, index).nonzero(as_tuple=True)]


def _constant(graph: GraphModule, before: Node, value: Tensor) -> Node:
    name = f"_folded_{sum(1 for _ in graph.buffers())}"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def _source_of(node: Node) -> str:
    trace = (node.meta.get("stack_trace") or "").strip().splitlines()
    return " ".join(line.strip() for line in trace[-2:]) or "an operation of the program"


def _evaluate(graph: GraphModule, node: Node) -> Any:
    if node.op == "get_attr":
        return getattr(graph, str(node.target))
    args, kwargs = tree_map(lambda a: _evaluate(graph, a) if isinstance(a, Node) else a, (node.args, node.kwargs))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _lift_tensors(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """The graph with every tensor that it refers to as an input, once each, and those tensors."""
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    inputs: dict[int, Node] = {}
    lifted: list[Tensor] = []
    for node in list(nodes.nodes):
        node.meta.clear()  # fake tensors of several modes: Inductor makes its own
        if node.op != "get_attr":
            continue
        value = getattr(graph, str(node.target))
        if id(value) not in inputs:
            with nodes.inserting_after(last):
                inputs[id(value)] = last = nodes.placeholder(f"lifted_{len(lifted)}")
            lifted.append(value.detach() if value.requires_grad else value)
        node.replace_all_uses_with(inputs[id(value)])
        nodes.erase_node(node)
    return GraphModule({}, nodes), lifted


# ------------------------------------------------------------------------------------------------------ training steps

class LossAndGradients:
    """A scalar loss and its gradient, eagerly or as a captured graph for each shape of inputs.

    Args:
        loss: a function of tensors (or ``None``) that returns a scalar.
        parameters: what to differentiate by.
        compiled: for which number of data in a batch (the length of the first input) to capture and compile.
        module: whose buffers a graph must update as the function does.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> step = LossAndGradients(lambda x: (x * weight).sum(), [weight])
        >>> loss, gradients = step(torch.ones(3, 2))
        >>> loss, gradients[0]
        (tensor(6.), tensor([3., 3.]))
    """

    def __init__(self, loss: TensorFunction, parameters: Sequence[Tensor], compiled: Callable[[int], bool] = lambda n: False,
                 module: nn.Module | None = None):
        self.loss, self.parameters, self.compiled, self.module = loss, list(parameters), compiled, module
        self.graphs: dict[Any, Captured | None] = {}

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        graph = self.captured(*inputs)
        loss, *gradients = self.eager(*inputs) if graph is None else graph(*(value for value in inputs if value is not None))
        return loss, tuple(gradients)

    def captured(self, *inputs: Tensor | None) -> Captured | None:
        """The graph that inputs of these shapes run as, captured and compiled when they first come; ``None`` if they run eagerly."""
        key = _shapes_of(inputs)
        if key not in self.graphs:
            tensors = [value for value in inputs if value is not None]
            number = len(tensors[0]) if tensors and tensors[0].dim() > 0 else 1
            self.graphs[key] = self._captured(inputs, tensors) if self.compiled(number) else None
        return self.graphs[key]

    def eager(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The loss and the gradients by running the function itself."""
        loss = self.loss(*inputs)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), *map(_laid_out_as, gradients, self.parameters)

    def _captured(self, inputs: Sequence[Tensor | None], tensors: list[Tensor]) -> Captured | None:
        try:
            with _same_buffers(self.module) as replaced:
                captured = Captured(self._of_tensors(inputs), tensors)
            if replaced:
                raise CannotCapture(f"buffer {replaced[0]!r} is given a new tensor, where copy_ would write to it",
                                    "its assignment in a forward pass")
        except CannotCapture as error:
            warn_not_captured(error)
            self.compiled = lambda n: False
            return None
        captured.compile(tensors)
        return captured

    def work(self, *inputs: Tensor | None) -> Work:
        """What an eager run does, about what the captured graph will do, found out in a hundredth of the time."""
        with validation_enabled(False), without_writes(self.module), _Count() as count:
            self.eager(*inputs)
        return Work(count.operations, count.multiplications)

    def _of_tensors(self, inputs: Sequence[Tensor | None]) -> TensorFunction:
        given = [value is not None for value in inputs]

        def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            return self.eager(*(next(rest) if is_given else None for is_given in given))

        return of_tensors


def _laid_out_as(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """A gradient as `Tensor.backward` leaves it: a fused update reads it and its parameter in the order of memory."""
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def _shapes_of(inputs: Sequence[Tensor | None]) -> tuple:
    return tuple(None if value is None else (value.shape, value.dtype, value.device) for value in inputs)


# In CPU seconds on two cores: what compiling costs with an empty cache, and what a step then saves for each operation, in Python and
# memory, and for each multiplication of its products. All savings that were measured are larger, by up to three times.
SECONDS_TO_COMPILE, SECONDS_TO_COMPILE_AN_OPERATION = 6.0, 0.008
SECONDS_SAVED_BY_AN_OPERATION, SECONDS_SAVED_BY_A_MULTIPLICATION = 4.5e-6, 4e-12
FEWEST_STEPS = 300  # below, not even looked at


@dataclass(frozen=True)
class Work:
    """How much a step does: operations, and multiplications of matrix products."""

    operations: int
    multiplications: int = 0

    @property
    def saved_by_compiling(self) -> float:
        """The seconds that a compiled step takes less than an eager one, by these counts."""
        return self.operations * SECONDS_SAVED_BY_AN_OPERATION + self.multiplications * SECONDS_SAVED_BY_A_MULTIPLICATION


def is_worth_compiling(operations: int, saved_by_a_run: float, runs: float) -> bool:
    """Whether compiling a graph saves time over a number of runs: by their counts alone, so that it is reproducible.

    Args:
        operations: of the graph.
        saved_by_a_run: seconds.
        runs: how many there will be.

    Example:
        >>> is_worth_compiling(200, 1e-3, runs=1_000), is_worth_compiling(200, 1e-3, runs=100_000)
        (False, True)
    """
    return saved_by_a_run * runs > SECONDS_TO_COMPILE + operations * SECONDS_TO_COMPILE_AN_OPERATION


class Replay:
    """Several steps as one CUDA graph: recorded once, then launched by a single call, with no Python between the steps.

    Args:
        step: from tensors (or ``None``) to a scalar tensor; what else it does, it does in place, without asking the device, and
            it has run before, so that all that is made at first is there. Random numbers are those of the device's own
            generator, from its state at each launch.
        inputs: of all the steps, stacked; their number is the tensors' first dimension.
    """

    def __init__(self, step: Callable[..., Tensor], inputs: Sequence[Tensor | None]):
        self.inputs = [None if x is None else x.clone() for x in inputs]
        (number,) = {len(x) for x in self.inputs if x is not None}
        device = next(x.device for x in self.inputs if x is not None)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(self.graph, stream=torch.cuda.Stream(device)):
            self.out = torch.stack([step(*(None if x is None else x[i] for x in self.inputs)) for i in range(number)])

    def __call__(self, inputs: Sequence[Tensor | None]) -> Tensor:
        for kept, x in zip(self.inputs, inputs):
            if kept is not None and x is not None:
                kept.copy_(x)
        self.graph.replay()
        return self.out.clone()


class CompiledSVI:
    """A drop-in for `pyro.infer.SVI` whose step is one compiled graph.

    The first step for a new shape of arguments runs with Pyro's validation on, then captures and compiles; a program with
    data-dependent control flow, or one that gives a buffer a new tensor, runs eagerly, and says so once.

    Args:
        model: a Pyro model; its buffers are those of the module whose method it is.
        guide: a Pyro guide, likewise.
        optim: a torch optimiser over all parameters of both, such as
            ``torch.optim.Adam(module.parameters(), fused=True)``; a Pyro optimiser makes one optimiser for each tensor.
        loss: ``pyro.infer.Trace_ELBO()``, or an objective of `pyro_vae.objectives`.

    Raises:
        InvalidInput: for a Pyro optimiser, or a loss of another kind.

    Example:
        >>> optim = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
        >>> svi = pv.CompiledSVI(vae.model, vae.guide, optim, pyro.infer.Trace_ELBO())  # doctest: +SKIP
        >>> svi.step(torch.zeros(5, 1, 8, 8))  # doctest: +SKIP
    """

    def __init__(self, model: Callable, guide: Callable, optim: torch.optim.Optimizer, loss: Any):
        if not isinstance(optim, torch.optim.Optimizer):
            raise InvalidInput("optim", got=type(optim).__name__, expected="a torch optimiser over all parameters",
                               fix="pass torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)")
        self.model, self.guide, self.optim, self.objective = model, guide, optim, objective_of(loss)
        self.parameters = [p for group in optim.param_groups for p in group["params"] if p.requires_grad]
        self.update = Update(optim, self.parameters)
        owners = {id(owner): owner for owner in (getattr(fn, "__self__", fn) for fn in (model, guide)) if isinstance(owner, nn.Module)}
        self.modules = nn.ModuleList(owners.values())
        self.steps: dict[Any, LossAndGradients] = {}
        self.places: list[int] = []

    def step(self, *args: Any, **kwargs: Any) -> float:
        """One gradient step; returns the loss, summed over the batch, as Pyro's does."""
        self._forget_what_was_replaced()
        leaves, spec = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        static = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (spec, static, _shapes_of(tensors))
        if key not in self.steps:
            def loss(*values: Tensor) -> Tensor:
                rest = iter(values)
                whole = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                args, kwargs = tree_unflatten(whole, spec)
                return self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)

            self.steps[key] = LossAndGradients(loss, self.parameters)
            value, gradients = self.steps[key](*tensors)  # as validated as the process is, and eager
            if tensors:  # a graph has inputs
                self.steps[key] = LossAndGradients(loss, self.parameters, lambda n: True, self.modules)
                graph = self.steps[key].captured(*tensors)
                if graph is not None and graph.is_compiled:
                    self.update.compile()
        else:
            value, gradients = self.steps[key](*tensors)
        self.update(gradients)
        return value.item()

    def _forget_what_was_replaced(self) -> None:
        """Starts anew where parameters are in other memory, as after ``module.double()``: graphs know that of before."""
        places = [p.data_ptr() for p in self.parameters]
        if places != self.places:
            self.places, self.steps, self.update = places, {}, Update(self.optim, self.parameters)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss without a step."""
        return self.objective.loss(self.model, self.guide, *args, **kwargs)


def objective_of(loss: Any) -> Any:
    """An objective of ours as it is; Pyro's `Trace_ELBO` as ours, which computes the same without waiting for a device."""
    if type(loss) is pyro.infer.Trace_ELBO:
        return ELBO(loss.num_particles)
    if hasattr(loss, "differentiable_loss") and type(loss).__module__.split(".")[0] != "pyro":
        return loss
    raise InvalidInput("loss", got=type(loss).__name__, expected="Trace_ELBO or an objective of pyro_vae.objectives",
                       fix="pass pyro_vae.objectives.ELBO()")
