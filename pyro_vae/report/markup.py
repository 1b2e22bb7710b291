"""HTML that needs no other file: text, tables and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

__all__ = ["embedded", "facts", "formula", "precise", "rounded", "table", "text"]


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
    return f"<div class=wide><table>{rows}</table></div>"


def embedded(data: bytes, kind: str) -> str:
    """An image as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def formula(latex: str) -> str:
    """A formula drawn as curves, so that the page needs no script.

    Where Matplotlib cannot draw it, its source stands in its place.
    """
    figure, picture = Figure(), io.BytesIO()
    try:
        figure.text(0, 0, "$" + latex.rstrip(".,") + "$", fontsize=13)
        figure.savefig(
            picture,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.04,
            transparent=True,
            metadata={"Date": None},
        )
    except ValueError:
        return f"<code>{text(latex)}</code>"
    return f'<img alt="{text(latex)}" src="{embedded(picture.getvalue(), "svg+xml")}">'
