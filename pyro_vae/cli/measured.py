"""What a command measured on a run: written beside it as numbers and a figure, and printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from pyro_vae import checkpoint, plotting
from pyro_vae.cli.figures import add_format_argument
from pyro_vae.cli.runs import (
    SPLITS,
    add_data_arguments,
    add_run_arguments,
    add_split_argument,
    data_of,
    load_run,
    split_of,
)
from pyro_vae.cli.terminal import console_of
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.forms import shuffled
from pyro_vae.datasets.shown import known, p_words
from pyro_vae.evaluation.scores import Score, versions
from pyro_vae.plotting.files import Draw
from pyro_vae.report.commands import remember
from pyro_vae.report.run_files import as_json
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.validation import check_choice, check_count

__all__ = ["Measured", "Row", "Subject", "add_subject_arguments", "deliver", "row_of", "subject_of"]

AT_GLOBALS = "these numbers are at one draw of the global latents, by --seed"


@dataclass(frozen=True)
class Row:
    """A number with its errors; NaN where an error is not known, ``None`` where there is none.

    Args:
        name: what it is.
        value: the number.
        se: its standard error over data.
        mc_se: its Monte Carlo error.
        sign: ``">="`` or ``"<="`` of a bound.
        digits: shown behind the point.
        is_p: whether it is a p-value.
    """

    name: str
    value: float
    se: float | None = None
    mc_se: float | None = None
    sign: str = ""
    digits: int = 2
    is_p: bool = False

    def cells(self) -> list[str]:
        """The row as it is shown."""
        errors = [
            "" if error is None else known(error, self.digits + extra)
            for error, extra in ((self.se, 0), (self.mc_se, 1))
        ]
        value = p_words(self.value) if self.is_p else known(self.value, self.digits)
        return [self.name, f"{self.sign} {value}".strip(), *errors]

    def numbers(self) -> dict[str, object]:
        """The row as it is kept."""
        kept = {"value": self.value, "se": self.se, "mc_se": self.mc_se, "bound": self.sign or None}
        return {name: value for name, value in kept.items() if value is not None}


def row_of(name: str, score: Score, digits: int = 2) -> Row:
    """The mean of a score over data, with its errors; of a bound, as one."""
    is_bound = bool(score.is_bound.any())
    mc_se = math.nan if is_bound else score.mean_mc_se
    return Row(name, score.mean, score.se, mc_se, score.sign if is_bound else "", digits)


@dataclass(frozen=True)
class Measured:
    """What a command found.

    Args:
        title: of the table.
        rows: the numbers.
        draws: what draws the figure, one part above another.
        notes: sentences below the table.
        more: further numbers for the file alone.
        size: of each part of the figure, in inches.
    """

    title: str
    rows: Sequence[Row]
    draws: Sequence[Draw]
    notes: Sequence[str] = ()
    more: Mapping[str, object] = field(default_factory=dict)
    size: tuple[float, float] = (6.0, 4.5)


@dataclass(frozen=True)
class Subject:
    """A run that a command measures: its program, at one draw of global latents, and its data."""

    folder: Path
    program: ProgramLike
    train: Dataset
    data: Dataset
    notes: tuple[str, ...]


def add_subject_arguments(parser: ArgumentParser, limit: int) -> None:
    add_run_arguments(parser)
    add_data_arguments(parser)
    add_split_argument(parser)
    parser.add_argument("--limit", type=int, default=limit, help="use only this many data")
    add_format_argument(parser)


def subject_of(options: Namespace, *, fixed: bool = True, in_any_order: bool = False) -> Subject:
    """The run that the options name, with the first data of a split.

    Args:
        options: of the command.
        fixed: whether its program is put at one draw of global latents.
        in_any_order: whether data and training data come in an order that the seed draws, for
            numbers that need data of all kinds: files may be sorted.
    """
    check_choice("split", options.split, SPLITS)
    check_count("limit", options.limit)
    folder, program = load_run(options)
    checkpoint.check_writable(folder)
    sets = data_of(folder, options)
    if options.split not in sets:
        sets[options.split] = split_of(folder, options)
    if in_any_order:
        sets = {name: each[shuffled(len(each), options.seed)] for name, each in sets.items()}
    data = sets[options.split][: options.limit]
    local = at_globals(program, data, options.seed) if fixed else program
    notes = () if local is program else (AT_GLOBALS,)
    return Subject(folder, local, sets["train"], data, notes)


def deliver(
    command: str, subject: Subject, found: Measured, options: Namespace, words: Sequence[str]
) -> None:
    """Print the table, then write ``RUN/COMMAND.json`` and the figure at one moment."""
    formats = plotting.formats_with(options.figure_format)
    data, notes = subject.data, [*subject.notes, *found.notes]
    numbers = {
        "numbers": {row.name: row.numbers() for row in found.rows},
        **found.more,
        "notes": notes,
        "num_data": len(data),
        "data": {"name": data.name, "split": data.split, "sha256": data.sha256},
        "settings": {
            name: value
            for name, value in vars(options).items()
            if isinstance(value, int | float | str) and name not in ("run", "trust")
        },
        "versions": versions(),
    }
    table = Table(title=found.title, title_justify="left")
    for column in ("", "value", "s.e. over data", "Monte Carlo s.e."):
        table.add_column(column, justify="right" if column else "left")
    for row in found.rows:
        table.add_row(*row.cells())
    console = console_of()
    console.print(table)
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True)
    pictures = plotting.figure_files(command, list(found.draws), found.size, formats)
    checkpoint.commit(subject.folder, {**pictures, f"{command}.json": as_json(numbers, True)})
    remember(subject.folder, [command, *words])
    for name in (f"{command}.json", *pictures):
        console.print(str(subject.folder / name), highlight=False, soft_wrap=True)
