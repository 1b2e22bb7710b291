"""Images of any bit depth as arrays of levels (channels, height, width)."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from pyro_vae.files.optional import optional
from pyro_vae.files.reading import Kind, check_unpacked, open_file
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = ["IMAGE", "Levels", "notes_on", "opened", "read_image", "stacked"]

IMAGE = Kind("data", "an image", "remove or repair it", 2**40)

# Whatever a file is called: Pillow hands files of some others to programs, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")

# By Pillow's mode: the mode that its levels are read in, the highest level, and whether an alpha
# channel is dropped.
MODES = {
    "1": ("L", 255, False),
    "L": ("L", 255, False),
    "LA": ("L", 255, True),
    "La": ("L", 255, True),
    "P": ("RGB", 255, False),
    "PA": ("RGB", 255, True),
    "RGB": ("RGB", 255, False),
    "RGBA": ("RGB", 255, True),
    "RGBa": ("RGB", 255, True),
    "RGBX": ("RGB", 255, False),
    "CMYK": ("RGB", 255, False),
    "YCbCr": ("RGB", 255, False),
    "LAB": ("RGB", 255, False),
    "HSV": ("RGB", 255, False),
    "I;16": ("I;16", 65535, False),
    "I;16L": ("I;16L", 65535, False),
    "I;16B": ("I;16B", 65535, False),
    "I;16N": ("I;16N", 65535, False),
}


ORIENTATION = 274  # the tag of TIFF and of EXIF


class Levels(NamedTuple):
    """An image's levels (C, H, W) from 0 to ``top``, and what was dropped of it."""

    values: np.ndarray
    top: int
    dropped: str = ""


def opened(file: IO[bytes], name: str) -> ImageFile:
    """An image of a known format, which has no more pixels than its size accounts for.

    Raises:
        InvalidInput: if it has.
    """
    from PIL import Image as pillow

    stored = file.seek(0, io.SEEK_END)
    file.seek(0)
    with warnings.catch_warnings():  # about many pixels, which are compared with the size below
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
        image = pillow.open(file, formats=FORMATS)
    width, height = image.size
    check_unpacked(name, IMAGE, 2 * width * height * len(image.getbands()), stored)
    return image


def read_image(image: Image, name: str, resize: Sequence[int] | None = None) -> Levels:
    """The levels of an image by its bit depth, upright, resized to (height, width) if asked.

    Raises:
        InvalidInput: on a film, or on levels without a highest one (floating point, 32 bits).
    """
    from PIL import Image as pillow
    from PIL import ImageOps
    from PIL.ImageFile import ImageFile

    file = image.fp if isinstance(image, ImageFile) else None  # until Pillow has read its pixels
    way = image.getexif().get(ORIENTATION, 1)  # before Pillow turns a TIFF while reading it
    if _has_frames(image):
        raise InvalidInput(
            "data",
            got=f"{name}, of several frames",
            expected="images of one frame",
            fix="save each frame as an image",
        )
    deep = _sixteen_bit_colours(image, name, file)
    if deep is not None:
        dropped = "alpha" if image.mode in ("RGBA", "LA") else ""
        return _resized(_upright(deep, way), 65535, resize)._replace(dropped=dropped)
    mode, top, has_alpha = MODES.get(image.mode, ("", 0, False))
    dropped = "alpha" if has_alpha or "transparency" in image.info else ""
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # which Pillow reads to 16 bits
        mode, top = "I", 65535
    if not mode or _is_signed(image):
        raise InvalidInput(
            "data",
            got=f"{name}, whose pixels are {image.mode} in Pillow's words, without a highest level",
            expected="images of 1, 8 or 16 bits",
            fix="save them in an .npz as x, an array of numbers",
        )
    upright = ImageOps.exif_transpose(_loaded(image))
    if top > 255:
        levels = np.asarray(upright)
        if _is_white_first(image):
            levels = 65535 - levels.astype(np.uint16)
        return _resized(_channels_first(levels), top, resize)._replace(dropped=dropped)
    upright = upright.convert(mode)
    if resize is not None:
        size = (int(resize[1]), int(resize[0]))
        if upright.size != size:
            upright = upright.resize(size, pillow.Resampling.BILINEAR)
    return Levels(_channels_first(np.asarray(upright)), top, dropped)


def _loaded(image: Image) -> Image:
    """The image with its pixels read.

    A TIFF that lies on its side is read through its file: mapped into memory, which Pillow does to
    a file with a name, its rows come in the wrong length.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(image, TiffImageFile):
        name, image.filename = image.filename, ""
        image.load()
        image.filename = name
    return image


def _is_signed(image: Image) -> bool:
    """Whether a TIFF's levels may be below zero."""
    from PIL.TiffImagePlugin import TiffImageFile

    return isinstance(image, TiffImageFile) and 2 in np.atleast_1d(image.tag_v2.get(339, 1))


def _is_white_first(image: Image) -> bool:
    """Whether a TIFF's zero is white, which Pillow undoes for 8 bits alone."""
    from PIL.TiffImagePlugin import TiffImageFile

    return isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0


def _upright(levels: np.ndarray, way: int) -> np.ndarray:
    """Levels (C, H, W) turned and mirrored as an image's orientation, 1 to 8, says."""
    levels = levels.swapaxes(1, 2) if way in (5, 6, 7, 8) else levels
    levels = levels[:, ::-1] if way in (3, 4, 7, 8) else levels
    return levels[:, :, ::-1] if way in (2, 3, 6, 7) else levels


def _has_frames(image: Image) -> bool:
    try:
        image.seek(1)
    except (EOFError, ValueError):
        return False
    image.seek(0)
    return True


def _sixteen_bit_colours(image: Image, name: str, file: IO[bytes] | None) -> np.ndarray | None:
    """The levels (3, H, W) of a file of 16-bit colours, of which Pillow would keep 8 bits."""
    from PIL.PngImagePlugin import PngImageFile
    from PIL.PpmImagePlugin import PpmImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(image, PpmImageFile) and image.mode == "RGB":
        arguments = np.atleast_1d(np.array(image.tile[0].args, dtype=object)) if image.tile else ()
        if any(isinstance(level, int) and level > 255 for level in arguments):
            raise InvalidInput(
                "data",
                got=f"{name}, a PPM of 16-bit colours",
                expected="16-bit colours in a PNG or a TIFF",
                fix="convert it",
            )
    if isinstance(image, PngImageFile) and image.mode in ("RGB", "RGBA", "LA"):
        with _file_of(image, file) as whole:
            if whole.read(25)[24:] == b"\x10":  # the header's bit depth
                whole.seek(0)
                width, height, rows, _ = optional("png", "images").Reader(file=whole).asDirect()
                levels = np.vstack([np.asarray(row, dtype=np.uint16) for row in rows])
                levels = levels.reshape(height, width, -1)
                return _channels_first(levels[:, :, : 3 if levels.shape[2] > 2 else 1])
    if isinstance(image, TiffImageFile) and max(np.atleast_1d(image.tag_v2.get(258, 8))) > 8:
        if image.mode not in ("RGB", "RGBA"):
            return None
        tifffile = optional("tifffile", "images")
        with _file_of(image, file) as whole, tifffile.TiffFile(io.BytesIO(whole.read())) as tiff:
            page = tiff.pages[0]  # not its series, which may go on in other files
            colours = np.moveaxis(page.asarray(), page.axes.index("S"), -1)
            return _channels_first(colours[..., :3])
    return None


@contextmanager
def _file_of(image: ImageFile, file: IO[bytes] | None) -> Iterator[IO[bytes]]:
    """The file of an image, read from its start, which Pillow may go on to read."""
    if file is None or file.closed:  # of a user's image, whose pixels have been read
        with open_file(os.fsdecode(image.filename), IMAGE) as whole:
            yield whole
    else:
        place = file.tell()
        file.seek(0)
        yield file
        file.seek(place)


def _channels_first(array: np.ndarray) -> np.ndarray:
    return np.atleast_3d(array).transpose(2, 0, 1)


def _resized(levels: np.ndarray, top: int, resize: Sequence[int] | None) -> Levels:
    if resize is None or levels.shape[1:] == tuple(resize):
        return Levels(levels, top)
    from PIL import Image as pillow

    size = (int(resize[1]), int(resize[0]))
    planes = [pillow.fromarray(plane.astype(np.float32)) for plane in levels]
    resized = [np.asarray(plane.resize(size, pillow.Resampling.BILINEAR)) for plane in planes]
    return Levels(np.stack(resized), top)


def stacked(images: Sequence[Levels]) -> tuple[np.ndarray, float]:
    """Images (N, C, H, W) and what to divide them by: bytes and 255, or grey levels and 1.

    Raises:
        InvalidInput: if they are of several shapes.
    """
    shapes = list(dict.fromkeys(image.values.shape for image in images))
    if len(shapes) > 1:
        raise InvalidInput(
            "data",
            got=f"images of shapes {shapes[0]} and {shapes[1]}",
            expected="one shape (channels, height, width)",
            fix="convert them to one size and one colour mode",
        )
    if all(image.values.dtype == np.uint8 and image.top == 255 for image in images):
        return np.stack([image.values for image in images]), 255.0
    grey = [image.values.astype(np.float32) / image.top for image in images]
    return np.stack(grey), 1.0


def notes_on(images: Sequence[Levels]) -> tuple[str, ...]:
    """What was dropped of images, a sentence each."""
    dropped = sum(image.dropped == "alpha" for image in images)
    return (f"the transparency of {dropped} images is left out",) if dropped else ()
