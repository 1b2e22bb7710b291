"""The checks of a program as one HTML page: a verdict for each, its numbers and its figure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyro_vae.checks import WORDS, Checked, Verdict
from pyro_vae.datasets.shown import p_words
from pyro_vae.plotting.files import written
from pyro_vae.report import markup
from pyro_vae.report.markup import text
from pyro_vae.report.page import page

__all__ = ["check_page"]

MARKS = dict(zip(WORDS, ("pass", "fail", "open", "none")))
ORDER = ("failed", "could not tell", "passed", "does not apply")

STYLE = """
.check { border: 1px solid #d5dae0; border-left-width: .3rem; border-radius: .3rem;
  padding: .5rem .9rem .7rem; margin: .8rem 0; }
.check h3 { margin: .1rem 0 .2rem; }
.check.fail { border-left-color: #b3261e; }
.check.pass { border-left-color: #1a7f4b; }
.check.none { border-left-color: #d5dae0; }
.check.open { border-left-color: #8a939c; }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .6rem; margin-right: .4rem;
  font-size: .85rem; font-weight: 600; color: #fff; white-space: nowrap; }
.badge.fail { background: #b3261e; }
.badge.pass { background: #1a7f4b; }
.badge.none { background: #8a939c; }
.badge.open { background: #5b6670; }
.check figure { max-width: 34rem; margin-top: .5rem; }
.change { font-weight: 600; }
.summary { list-style: none; padding: 0; }
.summary li { padding: .35rem 0; border-bottom: 1px solid #e6e9ed; }
.summary a { color: inherit; font-weight: 600; }
"""


def check_page(checked: Checked, title: str) -> str:
    """The page of a program's checks, as self-contained HTML.

    Failures come first in the summary; below, each question has its checks.

    Args:
        checked: what `pyro_vae.check` returned.
        title: of the page.

    Example:
        >>> found = pv.check(vae, torch.rand(40, 1, 8, 8).round(), checks=[])
        >>> 'src="http' in check_page(found, "digits")
        False
    """
    counts = " ".join(
        f"<span class='badge {MARKS[word]}'>{count}</span>"
        for word, count in checked.counts.items()
    )
    rows = "".join(_row(each) for word in ORDER for each in checked.of(word))
    body = [
        f"<h1>{text(title)}</h1><p>{counts}</p>",
        f"<p class=quiet>{checked.num_data:,} data, SHA-256 {checked.sha256[:12]}..., seed "
        f"{checked.seed}. A sound program fails any of the tests with probability at most "
        f"{checked.level:g}: their p-values are corrected for their number by Holm's method. A "
        "departure must also be large enough to matter.</p>",
        f"<ul class=summary>{rows}</ul>",
        _left_out(checked),
        *(_section(question, checked) for question in _questions(checked.verdicts)),
    ]
    return page(text(title), body, STYLE)


def _badge(verdict: Verdict) -> str:
    return f"<span class='badge {MARKS[verdict.word]}'>{verdict.word}</span>"


def _row(verdict: Verdict) -> str:
    """A line of the summary, which leads to the check below."""
    link = f"<a href='#{_anchor(verdict)}'>{text(verdict.name)}</a>"
    return (
        f"<li>{_badge(verdict)}{link}<br><span class=quiet>{_sentence(verdict.means)}</span></li>"
    )


def _anchor(verdict: Verdict) -> str:
    return re.sub(r"\W+", "-", verdict.name.lower())


def _left_out(checked: Checked) -> str:
    if not checked.left_out:
        return ""
    names = "; ".join(
        f"{text(name)} (about {markup.duration(seconds)})"
        for name, seconds in checked.left_out.items()
    )
    return f"<div class=warning>Left out for want of time (--minutes): {names}.</div>"


def _questions(verdicts: Iterable[Verdict]) -> list[str]:
    return sorted({each.question for each in verdicts})


def _section(question: str, checked: Checked) -> str:
    checks = [each for each in checked.verdicts if each.question == question]
    return f"<h2>{text(question)}</h2>" + "".join(map(_check, checks))


def _check(verdict: Verdict) -> str:
    kind = MARKS[verdict.word]
    change = f"<p class=change>{text(verdict.change)}</p>" if verdict.change else ""
    numbers = {name: _shown(value) for name, value in verdict.numbers.items()}
    if verdict.adjusted is not None:
        numbers["p-value, corrected for all tests"] = p_words(verdict.adjusted)
    return (
        f"<div class='check {kind}' id='{_anchor(verdict)}'>"
        f"<h3>{_badge(verdict)}{text(verdict.name)}</h3>"
        f"<p>{_sentence(verdict.means)}</p>{change}{_figure(verdict)}"
        f"<details><summary>numbers, and how it is done</summary>{markup.facts(numbers)}"
        f"{_about(verdict.about)}</details></div>"
    )


def _shown(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _sentence(words: str) -> str:
    """Words as a sentence: a capital first and a full stop last."""
    first = words[:1] if words[:2] in ("q ", "x ") else words[:1].upper()  # which are symbols
    return text(first + words[1:].rstrip(".") + ".")


def _about(doc: str) -> str:
    """A check's docstring: its paragraphs, and its formulas drawn."""
    parts = []
    for block in re.split(r"\n\s*\n", doc):
        if block.startswith(".. math::"):
            parts += [
                f"<p class=formula>{markup.formula(latex)}</p>"
                for latex in markup.formulas_in(block)
            ]
        else:
            parts.append(f"<p>{_with_formulas(' '.join(block.split()))}</p>")
    return "".join(parts)


def _with_formulas(words: str) -> str:
    """A paragraph whose formulas within a line are drawn."""
    pieces = re.split(r":math:`([^`]*)`", words)
    return "".join(
        markup.formula(piece) if i % 2 else text(piece) for i, piece in enumerate(pieces)
    )


def _figure(verdict: Verdict) -> str:
    if verdict.figure is None:
        return ""
    source = markup.embedded(written(verdict.figure(), "png", "pyro-vae"), "png")
    return f'<figure><img alt="{text(verdict.name)}" src="{source}"></figure>'
