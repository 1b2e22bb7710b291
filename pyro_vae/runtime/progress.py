"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar", "say"]


def say(words: str) -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(words, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_bar(
    description: str, total: int, *, shown: bool = True, start: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a progress bar, whose body calls ``advance(steps, note="")``.

    With ``shown=False`` the calls do nothing.

    Example:
        >>> with progress_bar("epochs", total=3, shown=False) as advance:
        ...     advance(1, note="objective -99.1")
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(description, total=total, completed=start, note="")
        yield lambda steps, note="": bar.update(task, advance=steps, note=note)
