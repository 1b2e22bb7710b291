"""The component tables of docs/components.md, made from the docstrings of each family's `__all__`.

``python tests/tables.py`` writes them between that file's markers; a test holds them there.
"""

import inspect
import re
from pathlib import Path

import pyro_vae as pv

DOCUMENT = Path(__file__).parent.parent / "docs" / "components.md"
FAMILIES = {"prior": pv.priors, "likelihood": pv.likelihoods, "posterior": pv.posteriors}
BEGIN, END = "<!-- tables: python tests/tables.py -->", "<!-- end of tables -->"


def row(cls) -> str:
    """A class's row: its name, its docstring's first sentence and its first source."""
    doc = inspect.cleandoc(cls.__doc__)
    what = (
        re.sub(r"\s+", " ", re.split(r"\.\s|\.$|\n\n", doc, maxsplit=1)[0])
        .rstrip(".")
        .replace("|", "\\|")
    )
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", doc, re.S | re.M)
    assert source, f"{cls.__name__} names no source"
    reference = re.search(r"[^();]+?\(\d{4}\)|[^();]+? \d{4}", re.sub(r"\s+", " ", source[1]))
    assert reference, f"{cls.__name__} names no author and year"
    return f"| `{cls.__name__}` | {what} | {reference[0].replace('(', '').replace(')', '')} |"


def tables() -> str:
    """One table: a header row for each family, a row for each class."""
    lines = ["| | density | source |", "|---|---|---|"]
    for family, module in FAMILIES.items():
        lines.append(f"| **{family}** | | |")
        lines += [row(getattr(module, name)) for name in module.__all__]
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """A document with the tables between its markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
