"""Figures in tests that never look at them: built as ever, but saved as one pixel."""

import base64
from contextlib import contextmanager
from unittest import mock

from matplotlib.figure import Figure

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

savefig = Figure.savefig


@contextmanager
def saved_as(how):
    """Save every figure by `how`: `pixel`, or Matplotlib's own `savefig`."""
    with mock.patch.object(Figure, "savefig", how):
        yield


def pixel(figure, file, **options):
    """Write one pixel: laying out and drawing a figure takes most of a small run's time."""
    file.write(PIXEL)
