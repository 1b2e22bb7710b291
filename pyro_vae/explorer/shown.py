"""Data as HTML: a picture, a sentence, a row of a table, a curve; nothing from the data is markup.

Each way of showing makes one piece of HTML for each datum.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.spectrograms import WINDOW
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.plotting.data import is_clip, tiled
from pyro_vae.validation import count_of, tensors_of

__all__ = ["Curves", "Parts", "Pictures", "Rows", "Sentences", "Shown", "shown_as"]

# From data (N, *event) and the width of each in pixels to the HTML of each.
Shown = Callable[[Tensors, int], list[str]]

LINES = 4  # of a matrix that is drawn as curves


def shown_as(data: Dataset) -> Shown:
    """How data of this kind are shown.

    Example:
        >>> shown_as(Dataset(torch.zeros(3, 1, 8, 8)))(torch.zeros(1, 1, 8, 8), 64)[0][:9]
        '<img alt='
    """
    if data.parts:
        return Parts({name: shown_as(part) for name, part in data.parts.items()})
    values = data.tensor
    seen = values[~values.isnan()]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    if data.vocabulary is not None:
        return Sentences(data.vocabulary)
    if data.columns is not None and values.dim() == 2:
        return Rows(data.columns, *_extremes(values))
    if values.dim() == 4 or (values.dim() == 3 and min(values.shape[1:]) >= 8):
        is_spectrogram = values.dim() == 3 and values.shape[1] == WINDOW // 2 + 1
        in_unit = low >= 0 and high <= 1
        return Pictures(*((0.0, 1.0) if in_unit else (low, high)), is_spectrogram)
    return Curves(low, high)


def _extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each column (C,)."""
    return (
        torch.where(values.isnan(), torch.inf, values).amin(0),
        torch.where(values.isnan(), -torch.inf, values).amax(0),
    )


@dataclass(frozen=True)
class Pictures:
    """Images, film strips of clips, and spectrograms with their low frequencies at the bottom.

    Args:
        low: the value that is black.
        high: the value that is white.
        is_spectrogram: whether they are spectrograms.
    """

    low: float
    high: float
    is_spectrogram: bool = False

    def __call__(self, x: Tensors, width: int) -> list[str]:
        (values,) = tensors_of(x).values()
        shade = (values.float() - self.low) / max(self.high - self.low, 1e-12)
        unit = shade.nan_to_num(0.5).clamp(0, 1).cpu().numpy()
        return [_tag(self._pixels(one), width) for one in unit]

    def _pixels(self, one: np.ndarray) -> np.ndarray:
        """One datum as (height, width, 3) in [0, 1]."""
        if self.is_spectrogram:
            return matplotlib.colormaps["magma"](one[::-1])[..., :3]
        if one.ndim == 2:
            one = one[None]
        if is_clip(one.shape):
            return np.repeat(tiled(one[:, None], len(one), background=1.0), 3, -1)
        return np.repeat(one, 4 - len(one), 0)[:3].transpose(1, 2, 0)


def _tag(pixels: np.ndarray, width: int) -> str:
    """An image element of that width; small pictures keep their pixels, large ones are reduced."""
    picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    picture.thumbnail((4 * width, 4 * width))
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    style = f"width:{width}px;max-width:100%;image-rendering:pixelated;vertical-align:top"
    return f'<img alt="" style="{style}" src="data:image/png;base64,{data}">'


@dataclass(frozen=True)
class Sentences:
    """Sentences of a vocabulary."""

    vocabulary: Vocabulary

    def __call__(self, x: Tensors, width: int) -> list[str]:
        (values,) = tensors_of(x).values()
        style = "display:inline-block;max-width:26rem;white-space:normal"
        return [
            f'<span style="{style}">{html.escape(line) or "(nothing)"}</span>'
            for line in self.vocabulary.decode(values)
        ]


@dataclass(frozen=True)
class Rows:
    """Rows of a table as profiles: each column's value, and where it lies among the data's.

    Args:
        columns: of the table.
        low: the least value of each column in the data (C,).
        high: the largest (C,).
    """

    columns: Columns
    low: Tensor
    high: Tensor

    def __call__(self, x: Tensors, width: int) -> list[str]:
        (values,) = tensors_of(x).values()
        low, high = self.low.to(values), self.high.to(values)
        places = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        return [self._profile(row, at) for row, at in zip(values.tolist(), places.tolist())]

    def _profile(self, row: list[float], places: list[float]) -> str:
        lines = []
        for column, value, at in zip(self.columns, row, places):
            own = column.shown(value)
            words = f"{own:.4g}" if isinstance(own, float) else str(own)
            if value != value:
                words, at = "missing", 0.0
            bar = (
                '<td style="width:5rem"><div style="background:#dfe5ec;height:.5rem">'
                f'<div style="background:#1f77b4;height:.5rem;width:{100 * at:.0f}%"></div></div>'
            )
            cells = f"<td>{html.escape(column.name)}<td align=right>{html.escape(words)}{bar}"
            lines.append(f"<tr>{cells}")
        return f'<table style="font-size:.8rem;line-height:1.25">{"".join(lines)}</table>'


@dataclass(frozen=True)
class Curves:
    """Vectors and narrow matrices as curves over their last dimension.

    Args:
        low: the value at the bottom.
        high: the value at the top.
    """

    low: float
    high: float

    def __call__(self, x: Tensors, width: int) -> list[str]:
        (values,) = tensors_of(x).values()
        unit = (values.float() - self.low) / max(self.high - self.low, 1e-12)
        rows = unit.clamp(-0.05, 1.05).reshape(
            len(unit), -1, unit.shape[-1] if unit.dim() > 1 else 1
        )
        return [self._drawn(one, width) for one in rows]

    def _drawn(self, lines: Tensor, width: int) -> str:
        count = lines.shape[-1]
        drawn = []
        for line in lines[:LINES].tolist():
            points = [
                f"{100 * (i + 0.5) / count:.1f},{50 - 44 * y - 3:.1f}"
                for i, y in enumerate(line)
                if y == y
            ]
            drawn.append(f'<polyline fill="none" stroke="#1f77b4" points="{" ".join(points)}"/>')
            drawn += [
                f'<circle fill="#1f77b4" r="1.2" cx="{x}" cy="{y}"/>'
                for x, y in (point.split(",") for point in points[:40])
            ]
        return (
            f'<svg viewBox="0 0 100 50" style="width:{2 * width}px;max-width:100%">'
            f'<path d="M0 49.5H100" stroke="#9aa5b1" stroke-width=".5"/>{"".join(drawn)}</svg>'
        )


@dataclass(frozen=True)
class Parts:
    """The parts of x, each in its own way under its name."""

    parts: Mapping[str, Shown]

    def __call__(self, x: Tensors, width: int) -> list[str]:
        values = tensors_of(x)
        drawn = {name: show(values[name], width) for name, show in self.parts.items()}
        return [
            "".join(f"<div>{html.escape(name)}<br>{drawn[name][n]}</div>" for name in drawn)
            for n in range(count_of(x))
        ]
