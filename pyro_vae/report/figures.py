"""The context of every figure in a gallery: its program, its data and its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyro_vae import checkpoint, plotting
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.distributions import NoDraws
from pyro_vae.inspection.embedding import embed
from pyro_vae.report.findings import Findings
from pyro_vae.report.run_files import as_json
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.runtime.observed import NotObserved
from pyro_vae.validation import InvalidInput

__all__ = ["Gallery", "Subject", "embedding"]


@dataclass
class Gallery:
    """Figures in a folder, with captions and the numbers measured for them.

    Args:
        folder: where the figures lie.
        pictures: files by name, which `save` writes.
        captions: by file name, in the order of drawing.
        numbers: what was measured.
        warnings: what was left out, and why.
        formats: of the figures; the report shows PNG.
    """

    folder: Path
    pictures: dict[str, bytes] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    numbers: Findings = field(default_factory=Findings)
    warnings: list[str] = field(default_factory=list)
    formats: Sequence[str] = ("png",)

    def figure(
        self,
        name: str,
        caption: str,
        draw: Callable[[Axes], Axes],
        size: tuple[float, float] = (6.0, 4.5),
    ) -> None:
        """Draw one pair of axes under that name."""
        self.pictures |= plotting.figure_files(name, draw, size, self.formats)
        self.captions[f"{name}.png"] = caption

    def grid(
        self, name: str, caption: str, draw: Callable[[np.ndarray], np.ndarray], count: int
    ) -> None:
        """Draw a square grid of axes under that name."""
        self.pictures |= plotting.grid_files(name, draw, count, self.formats)
        self.captions[f"{name}.png"] = caption

    def save(self, seed: int) -> None:
        """Write the figures and ``inspection.json`` at one moment."""
        found = {
            "captions": self.captions,
            "numbers": asdict(self.numbers),
            "warnings": self.warnings,
            "seed": seed,
        }
        checkpoint.commit(self.folder, {**self.pictures, "inspection.json": as_json(found, True)})

    @contextmanager
    def where_defined(self) -> Iterator[None]:
        """Skip what is undefined for a program, with the reason as a warning."""
        try:
            yield
        except (NoBound, NoDraws, NotObserved) as refusal:
            self.leave_out(f"Left out: {refusal}.")

    def leave_out(self, reason: str) -> None:
        """Warn once about what is left out."""
        if reason not in self.warnings:
            self.warnings.append(reason)


@dataclass(frozen=True)
class Subject:
    """A fitted program and the data used to inspect it.

    Args:
        program: the program.
        train: its training data.
        test: data to look at.
        site: the latent site nearest to x.
        means: the embedding (N, D) of the test data.
        seed: seed of every draw.
    """

    program: ProgramLike
    train: Dataset
    test: Dataset
    site: str
    means: Tensor
    seed: int

    @property
    def labels(self) -> Tensor | None:
        """The labels of the test data (N,), or ``None`` where they have none."""
        return self.test.labels

    @property
    def is_visible(self) -> bool:
        """Whether a datum can be shown: an image or a sentence."""
        is_image = len(self.test.event_shape) == 3 and not self.test.parts
        return is_image or self.test.vocabulary is not None


def embedding(program: ProgramLike, data: Dataset, site: str, numbers: Findings) -> Tensor:
    """Means of q(z | x) (N, D), or draws if it has none, which the findings record."""
    try:
        return embed(program, data, draws=False, site=site)
    except InvalidInput:
        numbers.has_means = False
        return embed(program, data, draws=True, site=site)
