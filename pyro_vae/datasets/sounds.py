"""Sounds in files as waveforms in [-1, 1]."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from pyro_vae.files.optional import optional
from pyro_vae.files.reading import MEGABYTE, Kind, check_unpacked, open_file
from pyro_vae.validation import InvalidInput

__all__ = ["Sound", "read_sound"]

SOUND = Kind("data", "a sound", "remove or repair it", 2**14 * MEGABYTE)


class Sound(NamedTuple):
    """A waveform (channels, samples) and how many samples a second has."""

    values: np.ndarray
    rate: int


def read_sound(path: Path) -> Sound:
    """Read a waveform in [-1, 1] by its bit depth: soundfile reads it where it is installed.

    Raises:
        InvalidInput: if it cannot be read, or is empty.
    """
    try:
        with open_file(path, SOUND) as file:
            _check_whole(path, file.read(8))
            file.seek(0)
            if path.suffix.lower() != ".wav" or importlib.util.find_spec("soundfile"):
                with optional("soundfile", "audio").SoundFile(file) as sound:
                    size = 4 * sound.frames * sound.channels
                    check_unpacked(path, SOUND, size, path.stat().st_size)
                    values, rate = sound.read(dtype="float32", always_2d=True), sound.samplerate
            else:
                values, rate = _by_scipy(file)
    except InvalidInput:
        raise
    except Exception as error:  # whatever the codec raises on a truncated file
        raise InvalidInput(
            "data",
            got=f"{path}, which cannot be read ({error})",
            expected="a sound",
            fix="remove or repair it",
        ) from None
    if not len(values):
        raise InvalidInput(
            "data", got=f"{path}, without samples", expected="a sound", fix="remove it"
        )
    return Sound(np.ascontiguousarray(values.T), int(rate))


def _check_whole(path: Path, head: bytes) -> None:
    """Raise `InvalidInput` if a ``.wav`` ends before its header says."""
    size = int.from_bytes(head[4:], "little")
    is_stream = size in (0, 2**32 - 1)  # written before the length was known
    if head[:4] == b"RIFF" and not is_stream and size + 8 > path.stat().st_size:
        raise InvalidInput(
            "data",
            got=f"{path}, of which {size + 8 - path.stat().st_size:,} bytes lack at the end",
            expected="a whole sound",
            fix="copy it anew, or remove it",
        )


def _by_scipy(file: IO[bytes]) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile

    rate, samples = wavfile.read(file)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.dtype.kind == "f":
        return samples.astype(np.float32), rate
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128), rate
    return (samples / np.float64(np.iinfo(samples.dtype).max + 1)).astype(np.float32), rate
