"""The wording of options, help and errors on the command line."""

from __future__ import annotations

import inspect
import json
import re
import sys
from argparse import ArgumentError
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import ArgumentParser, Namespace

from pyro_vae.cli.help import HELP
from pyro_vae.recipes.components import FAMILIES, resolve_component
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["as_options", "as_written", "explaining", "parse", "scan", "with_true"]

# Arguments of components that the program's builder passes.
SIZES = {"latent", "event_shape", "in_shape", "network", "params"}


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Parse arguments; a mistake is an `InvalidInput`."""
    with explaining(parser):
        return parser.parse_args(argv)


@contextmanager
def explaining(parser: ArgumentParser) -> Iterator[None]:
    """Turn jsonargparse's errors into one line: argument, got, expected, fix."""
    try:
        yield
    except ArgumentError as error:
        message = " ".join(str(error).split())
        raise (
            _unknown_option(message, parser)
            or _unknown_argument(message)
            or _untyped(message)
            or _missing(message)
            or _bad_value(message)
            or InvalidInput(
                "arguments", got=message, expected="the options of this command", fix="see --help"
            )
        ) from None


def _unknown_option(message: str, parser: ArgumentParser) -> InvalidInput | None:
    match = re.search(r"unrecognized arguments: (\S+)", message, re.I)
    if not match:
        return None
    name = match[1].split("=")[0].replace("_", "-")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    known = [flag.replace("_", "-") for flag in flags if flag[:2] == "--" and "." not in flag]
    return InvalidInput(
        name,
        got="an unknown option",
        expected="an option of this command",
        fix=nearest_flag(name, known) if name.startswith("-") else "see --help",
    )


# What a flag is called elsewhere, by ours; the first that a command has is meant.
CALLED = {
    "--simulated": ("num-data", "num-simulated", "num-simulations", "n"),
    "--limit": ("num-data", "max-data", "num-test", "n"),
    "--num": ("num-data", "n", "count", "number", "num-samples", "samples", "size"),
    "--num-samples": ("k", "samples", "num-draws", "draws", "importance-samples", "num-particles"),
    "--num-draws": ("num-samples", "draws", "imputations", "m"),
    "--points": ("num-samples", "num-data", "n", "num"),
    "--batch-size": ("batch", "bs", "minibatch"),
    "--epochs": ("num-epochs", "steps", "num-steps", "iterations", "max-epochs"),
    "--learning-rate": ("lr", "step-size", "rate"),
    "--latent": ("latent-dim", "latent-size", "z-dim", "dim", "z", "num-latents"),
    "--out": ("output", "output-dir", "save", "to", "dir", "run-dir"),
    "--data": ("dataset", "input", "file", "train-data"),
    "--objective": ("loss",),
    "--warmup": ("kl-annealing", "kl-warmup", "annealing", "beta"),
    "--decoder": ("generator",),
    "--posterior": ("guide", "q", "variational"),
    "--likelihood": ("observation", "output-distribution", "px"),
    "--standardize": ("normalize", "normalise", "standardise", "scale-data"),
    "--target": ("label", "labels", "y"),
    "--context": ("condition", "conditional", "covariates"),
    "--minutes": ("time", "budget", "timeout"),
    "--num-chains": ("chains",),
    "--num-temperatures": ("temperatures", "steps", "num-steps"),
}


def nearest_flag(name: str, known: Sequence[str]) -> str:
    """As `nearest_name`; initials, a beginning, and what a flag is called elsewhere, name one too.

    Of several with the same initials or beginning it is that with the shortest words.

    Example:
        >>> nearest_flag("--lr", ["--labelled-repeats", "--learning-rate", "--seed"])
        "did you mean '--learning-rate'?"
        >>> nearest_flag("--num-data", ["--num-samples", "--simulated", "--limit"])
        "did you mean '--simulated'?"
        >>> nearest_flag("--num", ["--limit", "--num-samples", "--out"])
        "did you mean '--num-samples'?"
    """
    initials = name.lstrip("-").lower()
    called = [flag for flag, others in CALLED.items() if initials in others and flag in known]
    if called:
        return f"did you mean {called[0]!r}?"
    words = {flag: flag.lstrip("-").split("-") for flag in known}
    found = [flag for flag in known if "".join(word[0] for word in words[flag]) == initials]
    if len(initials) > 1 and found:
        return f"did you mean {min(found, key=len)!r}?"
    started = [flag for flag in known if len(initials) > 1 and flag.startswith(name)]
    return f"did you mean {min(started, key=len)!r}?" if started else nearest_name(name, known)


def _unknown_argument(message: str) -> InvalidInput | None:
    """The error for an argument that a component does not take."""
    of_class = re.search(
        r'Parser key "(?P<key>[\w.]+)":.*Option \'(?P<option>[\w.]+)\' is not accepted.*'
        r"class_path='(?P<path>[\w.]+)'",
        message,
    )
    of_entry = re.search(  # of a list, such as that of levels
        r'Parser key "(?P<key>[\w.]+)":.*given class_path \'(?P<path>[\w.]+)\': '
        r"Option '(?P<option>[\w.]+)' is not accepted",
        message,
    )
    match = of_class or of_entry
    if not match:
        return None
    key, option, path = match["key"], match["option"], match["path"]
    module, _, name = path.rpartition(".")
    # It was imported to read its options: what a value in the message names is not.
    component = vars(sys.modules.get(module, sys)).get(name)
    if not callable(component):
        return None
    names = [name for name in inspect.signature(component).parameters if name not in SIZES]
    return InvalidInput(
        f"{key}.{option}",
        got=f"an argument that {path} does not take",
        expected=f"one of {', '.join(names)}" if names else "no arguments",
        fix=_of_another(key, path, option)
        or (nearest_name(option, names) if names else "leave it out"),
    )


def _of_another(key: str, path: str, option: str) -> str | None:
    """Which other components of the package take an option that the default one does not."""
    package, _, name = path.rpartition(".")
    known = vars(sys.modules.get(package, sys))
    bases = _bases(known.get(name))
    kin = [other for other in known.get("__all__", []) if bases & _bases(known.get(other))]
    takes = [other for other in kin if option in inspect.signature(known[other]).parameters]
    flag = f"--{key.replace('_', '-')}"
    return f"name the class that takes it too: {flag} {' or '.join(takes)}" if takes else None


def _bases(component: object) -> set[type]:
    """What a class inherits, such as being a module; nothing of anything else."""
    return set(component.__mro__[1:-1]) if inspect.isclass(component) else set()


def _untyped(message: str) -> InvalidInput | None:
    """The error for a class or function of the user's with an argument of unknown type."""
    match = re.search(r"Parameter '(\w+)' from '([\w.]+)' does not specify a type", message)
    if not match:
        return None
    name, place = match.groups()
    return InvalidInput(
        name,
        got=f"an argument of {place.removesuffix('.__init__')} with neither type nor default",
        expected="one of them, from which its option follows",
        fix=f"write {name}: int",
    )


def _missing(message: str) -> InvalidInput | None:
    match = re.search(r"the following arguments are required: (\w+)", message)
    if not match:
        return None
    if key := re.search(r'Parser key "([\w.]+)"', message):  # of a component
        return InvalidInput(
            f"{key[1]}.{match[1]}",
            got="nothing",
            expected="a value of this argument, which has no default",
            fix=f"add --{key[1]}.{match[1]} VALUE",
        )
    return InvalidInput(
        match[1].upper(), got="nothing", expected="it after the command", fix="see --help"
    )


def _bad_value(message: str) -> InvalidInput | None:
    """The error for a value of the wrong type, or one that a component refuses."""
    match = re.search(r'Parser key "([\w.]+)": (.*)', message)
    if not match:
        return None
    key, problem = match.groups()
    if nested := re.search(r'.*Parser key "([\w.]+)": (.*)', problem):  # a component's argument
        key, problem = f"{key}.{nested[1]}", nested[2]
    got = re.search(
        r"(?:Got value|Given value):(?! Namespace) ?(.*?)\.?(?:$| Given| Got value| - Expected)",
        problem,
    )
    wanted = re.findall(
        r"Expected an? (?:<class '(?:[a-z]+\.)*(\w+)'>|typing\.(Literal\[.*?\]))", problem
    )
    kinds = [" ".join(filter(None, kind)) for kind in wanted if kind[0] != "NoneType"]
    family = key.rpartition(".")[2]
    if got and not kinds and family in FAMILIES:
        try:
            resolve_component(family, got[1])
        except InvalidInput as error:
            return InvalidInput(
                key.replace("_", "-"), got=error.got, expected=error.expected, fix=error.fix
            )
    if got and kinds == ["float"] and got[1].strip("'\"+- ").lower() in ("nan", "inf", "infinity"):
        name = key.replace("_", "-")
        return InvalidInput(
            name, got=got[1], expected="a finite number", fix=f"pass one, as --{name} 1.0"
        )
    reason = problem.split("callable class: ")[-1].split(" Got value")[0].rstrip(".")
    return InvalidInput(
        key.replace("_", "-"),
        got=repr(got[1]) if got else f"a value that cannot be used ({reason})",
        expected=" or ".join(kinds) or "a value of its type",
        fix="see --help",
    )


def as_options(argv: Sequence[str]) -> list[str]:
    """Arguments in the form that the parser reads.

    Flags become Python names, ``--batch-size`` becomes ``--batch_size``, but for the name of a
    column, as in ``--columns.blood-pressure real``. A value that starts with a minus is joined to
    its flag, ``--context -1,0`` becomes ``--context=-1,0``: no option but ``-h`` starts with a
    single dash.
    """
    out: list[str] = []
    for token in argv:
        flag, equals, value = token.partition("=")
        if flag.startswith("--"):
            out.append(_flag(flag, "-", "_") + equals + value)
        elif out and _takes_value(out[-1]) and token.startswith("-") and token != "-h":
            out[-1] += f"={token}"
        else:
            out.append(token)
    return _with_dotted_columns(out)


def _with_dotted_columns(tokens: list[str]) -> list[str]:
    """The same, with columns as one value if a name has a dot, which the parser takes for a level.

    Example:
        >>> _with_dotted_columns(["--columns.Sepal.Length", "real", "--epochs", "3"])
        ['--epochs', '3', '--columns={"Sepal.Length": "real"}']
    """
    kinds: dict[str, str] = {}
    others, rest = [], iter(tokens)
    for token in rest:
        flag, equals, value = token.partition("=")
        if flag.startswith("--columns."):
            kinds[flag.removeprefix("--columns.")] = value if equals else next(rest, "")
        else:
            others.append(token)
    if not any("." in name for name in kinds):
        return tokens
    return [*others, f"--columns={json.dumps(kinds, ensure_ascii=False)}"]


def as_written(argv: Sequence[str]) -> list[str]:
    """Arguments as a person writes them: what `as_options` made of them, with dashes in flags.

    Example:
        >>> as_written(["--batch_size", "128", "--context=-1,0"])
        ['--batch-size', '128', '--context=-1,0']
    """
    parts = [token.partition("=") for token in argv]
    return [
        (_flag(name, "_", "-") if name.startswith("--") else name) + equals + value
        for name, equals, value in parts
    ]


def _flag(flag: str, old: str, new: str) -> str:
    """A flag with other signs between its words; the name of a column stays as it is."""
    name = flag.removeprefix("--")
    return flag if name.startswith("columns.") else "--" + name.replace(old, new)


def with_true(argv: Sequence[str], switches: Container[str]) -> list[str]:
    """The same arguments, with ``=true`` after each switch that stands alone.

    Example:
        >>> with_true(["--missing", "--epochs", "3"], ["missing"])
        ['--missing=true', '--epochs', '3']
    """
    after = [*argv[1:], "--"]
    return [
        f"{token}=true" if token[:2] == "--" == follows[:2] and token[2:] in switches else token
        for token, follows in zip(argv, after)
    ]


def _takes_value(token: str) -> bool:
    return token.startswith("--") and len(token) > 2 and "=" not in token


def scan(argv: Sequence[str], wanted: dict[str, int]) -> dict[str, str]:
    """Find the arguments that decide how the others are read: the recipe and ``--resume``.

    Args:
        argv: what the user wrote.
        wanted: the flags to look for, and how many values each takes.
    """
    found: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        flag, equals, value = token.partition("=")
        if not flag.startswith("-"):
            found["recipe"] = token
        elif flag in wanted and wanted[flag] == 0:
            found[flag] = ""
        elif flag in HELP:
            return found  # what follows is help's own
        else:
            value = value if equals else next(tokens, "")
            if flag in wanted:
                found[flag] = value
    return found
