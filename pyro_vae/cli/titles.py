"""The line that names the data of a table of scores."""

from __future__ import annotations

from pyro_vae.datasets.dataset import Dataset
from pyro_vae.validation import counted

__all__ = ["title_of"]


def title_of(data: Dataset) -> str:
    """Which data are scored, in which unit, and whether grey values among them were drawn."""
    drawn = " (grey values drawn as 0 or 1, once)" if _were_grey(data) else ""
    return (
        f"{data.name}, {data.split}, {counted(len(data), 'datum', 'data')}{drawn}; nats per datum"
    )


def _were_grey(data: Dataset) -> bool:
    """Whether data were drawn; those that stay on disk are not looked at, nor can drawn ones be."""
    if data.binarize != "dynamic" or not data.in_one_piece:
        return data.binarize != "none"
    values = data.kept
    return bool(((values > 0) & (values < 1)).any())
