"""The model in a report: each component with its density, its arguments and its size."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from pyro_vae.checkpoint.description import describe
from pyro_vae.contracts import ModuleLike, ProgramLike, StatesShape, as_module, context_of
from pyro_vae.programs import HierarchicalVAE
from pyro_vae.report import markup
from pyro_vae.report.markup import text
from pyro_vae.validation import InvalidInput

__all__ = ["count_parameters", "model_section", "name_of"]

CONTAINERS = nn.ModuleList | nn.ModuleDict


@dataclass(frozen=True)
class Role:
    """A density of a program: p(z), p(x | z) or q(z | x), or one of a level of a hierarchy.

    Args:
        letter: p or q.
        of: its variable.
        given: what it is given, separated by commas.
        site: the observed site, where there are several.
    """

    letter: str
    of: str
    given: str = ""
    site: str = ""

    def __str__(self) -> str:
        bar = f" | {self.given}" if self.given else ""
        return f"{self.letter}({self.of}{bar})" + (f", {self.site}" if self.site else "")

    def formula(self, latex: str) -> str:
        """A component's formula, in the variables of this density.

        Example:
            >>> print(Role("p", "z_1", "z_2").formula(r"q(z \\mid x) = N(z; f(x), 1)"))
            p(z_1 \\mid z_2) = N(z; f(z_2), 1)
        """
        if self.of == "x":
            latex = latex.replace(r"\mid z)", rf"\mid {self.given})")
            return latex.replace("(z)", f"({self.given})")
        if not self.given:
            return latex.replace("p(z)", f"p({self.of})")
        whole = rf"{self.letter}({self.of} \mid {self.given})"
        return latex.replace(r"q(z \mid x)", whole).replace("(x)", f"({self.given})")


ROLES = {
    "prior": Role("p", "z"),
    "priors": Role("p", "z"),
    "likelihood": Role("p", "x", "z"),
    "likelihoods": Role("p", "x", "z"),
    "posterior": Role("q", "z", "x"),
    "posteriors": Role("q", "z", "x"),
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
    found = _of_levels(program) if isinstance(program, HierarchicalVAE) else _components(program)
    blocks = [_component(role, part) for role, part in found]
    blocks = blocks or [f"<p>{text(_first_line(program))}</p>"]
    rows = [
        [text(name), text(_classes(part)), f"{count_parameters(part):,}"]
        for name, part in program.named_children()
        if count_parameters(part)
    ]
    rows.append(["all", "", f"{count_parameters(program):,}"])
    return "".join(blocks) + markup.table(["part", "class", "parameters"], rows, numbers=2)


def _classes(part: nn.Module) -> str:
    """The class of a part, or those of the several that it holds."""
    parts = [*part.children()] if isinstance(part, CONTAINERS) else [part]
    return ", ".join(dict.fromkeys(type(each).__name__ for each in parts))


def _components(program: ProgramLike) -> Iterator[tuple[Role, nn.Module]]:
    """The priors, the likelihoods and the posteriors of a program, each with its role."""
    for name, part in program.named_children():
        if name in ROLES:
            role = ROLES[name]
            sites = dict(part.named_children()) if isinstance(part, CONTAINERS) else {"": part}
            for site, each in sites.items():
                yield Role(role.letter, role.of, role.given, site * (len(sites) > 1)), each


def _of_levels(program: HierarchicalVAE) -> Iterator[tuple[Role, nn.Module]]:
    """The components of a hierarchy, each with its role."""
    z = [f"z_{level + 1}" for level in range(len(program.priors))]
    above = [z[i + 1 :] if program.skip else z[i + 1 : i + 2] for i in range(len(z))]
    for i, part in enumerate(program.priors):
        yield Role("p", z[i], ", ".join(above[i])), part
    for i, part in enumerate(program.posteriors):
        down = ["x", *above[i]] if program.inference == "top_down" else z[:i][-1:] or ["x"]
        yield Role("q", z[i], ", ".join(down)), part
    yield Role("p", "x", ", ".join(z if program.skip else z[:1])), as_module(program.likelihood)


def _component(role: Role, part: nn.Module) -> str:
    doc = inspect.getdoc(type(part)) or ""
    formulas = "".join(
        f"<p class=formula>{markup.formula(role.formula(latex))}</p>"
        for latex in markup.formulas_in(doc)[:1]
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
    if isinstance(value, dict) and (path := value.get("class") or value.get("import")):
        return path.rpartition(".")[2]
    return value
