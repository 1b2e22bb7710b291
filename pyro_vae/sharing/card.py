"""A model card: what a run is, on which data, with which scores and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from pyro_vae import __version__
from pyro_vae.files.reading import checked, parsing
from pyro_vae.report.run_files import FILES, Estimate, Evaluation, is_bound, read_file
from pyro_vae.validation import printable

__all__ = ["card"]

HEAD = """---
library_name: pyro_vae
tags: [pyro, variational-autoencoder]
---
# {title}

A deep latent-variable model in Pyro, trained with pyro_vae {version}.

```python
import pyro_vae as pv

program = pv.load("hf://{name}")
```

Loading runs no code of this repository: the classes are pyro_vae's own, and the weights are
safetensors.
"""


class Known(TypedDict):
    """What ``data.json`` says of the data."""

    name: str
    num_train: int
    num_test: int


def card(folder: str | Path, name: str) -> str:
    """The model card of a run, as Markdown.

    Args:
        folder: the run.
        name: ``user/name`` on the hub.
    """
    folder = Path(folder)
    with parsing(folder / "evaluation.json", FILES):
        scores = checked(read_file(folder, "evaluation.json"), Evaluation)
        data, rows = list(_data(folder, scores)), list(_scores(scores))
    recipe = read_file(folder, "recipe.yaml")
    lines = [HEAD.format(title=name.partition("/")[2], version=__version__, name=name)]
    lines += ["## Model", "", "| part | class |", "|---|---|"]
    for part in ("prior", "likelihood", "posterior"):
        if part in recipe:
            given = recipe[part]
            path = given.get("class_path") if isinstance(given, dict) else given
            lines.append(f"| {part} | {_code(path)} |")
    lines += ["", "## Data", "", *data, "", "## Scores", "", *rows]
    return "\n".join(lines) + "\n"


def _data(folder: Path, scores: Evaluation) -> Iterator[str]:
    if found := read_file(folder, "data.json"):
        with parsing(folder / "data.json", FILES):
            known = checked(found, Known)
        train, test = known["num_train"], known["num_test"]
        yield f"{_code(known['name'])}: {train:,} data to train on, {test:,} to test."
    if scores:
        data = scores["data"]
        yield (
            f"Scored on {scores['num_data']:,} data of the {_code(data['split'])} set, whose "
            f"SHA-256 is {_code(data['sha256'])}."
        )


def _scores(scores: Evaluation) -> Iterator[str]:
    elbo, log_p = scores.get("elbo"), scores.get("log_likelihood")
    if elbo is None or log_p is None:
        yield "None: `pyro-vae evaluate` was not run before this was shared."
        return
    yield "Nats per datum, higher is better."
    yield ""
    yield "| | mean | standard error over data | Monte Carlo error | draws K |"
    yield "|---|---|---|---|---|"
    yield _row("ELBO", elbo, False)
    yield _row("log p(x)", log_p, is_bound(scores))
    if shape := scores.get("pareto_k"):
        yield ""
        yield (
            f"Pareto k is above or near {shape['threshold']:.2f} for {shape['above_threshold']} of "
            f"{scores['num_data']:,} data."
        )


def _code(text: object) -> str:
    """A text that the files of a run hold, as code: no link, no picture and no markup."""
    return f"`{printable(' '.join(str(text).split())).translate({96: 39, 124: 47})[:200]}`"


def _row(name: str, score: Estimate, is_bound: bool) -> str:
    mean, mc_se = _number(score.get("mean")), _number(score.get("mc_se"))
    mean, mc_se = (f">= {mean}", "unknown") if is_bound else (mean, mc_se)
    draws = score.get("num_samples", "")
    return f"| {name} | {mean} | {_number(score.get('se'))} | {mc_se} | {draws} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
