"""A run as one HTML page: the model, its data, its scores, and how to reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.contracts import ProgramLike
from pyro_vae.files.reading import MEGABYTE, Kind, checked, parsing, read_bytes, read_text
from pyro_vae.likelihoods import Missing
from pyro_vae.report import markup
from pyro_vae.report.commands import command_that_scored, given_commands
from pyro_vae.report.data_section import data_section
from pyro_vae.report.findings import Findings
from pyro_vae.report.markup import duration, text
from pyro_vae.report.model_section import count_parameters, model_section, name_of
from pyro_vae.report.run_files import FILES, Evaluation, Json, read_file
from pyro_vae.report.scores_section import score_warnings, scores_section
from pyro_vae.report.sentences import facts_of, warnings_of
from pyro_vae.report.style import STYLE
from pyro_vae.validation import counted

__all__ = ["page", "report"]

CAPTIONS = {
    "training.png": "Training: the objective of each epoch, in nats per datum.",
    "reconstructions.png": "Test data, and what p(x | z) reconstructs of them from a draw of "
    "q(z | x): its mean, or the mode for sentences.",
    "samples.png": "New data: the mean of p(x | z) at draws z from the prior, or a mode or a draw "
    "where x has no mean.",
    "latents.png": "Where the test data lie in the latent space.",
}

# Of data with missing entries.
OF_GAPS = " What was observed stays as it is: only missing entries are filled in, each by a draw."

BROAD = 900  # pixels of a picture that two columns of the page would make too small to read
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins

FIGURES = Kind(
    "run", "PNG files beside inspection.json", "run pyro-vae inspect again", 64 * MEGABYTE
)

# A browser loads nothing and runs nothing of the page but its own style and pictures.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

SETTINGS = (
    "epochs", "batch_size", "learning_rate", "warmup", "clip_norm", "skip_norm", "average", "seed",
    "device",
)  # fmt: skip


def report(folder: str | Path, program: ProgramLike) -> str:
    """The page of a run, as self-contained HTML.

    What the folder does not hold is left out; the page then names the command that makes it.

    Args:
        folder: the run, as training, `pyro-vae evaluate` and `pyro-vae inspect` wrote it.
        program: its program.

    Raises:
        InvalidInput: if a file of the run cannot be read.
    """
    folder = Path(folder)
    recipe = read_file(folder, "recipe.yaml")
    training = read_file(folder, "training.json")
    # Whatever a file holds is one line if it cannot be shown.
    with parsing(folder / "evaluation.json", FILES):
        scores = checked(read_file(folder, "evaluation.json"), Evaluation)
        name = scores["data"]["name"] if scores else recipe.get("data", "data")
        warnings = list(score_warnings(scores))
        scored = scores_section(scores, folder.name)
        reproduce = _reproduce(folder, scores)
    with parsing(folder / "data.json", FILES):
        data = data_section(scores, read_file(folder, "data.json"))
    with parsing(folder / "training.json", FILES):
        trained = _training(recipe, training)
    with parsing(folder / "inspection" / "inspection.json", FILES):
        inspection = _read_inspection(folder)
        inspected = _inspection(inspection, folder)
    warnings += inspection.warnings if inspection else []
    title = text(f"{name_of(program)} on {name}")
    body = [
        f"<h1>{title}</h1>",
        f"<p class=quiet>Run <code>{text(folder.resolve().name)}</code>; "
        f"{count_parameters(program):,} parameters.</p>",
        *(f"<div class=warning>{text(warning)}</div>" for warning in warnings),
        "<h2>Scores</h2>",
        scored,
        "<h2>The model</h2>",
        model_section(program),
        "<h2>Data</h2>",
        data,
        "<h2>Training</h2>",
        trained,
        _figures(folder, "figures", _captions(program)),
        "<h2>Inspection</h2>",
        inspected,
        "<h2>How to reproduce it</h2>",
        reproduce,
    ]
    return page(title, body)


def page(title: str, body: Sequence[str], more_style: str = "") -> str:
    """A page that loads nothing: its parts in HTML, under a title in HTML."""
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}{more_style}</style>'
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    )


def _captions(program: ProgramLike) -> dict[str, str]:
    """The captions of training's figures; of data with gaps, what reconstructions are of."""
    has_gaps = any(isinstance(module, Missing) for module in program.modules())
    more = {"reconstructions.png": CAPTIONS["reconstructions.png"] + OF_GAPS} if has_gaps else {}
    return CAPTIONS | more


@dataclass(frozen=True)
class _Inspection:
    """The results of `pyro-vae inspect` in words, and the captions of its figures."""

    facts: Mapping[str, str]
    warnings: list[str]
    captions: Mapping[str, str]


def _read_inspection(folder: Path) -> _Inspection | None:
    """Read what `pyro-vae inspect` wrote; version 0.1.0 wrote sentences in place of numbers."""
    found = read_file(folder / "inspection", "inspection.json", folder)
    if not found:
        return None
    numbers, warnings = found["numbers"], found["warnings"]
    if not all(isinstance(value, str) for value in numbers.values()):
        findings = Findings.from_json(numbers)
        numbers, warnings = facts_of(findings), [*warnings_of(findings), *warnings]
    return _Inspection(dict(numbers), list(warnings), dict(found["captions"]))


def _inspection(inspection: _Inspection | None, folder: Path) -> str:
    if inspection is None:
        return f"<p>None yet: <code>pyro-vae inspect {text(folder.name)}</code></p>"
    figures = _figures(folder, "inspection", inspection.captions)
    return markup.facts(inspection.facts) + figures


def _training(recipe: Json, training: Json) -> str:
    settings = training.get("settings", {})
    facts = {
        name.replace("_", " "): recipe[name] for name in SETTINGS if recipe.get(name) is not None
    }
    for name in ("objective", "schedule"):
        if isinstance(settings.get(name), dict):
            facts[name] = settings[name]["class"]
    if rows := training.get("history"):
        facts["trained for"] = "{} in {}".format(
            counted(len(rows), "epoch"), duration(float(rows[-1]["seconds"]))
        )
    return markup.facts(facts)


def _figures(folder: Path, inner: str, captions: Mapping[str, str]) -> str:
    pictures = {name: _picture(folder, inner, name) for name in captions}
    figures = [
        f'<figure{_breadth(picture)}><img loading=eager alt="{text(captions[name])}" '
        f'src="{markup.embedded(picture, "png")}">'
        f"<figcaption>{text(captions[name])}</figcaption></figure>"
        for name, picture in pictures.items()
        if picture
    ]
    return f"<div class=figures>{''.join(figures)}</div>"


def _breadth(picture: bytes) -> str:
    """The class of a figure: pictures that are wide, such as of sentences, take the whole width."""
    width = int.from_bytes(picture[16:20], "big")  # of the header of a PNG file
    return " class=broad" if width >= BROAD else ""


def _picture(folder: Path, inner: str, name: str) -> bytes:
    """A PNG file in a folder of the run; nothing if there is none of that name.

    Raises:
        InvalidInput: for a file of another kind, or outside that folder.
    """
    if Path(name).name != name or "\0" in name:
        FIGURES.refuse(folder / inner / name, "no plain name")
    if not checkpoint.current(folder / inner, name).exists():
        return b""
    picture = checkpoint.read_current(
        folder / inner, name, lambda path: read_bytes(path, FIGURES, folder)
    )
    if not picture.startswith(PNG):
        FIGURES.refuse(folder / inner / name, "no PNG")
    return picture


def _reproduce(folder: Path, scores: Evaluation) -> str:
    """The commands that were given, those that make the run again, its recipe, and versions."""
    run, recipe = shlex.quote(folder.name), folder / "recipe.yaml"
    commands = [f"pyro-vae train recipe.yaml --out {run}"]
    if scores and (scored := command_that_scored(folder)):
        commands.append(scored)
    elif scores:
        ll = scores.get("log_likelihood")
        # A reader may paste them into a shell: they hold numbers, and words in quotes.
        draws = f"--num-samples {int(ll['num_samples'])} " if ll else ""
        commands.append(
            f"pyro-vae evaluate {run} {draws}--split {shlex.quote(scores['data']['split'])} "
            f"--limit {int(scores['num_data'])} --seed {int(scores.get('seed', 0))}"
        )
    commands += [f"pyro-vae inspect {run}", f"pyro-vae report {run}"]
    page = f"<pre>{text(chr(10).join(commands))}</pre>"
    if given := list(given_commands(folder)):
        lines = "".join(
            f"<tr><td>{text(date)}</td><td><code>{text(line)}</code></td></tr>"
            for date, line in given
        )
        page = (
            f"<p>The commands that were given:</p><div class=wide><table>{lines}</table></div>"
            f"<p>With the recipe below, these make it again:</p>{page}"
        )
    if recipe.exists():
        words = text(read_text(recipe, FILES, folder))
        page += f"<details><summary><code>recipe.yaml</code></summary><pre>{words}</pre></details>"
    if versions := scores.get("versions"):
        words = ", ".join(f"{name} {version}" for name, version in versions.items())
        page += f"<p class=quiet>Scored with {text(words)}.</p>"
    return page
