"""The model in a report: each component with its density, its arguments and its size."""

from __future__ import annotations

import inspect

from torch import nn

from pyro_vae.checkpoint.description import describe
from pyro_vae.contracts import ModuleLike, ProgramLike, StatesShape, context_of
from pyro_vae.report import markup
from pyro_vae.report.markup import text
from pyro_vae.validation import InvalidInput

__all__ = ["count_parameters", "model_section", "name_of"]

CONTAINERS = nn.ModuleList | nn.ModuleDict

ROLES = {
    "prior": "p(z)",
    "priors": "p(z)",
    "likelihood": "p(x | z)",
    "likelihoods": "p(x | z)",
    "posterior": "q(z | x)",
    "posteriors": "q(z | x)",
}


def name_of(program: ProgramLike) -> str:
    """A program's name: its class, or CVAE for a conditional VAE."""
    name = type(program).__name__
    return "CVAE" if name == "VAE" and context_of(program) is not None else name


def count_parameters(module: ModuleLike | nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_section(program: ProgramLike) -> str:
    """The components of a program, and a table of its parts' sizes."""
    parts = dict(program.named_children())
    blocks = [_component(role, part) for role, part in _components(parts)]
    blocks = blocks or [f"<p>{text(_first_line(program))}</p>"]
    rows = [
        [text(name), text(type(part).__name__), f"{count_parameters(part):,}"]
        for name, part in parts.items()
        if count_parameters(part)
    ]
    rows.append(["all", "", f"{count_parameters(program):,}"])
    return "".join(blocks) + markup.table(["part", "class", "parameters"], rows, numbers=2)


def _components(parts: dict[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    """The priors, the likelihood and the posteriors of a program, each with its role."""
    found = []
    for name, part in parts.items():
        if name in ROLES:
            levels = dict(part.named_children()) if isinstance(part, CONTAINERS) else {"": part}
            for level, each in levels.items():
                found.append((ROLES[name] + _which(level, len(levels)), each))
    return found


def _which(level: str, count: int) -> str:
    """Which of several parts one is: a level of a hierarchy, or a site of x."""
    if count < 2:
        return ""
    return f", level {int(level) + 1}" if level.isdigit() else f", {level}"


def _component(role: str, part: nn.Module) -> str:
    doc = inspect.getdoc(type(part)) or ""
    formulas = "".join(
        f"<p class=formula>{markup.formula(latex)}</p>" for latex in markup.formulas_in(doc)[:1]
    )
    networks = [
        f"{text(name)}: <code>{text(_signature(module))}</code>"
        for name, module in part.named_children()
        if isinstance(module, StatesShape)
    ]
    summary = [f"<code>{text(_signature(part))}</code>", *networks]
    return (
        f"<h3>{text(role)}: {text(type(part).__name__)}</h3><p>{text(_first_line(part))}</p>"
        f"{formulas}<p class=quiet>{'; '.join(summary)}; {count_parameters(part):,} parameters</p>"
    )


def _first_line(part: object) -> str:
    return (inspect.getdoc(type(part)) or type(part).__name__).splitlines()[0]


def _signature(module: nn.Module) -> str:
    """A component as its call: its class with its arguments, networks by their class alone."""
    name = type(module).__name__
    try:
        arguments = describe(module)["args"] or {}
    except InvalidInput:
        return name
    words = [f"{key}={_argument(value)}" for key, value in arguments.items() if value is not None]
    return f"{name}({', '.join(words)})"


def _argument(value: object) -> object:
    if isinstance(value, dict) and "class" in value:
        return value["class"].rpartition(".")[2]
    return value
