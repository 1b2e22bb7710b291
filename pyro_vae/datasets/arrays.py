"""Arrays of numbers of any library as dense tensors of native byte order."""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from numbers import Number
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from pyro_vae.datasets.image_files import notes_on, read_image, stacked
from pyro_vae.datasets.kinds import in_order, text_of
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


NUMERIC, TEXTS = "biuf", "UST"  # kinds of dtypes
OF_TEXTS = (
    "pass a table, whose columns of texts are categories (pandas.DataFrame), or write the texts to "
    "a .txt, one on each line, and load it"
)


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

    Masked entries, ``None`` and pandas' NA become NaN. Sequences of different lengths are filled
    with NaN to the longest. Where ``argument`` is ``"y"``, texts become labels 0, 1, ... in
    alphabetical order (numbers in theirs, categories of pandas and polars in theirs).

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
    if isinstance(value, memoryview | array.array):
        return _from_numpy(argument, np.asarray(value))
    if isinstance(value, PackedSequence):
        return _padded(argument, [Array(part) for part in unpack_sequence(value)])
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
        return _padded(argument, [_from_tensor(argument, part) for part in value.unbind()])
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
    note = f"{int(np.ma.count_masked(value)):,} masked entries are missing (NaN)"
    if value.dtype.kind not in NUMERIC:
        return _from_sequence(argument, value.tolist())._replace(notes=(note,))
    dtype = value.dtype if value.dtype.kind == "f" else np.dtype(np.float64)
    found = _from_numpy(argument, np.ma.filled(value.astype(dtype), np.nan))
    return found._replace(missing=True, notes=(note, *_rounded(value), *found.notes))


def _rounded(value: np.ndarray) -> tuple[str, ...]:
    """What to say of integers that float64 has to round."""
    if value.dtype.kind not in "iu" or value.dtype.itemsize < 8 or not value.size:
        return ()
    size = max(-int(value.min()), int(value.max()))
    return ("integers beyond 2^53 are rounded to float64",) if size > 2**53 else ()


def _from_numpy(argument: str, value: np.ndarray) -> Array:
    if value.dtype.kind == "O":
        return _from_objects(argument, value)
    if value.dtype.kind in TEXTS and argument == "y" and value.ndim == 1:
        return _from_texts([text_of(each) for each in value.tolist()])
    if value.dtype.kind not in NUMERIC:
        raise InvalidInput(
            argument,
            got=f"an array of {value.dtype}",
            expected="numbers",
            fix=OF_TEXTS if value.dtype.kind in TEXTS else "convert it to numbers",
        )
    notes = _rounded(value)
    if value.dtype == np.uint64 and value.size and int(value.max()) >= 2**63:
        raise InvalidInput(
            argument,
            got=f"integers up to {value.max()}",
            expected="integers below 2**63",
            fix="convert them to floating point",
        )
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused later
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
    if argument == "y" and any(isinstance(value, str | bytes) for value in values):
        return _from_mixed_texts(values)
    if all((isinstance(value, Number | np.generic) and not isinstance(value, complex))
           or is_missing(value) for value in values):  # fmt: skip
        return _from_scalars(argument, values)
    if all(package_of(value, ("PIL",)) for value in values):
        images = [read_image(value, f"image {i}") for i, value in enumerate(values)]  # type: ignore[arg-type]
        levels, scale = stacked(images)
        read = _from_numpy(argument, levels)
        return read._replace(scale=scale, notes=read.notes + notes_on(images))
    for value in values:
        if isinstance(value, str | bytes | dict):
            raise InvalidInput(
                argument,
                got=f"a sequence with {_a(type(value).__name__)} ({str(value)[:30]!r})",
                expected="numbers",
                fix="pass a table: pandas.DataFrame(data)" if isinstance(value, dict) else OF_TEXTS,
            )
    return _padded(argument, [_part(argument, value) for value in values])


def _part(argument: str, value: object) -> Array:
    """One of a sequence's parts, which may be empty."""
    if isinstance(value, list | tuple) and not value:
        return Array(torch.zeros(0))
    return read_array(argument, value)


def is_missing(value: object) -> bool:
    """Whether an entry is ``None``, NaN, or pandas' NA or NaT."""
    return (
        value is None
        or (isinstance(value, float | np.floating) and bool(value != value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _from_scalars(argument: str, values: Sequence[object]) -> Array:
    """Numbers of any class, with gaps."""
    gaps = any(is_missing(value) and not isinstance(value, float) for value in values)
    numbers = np.array([np.nan if is_missing(value) else value for value in values])
    if numbers.dtype != object:
        return _from_numpy(argument, numbers)._replace(missing=gaps)
    try:  # decimals, fractions, integers of any size
        converted = np.array([float(value) for value in numbers])
    except (OverflowError, TypeError):
        raise InvalidInput(
            argument,
            got="numbers that float64 cannot hold",
            expected="numbers below 1.8e308",
            fix="rescale them",
        ) from None
    exact = all(is_missing(value) or float(value) == value for value in numbers)
    kind = type(next(value for value in values if not isinstance(value, float))).__name__
    notes = () if exact else (f"numbers of class {kind} are rounded to float64",)
    return Array(torch.from_numpy(converted), gaps, notes=notes)


def _padded(argument: str, parts: Sequence[Array]) -> Array:
    """Parts as one array, filled with NaN to the longest along their first dimension."""
    shapes = [tuple(part.values.shape) for part in parts]
    missing = any(part.missing for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    if len(set(shapes)) == 1:
        return Array(torch.stack([part.values for part in parts]), missing, notes=notes)
    some = [shape for shape in shapes if shape != (0,)] or shapes  # no steps have no shape
    other = next((shape for shape in some if shape[1:] != some[0][1:] or not shape), None)
    if other is not None or argument == "y":
        raise InvalidInput(
            argument,
            got=f"data of shapes {some[0]} and {other or next(s for s in shapes if s != some[0])}",
            expected="data of one shape"
            + (", or sequences that differ in length alone" if argument != "y" else ""),
            fix="bring them to one shape",
        )
    longest = max(shape[0] for shape in shapes)
    dtype = torch.promote_types(parts[0].values.dtype, torch.get_default_dtype())
    whole = torch.full((len(parts), longest, *some[0][1:]), torch.nan, dtype=dtype)
    for row, part in zip(whole, parts):
        row[: len(part.values)] = part.values if len(part.values) else torch.nan
    shortest = min(shape[0] for shape in shapes)
    note = f"sequences of {shortest} to {longest} steps, filled with missing (NaN) to the longest"
    return Array(whole, True, notes=(*notes, note))


def _from_mixed_texts(values: Sequence[object]) -> Array:
    other = next((v for v in values if not isinstance(v, str | bytes) and not is_missing(v)), None)
    if other is not None:
        raise InvalidInput(
            "y",
            got=f"texts beside {_a(type(other).__name__)} ({str(other)[:30]!r})",
            expected="labels that are all texts, or all numbers",
            fix="write all of them as texts: [str(label) for label in y]",
        )
    return _from_texts([None if is_missing(value) else text_of(value) for value in values])


def _from_texts(texts: Sequence[str | None]) -> Array:
    """Labels 0, 1, ... for texts in alphabetical order, -1 where there is none."""
    names = in_order({text for text in texts if text is not None})
    places = {name: i for i, name in enumerate(names)}
    numbers = [-1 if text is None else places[text] for text in texts]
    return Array(torch.tensor(numbers), names=tuple(names))


# by package, none of which is imported here


def _from_scipy(argument: str, value: object) -> Array:
    if not isinstance(value, GivesDense):
        return _from_numpy(argument, np.asarray(value))
    return _from_numpy(argument, value.toarray())


def _from_series(argument: str, value: object) -> Array:
    from pyro_vae.datasets.frames import labels_of, series_values

    labels = labels_of(value) if argument == "y" else None
    if labels is not None:
        numbers, names = labels
        return Array(torch.from_numpy(numbers), names=names)
    values, has_gaps = series_values(value)
    read = read_array(argument, values)
    return read._replace(missing=read.missing or has_gaps)


def _from_image(argument: str, value: object) -> Array:
    read = read_image(value, "the image")  # type: ignore[arg-type]
    images, scale = stacked([read])
    return _from_numpy(argument, images[0])._replace(scale=scale, notes=notes_on([read]))


CONVERTERS: dict[str, Callable[[str, object], Array]] = {
    "scipy": _from_scipy,
    "pandas": _from_series,
    "polars": _from_series,
    "pyarrow": _from_series,
    "PIL": _from_image,
}


def _a(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
