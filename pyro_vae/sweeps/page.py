"""The results of a sweep as files: a table in JSON and Markdown, a figure, and one HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pyro_vae.datasets.shown import known, measured
from pyro_vae.plotting.files import figure_png
from pyro_vae.plotting.sweeps import SweepLine, plot_sweep
from pyro_vae.report import markup
from pyro_vae.report.markup import duration, text
from pyro_vae.report.page import page
from pyro_vae.report.run_files import as_json
from pyro_vae.sweeps.results import LEVEL, Results, Row

__all__ = ["COMMAND", "files_of", "header_of", "notes_of", "rows_of"]

COMMAND = "pyro-vae sweep"


def header_of(results: Results) -> list[str]:
    """The heads of the table's columns."""
    return [
        "setting",
        "seeds",
        results.score.replace("_", " "),
        "s.d. over seeds",
        "less the best",
        "its s.e.",
        "p (Holm)",
        "ELBO",
        "Pareto k: median, above",
        "seconds",
    ]


def rows_of(results: Results) -> Iterator[list[str]]:
    """The rows of the table, best first."""
    for row in results.rows:
        elbo = row.spread_of("elbo")
        yield [
            row.name,
            row.seeds,
            f"{row.sign} {measured(row.spread.mean, row.spread.sd)}".strip(),
            known(row.spread.sd),
            *_difference(row),
            "" if elbo is None else measured(elbo.mean, elbo.sd),
            _pareto_k(row),
            f"{row.seconds:.1f}",
        ]


def _difference(row: Row) -> tuple[str, str, str]:
    found = row.difference
    if found is None:
        return "", "", ""
    p = f"{found.adjusted:.3f}" if found.adjusted >= 0.001 else "< 0.001"
    shown = "unknown" if math.isnan(found.adjusted) else p
    return f"{found.sign} {measured(found.mean, found.se, '+')}".strip(), known(found.se), shown


def _pareto_k(row: Row) -> str:
    found = row.pareto_k
    if found is None:
        return ""
    if found.above is None:
        return "needs more draws"
    return f"{found.median:.2f}, {found.above} of {found.num_data}"


def notes_of(results: Results) -> Iterator[str]:
    """What to know before the table is trusted."""
    draws = results.rows[0].trials[0].scores[results.score].num_samples
    yield (
        f"{results.num_data:,} data, K = {draws:,}; nats per datum, higher is better. Seconds are "
        "those of training."
    )
    if results.chosen:
        yield "The first row has the highest validation ELBO; the scores did not choose it."
    if len(results.rows) > 1:
        pairs = "differences from the first row" if results.chosen else "pairs of rows"
        yield (
            "Differences are paired by datum and seed. Their standard error holds that over data "
            "and that over seeds, which counts for more the fewer seeds there are; p is of no "
            "difference, by Banerjee's interval of both parts, corrected by Holm's "
            f"method for all {pairs}. A row with p below {LEVEL} is told from the first."
        )
        if any(row.difference is None for row in results.rows[1:]):
            yield "A row without a difference has no seed in common with the first that ended well."
        if results.num_seeds == 1 and not results.has_lost:
            yield (
                "There is one seed: the errors are over data alone, there is no p, and another "
                "seed might rank the rows otherwise. Add --seeds 3."
            )
    if results.has_lost:
        yield (
            "Rows that lost a seed, such as 1 of 2, follow those that lost none: trials that "
            "failed or were stopped are no merit. The mean of such a row is over other seeds than "
            "that of the first; its difference is over the seeds that both have, and may be "
            "positive. Of one seed, the errors are over data alone and there is no p."
        )
    if results.rows[0].lost:
        yield (
            "No row has all of its seeds. The first is one of those with the most; compare it with "
            "care."
        )
    if any(row.sign for row in results.rows):
        yield (
            "Scores marked >= are bounds: some of their data have a Pareto k above or near "
            "the threshold, or none because K is too small. A difference marked ~ is of two "
            "bounds, and the true one may be larger or smaller."
        )


def files_of(results: Results, command: str) -> dict[str, bytes]:
    """The files of a sweep, by name.

    Args:
        results: what it found.
        command: the line that makes it again.
    """
    lines = [
        SweepLine(
            f"{row.name} ({row.seeds} seeds)" if row.lost else row.name,
            [each.scores[results.score].mean for each in row.trials],
            row.is_worse,
        )
        for row in results.rows
    ]
    words = results.score.replace("_", " ")
    picture = figure_png(
        lambda ax: plot_sweep(lines, words, ax), (8.0, 1.6 + 0.34 * len(lines)), COMMAND
    )
    return {
        "table.json": as_json({"written_by": COMMAND, **results.to_json()}),
        "table.md": _markdown(results, command).encode(),
        "figure.png": picture,
        "report.html": _html(results, command, picture).encode(),
    }


def _markdown(results: Results, command: str) -> str:
    rows = list(rows_of(results))
    blocks = [
        f"<!-- written by {COMMAND} -->\n# Sweep",
        _markdown_table(header_of(results), rows),
        *notes_of(results),
    ]
    for title, lines in _left_out(results):
        blocks += [f"## {title}", "\n".join(f"- {name}: {reason}" for name, reason in lines)]
    return "\n\n".join([*blocks, f"    {command}"]) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _left_out(results: Results) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if results.refused:
        refused = [(setting.name, reason) for setting, reason in results.refused.items()]
        yield "Refused before anything ran", refused
    if results.failed:
        yield "Failed or stopped", [(each.trial.name, each.problem) for each in results.failed]


def _html(results: Results, command: str, picture: bytes) -> str:
    """The page, which needs no other file."""
    rows = [[text(cell) for cell in row] for row in rows_of(results)]
    trials = [
        [
            text(row.name),
            str(each.trial.seed),
            measured(each.scores[results.score].mean, each.scores[results.score].se),
            duration(each.seconds),
            f"<code>{text(each.trial.folder.name)}</code>",
        ]
        for row in results.rows
        for each in row.trials
    ]
    words = f"Each setting's {results.score.replace('_', ' ')}, by seed, best first."
    body = [
        "<h1>Sweep</h1>",
        markup.table([text(head) for head in header_of(results)], rows),
        *(f"<p>{text(note)}</p>" for note in notes_of(results)),
        f'<figure><img alt="{text(words)}" src="{markup.embedded(picture, "png")}">'
        f"<figcaption>{text(words)}</figcaption></figure>",
    ]
    for title, lines in _left_out(results):
        cells = [[text(name), text(reason)] for name, reason in lines]
        body += [f"<h2>{title}</h2>", markup.table(["setting", "why"], cells, numbers=2)]
    body += [
        "<h2>Trials</h2>",
        markup.table(["setting", "seed", "score", "training", "folder"], trials),
        "<h2>How to reproduce it</h2>",
        f"<pre>{text(command)}</pre>",
        f"<!-- written by {COMMAND} -->",
    ]
    return page("Sweep", body)
