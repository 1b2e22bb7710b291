"""Progress bars: on standard error, or in the output of a notebook's cell."""

from __future__ import annotations

import io
import sys
import time
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

from pyro_vae.validation import printable

__all__ = ["is_interactive", "progress_bar", "say"]

SECONDS = 0.2  # between two pictures of a bar in a notebook
WIDTH = 100  # of a line in a notebook, in letters


def say(words: str) -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(printable(words), highlight=False, soft_wrap=True, markup=False)


def is_interactive() -> bool:
    """Whether someone types commands: in a notebook, or at Python's or IPython's prompt."""
    return "ps1" in vars(sys)


@contextmanager
def progress_bar(
    description: str, total: int, *, shown: bool = True, start: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a progress bar, whose body calls ``advance(steps, note="")``.

    With ``shown=False`` the calls do nothing. In a notebook the bar is one line of text that
    replaces itself: it needs no widgets, and a saved notebook shows how it ended.

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
    console = Console(stderr=True)
    in_notebook = shown and console.is_jupyter
    bar = Progress(*columns, console=console, disable=not shown or in_notebook)
    task = bar.add_task(description, total=total, completed=start, note="")

    def advance(steps: int, note: str = "") -> None:
        bar.update(task, advance=steps, note=note)

    if in_notebook:
        line = _NotebookLine(bar)

        def advance_and_show(steps: int, note: str = "") -> None:
            advance(steps, note)
            line.show()

        try:
            yield advance_and_show
        finally:
            line.show(last=True)
    else:
        with bar:
            yield advance


class _NotebookLine:
    """A bar as text in the output of a cell, drawn anew at most every few tenths of a second."""

    def __init__(self, bar: Progress):
        from IPython.display import display

        self.bar, self.drawn = bar, time.monotonic()
        self.handle = display({"text/plain": self._text()}, raw=True, display_id=True)

    def show(self, last: bool = False) -> None:
        if last or time.monotonic() - self.drawn > SECONDS:
            self.drawn = time.monotonic()
            self.handle.update({"text/plain": self._text()}, raw=True)

    def _text(self) -> str:
        page = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, color_system=None)
        with page.capture() as captured:
            page.print(self.bar.get_renderable())
        return captured.get().rstrip()
