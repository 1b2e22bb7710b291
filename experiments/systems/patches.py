"""Cut patches of real colour images out of the pictures that scikit-image ships.

    pip install scikit-image
    python experiments/systems/patches.py patches.npz

An astronaut, a cat, a cup of coffee and a motorcycle, 512 x 512 to 741 x 500 pixels, three channels
of bytes, without loss. Each picture is cut into three parts from left to right. Training patches,
16 x 16, are taken every four pixels from the left 65%, validation patches from the next 10% and
test patches from the last 25%, those without overlap. No pixel is in two parts.
"""

import sys

import numpy as np
from skimage import data

SIZE, STRIDE = 16, 4  # of a patch, and from one training patch to the next
PARTS = {
    "x": (0.0, 0.65, STRIDE),
    "x_validation": (0.65, 0.75, STRIDE),
    "x_test": (0.75, 1.0, SIZE),
}


def pictures() -> list[np.ndarray]:
    return [data.astronaut(), data.cat(), data.coffee(), data.stereo_motorcycle()[0]]


def patches(picture: np.ndarray, stride: int) -> np.ndarray:
    """Patches (N, 3, SIZE, SIZE) of a picture (height, width, 3)."""
    views = np.lib.stride_tricks.sliding_window_view(picture, (SIZE, SIZE), axis=(0, 1))
    return views[::stride, ::stride].reshape(-1, 3, SIZE, SIZE)


def parts() -> dict[str, np.ndarray]:
    """Bytes of each part, all pictures' patches together."""
    out = {}
    for name, (start, stop, stride) in PARTS.items():
        cut = [p[:, round(start * p.shape[1]) : round(stop * p.shape[1])] for p in pictures()]
        out[name] = np.concatenate([patches(each, stride) for each in cut])
    return out


if __name__ == "__main__":
    made = parts()
    np.savez_compressed(sys.argv[1], **made)
    print({name: array.shape for name, array in made.items()})
