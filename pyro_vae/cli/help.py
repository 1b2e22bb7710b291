"""Help of the commands as pages made beforehand, so that it is there before torch is.

`python -m pyro_vae.cli.pages` writes them, and a test holds them to the options.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import pyro_vae

__all__ = ["COMMANDS", "PAGES", "Option", "Page", "key", "render", "stored", "usage"]

FOLDER = Path(__file__).parent
PAGES = FOLDER / "help.json"
COMMANDS = (
    "train", "evaluate", "compare", "sweep", "sample", "impute", "inspect", "check", "anneal",
    "decompose", "calibrate", "gaps", "fidelity", "explore", "report", "export", "push", "pull",
)  # fmt: skip
# The modules of the components that help names.
FAMILIES = (
    "priors/__init__",
    "likelihoods/__init__",
    "posteriors/__init__",
    "networks/__init__",
    "networks/cells",
    "networks/corruptions",
    "programs/__init__",
    "objectives/__init__",
    "training/schedules",
    "evaluation/proposals",
)
HELP = ("-h", "--help")
COLUMN = 24  # where the texts of options begin


class Option(NamedTuple):
    """An option as it is written, what it does, and whether the short help has it."""

    written: str
    text: str
    is_brief: bool


class Page(TypedDict):
    """The help of a command: options by section."""

    command: str
    purpose: str
    sections: dict[str, list[Option]]


def usage() -> str:
    """The commands, each with the first line of its module."""
    docs = [(FOLDER / f"{name}.py").read_text().splitlines()[0] for name in COMMANDS]
    calls = [doc.strip('".').split(": ", 1) for doc in docs]
    lines = [f"  {call:<21} {purpose}" for call, purpose in calls]
    end = "pyro-vae COMMAND --help lists a command's options, --help all every one of them."
    return "\n".join(["usage: pyro-vae COMMAND ...", "", *lines, "", end])


def stored(argv: Sequence[str]) -> str | None:
    """The help that a command line asks for and nothing else; ``None`` if it must be made.

    It must be made where it is about a class, or where components were added since.
    """
    command, *rest = argv
    if not rest or rest[0] not in HELP or rest[1:] not in ([], ["all"]) or not PAGES.exists():
        return None
    pages = json.loads(PAGES.read_text())
    if pages["key"] != key():
        return None
    return render(pages["pages"][command], everything=rest[1:] == ["all"])


def key() -> str:
    """What the pages follow from: the version and the names of the components."""
    names = [_names_in(FOLDER.parent / f"{family}.py") for family in FAMILIES]
    return hashlib.sha256(repr((pyro_vae.__version__, names)).encode()).hexdigest()


def _names_in(path: Path) -> list[str]:
    """The ``__all__`` of a module, which is not run."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def render(page: Page, everything: bool) -> str:
    """A page as text, as wide as the terminal."""
    width = shutil.get_terminal_size().columns - 2
    first = f"usage: pyro-vae {page['command']} [options]"
    lines = [first, "", *textwrap.wrap(page["purpose"], width)]
    left_out = 0
    for title, options in page["sections"].items():
        shown = [Option(*option) for option in options if everything or option[2]]
        left_out += len(options) - len(shown)
        lines += ["", f"{title}:"] if shown else []
        for option in shown:
            lines += _in_columns(option, width)
    if left_out:
        lines += ["", f"{left_out} more options: pyro-vae {page['command']} --help all"]
    return "\n".join(lines)


def _in_columns(option: Option, width: int) -> list[str]:
    texts = textwrap.wrap(option.text, max(width - COLUMN, 20)) or [""]
    first = f"  {option.written}"
    lines = [f"{'':{COLUMN}}{text}" for text in texts]
    if len(first) < COLUMN - 1:
        return [f"{first:<{COLUMN}}{texts[0]}".rstrip(), *lines[1:]]
    return [first, *lines]
