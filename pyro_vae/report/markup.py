"""HTML that needs no other file: text, tables and pictures."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

__all__ = [
    "duration", "embedded", "facts", "formula", "formulas_in", "precise", "rounded",
    "table", "text",
]  # fmt: skip


# Commands of LaTeX, and what Matplotlib reads in their place.
KNOWN_AS = {
    "le": r"\\leq",
    "ge": r"\\geq",
    "tfrac": r"\\frac",
    "textstyle": "",
    r"phantom\{-\}": "",
}


def text(value: object) -> str:
    """Any value as text of a page."""
    return html.escape(str(value))


def rounded(value: float | None) -> str:
    """A number with two decimals, or two digits where that would show only zeros."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def precise(value: float | None) -> str:
    """A number with five digits."""
    return "-" if value is None else f"{value:.5g}"


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(8.21), duration(130.0), duration(7300.0)
        ('8.2 seconds', '2 minutes 10 seconds', '2 hours 2 minutes')
    """
    if seconds < 60:
        return f"{seconds:.1f} seconds"
    large, small = divmod(round(seconds), 60)
    units = ("minute", "second")
    if large >= 60:
        (large, small), units = divmod(round(seconds / 60), 60), ("hour", "minute")
    parts = ((large, units[0]), (small, units[1]))
    return " ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in parts if count)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 1) -> str:
    """A table of HTML cells, whose columns from ``numbers`` on are numbers."""
    body = "".join(_row(row, "td", numbers) for row in rows)
    return f"<div class=wide><table>{_row(header, 'th', numbers)}{body}</table></div>"


def _row(cells: Sequence[str], tag: str, numbers: int) -> str:
    kinds = ["" if i < numbers else " class=number" for i in range(len(cells))]
    return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for kind, cell in zip(kinds, cells))}</tr>"


def facts(values: Mapping[str, object]) -> str:
    """A table of names and values."""
    rows = "".join(
        f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in values.items()
    )
    return f'<div class="wide facts"><table>{rows}</table></div>'


def embedded(data: bytes, kind: str) -> str:
    """An image as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def formulas_in(doc: str) -> list[str]:
    """The formulas of a docstring, in LaTeX."""
    blocks = re.findall(r"\.\. math::(.*?)(?:\n\s*\n|\Z)", doc, re.S)
    return [" ".join(block.split()) for block in blocks]


def formula(latex: str) -> str:
    """A formula drawn as curves, so that the page needs no script.

    Parts set apart by ``\\quad``, and the rows of cases, have lines of their own, which a narrow
    screen shows without making them small. Where Matplotlib cannot draw it, its source stands in
    its place.
    """
    figure, picture = Figure(), io.BytesIO()
    lines = [f"${line}$" for line in _lines(_for_matplotlib(latex.rstrip(".,")))]
    try:
        figure.text(0, 0, "\n".join(lines), fontsize=13, linespacing=2)
        figure.savefig(
            picture,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.1,
            transparent=True,
            metadata={"Date": None},
        )
    except ValueError:
        return f"<code>{text(latex)}</code>"
    return f'<img alt="{text(latex)}" src="{embedded(picture.getvalue(), "svg+xml")}">'


def _for_matplotlib(latex: str) -> str:
    """A formula without the forms of LaTeX that Matplotlib does not read."""
    latex = re.sub(r"\\[bB]ig(?![a-zA-Z])", "", latex)
    latex = re.sub(r"\\t?frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}", latex)
    latex = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", latex)
    latex = _without_braces_below(latex)
    # It sets what follows a product or a sum too close to its limits.
    latex = re.sub(
        r"(\\(?:prod|sum)(?![a-zA-Z])(?:[_^](?:\{[^{}]*\}|\w))*)(?![_^])", r"\1\\,", latex
    )
    latex = re.sub(r"\\t?frac\s*(\w)\s*\{", r"\\frac{\1}{", latex)
    for theirs, known in KNOWN_AS.items():
        latex = re.sub(rf"\\{theirs}(?![a-zA-Z])", known, latex)
    return latex


def _without_braces_below(latex: str) -> str:
    """A formula whose terms have their names behind them, and not below a brace."""
    before, found, rest = latex.partition(r"\underbrace")
    if not found:
        return latex
    term, rest = _first_group(rest)
    name, rest = _first_group(rest.lstrip("_ "))
    return rf"{before}{term} \; ({name}) {_without_braces_below(rest)}"


def _first_group(latex: str) -> tuple[str, str]:
    """What stands in the braces that a text starts with, and what follows them."""
    depth = 0
    for i, letter in enumerate(latex):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return latex[1:i], latex[i + 1 :]
    return latex, ""


def _lines(latex: str) -> list[str]:
    """The lines that a formula is written on."""
    before, begins, cases = latex.partition(r"\begin{cases}")
    if begins:
        rows, _, after = cases.partition(r"\end{cases}")
        written = [row.replace("&", r"\quad").strip() for row in rows.split(r"\\")]
        return [*_lines(before), *(rf"\qquad {row}" for row in written), *_lines(after.strip(" ,"))]
    parts = re.split(r",?\s*\\quad\s*", latex.strip())
    return [part for part in parts if part]
