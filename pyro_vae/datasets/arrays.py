"""Arrays of numbers of any library as dense tensors of native byte order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pyro_vae.datasets.image_files import read_image, stacked
from pyro_vae.validation import InvalidInput

__all__ = ["Array", "as_tensor", "package_of", "read_array"]


class Array(NamedTuple):
    """An array as a tensor.

    Args:
        values: the numbers.
        missing: whether the array marked entries as missing, which are NaN now.
        names: of labels that were texts, the names of 0, 1, ...
        scale: what the values are to be divided by: 255 for images of 8 bits.
        notes: what was changed, a sentence each.
    """

    values: Tensor
    missing: bool = False
    names: tuple[str, ...] = ()
    scale: float = 1.0
    notes: tuple[str, ...] = ()


@runtime_checkable
class GivesArray(Protocol):
    """What numpy can convert: arrays of jax and xarray, memory maps, Zarr and HDF5 arrays."""

    def __array__(self) -> np.ndarray: ...


@runtime_checkable
class GivesNumpy(Protocol):
    """A series or an array of pandas, polars or pyarrow."""

    def to_numpy(self) -> np.ndarray: ...


@runtime_checkable
class GivesDense(Protocol):
    """A sparse matrix or array of scipy."""

    def toarray(self) -> np.ndarray: ...


def as_tensor(argument: str, value: object) -> Tensor:
    """The values of an array, see `read_array`."""
    return read_array(argument, value).values


def read_array(argument: str, value: object) -> Array:
    """An array, a series, a sparse matrix or nested lists as a dense tensor without gradient.

    Masked entries and ``None`` become NaN. Sequences of different lengths are filled with NaN to
    the longest. Texts become labels 0, 1, ... in alphabetical order, where ``argument`` is ``"y"``.

    Raises:
        InvalidInput: for what holds no numbers, or numbers that no float64 or int64 holds.

    Example:
        >>> read_array("x", [[1.0, 2.0], [3.0]]).values
        tensor([[1., 2.],
                [3., nan]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return _from_tensor(argument, value)
    if isinstance(value, np.ma.MaskedArray):
        return _from_masked(argument, value)
    if isinstance(value, np.ndarray | np.generic):
        return _from_numpy(argument, np.asarray(value))
    convert = CONVERTERS.get(package_of(value, CONVERTERS) or "")
    if convert is not None:
        return convert(argument, value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _from_sequence(argument, value)
    if isinstance(value, GivesArray):
        return _from_numpy(argument, np.asarray(value))
    raise InvalidInput(
        argument,
        got=f"{_a(type(value).__name__)}",
        expected="numbers: a tensor, an array, a list, a table or a sparse matrix",
        fix="convert it to a numpy array of numbers",
    )


def package_of(value: object, known: object) -> str | None:
    """The first of the known packages that a value's class, or a class it extends, comes from."""
    roots = (base.__module__.partition(".")[0] for base in type(value).__mro__)
    return next((root for root in roots if root in known), None)  # type: ignore[operator]


def _from_tensor(argument: str, value: Tensor) -> Array:
    value = value.detach()
    if value.is_meta or value.is_complex():
        raise InvalidInput(
            argument,
            got="a tensor without values (meta)" if value.is_meta else f"numbers of {value.dtype}",
            expected="real numbers",
            fix="load its values" if value.is_meta else "pass torch.view_as_real(x)",
        )
    if value.is_nested:
        return _padded([_from_tensor(argument, part) for part in value.unbind()])
    if value.is_quantized:
        value = value.dequantize()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return _from_numpy(argument, value.cpu().numpy())
    return Array(value)


def _from_masked(argument: str, value: np.ma.MaskedArray) -> Array:
    if not np.ma.is_masked(value):
        return _from_numpy(argument, np.asarray(value.data))
    dtype = value.dtype if value.dtype.kind == "f" else np.dtype(np.float64)
    found = _from_numpy(argument, np.ma.filled(value.astype(dtype), np.nan))
    count = int(np.ma.count_masked(value))
    return found._replace(missing=True, notes=(f"{count:,} masked entries are missing (NaN)",))


def _from_numpy(argument: str, value: np.ndarray) -> Array:
    if value.dtype.kind == "O":
        return _from_objects(argument, value)
    if value.dtype.kind in "US" and argument == "y" and value.ndim == 1:
        return _from_texts(value.astype(str).tolist())
    if value.dtype.kind not in "biuf":
        raise InvalidInput(
            argument,
            got=f"an array of {value.dtype}",
            expected="numbers",
            fix="convert it to numbers",
        )
    notes: tuple[str, ...] = ()
    if value.dtype == np.uint64 and value.size and int(value.max()) >= 2**63:
        raise InvalidInput(
            argument,
            got=f"integers up to {value.max()}",
            expected="integers below 2**63",
            fix="convert them to floating point",
        )
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        rounded = value.astype(np.float64)
        if not np.array_equal(rounded, value, equal_nan=True):
            notes = (f"values of {value.dtype} are rounded to float64",)
        value = rounded
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        value = value.astype(np.int64)
    # Torch takes neither the other byte order nor negative strides, nor memory that is read-only.
    native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    native = native if native.flags.writeable else native.copy()
    return Array(torch.from_numpy(native.reshape(value.shape)), notes=notes)


def _from_objects(argument: str, value: np.ndarray) -> Array:
    items = value.tolist()
    if value.ndim == 0:
        raise InvalidInput(
            argument,
            got=_a(type(items).__name__),
            expected="numbers",
            fix="convert it to a numpy array of numbers",
        )
    if value.ndim > 1:
        return _from_sequence(argument, [row.tolist() for row in value])
    return _from_sequence(argument, items)


def _from_sequence(argument: str, values: Sequence[object]) -> Array:
    if len(values) == 0:
        raise InvalidInput(
            argument, got="no data", expected="at least one datum", fix="check what was read"
        )
    texts = [value for value in values if isinstance(value, str)]
    if argument == "y" and texts and all(v is None or isinstance(v, str) for v in values):
        return _from_texts([None if value is None else str(value) for value in values])
    if all((isinstance(value, Number | np.generic) and not isinstance(value, complex))
           or value is None for value in values):  # fmt: skip
        is_missing = any(value is None for value in values)
        numbers = np.array(values, dtype=float if is_missing else None)
        return _from_numpy(argument, numbers)._replace(missing=is_missing)
    if all(package_of(value, ("PIL",)) for value in values):
        images, scale = stacked(
            [read_image(value, f"image {i}") for i, value in enumerate(values)]  # type: ignore[arg-type]
        )
        return _from_numpy(argument, images)._replace(scale=scale)
    for value in values:
        if isinstance(value, str | bytes | dict):
            raise InvalidInput(
                argument,
                got=f"a sequence with {_a(type(value).__name__)} ({str(value)[:30]!r})",
                expected="numbers",
                fix="convert it to numbers",
            )
    return _padded([read_array(argument, value) for value in values])


def _padded(parts: Sequence[Array]) -> Array:
    """Parts as one array, filled with NaN to the longest along their first dimension."""
    shapes = [tuple(part.values.shape) for part in parts]
    missing = any(part.missing for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    if len(set(shapes)) == 1:
        return Array(torch.stack([part.values for part in parts]), missing, notes=notes)
    if len({shape[1:] for shape in shapes}) > 1 or any(len(shape) == 0 for shape in shapes):
        other = next(shape for shape in shapes if shape[1:] != shapes[0][1:] or not shape)
        raise InvalidInput(
            "x",
            got=f"data of shapes {shapes[0]} and {other}",
            expected="data of one shape, or sequences that differ in length alone",
            fix="bring them to one shape",
        )
    longest = max(shape[0] for shape in shapes)
    dtype = torch.promote_types(parts[0].values.dtype, torch.get_default_dtype())
    whole = torch.full((len(parts), longest, *shapes[0][1:]), torch.nan, dtype=dtype)
    for row, part in zip(whole, parts):
        row[: len(part.values)] = part.values
    shortest = min(shape[0] for shape in shapes)
    note = f"sequences of {shortest} to {longest} steps, filled with missing (NaN) to the longest"
    return Array(whole, True, notes=(*notes, note))


def _from_texts(texts: Sequence[str | None]) -> Array:
    """Labels 0, 1, ... for texts in alphabetical order, -1 where there is none."""
    names = sorted({text for text in texts if text is not None})
    places = {name: i for i, name in enumerate(names)}
    numbers = [-1 if text is None else places[text] for text in texts]
    return Array(torch.tensor(numbers), names=tuple(names))


# by package, none of which is imported here


def _from_scipy(argument: str, value: object) -> Array:
    if not isinstance(value, GivesDense):
        return _from_numpy(argument, np.asarray(value))
    return _from_numpy(argument, value.toarray())


def _from_series(argument: str, value: object) -> Array:
    from pyro_vae.datasets.frames import series_values

    return read_array(argument, series_values(value))


def _from_image(argument: str, value: object) -> Array:
    images, scale = stacked([read_image(value, "the image")])  # type: ignore[arg-type]
    return _from_numpy(argument, images[0])._replace(scale=scale)


CONVERTERS: dict[str, Callable[[str, object], Array]] = {
    "scipy": _from_scipy,
    "pandas": _from_series,
    "polars": _from_series,
    "pyarrow": _from_series,
    "PIL": _from_image,
}


def _a(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
