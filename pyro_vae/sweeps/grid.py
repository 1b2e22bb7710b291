"""The options that a sweep varies, and their combinations."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pyro_vae.validation import InvalidInput

__all__ = [
    "OWN",
    "Axis",
    "Setting",
    "check_each_once",
    "check_free",
    "combinations_of",
    "read_axis",
    "split_values",
]

LONGEST = 120  # characters of a folder's name

# The options of training that a sweep gives itself, and what its user does instead.
SETS = "leave {} out: a sweep sets it"
SCORES = "give --{} to the sweep itself, outside of --vary and --search: it scores all trials alike"
OWN = {
    "seed": "seeds are --seeds 3",
    "out": SETS.format("out"),
    "resume": SETS.format("resume"),
    "trust": "give --trust to the sweep itself, outside of --vary and --search",
    "num-samples": SCORES.format("num-samples"),
    "limit": SCORES.format("limit"),
}


@dataclass(frozen=True)
class Axis:
    """An option of training and the values that it takes in turn.

    Args:
        name: the option without its dashes, as ``prior.components``.
        values: as they are written on the command line. Behind a value other options may follow,
            which go with it: ``VampPrior --prior.components 500``.
    """

    name: str
    values: tuple[str, ...]

    @property
    def options(self) -> set[str]:
        """The names of all options that it sets, also those behind its values.

        Example:
            >>> sorted(read_axis("prior=Flow,VampPrior --prior.components 500").options)
            ['prior', 'prior.components']
        """
        return {self.name}.union(*(_names_behind(value) for value in self.values))


@dataclass(frozen=True)
class Setting:
    """A value for each axis.

    Args:
        values: pairs of an axis's name and a value.
        shown: the axes that its name tells, which are those with several values.
    """

    values: tuple[tuple[str, str], ...]
    shown: tuple[str, ...]

    @property
    def name(self) -> str:
        """It as people read it."""
        return ", ".join(f"{name}={value}" for name, value in self.values if name in self.shown)

    @property
    def folder(self) -> str:
        """A name of a folder, which no other setting has.

        Example:
            >>> Setting((("prior", "Flow"), ("epochs", "9")), ("prior",)).folder
            'prior=Flow'
        """
        plain = re.sub(r"[^\w.=,+-]+", "-", self.name.replace(", ", ","))
        if plain == self.name.replace(", ", ",") and len(plain) <= LONGEST:
            return plain or "one"
        return f"{plain[:LONGEST]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def options(self) -> list[str]:
        """It as options of the command line.

        Example:
            >>> Setting((("prior", "VampPrior --prior.components 9"),), ("prior",)).options
            ['--prior=VampPrior', '--prior.components', '9']
        """
        found = []
        for name, value in self.values:
            found += [f"--{name}={value.partition(' --')[0].strip()}", *_behind(value)]
        return found


def _behind(value: str) -> list[str]:
    """The options that follow a value, as the command line takes them."""
    _, dashes, more = value.partition(" --")
    return [_with_dashes(token) for token in shlex.split(f"--{more}" if dashes else "")]


def _names_behind(value: str) -> list[str]:
    tokens = _behind(value)
    return [token[2:].partition("=")[0] for token in tokens if token.startswith("--")]


def _with_dashes(token: str) -> str:
    """A flag as it is remembered beside a run."""
    flag, equals, value = token.partition("=")
    return f"--{_dashed(flag[2:])}{equals}{value}" if flag.startswith("--") else token


def _dashed(name: str) -> str:
    """An option's name with dashes; the name of a column of a table stays as it is."""
    return name if name.startswith("columns.") else name.replace("_", "-")


def combinations_of(axes: Sequence[Axis]) -> Iterator[Setting]:
    """Every combination of the axes' values, the last axis fastest.

    Example:
        >>> axes = [read_axis("prior=Flow,Laplace"), read_axis("latent=2,3")]
        >>> [setting.name for setting in combinations_of(axes)][:2]
        ['prior=Flow, latent=2', 'prior=Flow, latent=3']
    """
    names = [axis.name for axis in axes]
    shown = tuple(axis.name for axis in axes if len(axis.values) > 1)
    for values in product(*(axis.values for axis in axes)):
        yield Setting(tuple(zip(names, values)), shown)


def read_axis(text: str) -> Axis:
    """An axis as ``NAME=VALUE,VALUE,...``; commas inside brackets or quotes separate nothing.

    Raises:
        InvalidInput: for anything else, for a value that stands there twice, and for an option that
            the sweep itself sets.

    Example:
        >>> read_axis("encoder.hidden=[200],[400, 200]").values
        ('[200]', '[400, 200]')
    """
    name, equals, rest = text.partition("=")
    name = _dashed(name.strip().lstrip("-"))
    values = tuple(split_values(rest))
    if not name or not equals or not all(values):
        raise InvalidInput(
            "vary",
            got=repr(text),
            expected="an option and its values",
            fix="write for instance --vary prior=StandardNormal,VampPrior",
        )
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise InvalidInput(
            "vary",
            got=f"{twice[0]!r} twice for {name}",
            expected="values that differ",
            fix="leave one of them out",
        )
    for value in values:
        _check_value(name, value)
    return Axis(name, values)


def _check_value(name: str, value: str) -> None:
    """Check the options of a value: the sweep sets none of them, and none stands there twice."""
    try:
        names = [name, *_names_behind(value)]
    except ValueError as error:  # of quotes
        raise InvalidInput(
            "vary",
            got=f"{value!r} ({error})",
            expected="options behind a value as a shell reads them",
            fix="close the quotes",
        ) from None
    for each in names:
        check_free("vary", each)
    twice = [each for each in names if names.count(each) > 1]
    if twice:
        raise InvalidInput(
            "vary",
            got=f"{twice[0]} twice in {name}={value}",
            expected="each option once: the last would count, under the name of both",
            fix="leave one of them out",
        )


def check_free(argument: str, name: str) -> None:
    """Check that an option, whole or shortened, is not one that the sweep itself sets.

    Raises:
        InvalidInput: if it is: its rows would be one training under several names.
    """
    own = next((own for own in OWN if own.startswith(name)), None)
    if own is not None:
        raise InvalidInput(
            argument,
            got=repr(name),
            expected="an option of the model, its data or its training",
            fix=OWN[own],
        )


def check_each_once(axes: Sequence[Axis], searched: Sequence[str]) -> None:
    """Check that there is something to try, and that nothing sets an option that another sets.

    Args:
        axes: what is varied.
        searched: the names of the numbers that are searched for.
    """
    names = [*(name for axis in axes for name in sorted(axis.options)), *searched]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise InvalidInput(
            "vary",
            got=f"{twice[0]} twice" if twice else "nothing to vary",
            expected="options, each once, also those behind a value",
            fix="give all of its values in one --vary, or in one --search"
            if twice
            else "add for instance --vary prior=StandardNormal,VampPrior",
        )


def split_values(text: str) -> list[str]:
    """A text's parts between commas that lie outside of brackets and quotes.

    Example:
        >>> split_values("a,[b,c],'d,e'")
        ['a', '[b,c]', "'d,e'"]
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and depth == 0 and not quote:
            parts.append("")
            continue
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
        parts[-1] += letter
    return [part.strip() for part in parts]
