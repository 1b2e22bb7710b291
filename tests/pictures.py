"""Figures in tests that never look at them: built as ever, but saved as one pixel."""

import base64
from contextlib import contextmanager
from unittest import mock

from matplotlib.figure import Figure

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

SMALLEST = {"png": PIXEL, "pdf": b"%PDF-1.4\n", "svg": b"<?xml version='1.0'?><svg/>"}

savefig = Figure.savefig


@contextmanager
def saved_as(how):
    """Save every figure by `how`: `pixel`, or Matplotlib's own `savefig`."""
    with mock.patch.object(Figure, "savefig", how):
        yield


def pixel(figure, file, *, format, **options):
    """Write the least of a format: laying out and drawing take most of a small run's time."""
    file.write(SMALLEST[format])
