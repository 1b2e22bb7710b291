"""The options that a sweep varies, and their combinations."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pyro_vae.validation import InvalidInput

__all__ = ["Axis", "Setting", "combinations_of", "read_axis", "split_values"]

LONGEST = 120  # characters of a folder's name


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
            first, dashes, more = value.partition(" --")
            behind = shlex.split(f"--{more}" if dashes else "")
            found += [f"--{name}={first.strip()}", *map(_with_dashes, behind)]
        return found


def _with_dashes(token: str) -> str:
    """A flag as it is remembered beside a run."""
    flag, equals, value = token.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else token


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
        InvalidInput: for anything else, and for a value that stands there twice.

    Example:
        >>> read_axis("encoder.hidden=[200],[400, 200]").values
        ('[200]', '[400, 200]')
    """
    name, equals, rest = text.partition("=")
    name = name.strip().lstrip("-").replace("_", "-")
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
    if name in ("seed", "out", "resume", "trust"):
        raise InvalidInput(
            "vary",
            got=repr(name),
            expected="an option of the model, its data or its training",
            fix="seeds are --seeds 3" if name == "seed" else f"leave {name} out: a sweep sets it",
        )
    return Axis(name, values)


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
