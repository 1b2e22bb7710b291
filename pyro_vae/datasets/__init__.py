"""Data sets: tensors with labels, missing entries, a binarisation policy and a hash.

All that turns files and objects into tensors lives here; nothing here knows a model.
"""

from pyro_vae.datasets.binarize import batch_keys, uniform
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.dataset import BINARIZE, BINARIZE_SEED, Binarize, Data, Dataset, as_dataset
from pyro_vae.datasets.named import load, load_whole, names
from pyro_vae.datasets.spectrograms import log_spectrogram, wav, waveform
from pyro_vae.datasets.text import Vocabulary, sections, sentences, words

__all__ = [
    "BINARIZE",
    "BINARIZE_SEED",
    "Binarize",
    "Column",
    "Columns",
    "Data",
    "Dataset",
    "Vocabulary",
    "as_dataset",
    "batch_keys",
    "load",
    "load_whole",
    "log_spectrogram",
    "names",
    "sections",
    "sentences",
    "uniform",
    "wav",
    "waveform",
    "words",
]
