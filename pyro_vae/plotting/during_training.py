"""A callback that draws what a program makes of data while it is trained."""

from __future__ import annotations

from pyro_vae import checkpoint
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.distributions import NoDraws
from pyro_vae.plotting.data import data_plots, reconstruction_plots
from pyro_vae.plotting.files import figure_png
from pyro_vae.runtime.predictive import generate, reconstruct
from pyro_vae.training.callbacks import Callback, Training
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["FiguresDuringTraining"]


class FiguresDuringTraining(Callback):
    """Draws reconstructions of given data, and samples, every few epochs of `pyro_vae.fit`.

    The files are ``epoch-0010-reconstructions.png`` and ``epoch-0010-samples.png`` in the folder
    ``progress`` of the run. The draws are the same every time.

    Args:
        data: the data to reconstruct, a few. Their contexts are those of the samples, too.
        every: epochs between two pictures.

    Raises:
        InvalidInput: at the start of a training without a run folder.

    Example:
        >>> few = torch.zeros(4, 1, 8, 8)
        >>> draw = pv.plotting.FiguresDuringTraining(few, every=2)
        >>> h = pv.fit(vae, few, epochs=2, callbacks=[draw], out=folder / "run", progress=False)
        >>> len(list((folder / "run" / "progress").glob("epoch-0002-*.png")))
        2
    """

    def __init__(self, data: Data, every: int = 10):
        check_count("every", every)
        self.data, self.every = as_dataset(data), every

    def start(self, training: Training) -> None:
        if training.folder is None:
            raise InvalidInput(
                "callbacks",
                got="FiguresDuringTraining without a run folder",
                expected="out=, where the figures go",
                fix="pass out= to fit",
            )

    def epoch(self, training: Training) -> None:
        if training.epoch % self.every or training.folder is None:
            return
        data, words = self.data, self.data.vocabulary
        entries = [] if data.columns is None else data.columns.names
        again = reconstruct(training.program, data)
        pictures = {"reconstructions": reconstruction_plots(data.x, again, words, entries)}
        try:
            new = generate(training.program, len(data), context=data.context)
            title = f"epoch {training.epoch}"
            pictures["samples"] = data_plots(new, title, vocabulary=words, entries=entries)
        except NoDraws:  # of a flat prior
            pass
        stem = f"epoch-{training.epoch:04d}"
        checkpoint.commit(
            checkpoint.subfolder(training.folder, "progress"),
            {f"{stem}-{name}.png": figure_png(draw) for name, draw in pictures.items()},
        )
