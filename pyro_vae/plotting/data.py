"""Figures of data: images, curves, text, and reconstructions beside their originals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import partial

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.text import UNKNOWN, Vocabulary
from pyro_vae.plotting.curves import is_series, plot_series
from pyro_vae.plotting.files import Draw, named
from pyro_vae.validation import short, tensors_of

__all__ = [
    "data_plots", "is_clip", "plot_data", "plot_reconstructions", "plot_text",
    "reconstruction_plots", "still", "tiled",
]  # fmt: skip


def plot_data(
    x: Tensor,
    ax: Axes,
    columns: int | None = None,
    *,
    title: str = "",
    rows: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
    entries: Sequence[str] = (),
) -> Axes:
    """Draw data side by side, in the form that their shape suggests.

    Images (N, C, H, W) or (N, H, W) become a grid, clips film strips, sounds and other series of
    three values at most a grid of curves (`is_series`), text the lines of `plot_text`, and anything
    else the rows of one heat map, whose colours follow logarithms where a few values are far above
    all others.

    Args:
        x: the data. Images are shown between 0 and 1, or between their extremes where they leave
            that interval. Data of other than one or three channels are clips, and their frames
            stand beside one another.
        ax: where to draw.
        columns: images or curves in a row; by default as many as make the whole about square.
        title: what they are.
        rows: the name of each row of images or curves, or of each group of rows of a heat map.
        vocabulary: the words of text.
        entries: the names of the columns of a table. The colours of each column then lie between
            its own least and largest value.
    """
    if vocabulary is not None:
        title += " (_: a rare word)" if (x == UNKNOWN).any() else ""
        return plot_text(vocabulary.decode(x), ax, columns or len(x), title=title, rows=rows)
    array, has_gaps = x.detach().cpu().float().numpy(), bool(x.isnan().any())
    if is_series(array.shape[1:]):
        ax.set_title(f"{title} (gaps: missing)" if has_gaps else title)
        return plot_series(array, ax, columns, rows)
    ax.set_title(f"{title} (white: missing)" if has_gaps else title)
    if array.ndim not in (3, 4):
        return _heat_map(array.reshape(len(array), -1), ax, rows, entries)
    if array.ndim == 3:
        array = array[:, None]
    low, high = np.nanmin(array, initial=0.0), np.nanmax(array, initial=1.0)
    if is_clip(array.shape[1:]):
        array = np.stack(
            [tiled(clip[:, None], len(clip), background=high) for clip in array]
        ).transpose(0, 3, 1, 2)
    height, width = array.shape[2:]
    mosaic = tiled(
        array, columns or math.ceil(math.sqrt(len(array) * height / width)), background=high
    )
    ax.imshow(
        mosaic[..., 0] if mosaic.shape[-1] == 1 else np.clip(mosaic, 0, 1),
        cmap="gray",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if rows:
        places = (np.arange(len(rows)) + 0.5) * (array.shape[2] + 1) - 1
        ax.set_yticks(places, [*map(named, rows)])
        ax.tick_params(length=0)
    return ax


def _heat_map(values: np.ndarray, ax: Axes, groups: Sequence[str], entries: Sequence[str]) -> Axes:
    """Draw data (N, D) as the rows of a heat map; groups of them stand a row apart."""
    if entries:
        known = ~np.isnan(values)
        low = values.min(0, initial=np.inf, where=known)
        high = values.max(0, initial=-np.inf, where=known)
        values = (values - low) / np.where(high > low, high - low, 1)
    gap = np.full((1, values.shape[1]), np.nan)
    parts = np.array_split(values, max(1, len(groups)))
    drawn = np.concatenate([each for part in parts for each in (part, gap)][:-1])
    scale = SymLogNorm(1.0, vmin=0.0, vmax=float(np.nanmax(drawn))) if _is_skewed(drawn) else None
    picture = ax.imshow(drawn, aspect="auto", cmap="viridis", interpolation="nearest", norm=scale)
    bar = ax.figure.colorbar(picture, ax=ax)
    ax.set(xlabel="entry", ylabel="datum")
    if groups:
        size = len(parts[0]) + 1
        ax.set_yticks(np.arange(len(groups)) * size + (size - 2) / 2, [*map(named, groups)])
        ax.set_ylabel("")
        ax.tick_params(axis="y", length=0)
    if entries:
        ax.set_xticks(range(len(entries)), [*map(named, entries)], rotation=90, fontsize="small")
        ax.set_xlabel("")
        bar.set_ticks([0, 1], labels=["least", "largest"])
    return ax


def _is_skewed(values: np.ndarray) -> bool:
    """Whether values, none below 0, lie so far apart that few of them would be told from 0."""
    known = values[~np.isnan(values)]
    return (
        len(known) > 0 and known.min() >= 0 and known.max() > max(20, 8 * np.quantile(known, 0.9))
    )


def plot_text(
    lines: Sequence[str],
    ax: Axes,
    group: int,
    *,
    title: str = "",
    rows: Sequence[str] = (),
    letters: int = 110,
) -> Axes:
    """Write sentences in groups, one below another, on a figure of the height they need.

    Args:
        lines: the sentences.
        ax: where to write, the only axes of their figure.
        group: how many sentences form a group.
        title: what they are.
        rows: the name of each group, written before its first sentence.
        letters: letters on a line.
    """
    rows = [*map(short, rows)]
    margin = 2 + max(map(len, rows)) if rows else 0
    written: list[str] = []
    for i, line in enumerate(lines):
        name = rows[i // group] if rows and i % group == 0 else ""
        written += [""] if i and group > 1 and i % group == 0 else []
        written += textwrap.wrap(
            line or "(nothing)",
            letters,
            initial_indent=name.ljust(margin),
            subsequent_indent=" " * (margin + 2),
        )
    ax.figure.set_size_inches(0.075 * letters, 0.143 * len(written) + 0.5)  # type: ignore[union-attr]
    ax.set_title(title)
    ax.text(
        0,
        1,
        "\n".join(written).replace("$", r"\$"),
        family="monospace",
        fontsize=8,
        va="top",
        transform=ax.transAxes,
    )
    ax.axis("off")
    return ax


def is_clip(event_shape: Sequence[int]) -> bool:
    """Whether data of this shape are clips, frames (T, H, W), and not images of 1 or 3 channels."""
    return len(event_shape) == 3 and event_shape[0] not in (1, 3)


def still(x: Tensor) -> Tensor:
    """Overlay all frames of each clip (N, T, H, W) in one picture (N, 3, H, W).

    The first frame is blue and the last one yellow. Other data stay as they are.
    """
    if not is_clip(x.shape[1:]):
        return x
    colours = torch.from_numpy(
        matplotlib.colormaps["plasma"](np.linspace(0.1, 0.95, x.shape[1]))[:, :3]
    ).to(x)
    return (x.unsqueeze(2) * colours[:, :, None, None]).amax(1)


def tiled(images: np.ndarray, columns: int, background: float) -> np.ndarray:
    """Lay images (N, C, H, W) out as one picture (height, width, C), a pixel apart."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    out = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), background)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        out[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return out


def plot_reconstructions(
    x: Tensor,
    reconstruction: Tensor,
    ax: Axes,
    vocabulary: Vocabulary | None = None,
    title: str = "data and their reconstructions",
    entries: Sequence[str] = (),
) -> Axes:
    r"""Draw data above their reconstructions; clips and text, which are wide, pair by pair.

    Args:
        x: data (N, \*event).
        reconstruction: their reconstructions (N, \*event), see `pyro_vae.reconstruct`.
        ax: where to draw.
        vocabulary: the words of text.
        title: what they are.
        entries: the names of the columns of a table.
    """
    pairs = torch.stack([x.cpu(), reconstruction.cpu()])
    if is_clip(x.shape[1:]) or vocabulary is not None:
        return plot_data(
            pairs.transpose(0, 1).flatten(0, 1),
            ax,
            columns=1,
            rows=["data", "reconstruction"] * len(x),
            title=title,
            vocabulary=vocabulary,
        )
    return plot_data(
        pairs.flatten(0, 1),
        ax,
        columns=len(x),
        rows=["data", "reconstruction"],
        title=title,
        entries=entries,
    )


def data_plots(
    x: Tensors,
    title: str = "",
    *,
    columns: int | None = None,
    rows: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
    entries: Sequence[str] = (),
) -> list[Draw]:
    """`plot_data` of each observed site, under its name where there are several."""
    return [
        partial(
            plot_data,
            part.cpu(),
            columns=columns,
            title=_under(name, title),
            rows=rows,
            vocabulary=vocabulary,
            entries=entries,
        )
        for name, part in tensors_of(x).items()
    ]


def reconstruction_plots(
    x: Tensors,
    reconstruction: Tensors,
    vocabulary: Vocabulary | None = None,
    entries: Sequence[str] = (),
) -> list[Draw]:
    """`plot_reconstructions` of each observed site, under its name where there are several."""
    again, title = tensors_of(reconstruction), "data and their reconstructions"
    return [
        partial(
            plot_reconstructions,
            part,
            again[name],
            vocabulary=vocabulary,
            title=_under(name, title),
            entries=entries,
        )
        for name, part in tensors_of(x).items()
    ]


def _under(name: str, title: str) -> str:
    return ": ".join(filter(None, [named(name), title]))
