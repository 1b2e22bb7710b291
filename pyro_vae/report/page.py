"""A run as one HTML page that needs nothing else: what was modelled, on what data, how well, and how to do it again."""

from __future__ import annotations

import base64
import html
import inspect
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from torch import nn

from pyro_vae.checkpoint.description import describe
from pyro_vae.contracts import ModuleLike, ProgramLike
from pyro_vae.validation import InvalidInput

__all__ = ["report"]

CAPTIONS = {
    "training.png": "Training: the objective of each epoch, in nats per datum.",
    "reconstructions.png": "Test data, and the mean of p(x | z), of sentences the mode, at a draw from q(z | x).",
    "samples.png": "New data: means of p(x | z), or modes or draws of what has no mean, at draws z from the prior.",
    "latents.png": "Where the test data lie in the latent space.",
}


ROLES = {
    "prior": "p(z)",
    "priors": "p(z)",
    "likelihood": "p(x | z)",
    "posterior": "q(z | x)",
    "posteriors": "q(z | x)",
}


STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1c2126; background: #fff; max-width: 62rem; margin: 0 auto; padding: 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d5dae0; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } p { margin: .4rem 0; max-width: 46rem; } .quiet { color: #59636e; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e6e9ed; vertical-align: top; } th { font-weight: 600; }
td.number, th.number { text-align: right; } code, pre { font: .86rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: #f5f7f9; padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap; } .formula img { max-width: 100%; height: auto; }
.warning { border-left: .25rem solid #b35900; background: #fff6ec; padding: .5rem .8rem; margin: .6rem 0; max-width: 46rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.4rem; align-items: start; }
figure { margin: 0; } figure img { width: 100%; height: auto; } figcaption { color: #59636e; font-size: .9rem; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""


def report(folder: str | Path, program: ProgramLike) -> str:
    """The page of a run, as HTML; whatever the folder does not hold is left out, with the command that makes it.

    Args:
        folder: the run, as training, `pyro-vae evaluate` and `pyro-vae inspect` wrote it.
        program: its program.

    Raises:
        InvalidInput: if a file of the run cannot be read.
    """
    folder = Path(folder)
    recipe, scores, found = (
        _read(folder / name)
        for name in ("recipe.yaml", "evaluation.json", "inspection/inspection.json")
    )
    settings = _read(folder / "training.json").get("settings", {})
    title = (
        f"{_name(program)} on {scores.get('data', {}).get('name') or recipe.get('data', 'data')}"
    )
    sections = [
        f"<h1>{_text(title)}</h1><p class=quiet>Run <code>{_text(folder.resolve().name)}</code>; {_count(program):,} parameters.</p>",
        *(
            f"<div class=warning>{_text(warning)}</div>"
            for warning in [*_warnings(scores), *found.get("warnings", [])]
        ),
        "<h2>Scores</h2>" + _scores(scores, folder.name),
        "<h2>The model</h2>" + _model(program),
        "<h2>Data</h2>" + _data(scores),
        "<h2>Training</h2>" + _training(recipe, settings) + _figures(folder / "figures", CAPTIONS),
        "<h2>Inspection</h2>"
        + (
            _facts(found.get("numbers", {}))
            + _figures(folder / "inspection", found.get("captions", {}))
            if found
            else f"<p>None yet: <code>pyro-vae inspect {_text(folder.name)}</code></p>"
        ),
        "<h2>How to reproduce it</h2>" + _reproduce(folder, scores),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{_text(title)}</title><style>{STYLE}</style></head><body>{"".join(sections)}</body></html>\n'
    )


# sections


def _warnings(scores: dict[str, Any]) -> Iterable[str]:
    shape = scores.get("pareto_k", {})
    if shape.get("above_threshold"):
        yield (
            f"Pareto k is above {shape['threshold']:.2f} for {shape['above_threshold']:,} of {scores['num_data']:,} data: their log p(x) is likely "
            "too low, by more than its stated error. It stays a lower bound in expectation. More draws, a refined proposal, annealing, or a more "
            "flexible posterior repair it."
        )


def _scores(scores: dict[str, Any], run: str) -> str:
    if not scores:
        return f"<p>None yet: <code>pyro-vae evaluate {_text(run)}</code></p>"
    if "refused" in scores:
        rows = [
            [name, _precise(scores[key]["mean"]), _precise(scores[key]["se"])]
            for name, key in (
                ("minus the loss, nats per datum", "log_joint"),
                ("squared error per entry", "squared_error"),
            )
            if key in scores
        ]
        return (
            _table(["", "mean", "standard error over data"], rows)
            + f"<p>{_text(scores['refused'])}.</p>"
        )
    ll = scores["log_likelihood"]
    rows = [
        [name, *(_number(value[key]) for key in ("mean", "se", "mc_se"))]
        for name, value in (("ELBO", scores["elbo"]), (f"log p(x), K = {ll['num_samples']:,}", ll))
    ]
    shape, bits, perplexity = (
        scores["pareto_k"],
        scores.get("bits_per_dim"),
        scores.get("perplexity"),
    )
    words = [
        f"Pareto k of the importance weights: median {_number(shape['median'])}, largest {_number(shape['max'])}."
    ]
    if shape.get("above_threshold") is not None:
        words.append(
            f"It is above its threshold for {shape['above_threshold']:,} of {scores['num_data']:,} data."
        )
    if bits is not None:
        words.append(f"{bits:.4f} bits per dimension.")
    if perplexity is not None:
        words.append(
            f"Perplexity of a word, the end of a sentence counted as one: {perplexity:.1f}."
        )
    return (
        _table(["nats per datum", "mean", "standard error over data", "Monte Carlo error"], rows)
        + f"<p>{' '.join(words)}</p>"
    )


def _model(program: ProgramLike) -> str:
    blocks = []
    for name, part in program.named_children():
        if name in ROLES:
            members = list(part) if isinstance(part, nn.ModuleList) else [part]
            blocks += [
                _component(ROLES[name] + (f", level {i + 1}" if len(members) > 1 else ""), member)
                for i, member in enumerate(members)
            ]
    blocks = blocks or [f"<p>{_text(_first_line(program))}</p>"]
    rows = [
        [_text(name), _text(type(part).__name__), f"{_count(part):,}"]
        for name, part in program.named_children()
        if _count(part)
    ]
    return "".join(blocks) + _table(
        ["part", "class", "parameters"], [*rows, ["all", "", f"{_count(program):,}"]], numbers=2
    )


def _component(role: str, part: Any) -> str:
    formulas = "".join(
        f"<p class=formula>{_formula(formula)}</p>" for formula in _formulas(part)[:1]
    )
    networks = [
        f"{_text(name)}: <code>{_text(_signature(module))}</code>"
        for name, module in part.named_children()
        if hasattr(module, "out_shape")
    ]
    return (
        f"<h3>{_text(role)}: {_text(type(part).__name__)}</h3><p>{_text(_first_line(part))}</p>{formulas}"
        f"<p class=quiet><code>{_text(_signature(part))}</code>{'; ' if networks else ''}{'; '.join(networks)}; {_count(part):,} parameters</p>"
    )


def _data(scores: dict[str, Any]) -> str:
    if not scores:
        return "<p>Not known before an evaluation.</p>"
    data = scores["data"]
    return _facts(
        {
            "name": data["name"],
            "scored": f"{scores['num_data']:,} data of the {data['split']} split",
            "binarisation": data["binarize"],
            "SHA-256 of what was scored": data["sha256"],
        }
    )


def _training(recipe: dict[str, Any], settings: dict[str, Any]) -> str:
    wanted = ("epochs", "batch_size", "learning_rate", "warmup", "clip_norm", "seed", "device")
    facts = {
        name.replace("_", " "): recipe[name] for name in wanted if recipe.get(name) is not None
    }
    for name in ("objective", "schedule"):
        if isinstance(settings.get(name), dict):
            facts[name] = settings[name]["class"]
    return _facts(facts)


def _figures(folder: Path, captions: dict[str, str]) -> str:
    there = [
        (folder / name, caption) for name, caption in captions.items() if (folder / name).exists()
    ]
    return (
        "<div class=figures>"
        + "".join(
            f'<figure><img loading=eager alt="{_text(caption)}" src="{_embedded(path.read_bytes(), "png")}"><figcaption>{_text(caption)}</figcaption></figure>'
            for path, caption in there
        )
        + "</div>"
    )


def _reproduce(folder: Path, scores: dict[str, Any]) -> str:
    run = folder.name
    commands = [f"pyro-vae train recipe.yaml --out {run}"]
    if scores:
        draws = (
            f"--num-samples {scores['log_likelihood']['num_samples']} "
            if scores.get("log_likelihood")
            else ""
        )
        commands.append(
            f"pyro-vae evaluate {run} {draws}--split {scores['data']['split']} --limit {scores['num_data']} "
            f"--seed {scores.get('seed', 0)}"
        )
    commands += [f"pyro-vae inspect {run}", f"pyro-vae report {run}"]
    recipe = (folder / "recipe.yaml").read_text() if (folder / "recipe.yaml").exists() else ""
    versions = ", ".join(
        f"{name} {version}" for name, version in scores.get("versions", {}).items()
    )
    return (
        f"<pre>{_text(chr(10).join(commands))}</pre>"
        + (f"<p><code>recipe.yaml</code>:</p><pre>{_text(recipe)}</pre>" if recipe else "")
        + (f"<p class=quiet>Scored with {_text(versions)}.</p>" if versions else "")
    )


# pieces


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return (yaml.safe_load if path.suffix == ".yaml" else json.loads)(path.read_text()) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidInput(
            "run",
            got=f"{path}, which cannot be read ({error})",
            expected="what training or evaluation wrote",
            fix="restore it from a copy, or make it again",
        ) from None


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: float | None) -> str:
    return (
        "-"
        if value is None
        else f"{value:.2f}"
        if abs(value) >= 0.1 or value == 0
        else f"{value:.2g}"
    )


def _precise(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _table(header: list[str], rows: list[list[str]], numbers: int = 1) -> str:
    def line(cells: list[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=number' if i >= numbers else ''}>{cell}</{tag}>"
                for i, cell in enumerate(cells)
            )
            + "</tr>"
        )

    return (
        "<div class=wide><table>"
        + line(header, "th")
        + "".join(line(row, "td") for row in rows)
        + "</table></div>"
    )


def _facts(facts: dict[str, Any]) -> str:
    return (
        "<div class=wide><table>"
        + "".join(
            f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>"
            for name, value in facts.items()
        )
        + "</table></div>"
    )


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _count(module: ModuleLike) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _name(program: Any) -> str:
    return (
        "CVAE"
        if type(program).__name__ == "VAE" and getattr(program, "context", None) is not None
        else type(program).__name__
    )


def _first_line(part: Any) -> str:
    return (inspect.getdoc(type(part)) or type(part).__name__).splitlines()[0]


def _formulas(part: Any) -> list[str]:
    """The formulas of a class's docstring, in LaTeX."""
    doc = inspect.getdoc(type(part)) or ""
    return [
        " ".join(block.split())
        for block in re.findall(r"\.\. math::(.*?)(?:\n\s*\n|\Z)", doc, re.S)
    ]


def _formula(latex: str) -> str:
    """A formula as a picture of its curves, so that the page needs no script; as source where Matplotlib does not know it."""
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
        return f"<code>{_text(latex)}</code>"
    return f'<img alt="{_text(latex)}" src="{_embedded(picture.getvalue(), "svg+xml")}">'


def _signature(module: Any) -> str:
    """A component as its call: the class with the arguments that it keeps, networks by their class alone."""
    try:
        arguments = describe(module)["args"] or {}
    except InvalidInput:
        return type(module).__name__
    words = [
        f"{name}={value['class'].rpartition('.')[2] if isinstance(value, dict) and 'class' in value else value}"
        for name, value in arguments.items()
        if value is not None
    ]
    return f"{type(module).__name__}({', '.join(words)})"
