"""The data in a report: what was scored, the columns by name, and what was changed on the way."""

from __future__ import annotations

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.report import markup
from pyro_vae.report.markup import precise, text
from pyro_vae.report.run_files import Evaluation, Json
from pyro_vae.validation import counted

__all__ = ["data_section"]

MOST = 100  # columns that are listed
SHOWN = 12  # categories of a column that are named


def data_section(scores: Evaluation, description: Json) -> str:
    """The section of a run's data.

    Args:
        scores: what ``evaluation.json`` holds; empty before an evaluation.
        description: what ``data.json`` holds; empty of a run of version 0.1.0.
    """
    scored = "<p>Not known before an evaluation.</p>"
    if scores:
        data = scores["data"]
        scored = markup.facts(
            {
                "name": data["name"],
                "scored": f"{counted(scores['num_data'], 'datum', 'data')} of the "
                f"{data['split']} split",
                "binarisation": data["binarize"],
                "SHA-256 of what was scored": data["sha256"],
            }
        )
    columns = "".join(
        _columns(title, description.get(key))
        for title, key in (("Columns of x", "columns"), ("Context", "context_columns"))
    )
    notes = "".join(f"<li>{text(note)}</li>" for note in description.get("notes") or ())
    return scored + columns + (f"<ul>{notes}</ul>" if notes else "")


def _columns(title: str, described: list[dict[str, object]] | None) -> str:
    if not described:
        return ""
    columns = Columns.from_json(described)
    rows = [_row(column) for column in list(columns)[:MOST]]
    more = f"<p class=quiet>and {len(columns) - MOST:,} more</p>" if len(columns) > MOST else ""
    header = ["column", "kind", "likelihood", "categories", "center", "scale"]
    return f"<h3>{text(title)}</h3>" + markup.table(header, rows, numbers=4) + more


def _row(column: Column) -> list[str]:
    names = ", ".join(column.categories[:SHOWN])
    more = ", ..." if len(column.categories) > SHOWN else ""
    units = [precise(column.center), precise(column.scale)] if not column.is_whole else ["", ""]
    return [*map(text, (column.name, column.kind, column.group()[0], names + more)), *units]
