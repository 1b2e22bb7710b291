"""Options, help and errors in the words of the command line."""

from __future__ import annotations

import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from pyro_vae.recipes.components import FAMILIES, component_names
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = []


class _Help(DefaultHelpFormatter):
    """Help with dashes in flags, and without the list of every module class that is imported."""

    def add_argument(self, action):
        if not action.option_strings or not action.option_strings[0].endswith(".help"):
            super().add_argument(action)

    def _expand_help(self, action):
        text = " ".join((super()._expand_help(action) or "").split())
        text = re.sub(r",? *known subclasses: [^)]*\)", ")", text)
        if action.dest in FAMILIES:
            text = re.sub(r" \(type: Callable.*?default: .*?(\w+)['>}]+\)", r" (default: \1)", text)
            text += (
                f" Of this package: {', '.join(component_names(action.dest))}."
                if action.dest != "optimizer"
                else ""
            )
        return text

    def _format_action_invocation(self, action):
        text = super()._format_action_invocation(action)
        return re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)

    def _format_usage(self, usage, actions, groups, prefix):
        return f"usage: {self._prog} [options]\n\n"


def new_parser(command: str, description: str) -> ArgumentParser:
    return ArgumentParser(
        prog=f"pyro-vae {command}",
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
    )


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    with explaining(parser):
        return parser.parse_args(argv)


@contextmanager
def explaining(parser: ArgumentParser) -> Iterator[None]:
    """Turns jsonargparse's complaints into one line: the argument, what was got, what was expected, the fix."""
    try:
        yield
    except ArgumentError as error:
        raise _explained(str(error), parser) from None


def _explained(message: str, parser: ArgumentParser) -> InvalidInput:
    message = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", message, re.I):
        flags = {
            flag
            for action in parser._actions
            for flag in action.option_strings
            if flag.startswith("--")
        }
        name = match[1].split("=")[0]
        known = [flag.replace("_", "-") for flag in flags if "." not in flag]
        return InvalidInput(
            name,
            got="an unknown option",
            expected="an option of this command",
            fix=nearest_name(name, known) if name.startswith("-") else "see --help",
        )
    if match := re.search(
        r'Parser key "([\w.]+)":.*Option \'([\w.]+)\' is not accepted.*class_path=\'([\w.]+)\'',
        message,
    ):
        key, option, path = match.groups()
        module, _, name = path.rpartition(".")
        sizes = {
            "latent",
            "event_shape",
            "in_shape",
            "network",
            "params",
        }  # given when the program is built
        names = [
            n
            for n in inspect.signature(getattr(sys.modules[module], name)).parameters
            if n not in sizes
        ]
        return InvalidInput(
            f"{key}.{option}",
            got=f"an argument that {path} does not take",
            expected=f"one of {', '.join(names)}" if names else "no arguments",
            fix=nearest_name(option, names) if names else "leave it out",
        )
    if match := re.search(r"the following arguments are required: (\w+)", message):
        return InvalidInput(
            match[1].upper(), got="nothing", expected="it after the command", fix="see --help"
        )
    if match := re.search(r'Parser key "([\w.]+)": (.*)', message):
        key, problem = match.groups()
        if nested := re.search(
            r'.*Parser key "([\w.]+)": (.*)', problem
        ):  # an argument of a component
            key, problem = f"{key}.{nested[1]}", nested[2]
        got = re.search(
            r"(?:Got value|Given value): (?!Namespace)(.*?)\.?(?:$| Given| Got value)", problem
        )
        wanted = re.findall(
            r"Expected an? (?:<class '(?:[a-z]+\.)*(\w+)'>|typing\.(Literal\[.*?\]))", problem
        )
        kinds = [" ".join(filter(None, kind)) for kind in wanted if kind[0] != "NoneType"]
        reason = problem.split("callable class: ")[-1].split(" Got value")[0].rstrip(".")
        return InvalidInput(
            key.replace("_", "-"),
            got=repr(got[1]) if got else f"a value that cannot be used ({reason})",
            expected=" or ".join(kinds) or "a value of its type",
            fix="see --help",
        )
    return InvalidInput(
        "arguments", got=message, expected="the options of this command", fix="see --help"
    )


def underscored(argv: list[str]) -> list[str]:
    """Flags in the form of the Python names that they stand for: ``--batch-size`` is batch_size."""

    def convert(token: str) -> str:
        if not token.startswith("--"):
            return token
        flag, equals, value = token.partition("=")
        return "--" + flag[2:].replace("-", "_") + equals + value

    return [convert(token) for token in argv]


def scan(argv: Sequence[str], wanted: dict[str, int]) -> dict[str, str]:
    """The few arguments that decide how the others are read: a recipe, and whether a run is resumed."""
    found: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        flag, equals, value = token.partition("=")
        if not flag.startswith("-"):
            found["recipe"] = token
        elif flag in wanted and wanted[flag] == 0:
            found[flag] = ""
        elif flag not in ("--help", "-h"):
            value = value if equals else next(tokens, "")
            if flag in wanted:
                found[flag] = value
    return found


def one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"pyro-vae: warning: {' '.join(str(message).split())}", file=sys.stderr)
