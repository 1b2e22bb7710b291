"""Recordings as log-spectrograms, and back."""

from __future__ import annotations

import io
import wave

import torch
from torch import Tensor

from pyro_vae.validation import InvalidInput

__all__ = ["STEP", "WINDOW", "log_spectrogram", "wav", "waveform"]

WINDOW, STEP, FLOOR = 256, 64, 0.01


def log_spectrogram(recording: Tensor) -> Tensor:
    r"""The log-magnitude of a recording's short-time Fourier transform.

    .. math:: \log(0.01 + |\mathrm{STFT}|)

    from (\*batch, T) to (\*batch, 129, T / 64 + 1), by Hann windows of 256 samples, one every 64.
    The constant keeps silence finite.

    Example:
        >>> log_spectrogram(torch.zeros(2, 4032)).shape
        torch.Size([2, 129, 64])
    """
    spectrum = torch.stft(
        recording.reshape(-1, recording.shape[-1]),
        WINDOW,
        STEP,
        window=_window(recording),
        return_complex=True,
    )
    return (spectrum.abs() + FLOOR).log().reshape(*recording.shape[:-1], *spectrum.shape[1:])


def waveform(spectrogram: Tensor, iterations: int = 100, momentum: float = 0.99) -> Tensor:
    r"""A recording whose log-spectrogram is near a given one, by Griffin and Lim's algorithm.

    From (\*batch, 129, F) to (\*batch, 64 (F - 1)). A magnitude leaves the phases open: they start
    at random, and each iteration takes those of the last recording.

    Args:
        spectrogram: see `log_spectrogram`.
        iterations: the number of times that the phases are improved.
        momentum: the share of the last step that each step adds.

    Raises:
        InvalidInput: unless there are 129 frequencies.

    Source: Griffin and Lim (1984), Signal estimation from modified short-time Fourier transform;
    Perraudin, Balazs and Sondergaard (2013), A fast Griffin-Lim algorithm.

    Example:
        >>> tone = torch.sin(torch.arange(4032) * 0.3)
        >>> error = log_spectrogram(waveform(log_spectrogram(tone))) - log_spectrogram(tone)
        >>> bool(error.abs().mean() < 0.2)
        True
    """
    if spectrogram.dim() < 2 or spectrogram.shape[-2] != WINDOW // 2 + 1:
        raise InvalidInput(
            "spectrogram",
            got=f"shape {tuple(spectrogram.shape)}",
            expected=f"(..., {WINDOW // 2 + 1}, frames)",
            fix="pass a log-spectrogram, such as those of the data spoken_digits",
        )
    magnitude = (spectrogram.exp() - FLOOR).clamp_min(0).reshape(-1, *spectrogram.shape[-2:])
    window = _window(magnitude)
    phases = torch.polar(torch.ones_like(magnitude), 2 * torch.pi * torch.rand_like(magnitude))
    last = torch.zeros_like(phases)
    for _ in range(iterations):
        recording = torch.istft(magnitude * phases, WINDOW, STEP, window=window)
        spectrum = torch.stft(recording, WINDOW, STEP, window=window, return_complex=True)
        ahead = spectrum + momentum * (spectrum - last)
        phases, last = ahead / ahead.abs().clamp_min(1e-12), spectrum
    recording = torch.istft(magnitude * phases, WINDOW, STEP, window=window)
    return recording.reshape(*spectrogram.shape[:-2], -1)


def wav(recording: Tensor, rate: int = 8000) -> bytes:
    """A recording in [-1, 1] as a WAV file of 16 bits; a louder one is turned down.

    Args:
        recording: the sound (T,), or of several channels (C, T); missing samples are silent.
        rate: samples a second.

    Example:
        >>> len(wav(torch.zeros(4032))), len(wav(torch.zeros(2, 4032)))
        (8108, 16172)
    """
    channels = recording.reshape(-1, recording.shape[-1]).nan_to_num(0.0)
    samples = channels / channels.abs().max().clamp_min(1.0)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(channels))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples.T * 32767).to(torch.int16).cpu().numpy().tobytes())
    return file.getvalue()


def _window(like: Tensor) -> Tensor:
    return torch.hann_window(WINDOW, dtype=like.dtype, device=like.device)
