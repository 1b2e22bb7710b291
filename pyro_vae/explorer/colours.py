"""Colours of the points on a map, and their key."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.colors import to_hex
from torch import Tensor

from pyro_vae.explorer.explored import Explored

__all__ = ["Coloured", "colourings"]

UNKNOWN = "#b0b7bf"


@dataclass(frozen=True)
class Coloured:
    """A colour for each datum, ``#rrggbb``, and what the colours mean, as HTML."""

    colours: list[str]
    key: str


def colourings(run: Explored) -> dict[str, Callable[[], Coloured]]:
    """What the data of a run can be coloured by: labels and scores, if they have them.

    Example:
        >>> data = pv.datasets.Dataset(torch.zeros(3, 1, 8, 8))
        >>> list(colourings(Explored("a", vae, data, num_samples=20)))
        ['log p(x)', 'Pareto k', 'ESS']
    """
    found: dict[str, Callable[[], Coloured]] = {}
    labels, score = run.data.labels, run.score
    if labels is not None:
        known = labels.cpu()
        found["label"] = lambda: _by_label(known, run.label_name)
    if score is not None:
        found["log p(x)"] = lambda: _by_value(score.values, "log p(x), nats")
        found["Pareto k"] = lambda: _by_value(score.pareto_k, "Pareto k")
        found["ESS"] = lambda: _by_value(score.ess, f"ESS of {score.num_samples} draws")
    return found or {"nothing": lambda: Coloured(["#1f77b4"] * len(run.data), "")}


def _by_label(labels: Tensor, name_of: Callable[[int], str]) -> Coloured:
    """Colours by label, those of `pyro_vae.plotting.plot_latents`; none where it is unknown."""
    palette = matplotlib.colormaps["tab10" if labels.max() < 10 else "tab20"]
    classes = [label for label in labels.unique().tolist() if label >= 0]
    colour_of = {label: to_hex(palette(label % palette.N)) for label in classes}
    key = "".join(
        '<span style="display:inline-block;margin-right:.7rem">'
        f'<span style="color:{colour}">&#9679;</span> {html.escape(name_of(label))}</span>'
        for label, colour in colour_of.items()
    )
    return Coloured([colour_of.get(label, UNKNOWN) for label in labels.tolist()], key)


def _by_value(values: Tensor, what: str) -> Coloured:
    """Colours from the 2nd to the 98th percentile of numbers."""
    numbers = values.detach().double().cpu()
    seen = numbers[numbers.isfinite()]
    if not len(seen):
        return Coloured([UNKNOWN] * len(numbers), f"{html.escape(what)}: not known")
    low, high = np.percentile(seen.numpy(), [2, 98])
    unit = ((numbers - low) / max(high - low, 1e-12)).clamp(0, 1)
    palette = matplotlib.colormaps["viridis"]
    colours = [
        to_hex(palette(float(at))) if known else UNKNOWN
        for at, known in zip(torch.nan_to_num(unit), numbers.isfinite())
    ]
    stops = ",".join(to_hex(palette(i / 8)) for i in range(9))
    bar = (
        '<span style="display:inline-block;width:7rem;height:.6rem;margin:0 .4rem;'
        f'background:linear-gradient(to right,{stops})"></span>'
    )
    return Coloured(colours, f"{html.escape(what)}: {low:.4g}{bar}{high:.4g}")
