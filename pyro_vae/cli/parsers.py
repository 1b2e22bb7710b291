"""The commands' parsers, and their help as pages."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from pyro_vae.cli.help import HELP, Option, Page, render
from pyro_vae.recipes.components import FAMILIES, component_names

__all__ = ["CommandParser", "new_parser", "page_of"]

REST = "options"  # the section of those that are in none


class CommandParser(ArgumentParser):
    """A command's parser, whose errors are raised and whose options are in sections."""

    sections: Mapping[str, Sequence[str]] = {}
    brief: Sequence[str] = ()


def new_parser(
    command: str,
    description: str,
    sections: Mapping[str, Sequence[str]] | None = None,
    brief: Sequence[str] = (),
) -> CommandParser:
    """A parser that raises its errors, so that `explaining` can reword them.

    Args:
        command: the command's name.
        description: what it does.
        sections: names of options by what they are about; the others come first.
        brief: the options of the short help; by default all.
    """
    parser = CommandParser(
        prog=f"pyro-vae {command}",
        description=description,
        exit_on_error=False,
        add_help=False,
        allow_abbrev=False,  # a shortened option would mean another once options are added
    )
    parser.sections, parser.brief = sections or {}, brief
    text = "this help; --help all has every option"
    parser.add_argument(*HELP, action=_ShowHelp, nargs="?", default=argparse.SUPPRESS, help=text)
    return parser


class _ShowHelp(argparse.Action):
    """Print the short help of a command, or all of it, and end."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(render(page_of(parser), everything=values == "all"))
        parser.exit()


def page_of(parser: CommandParser) -> Page:
    """The help of a command, as data."""
    usual, parser.formatter_class = parser.formatter_class, _Options
    try:
        found = json.loads(parser.format_help())
    finally:
        parser.formatter_class = usual
    titles = {name: title for title, names in parser.sections.items() for name in names}
    sections: dict[str, list[Option]] = {REST: [], **{title: [] for title in parser.sections}}
    for name, (written, text) in found.items():
        is_brief = not parser.brief or name in parser.brief
        sections[titles.get(name, REST)].append(Option(written, text, is_brief))
    return Page(
        command=parser.prog.removeprefix("pyro-vae "),
        purpose=parser.description or "",
        sections=sections,
    )


class _Options(DefaultHelpFormatter):
    """The options of a parser as data: dashes in flags, and no list of every imported class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.found = {}

    def add_argument(self, action):
        name = (action.option_strings or [action.dest])[0]
        if action.help != argparse.SUPPRESS and not name.endswith(".help"):
            written = "-h, --help" if name in HELP else self._format_action_invocation(action)
            self.found[action.dest] = written, self._expand_help(action)

    def format_help(self):
        return json.dumps(self.found)

    def _expand_help(self, action):
        text = " ".join((super()._expand_help(action) or "").split())
        text = re.sub(r",? *known subclasses: [^)]*\)", ")", text)
        text = re.sub(r",? default: (null)?\)", ")", text.replace(" (default: null)", ""))
        if action.dest in FAMILIES:
            text = re.sub(r" \(type: Callable.*?default: .*?(\w+)['>}]+\)", r" (default: \1)", text)
            text = re.sub(r" \(type: Optional\[Callable.*\]\)", "", text)
            if action.dest != "optimizer":
                text += f" Of this package: {', '.join(component_names(action.dest))}."
        return text

    def _format_action_invocation(self, action):
        text = super()._format_action_invocation(action)
        text = re.sub(r", --[\w.]+\+.*", "", text)  # the flag that adds to a list
        return re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)
